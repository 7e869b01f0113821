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

from larder.errors import ConfigurationError, LarderError, StorageError, explain_os_error
from larder.progress import amount
from services.bench.settings import BenchSettings

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
                    f"another run uses {folder}", next_step="wait until it has ended, or set another LARDER_CACHE_DIR"
                ) from None
        time.sleep(0.1)


def _unusable(parent: Path, error: OSError) -> StorageError:
    known = explain_os_error(error)
    return StorageError(
        f"LARDER_CACHE_DIR={str(parent)!r} can't be used: {known.what if known else error}",
        next_step=f"set LARDER_CACHE_DIR to a folder that user {os.getuid()} can write, or make it so",
    )


class Budget(NamedTuple):
    """What LitData may keep, and how many chunks each of its workers fetches ahead, None for its own choice."""

    bytes: int
    ahead: int | None


MOST_AHEAD = 32  # LitData's own limit


def plan_budget(settings: BenchSettings, chunks: Sequence[int], folder: Path) -> Budget:
    """The budget of a cache in `folder` for files of so many bytes each.

    In a cache that can't hold all of them, a worker of LitData keeps those that it fetched ahead, and nearly as many
    that it has read before it deletes any. When these fill the cache, all workers wait for good. So there must be room
    for twice as many. Raises ConfigurationError or StorageError when there is less.
    """
    total, largest, free = sum(chunks), max(chunks), shutil.disk_usage(folder).free
    limit = int(settings.max_cache_size or free * 3 // 4)
    if min(limit, total) > free:
        raise StorageError(
            f"LARDER_CACHE_DIR={str(folder.parent)!r} has {amount(free, 'B')} free, and the cache may grow to "
            f"{amount(min(limit, total), 'B')}",
            next_step="free some space, set another LARDER_CACHE_DIR, or set LARDER_MAX_CACHE_SIZE lower",
        )
    if limit > total:
        return Budget(limit, settings.max_pre_download)
    fitting = min(limit // (2 * settings.workers * largest), MOST_AHEAD)
    ahead = settings.max_pre_download or max(fitting, 2)
    if ahead > fitting:
        raise _too_small(settings, limit, 2 * ahead * settings.workers * largest, ahead, total)
    return Budget(limit, ahead)


def _too_small(settings: BenchSettings, limit: int, least: int, ahead: int, total: int) -> LarderError:
    need = (
        f"{amount(settings.workers, 'workers')} fetching {amount(ahead, 'chunks')} ahead, each, take {least:,} bytes "
        f"of cache; {total + 1:,} hold the whole split"
    )
    if settings.max_cache_size is None:
        return StorageError(
            f"LARDER_CACHE_DIR={str(settings.cache_dir)!r} may grow to {limit:,} bytes, three quarters of what is "
            f"free: {need}",
            next_step="free some space, or set another LARDER_CACHE_DIR, or a lower LARDER_WORKERS",
        )
    return ConfigurationError.of_faults(
        [f"LARDER_MAX_CACHE_SIZE={limit}: {need}"],
        next_step="set it higher, or LARDER_MAX_PRE_DOWNLOAD or LARDER_WORKERS lower",
    )
