"""Download one file: resume, retry with growing pauses, and check length and free space.

<folder>/archive        the finished file
<folder>/archive.part   what has arrived so far
<folder>/state.json     the version of the file that the part belongs to
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
from larder.progress import Reporter, format_amount
from larder.volume import remove_tree, require_space
from services.extract.remotes import ChangedError, Remote, Response, StalledDownloadError, TransientError

TRIES = 6
"""Give up after this many tries in a row without progress."""
PROGRESS_BYTES = 64 << 10
"""Bytes that count as progress: a server may send one byte per try and break off."""
_SPACE_CHECK_BYTES = 16 << 20
"""Bytes between two checks of the free space, for a file of unknown length."""
_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 0.5, 30.0
_RESUME_STEP = "check the network and the address, then run again: the download resumes"
_STALLED_STEP = "check the network, or raise LARDER_STALL_SECONDS, then run again: the download resumes"


class TooLargeDownloadError(InputError):
    """The file is larger than LARDER_MAX_DOWNLOAD."""


class Origin(NamedTuple):
    """Where a downloaded file came from, for run.json."""

    url: str
    """The final URL, after redirects and without secrets."""
    etag: str


def download(remote: Remote, folder: Path, reporter: Reporter, max_bytes: int) -> Path:
    """Download a remote file into `folder`, resuming an earlier download, and return its path.

    Raises:
        ServiceError: If the server fails `TRIES` times in a row.
        TooLargeDownloadError: If the file has more than `max_bytes`.
        InputError, ConfigurationError: If a retry can't help.
        StorageError: If the disk is too small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    finished, part = folder / "archive", folder / "archive.part"
    if finished.exists() and _read_state(folder).get("total") in (None, finished.stat().st_size):
        return finished
    failures, furthest = 0, 0
    while True:
        try:
            _attempt(remote, folder, part, reporter, max_bytes)
            _flush(part)
            part.rename(finished)
            return finished
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
                    next_step=_STALLED_STEP if isinstance(fault, StalledDownloadError) else _RESUME_STEP,
                ) from fault
            pause = max(_pause_seconds(failures), fault.wait_seconds)
            reporter.event("retry", f"{fault}; trying again in {pause:.1f} s", tries=failures)
            time.sleep(pause)
        except TooLargeDownloadError:
            _discard(folder, remote.name, reporter)
            raise
        except (StorageError, OSError):
            if _read_state(folder).get("total") is None:  # the space that it needs is unknown
                _discard(folder, remote.name, reporter)
            raise


def read_origin(folder: Path) -> Origin:
    """Return the origin of the file that was downloaded into `folder`."""
    state = _read_state(folder)
    return Origin(str(state.get("url", "")), str(state.get("etag", "")))


def remove_other_downloads(downloads: Path, keep: Path | None, reporter: Reporter) -> None:
    """Remove and report leftover downloads of other sources, to free their space."""
    if downloads.is_dir():
        for folder in sorted(downloads.iterdir()):
            if folder.is_dir() and folder != keep:
                _discard(folder, str(_read_state(folder).get("name") or "another source"), reporter)


def _discard(folder: Path, name: str, reporter: Reporter) -> None:
    """Remove a partial download and report it."""
    size = sum(item.stat().st_size for item in folder.rglob("*") if item.is_file())
    remove_tree(folder)
    reporter.event("left", f"removed the unfinished download of {name}: {format_amount(size, 'B')}")


def _attempt(remote: Remote, folder: Path, part: Path, reporter: Reporter, max_bytes: int) -> None:
    """Request the rest of the file once."""
    offset, validator, total = _resume_point(folder, part)
    if offset and offset == total:
        return
    with remote.open(offset, validator) as response:
        if response.offset not in (0, offset):
            raise TransientError(f"the server starts at byte {response.offset}, asked for {offset}")
        if response.total is not None:
            _require_allowed(response.total, max_bytes, remote)
            # The archive, and at least as much again for its files: images hardly compress.
            require_space(folder, 2 * response.total - response.offset, f"{remote.name} with its unpacked files")
        if response.offset < offset:
            reporter.event("restart", "the server can't resume this download, or the file has changed: from the start")
        if response.offset and response.validator != validator:
            raise ChangedError("the server continues another version of the file")
        if response.offset and total is not None and response.total not in (None, total):
            raise ChangedError(f"the server continues a file of {response.total} bytes, which had {total}")
        if not response.offset:
            part.unlink(missing_ok=True)  # before state.json changes, so that a remaining part always matches it
        state = {
            "name": remote.name,
            "validator": response.validator,
            "total": response.total,
            "boot": boot_id(),
            "url": response.url,
            "etag": response.etag,
        }
        (folder / "state.json").write_text(json.dumps(state))
        _receive(remote, response, part, reporter, max_bytes)
    received = part.stat().st_size
    if response.total is not None and received < response.total:
        raise TransientError(f"the connection broke off at {received:,} of {response.total:,} bytes")


def _require_allowed(size: int, max_bytes: int, remote: Remote) -> None:
    if size > max_bytes:
        raise TooLargeDownloadError(
            f"{remote.name} has {size:,} bytes or more, and LARDER_MAX_DOWNLOAD is {max_bytes:,}",
            next_step="check LARDER_SOURCE, or raise LARDER_MAX_DOWNLOAD",
        )


def _receive(remote: Remote, response: Response, part: Path, reporter: Reporter, max_bytes: int) -> None:
    """Write the response to `part`, up to the announced length, or while there is space if no length is announced."""
    received = last_check = response.offset
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
            _require_allowed(received, max_bytes, remote)
            if response.total is None and received - last_check >= _SPACE_CHECK_BYTES:
                last_check = received  # the unpacked files need at least as much again
                require_space(part.parent, received, f"{remote.name}, whose length the server doesn't say, unpacked")
            file.write(chunk)
            task.advance(len(chunk))


def _resume_point(folder: Path, part: Path) -> tuple[int, str, int | None]:
    """Return how many bytes have arrived, their version, and the total length; 0 bytes if they can't be used."""
    state = _read_state(folder)
    if not part.exists() or not state.get("validator"):
        return 0, "", None
    if state.get("boot") != boot_id():  # bytes not flushed before the machine went down may be zeros
        return 0, "", None
    return part.stat().st_size, str(state["validator"]), state.get("total")


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        state = json.loads((folder / "state.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _flush(part: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())


def _pause_seconds(failures: int) -> float:
    longest = min(_FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1), _MAX_PAUSE_SECONDS)
    return longest * random.uniform(0.5, 1.0)  # so that many machines don't retry at once
