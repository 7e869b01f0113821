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
from typing import Any, NamedTuple

from larder.errors import InputError, ServiceError, StorageError
from larder.machine import boot_id
from larder.progress import Reporter, amount
from larder.volume import remove_tree, require_space
from services.extract.remotes import ChangedError, Remote, Response, StalledDownloadError, TransientError

TRIES = 6
"""Tries in a row without progress, before it is given up."""
PROGRESS_BYTES = 64 << 10
"""What the tries since the last progress must have brought together: a server may send one byte and break off."""
_LOOK_BYTES = 16 << 20
"""How often the free space is looked at while a file of unknown length arrives."""
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0


class TooLargeDownloadError(InputError):
    """The file is larger than is allowed."""


class Origin(NamedTuple):
    """What is known of a file that was downloaded: for run.json."""

    url: str
    """Where it came from in the end, after redirects, without secrets."""
    etag: str


def download(remote: Remote, folder: Path, reporter: Reporter, most_bytes: int) -> Path:
    """Bring a remote file into `folder` and return its path. What an earlier run brought is continued.

    Raises ServiceError when the server fails `TRIES` times in a row, TooLargeDownloadError when the file has more than
    `most_bytes`, InputError or ConfigurationError when another try can't help, StorageError when the disk is too small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done, part = folder / "archive", folder / "archive.part"
    if done.exists() and _state(folder).get("total") in (None, done.stat().st_size):
        return done
    failures, furthest = 0, 0
    while True:
        try:
            _attempt(remote, folder, part, reporter, most_bytes)
            _flush(part)
            part.rename(done)
            return done
        except TransientError as fault:
            if isinstance(fault, ChangedError):
                part.unlink(missing_ok=True)
            reached = part.stat().st_size if part.exists() else 0
            if reached >= furthest + PROGRESS_BYTES and not isinstance(fault, StalledDownloadError):
                failures, furthest = 1, reached
            else:
                failures += 1
            if failures >= TRIES:
                raise ServiceError(
                    f"{remote.name}: {fault}; given up after {TRIES} tries without progress",
                    next_step=_SLOW if isinstance(fault, StalledDownloadError) else _AGAIN,
                ) from fault
            pause = max(_pause_seconds(failures), fault.wait_seconds)
            reporter.event("retry", f"{fault}; trying again in {pause:.1f} s", tries=failures)
            time.sleep(pause)
        except TooLargeDownloadError:
            _discard(folder, remote.name, reporter)
            raise
        except (StorageError, OSError):
            if _state(folder).get("total") is None:  # nobody knows how much space it needs
                _discard(folder, remote.name, reporter)
            raise


_AGAIN = "check the network and the address, then run again: the download resumes"
_SLOW = "check the network, or raise LARDER_STALL_SECONDS, then run again: the download resumes"


def origin(folder: Path) -> Origin:
    """What is known of the file that was downloaded into `folder`."""
    state = _state(folder)
    return Origin(str(state.get("url", "")), str(state.get("etag", "")))


def remove_others(downloads: Path, keep: Path | None, reporter: Reporter) -> None:
    """Remove what was downloaded of other sources and not unpacked, and say so: it takes space that others need."""
    if downloads.is_dir():
        for folder in sorted(downloads.iterdir()):
            if folder.is_dir() and folder != keep:
                _discard(folder, str(_state(folder).get("name") or "another source"), reporter)


def _discard(folder: Path, name: str, reporter: Reporter) -> None:
    """Remove what has come of a download, and say so."""
    size = sum(item.stat().st_size for item in folder.rglob("*") if item.is_file())
    remove_tree(folder)
    reporter.event("left", f"removed what had come of {name}: {amount(size, 'B')}")


def _attempt(remote: Remote, folder: Path, part: Path, reporter: Reporter, most_bytes: int) -> None:
    """One request, from where the last one broke off to the end of the file."""
    offset, validator, total = _resume_point(folder, part)
    if offset and offset == total:
        return
    with remote.open(offset, validator) as response:
        if response.offset not in (0, offset):
            raise TransientError(f"the server starts at byte {response.offset}, asked for {offset}")
        if response.total is not None:
            _require_allowed(response.total, most_bytes, remote)
            # The archive, and at least as much again for its files: images hardly shrink when packed.
            require_space(folder, 2 * response.total - response.offset, f"{remote.name} with its unpacked files")
        if response.offset < offset:
            reporter.event("restart", "the server can't resume this download, or the file has changed: from the start")
        if response.offset and response.validator != validator:
            raise ChangedError("the server continues another version of the file")
        if response.offset and total is not None and response.total not in (None, total):
            raise ChangedError(f"the server continues a file of {response.total} bytes, which had {total}")
        if not response.offset:
            part.unlink(missing_ok=True)  # before its version is forgotten: what stays belongs to state.json
        state = {"name": remote.name, "validator": response.validator, "total": response.total, "boot": boot_id(),
                 "url": response.url, "etag": response.etag}  # fmt: skip
        (folder / "state.json").write_text(json.dumps(state))
        _receive(remote, response, part, reporter, most_bytes)
    received = part.stat().st_size
    if response.total is not None and received < response.total:
        raise TransientError(f"the connection broke off at {received:,} of {response.total:,} bytes")


def _require_allowed(size: int, most_bytes: int, remote: Remote) -> None:
    if size > most_bytes:
        raise TooLargeDownloadError(
            f"{remote.name} has {size:,} bytes or more, and LARDER_MAX_DOWNLOAD is {most_bytes:,}",
            next_step="check LARDER_SOURCE, or raise LARDER_MAX_DOWNLOAD",
        )


def _receive(remote: Remote, response: Response, part: Path, reporter: Reporter, most_bytes: int) -> None:
    """Write what comes to the file `part`, up to the announced length; without one, as long as there is space."""
    received = looked_at = response.offset
    with (
        reporter.task("download", response.total, "B", done=response.offset) as task,
        part.open("r+b" if response.offset else "wb") as file,
    ):
        file.truncate(response.offset)
        file.seek(response.offset)
        for chunk in response.chunks:
            received += len(chunk)
            if response.total is not None and received > response.total:
                raise ChangedError(f"the server sends more than the {response.total:,} bytes that it announced")
            _require_allowed(received, most_bytes, remote)
            if response.total is None and received - looked_at >= _LOOK_BYTES:
                looked_at = received  # its files need as much again, at least
                require_space(part.parent, received, f"{remote.name}, whose length the server doesn't say, unpacked")
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
