"""Record finished work on disk, so that a killed run resumes and no stage holds all samples in memory.

The record is an SQLite file beside the data. It survives SIGKILL. After a crash of the machine the work starts over,
since recorded files may not have reached the disk.
"""

from __future__ import annotations

import errno
import itertools
import operator
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from larder.contract import IndexEntry
from larder.machine import boot_id

_SCHEMA = """
PRAGMA locking_mode = EXCLUSIVE;  -- no shared memory file, which some volumes can't hold
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;         -- a killed process loses nothing; a crashed machine starts over by its boot id
CREATE TABLE IF NOT EXISTS key (key TEXT NOT NULL);
"""


class WorkFile:
    """An SQLite file for the state of one piece of work, which `key` identifies. Subclasses define `tables`.

    An existing file is continued if it has the same key and was written since the machine's last boot. Otherwise it is
    emptied.
    """

    tables: ClassVar[str]

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self._key = f"{key} {boot_id()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(":memory:")  # placeholder in case opening fails
        try:
            self.resumed = self._open()
        except sqlite3.DatabaseError:
            self.resumed = False
        if not self.resumed:
            self.clear()

    def _open(self) -> bool:
        self._db = sqlite3.connect(self.path)
        self._db.executescript(_SCHEMA + self.tables)
        row = self._db.execute("SELECT key FROM key").fetchone()
        return row is not None and row[0] == self._key

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Run the block as one transaction. Raises OSError if the disk can't store it."""
        with map_database_errors(self.path), self._db:
            yield

    def clear(self) -> None:
        """Delete all entries."""
        self.remove()
        with map_database_errors(self.path):
            self._open()
        with self._writing():
            self._db.execute("INSERT INTO key VALUES (?)", (self._key,))

    def close(self) -> None:
        """Close the file and keep it for a later run."""
        self._db.close()

    def remove(self) -> None:
        """Close and delete the file."""
        self.close()
        for suffix in ("", "-wal", "-journal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Ledger(WorkFile):
    """The finished entries of one piece of work, with unique paths, sorted by path."""

    tables = """
    CREATE TABLE IF NOT EXISTS entries (path TEXT PRIMARY KEY, line TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS rejects (path TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS claims (path TEXT PRIMARY KEY, source TEXT NOT NULL) WITHOUT ROWID;
    """

    def add(self, entries: Iterable[IndexEntry]) -> IndexEntry | None:
        """Record finished entries in one transaction.

        Returns:
            None, or the first entry whose path is already recorded. In the second case, no entry is added.
        """
        with self._writing():
            return self._add(entries)

    def _add(self, entries: Iterable[IndexEntry]) -> IndexEntry | None:
        """Add entries within a transaction. Roll it back and return the entry if a path is already recorded."""
        for entry in entries:
            try:
                self._db.execute("INSERT INTO entries VALUES (?, ?)", (entry.path, entry.to_json()))
            except sqlite3.IntegrityError:
                self._db.rollback()
                return entry
        return None

    def reject(self, rejects: Iterable[tuple[str, str]]) -> None:
        """Record rejected samples as pairs of path and reason."""
        with self._writing():
            self._db.executemany("INSERT OR REPLACE INTO rejects VALUES (?, ?)", rejects)

    def get(self, path: str) -> IndexEntry | None:
        """Return the entry of a path, or None."""
        row = self._db.execute("SELECT line FROM entries WHERE path = ?", (path,)).fetchone()
        return IndexEntry.from_json(row[0]) if row else None

    def drop(self, path: str) -> None:
        """Delete the entry of a path, if there is one."""
        with self._writing():
            self._db.execute("DELETE FROM entries WHERE path = ?", (path,))

    def __contains__(self, path: str) -> bool:
        return self._db.execute("SELECT 1 FROM entries WHERE path = ?", (path,)).fetchone() is not None

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM entries").fetchone()[0])

    def claim(self, path: str, source: str) -> str:
        """Reserve `path` for `source`, unless another source has it. Return the source that has it now."""
        with map_database_errors(self.path):
            if self._db.execute("INSERT OR IGNORE INTO claims VALUES (?, ?)", (path, source)).rowcount == 1:
                return source
        return str(self._db.execute("SELECT source FROM claims WHERE path = ?", (path,)).fetchone()[0])

    def clear_claims(self) -> None:
        """Delete all claims."""
        with self._writing():
            self._db.execute("DELETE FROM claims")

    def is_rejected(self, path: str) -> bool:
        """Return whether a sample has been rejected."""
        return self._db.execute("SELECT 1 FROM rejects WHERE path = ?", (path,)).fetchone() is not None

    def reject_count(self) -> int:
        """Return the number of rejected samples."""
        return int(self._db.execute("SELECT count(*) FROM rejects").fetchone()[0])

    def rejects(self) -> Iterator[tuple[str, str]]:
        """Yield path and reason of every rejected sample, sorted by path in UTF-8 byte order."""
        yield from self._db.execute("SELECT path, reason FROM rejects ORDER BY path")

    def in_several_folders(self) -> tuple[int, list[str]]:
        """Count the distinct file contents that occur in more than one top-level folder.

        Contents are compared by the first half of their sha256. SQLite sorts on disk, so memory doesn't limit the
        number of entries.

        Returns:
            The number of such contents, and the paths of one of them: the first in each folder.
        """
        half, top = 'substr(line, instr(line, \'"sha256":"\') + 10, 32)', "substr(path, 1, instr(path, '/'))"
        with map_database_errors(self.path):
            rows = self._db.execute(f"SELECT {half} AS half, {top} AS top FROM entries ORDER BY half, top")
            groups = itertools.groupby(rows, key=operator.itemgetter(0))
            shared = (digest for digest, group in groups if len({folder for _, folder in group}) > 1)
            if (first := next(shared, None)) is None:
                return 0, []
            count = 1 + sum(1 for _ in shared)
            paths = self._db.execute(
                f"SELECT min(path) FROM entries WHERE {half} = ? GROUP BY {top} ORDER BY 1", (first,)
            )
            return count, [str(path) for (path,) in paths]

    def entries(self) -> Iterator[IndexEntry]:
        """Yield every entry, sorted by path in UTF-8 byte order."""
        for (line,) in self._db.execute("SELECT line FROM entries ORDER BY path"):
            yield IndexEntry.from_json(line)


_DISK_FAULTS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_IOERR: errno.EIO,
}


@contextmanager
def map_database_errors(path: Path) -> Iterator[None]:
    """Convert SQLite's disk errors in the block into the OSError that any other file would raise."""
    try:
        yield
    except sqlite3.OperationalError as error:
        fault = _DISK_FAULTS.get(error.sqlite_errorcode & 0xFF)  # without the bits of extended error codes
        if fault is None:
            raise
        raise OSError(fault, os.strerror(fault), str(path)) from error
