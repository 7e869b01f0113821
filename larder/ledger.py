"""Rows of finished work on disk, so that work resumes and no stage holds all samples in memory.

Work is noted in an SQLite file beside the data. It survives SIGKILL; after a crash of the whole machine it starts
over, since files it names may not have reached the disk.
"""

from __future__ import annotations

import errno
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
    """Notes on one piece of work, identified by `key`. A subclass says in `tables` what they are.

    An existing file is continued when it was made for the same key on the same boot, else started over.
    """

    tables: ClassVar[str]

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self._key = f"{key} {boot_id()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(":memory:")  # stands in where opening fails
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
        """One transaction. Raises OSError when the disk can't take it."""
        with explained(self.path), self._db:
            yield

    def clear(self) -> None:
        """Start over without entries."""
        self.remove()
        with explained(self.path):
            self._open()
        with self._writing():
            self._db.execute("INSERT INTO key VALUES (?)", (self._key,))

    def close(self) -> None:
        """Close the file; it stays for a later run to continue."""
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
    """The finished entries of one piece of work: one per path, a path never twice, given back sorted."""

    tables = """
    CREATE TABLE IF NOT EXISTS entries (path TEXT PRIMARY KEY, line TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS rejects (path TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS claims (path TEXT PRIMARY KEY, source TEXT NOT NULL) WITHOUT ROWID;
    """

    def add(self, entries: Iterable[IndexEntry]) -> IndexEntry | None:
        """Record finished entries for good. Returns the first whose path is there already, and adds none then."""
        with self._writing():
            for entry in entries:
                try:
                    self._db.execute("INSERT INTO entries VALUES (?, ?)", (entry.path, entry.to_json()))
                except sqlite3.IntegrityError:
                    self._db.rollback()
                    return entry
        return None

    def reject(self, rejects: Iterable[tuple[str, str]]) -> None:
        """Record rejected samples: path and reason."""
        with self._writing():
            self._db.executemany("INSERT OR REPLACE INTO rejects VALUES (?, ?)", rejects)

    def get(self, path: str) -> IndexEntry | None:
        """The entry of a path, or None."""
        row = self._db.execute("SELECT line FROM entries WHERE path = ?", (path,)).fetchone()
        return IndexEntry.from_json(row[0]) if row else None

    def drop(self, path: str) -> None:
        """Forget the entry of a path, if there is one."""
        with self._writing():
            self._db.execute("DELETE FROM entries WHERE path = ?", (path,))

    def __contains__(self, path: str) -> bool:
        return self._db.execute("SELECT 1 FROM entries WHERE path = ?", (path,)).fetchone() is not None

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM entries").fetchone()[0])

    def claim(self, path: str, source: str) -> str:
        """Reserve `path` for `source`. Returns who has it: `source`, or the one that came first."""
        with explained(self.path):
            if self._db.execute("INSERT OR IGNORE INTO claims VALUES (?, ?)", (path, source)).rowcount == 1:
                return source
        return str(self._db.execute("SELECT source FROM claims WHERE path = ?", (path,)).fetchone()[0])

    def disclaim(self) -> None:
        """Forget every claim."""
        with self._writing():
            self._db.execute("DELETE FROM claims")

    def is_rejected(self, path: str) -> bool:
        """Whether a sample has been rejected already."""
        return self._db.execute("SELECT 1 FROM rejects WHERE path = ?", (path,)).fetchone() is not None

    def reject_count(self) -> int:
        """The number of rejected samples."""
        return int(self._db.execute("SELECT count(*) FROM rejects").fetchone()[0])

    def rejects(self) -> Iterator[tuple[str, str]]:
        """Path and reason of every rejected sample, sorted by path in UTF-8 byte order."""
        yield from self._db.execute("SELECT path, reason FROM rejects ORDER BY path")

    def entries(self) -> Iterator[IndexEntry]:
        """Every entry, sorted by path in UTF-8 byte order."""
        for (line,) in self._db.execute("SELECT line FROM entries ORDER BY path"):
            yield IndexEntry.from_json(line)


_DISK_FAULTS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_IOERR: errno.EIO,
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """For SQLite files: turn what SQLite says of the disk into the OSError that any other file would raise."""
    try:
        yield
    except sqlite3.OperationalError as error:
        fault = _DISK_FAULTS.get(error.sqlite_errorcode & 0xFF)  # the upper bits hold details
        if fault is None:
            raise
        raise OSError(fault, os.strerror(fault), str(path)) from error
