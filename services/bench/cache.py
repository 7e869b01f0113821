"""A folder for what a loader keeps on disk: empty at first, gone in the end."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from larder.errors import StorageError, explain_os_error


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
        known = explain_os_error(error)
        raise StorageError(
            f"LARDER_CACHE_DIR={str(parent)!r}: {known.what if known else error}",
            next_step=f"set LARDER_CACHE_DIR to a folder that user {os.getuid()} can write",
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"another run uses {folder}", next_step="wait until it has ended, or set another LARDER_CACHE_DIR"
            ) from None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
