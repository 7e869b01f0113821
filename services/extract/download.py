"""Downloading one file: it resumes, retries with growing pauses, and checks length and space.

<folder>/archive        the finished file
<folder>/archive.part   what has come so far
<folder>/state.json     the version it belongs to
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

from larder.errors import ServiceError
from larder.machine import boot_id
from larder.progress import Reporter
from larder.volume import require_space
from services.extract.remotes import ChangedError, Remote, Response, TransientError

TRIES = 6
"""Tries in a row that bring no new byte, before it is given up."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0


def download(remote: Remote, folder: Path, reporter: Reporter) -> Path:
    """Bring a remote file into `folder` and return its path. What an earlier run brought is continued.

    Raises ServiceError when the server fails `TRIES` times in a row, InputError or ConfigurationError when another
    try can't help, StorageError when the disk is too small for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done, part = folder / "archive", folder / "archive.part"
    if done.exists() and done.stat().st_size == _state(folder).get("total", done.stat().st_size):
        return done
    failures, furthest = 0, 0
    while True:
        try:
            _attempt(remote, folder, part, reporter)
            _flush(part)
            part.rename(done)
            return done
        except TransientError as fault:
            if isinstance(fault, ChangedError):
                part.unlink(missing_ok=True)
            reached = part.stat().st_size if part.exists() else 0
            failures = 1 if reached > furthest else failures + 1
            furthest = max(furthest, reached)
            if failures >= TRIES:
                raise ServiceError(
                    f"{remote.name}: {fault}; given up after {TRIES} tries without progress",
                    next_step="check the network and the address, then run again: the download resumes",
                ) from fault
            pause = max(_pause_seconds(failures), fault.wait_seconds)
            reporter.event("retry", f"{fault}; trying again in {pause:.1f} s", tries=failures)
            time.sleep(pause)


def _attempt(remote: Remote, folder: Path, part: Path, reporter: Reporter) -> None:
    """One request, from where the last one broke off to the end of the file."""
    offset, validator, total = _resume_point(folder, part)
    if offset and offset == total:
        return
    with remote.open(offset, validator) as response:
        if response.offset not in (0, offset):
            raise TransientError(f"the server starts at byte {response.offset}, asked for {offset}")
        if response.total is not None:
            # The archive, and at least as much again for its files: images hardly shrink when packed.
            require_space(folder, 2 * response.total - response.offset, f"{remote.name} with its unpacked files")
        if response.offset < offset:
            reporter.event("restart", "the server can't resume this download, or the file has changed: from the start")
        if response.offset and response.validator != validator:
            raise ChangedError("the server continues another version of the file")
        if not response.offset:
            part.unlink(missing_ok=True)  # before its version is forgotten: what stays belongs to state.json
        state = {"validator": response.validator, "total": response.total, "boot": boot_id()}
        (folder / "state.json").write_text(json.dumps(state))
        _receive(response, part, reporter)
    received = part.stat().st_size
    if response.total is not None and received < response.total:
        raise TransientError(f"the connection broke off at {received:,} of {response.total:,} bytes")
    if response.total is not None and received > response.total:
        raise ChangedError(f"the server sent {received:,} bytes of a file of {response.total:,}")


def _receive(response: Response, part: Path, reporter: Reporter) -> None:
    with (
        reporter.task("download", response.total, "B", done=response.offset) as task,
        part.open("r+b" if response.offset else "wb") as file,
    ):
        file.truncate(response.offset)
        file.seek(response.offset)
        for chunk in response.chunks:
            file.write(chunk)
            task.advance(len(chunk))


def _resume_point(folder: Path, part: Path) -> tuple[int, str, int | None]:
    """How many bytes are there, of which version and length; 0 when they can't be continued."""
    state = _state(folder)
    if not part.exists() or not state.get("validator"):
        return 0, "", None
    if state.get("boot") != boot_id():  # what was not flushed when the machine went down may be zeros now
        return 0, "", None
    return part.stat().st_size, str(state["validator"]), state.get("total")


def _state(folder: Path) -> dict[str, Any]:
    """What is known of the file that is on its way."""
    try:
        state = json.loads((folder / "state.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _flush(part: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())


def _pause_seconds(failures: int) -> float:
    longest = min(_FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1), _LONGEST_PAUSE_SECONDS)
    return longest * random.uniform(0.5, 1.0)  # so that many machines don't come back at once
