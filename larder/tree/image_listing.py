"""Store the samples that a dataset's own lists name, in an SQLite file, so that memory use stays constant.

Paths are compared in NFC and without spaces around names (`file_names.normalized`). A file keeps its name in the tree
unless another of the same class and split has that name. Then all of them get their folders in the name: `a/1.jpg`
becomes `a_1.jpg`, or `a_1-<8 digits of a digest>.jpg` if another file has that name. So a name depends only on the
lists.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from larder.ledger import map_database_errors
from larder.tree.file_names import litter_reason, normalized
from larder.tree.recipes import AssignedSample, RejectError

LEFT_OUT = ""
"""Split of samples that are left out."""
_MAX_NAME_BYTES = 255

_SCHEMA = """
PRAGMA journal_mode = OFF;
CREATE TABLE rows (
    key TEXT PRIMARY KEY, file TEXT, name TEXT, label TEXT, split TEXT, position TEXT, seen TEXT
);
"""


class ListingRow(NamedTuple):
    """One sample of a list."""

    file: str
    """Path below the source's top."""
    label: str
    split: str
    position: str
    """Position for messages: `labels.csv, line 3`."""


class DuplicateFileError(ValueError):
    """A list names a file twice."""


class ImageListing:
    """Samples of a list, on disk. All methods raise OSError if writing fails."""

    def __init__(self, scratch: Path) -> None:
        self._path = scratch / "listing.sqlite"
        self._path.unlink(missing_ok=True)
        with self._map_errors():
            self._db = sqlite3.connect(self._path)
            self._db.executescript(_SCHEMA)

    @contextmanager
    def _map_errors(self) -> Iterator[None]:
        with map_database_errors(self._path):
            yield

    def add(self, row: ListingRow) -> None:
        """Add a sample.

        Raises:
            DuplicateFileError: If the file was already added.
        """
        name = PurePosixPath(row.file).name
        values = (normalized(row.file), row.file, name, row.label, row.split, row.position)
        with self._map_errors():
            try:
                self._db.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, NULL)", values)
            except sqlite3.IntegrityError:
                raise DuplicateFileError(row.file) from None

    def finish(self) -> None:
        """Rename files that share a name within a class and split. Call it once, after the last `add`."""
        with self._map_errors(), self._db:
            self._db.execute("CREATE INDEX names ON rows (split, label, name)")
            self._rename(with_parent_folders)
            self._rename(_with_digest)

    def _rename(self, rename: Callable[[str], str]) -> None:
        groups = self._db.execute("SELECT split, label, name FROM rows GROUP BY 1, 2, 3 HAVING count(*) > 1").fetchall()
        for group in groups:
            rows = self._db.execute(
                "SELECT key, file FROM rows WHERE split = ? AND label = ? AND name = ?", group
            ).fetchall()
            self._db.executemany("UPDATE rows SET name = ? WHERE key = ?", [(rename(file), key) for key, file in rows])

    def __len__(self) -> int:
        """Return the number of samples that aren't left out."""
        with self._map_errors():
            return int(self._db.execute("SELECT count(*) FROM rows WHERE split <> ?", (LEFT_OUT,)).fetchone()[0])

    def labels(self) -> list[str]:
        """Return all labels of samples that aren't left out, unordered."""
        with self._map_errors():
            rows = self._db.execute("SELECT DISTINCT label FROM rows WHERE split <> ?", (LEFT_OUT,))
            return [str(row[0]) for row in rows]

    def splits(self) -> list[str]:
        """Return all splits, unordered."""
        with self._map_errors():
            return [str(row[0]) for row in self._db.execute("SELECT DISTINCT split FROM rows")]

    def find(self, path: str, labels: dict[str, int], *prefixes: str, reader: str = "") -> AssignedSample | None:
        """Return the sample for the file at `path`, or None if it isn't listed.

        Args:
            path: Path as the source has it.
            labels: Label number by label text.
            prefixes: Prefixes to try in order if `path` isn't listed without one.
            reader: Path of the image if `path` is another file that is listed for it.

        Raises:
            RejectError: If another file has already matched this sample.
        """
        with self._map_errors():
            for key in (normalized(path), *(normalized(prefix + path) for prefix in prefixes)):
                row = self._db.execute("SELECT name, label, split, seen FROM rows WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    break
            else:
                return None
            name, label, split, seen = row
            if seen not in (None, reader or path):
                if reader:
                    raise RejectError(f"has the key of another image, {seen!a}")
                raise RejectError(f"has the same name as {seen!a}, except for spaces or its Unicode form")
            self._db.execute("UPDATE rows SET seen = ? WHERE key = ?", (reader or path, key))
        return AssignedSample(split, labels.get(label, -1), name)

    def missing_files(self) -> Iterable[tuple[str, str]]:
        """Yield path and reason of each listed file that `find` has not matched."""
        rows = self._db.execute(
            "SELECT file, position FROM rows WHERE seen IS NULL AND split <> ? ORDER BY file", (LEFT_OUT,)
        )
        for file, position in rows:
            why = "is hidden or litter, which is never data" if litter_reason(file) else "is not in the source"
            yield file, f"is named in {position}, but {why}"


def with_parent_folders(file: str) -> str:
    """Return a file name that includes the folders of a path."""
    name = file.replace("/", "_")
    return name if len(name.encode()) <= _MAX_NAME_BYTES else _with_digest(file)


def _with_digest(file: str) -> str:
    name, digest = PurePosixPath(file.replace("/", "_")), hashlib.sha256(file.encode()).hexdigest()[:8]
    longest = _MAX_NAME_BYTES - len(f"-{digest}{name.suffix}".encode())
    return f"{name.stem.encode()[:longest].decode(errors='ignore')}-{digest}{name.suffix}"
