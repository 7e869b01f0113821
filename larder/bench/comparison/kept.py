"""Keep completed rounds on disk, so that an interrupted comparison resumes."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from larder.errors import StorageError, explain_os_error


class KeptRounds:
    """The results of completed runs, by name, in `<results>/.compare-<id>/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a result, or None if there is none."""
        try:
            found: dict[str, Any] = json.loads(self._path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:  # the machine went down while it was written
            return None
        return found

    def write(self, name: str, result: dict[str, Any]) -> None:
        """Keep a result; a reader never sees a part of it."""
        temporary = self.folder / ".new"
        temporary.write_text(json.dumps(result), encoding="utf-8")
        temporary.rename(self._path(name))

    def count(self) -> int:
        """Return the number of results."""
        return len(list(self.folder.glob("run-*.json")))

    def remove(self) -> None:
        """Remove the folder: the record has all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"run-{name}.json"


@contextmanager
def keep_rounds(results: Path, identity: str) -> Iterator[KeptRounds]:
    """Open the folder of a comparison, locked for this process.

    Raises:
        StorageError: If the folder can't be written, or another process runs the same comparison.
    """
    folder = results / f".compare-{identity[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        known = explain_os_error(error)
        raise StorageError(
            f"results={str(results)!r}: rounds can't be kept there: {known.what if known else error.strerror}",
            next_step=f"set `results` to a folder that user {os.getuid()} can write, or give that user access",
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StorageError(
                "the same comparison is running already, with the same folder of results",
                next_step="wait until it has ended, or set `results` to another folder",
            ) from None
        yield KeptRounds(folder)
