"""Samples that a data set's own lists name: files, each with its class and split, in an SQLite file, so that their
number doesn't matter.

Paths are compared in NFC and without spaces around names (`names.comparable`). A file keeps its name in the tree. Where
several of a class and split have one name, all of these get the folders into their names: `a/1.jpg` becomes `a_1.jpg`,
or, where another file is called that, `a_1-<8 digits of a digest>.jpg`. So a name depends on the lists alone.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from larder.ledger import explained
from larder.tree.names import comparable, litter
from larder.tree.recipes import RejectError, Sample

LEFT_OUT = ""
"""The split of samples that are left out."""
_LONGEST_NAME_BYTES = 255

_SCHEMA = """
PRAGMA journal_mode = OFF;
CREATE TABLE rows (
    key TEXT PRIMARY KEY, file TEXT, name TEXT, label TEXT, split TEXT, place TEXT, seen TEXT
);
"""


class Row(NamedTuple):
    """A sample as a list has it."""

    file: str
    """Its path below the source's top."""
    label: str
    split: str
    place: str
    """Where it stands, for messages: `labels.csv, line 3`."""


class TwiceError(ValueError):
    """A file that is listed a second time."""


class Listing:
    """See the module. Raises OSError where the disk can't take it."""

    def __init__(self, scratch: Path) -> None:
        self._path = scratch / "listing.sqlite"
        self._path.unlink(missing_ok=True)
        with self._explained():
            self._db = sqlite3.connect(self._path)
            self._db.executescript(_SCHEMA)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        with explained(self._path):
            yield

    def add(self, row: Row) -> None:
        """Add a sample. Raises TwiceError for a file that is there already."""
        name = PurePosixPath(row.file).name
        values = (comparable(row.file), row.file, name, row.label, row.split, row.place)
        with self._explained():
            try:
                self._db.execute("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, NULL)", values)
            except sqlite3.IntegrityError:
                raise TwiceError(row.file) from None

    def finish(self) -> None:
        """Give files of one name in a class and split names of their own; call it once, after the last sample."""
        with self._explained(), self._db:
            self._db.execute("CREATE INDEX names ON rows (split, label, name)")
            self._rename(with_folders)
            self._rename(_with_digest)

    def _rename(self, rename: Callable[[str], str]) -> None:
        alike = self._db.execute("SELECT split, label, name FROM rows GROUP BY 1, 2, 3 HAVING count(*) > 1").fetchall()
        for group in alike:
            rows = self._db.execute(
                "SELECT key, file FROM rows WHERE split = ? AND label = ? AND name = ?", group
            ).fetchall()
            self._db.executemany("UPDATE rows SET name = ? WHERE key = ?", [(rename(file), key) for key, file in rows])

    def labels(self) -> list[str]:
        """All labels but those of samples that are left out, in no order."""
        with self._explained():
            rows = self._db.execute("SELECT DISTINCT label FROM rows WHERE split <> ?", (LEFT_OUT,))
            return [str(row[0]) for row in rows]

    def splits(self) -> list[str]:
        """All splits, in no order."""
        with self._explained():
            return [str(row[0]) for row in self._db.execute("SELECT DISTINCT split FROM rows")]

    def find(self, path: str, labels: dict[str, int], *prefixes: str) -> Sample | None:
        """The sample that the file at `path` is, or None for a file that isn't listed; `labels` are numbers by name.

        Where it isn't listed as it is, it is looked for with each of the prefixes before it. Raises RejectError for a
        file that stands for a sample that another one stands for.
        """
        with self._explained():
            for key in (comparable(path), *(comparable(prefix + path) for prefix in prefixes)):
                row = self._db.execute("SELECT name, label, split, seen FROM rows WHERE key = ?", (key,)).fetchone()
                if row is not None:
                    break
            else:
                return None
            name, label, split, seen = row
            if seen not in (None, path):
                raise RejectError(f"has the same name as {seen!a}, but for spaces or its Unicode form")
            self._db.execute("UPDATE rows SET seen = ? WHERE key = ?", (path, key))
        return Sample(split, labels.get(label, -1), name)

    def absent(self) -> Iterable[tuple[str, str]]:
        """Listed files that no one has asked for: path and reason."""
        rows = self._db.execute(
            "SELECT file, place FROM rows WHERE seen IS NULL AND split <> ? ORDER BY file", (LEFT_OUT,)
        )
        for file, place in rows:
            why = "is hidden or litter, which is never data" if litter(file) else "is not in the source"
            yield file, f"is named in {place}, but {why}"


def with_folders(file: str) -> str:
    """A name for a file that has the folders in it."""
    name = file.replace("/", "_")
    return name if len(name.encode()) <= _LONGEST_NAME_BYTES else _with_digest(file)


def _with_digest(file: str) -> str:
    name, digest = PurePosixPath(file.replace("/", "_")), hashlib.sha256(file.encode()).hexdigest()[:8]
    longest = _LONGEST_NAME_BYTES - len(f"-{digest}{name.suffix}".encode())
    return f"{name.stem.encode()[:longest].decode(errors='ignore')}-{digest}{name.suffix}"
