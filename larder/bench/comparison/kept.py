"""Keep completed rounds on disk, so that an interrupted comparison resumes."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from larder.errors import StorageError, explain_os_error


class KeptRounds:
    """The results of completed runs, by name, in `<results>/.compare-<question>-<id>/`."""

    def __init__(self, folder: Path, removed: int = 0) -> None:
        self.folder = folder
        self.removed = removed
        """Results of interrupted comparisons that were removed, since nothing can resume them."""

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
        """Return the number of runs whose results are kept. The reference isn't one."""
        return len(list(self.folder.glob("run-[0-9]*.json")))

    def remove(self) -> None:
        """Remove the folder: the record has all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"run-{name}.json"


@contextmanager
def keep_rounds(results: Path, question: str, identity: str) -> Iterator[KeptRounds]:
    """Open the folder of a comparison, locked for this process.

    The same question with another identity means that data, code, libraries or machine have changed since. Rounds of
    such a comparison are removed.

    Args:
        results: The folder of results.
        question: Digest of the settings.
        identity: Digest of all that must be the same for a comparison to be resumed.

    Raises:
        StorageError: If the folder can't be written, or another process runs the same comparison.
    """
    folder = results / f".compare-{question[:8]}-{identity[:16]}"
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
        yield KeptRounds(folder, sum(map(_remove_stale, results.glob(f".compare-{question[:8]}-*"))))


def _remove_stale(folder: Path) -> int:
    """Remove the folder of a comparison that doesn't run. Return the number of its results."""
    with suppress(OSError), (folder / "lock").open("a") as lock:  # another user's, or just removed
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        kept = KeptRounds(folder)
        count = kept.count()
        kept.remove()
        return count
    return 0
