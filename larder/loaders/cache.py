"""A folder for what a loader keeps on disk, empty at first, gone in the end; and how much may be there."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from larder.errors import ConfigurationError, StorageError, explain_os_error
from larder.progress import amount

PATIENCE_SECONDS = 5.0
"""How long a lock is waited for: the workers of a run that was killed hold it until they have ended, too."""


@contextmanager
def own_folder(parent: Path, name: str) -> Iterator[Path]:
    """The folder `<parent>/larder-<name>`, which nobody else writes to: what a killed run left there is deleted first.

    Raises StorageError when another run has it, or when it can't be made.
    """
    folder = parent / f"larder-{name}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        lock = (parent / f".larder-{name}.lock").open("w")
    except OSError as error:
        raise _unusable(parent, error) from error
    with lock:
        _take(lock, folder)
        try:
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir()
        except OSError as error:
            raise _unusable(parent, error) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # the next run would do it, too


def _take(lock: IO[str], folder: Path) -> None:
    """Lock for this process and those that it forks."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise StorageError(
                    f"another run uses {folder}", next_step="wait until it has ended, or set another `cache_dir`"
                ) from None
        time.sleep(0.1)


def _unusable(parent: Path, error: OSError) -> StorageError:
    known = explain_os_error(error)
    return StorageError(
        f"cache_dir={str(parent)!r} can't be used: {known.what if known else error}",
        next_step=f"set `cache_dir` to a folder that user {os.getuid()} can write, or make it so",
    )


class Budget(NamedTuple):
    """What LitData may keep, and how many chunks each of its workers fetches ahead, None for its own choice."""

    bytes: int
    ahead: int | None


MOST_AHEAD = 32  # LitData's own limit


def plan_budget(
    chunks: Sequence[int], folder: Path, *, workers: int, max_cache_size: int | None, max_pre_download: int | None
) -> Budget:
    """The budget of a cache in `folder` for files of so many bytes each.

    In a cache that can't hold all of them, a worker of LitData keeps those that it fetched ahead, and nearly as many
    that it has read before it deletes any. When these fill the cache, all workers wait for good. So there must be room
    for twice as many. Raises ConfigurationError or StorageError when there is less.
    """
    workers = max(workers, 1)
    total, largest, free = sum(chunks), max(chunks), shutil.disk_usage(folder).free
    limit = max_cache_size or free * 3 // 4
    if min(limit, total) > free:
        raise StorageError(
            f"cache_dir={str(folder.parent)!r} has {amount(free, 'B')} free, and the cache may grow to "
            f"{amount(min(limit, total), 'B')}",
            next_step="free some space, set another `cache_dir`, or set `max_cache_size` lower",
        )
    if limit > total:
        return Budget(limit, max_pre_download)
    fitting = min(limit // (2 * workers * largest), MOST_AHEAD)
    ahead = max_pre_download or max(fitting, 2)
    if ahead <= fitting:
        return Budget(limit, ahead)
    need = (
        f"{amount(workers, 'workers')} fetching {amount(ahead, 'chunks')} ahead, each, take "
        f"{2 * ahead * workers * largest:,} bytes of cache; {total + 1:,} hold the whole split"
    )
    if max_cache_size is None:
        raise StorageError(
            f"cache_dir={str(folder.parent)!r} may grow to {limit:,} bytes, three quarters of what is free: {need}",
            next_step="free some space, or set another `cache_dir`, or `workers` lower",
        )
    raise ConfigurationError.of_faults(
        [f"max_cache_size={limit}: {need}"], next_step="set it higher, or `max_pre_download` or `workers` lower"
    )
