"""Lock and clean a loader's cache folder, and limit its size."""

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
from larder.progress import format_amount

LOCK_TIMEOUT_SECONDS = 5.0
"""How long to wait for the lock: workers of a killed run hold it until they end."""


@contextmanager
def locked_folder(parent: Path, name: str) -> Iterator[Path]:
    """Create the folder `<parent>/larder-<name>`, lock it, and delete it at the end.

    Files that a killed run left there are deleted first.

    Raises:
        StorageError: If another run uses the folder, or it can't be created.
    """
    folder = parent / f"larder-{name}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        lock = (parent / f".larder-{name}.lock").open("w")
    except OSError as error:
        raise _unusable_folder_error(parent, error) from error
    with lock:
        _lock(lock, folder)
        try:
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir()
        except OSError as error:
            raise _unusable_folder_error(parent, error) from error
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # the next run deletes what remains


def _lock(lock: IO[str], folder: Path) -> None:
    """Lock the file for this process and its forks."""
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StorageError(
                    f"another run uses {folder}", next_step="wait until it has ended, or set another `cache_dir`"
                ) from None
        time.sleep(0.1)


def _unusable_folder_error(parent: Path, error: OSError) -> StorageError:
    known = explain_os_error(error)
    return StorageError(
        f"cache_dir={str(parent)!r} can't be used: {known.what if known else error}",
        next_step=f"set `cache_dir` to a folder that user {os.getuid()} can write, or give that user access",
    )


class Budget(NamedTuple):
    """Maximum size of LitData's cache in bytes, and chunks that each worker prefetches (None leaves it to LitData)."""

    bytes: int
    prefetch_chunks: int | None


MAX_PREFETCH_CHUNKS = 32  # LitData's own limit


def plan_budget(
    chunks: Sequence[int], folder: Path, *, workers: int, max_cache_size: int | None, max_pre_download: int | None
) -> Budget:
    """Return the budget of a cache in `folder`.

    If the cache can't hold all chunks, a LitData worker keeps the chunks that it has prefetched, and nearly as many
    that it has read, before it deletes any. If these fill the cache, all workers wait forever. So the cache must have
    room for twice the prefetched chunks.

    Args:
        chunks: Length of each chunk, in bytes.
        folder: The cache folder; its file system limits the cache.
        workers: Worker processes; 0 counts as one.
        max_cache_size: Maximum size of the cache, in bytes; None is three quarters of the free space.
        max_pre_download: Chunks that each worker prefetches; None derives it from the size of the cache.

    Raises:
        ConfigurationError: If `max_cache_size` is too small.
        StorageError: If there is too little free space.
    """
    workers = max(workers, 1)
    total, largest, free = sum(chunks), max(chunks), shutil.disk_usage(folder).free
    limit = max_cache_size or free * 3 // 4
    if min(limit, total) > free:
        raise StorageError(
            f"cache_dir={str(folder.parent)!r} has {format_amount(free, 'B')} free, and the cache may grow to "
            f"{format_amount(min(limit, total), 'B')}",
            next_step="free some space, set another `cache_dir`, or set `max_cache_size` lower",
        )
    if limit > total:
        return Budget(limit, max_pre_download)
    fitting = min(limit // (2 * workers * largest), MAX_PREFETCH_CHUNKS)
    ahead = max_pre_download or max(fitting, 2)
    if ahead <= fitting:
        return Budget(limit, ahead)
    need = (
        f"{format_amount(workers, 'workers')} fetching {format_amount(ahead, 'chunks')} ahead, each, need "
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
