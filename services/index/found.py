"""What was found in a source, in an SQLite file: each image once it is checked, and which archives are done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from larder.contract import IndexEntry
from larder.ledger import Ledger


class Looked(NamedTuple):
    """What looking at an object, or at the members of an archive, has come to. Paths are those in the source."""

    images: list[IndexEntry]
    """Those that are fit to be samples; `source` is the label that stands beside one in a shard."""
    rejects: list[tuple[str, str]]
    """Other images: path and reason."""
    others: list[str]
    """What is no image."""
    archive: str = ""
    """The archive's path; empty for objects that are images themselves."""


class Found(Ledger):
    """See the module. Entries are by path in the source."""

    tables = f"""{Ledger.tables}
    CREATE TABLE IF NOT EXISTS others (path TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS archives (path TEXT PRIMARY KEY) WITHOUT ROWID;
    """

    def note(self, looked: Looked) -> IndexEntry | None:
        """Record what was found, for good. Returns the first whose path is there already, and no more is noted then."""
        if (twice := self.add(looked.images)) is not None:
            return twice
        self.reject(looked.rejects)
        with self._writing():
            self._db.executemany("INSERT OR REPLACE INTO others VALUES (?)", ((path,) for path in looked.others))
            if looked.archive:
                self._db.execute("INSERT OR REPLACE INTO archives VALUES (?)", (looked.archive,))
        return None

    def has(self, path: str) -> bool:
        """Whether an object was looked at: an image, or something else."""
        return path in self or self.is_rejected(path) or self.is_other(path)

    def has_archive(self, path: str) -> bool:
        """Whether an archive was looked at."""
        return self._db.execute("SELECT 1 FROM archives WHERE path = ?", (path,)).fetchone() is not None

    def archive_count(self) -> int:
        """How many archives were looked at."""
        return int(self._db.execute("SELECT count(*) FROM archives").fetchone()[0])

    def is_other(self, path: str) -> bool:
        """Whether what is at a path is no image."""
        return self._db.execute("SELECT 1 FROM others WHERE path = ?", (path,)).fetchone() is not None

    def reason(self, path: str) -> str | None:
        """Why an image was rejected; None for one that wasn't."""
        row = self._db.execute("SELECT reason FROM rejects WHERE path = ?", (path,)).fetchone()
        return str(row[0]) if row else None

    def labels(self) -> dict[str, int]:
        """The labels that stand beside images, each with their number."""
        return Counter(entry.source for entry in self.entries() if entry.source is not None)

    def paths(self) -> Iterator[str]:
        """Every path, sorted in UTF-8 byte order."""
        tables = ("entries", "rejects", "others")
        union = " UNION ".join(f"SELECT path FROM {table}" for table in tables)
        for (path,) in self._db.execute(f"{union} ORDER BY path"):
            yield path


class Places(Ledger):
    """The samples, by their paths in the tree; and which paths several of them would take."""

    tables = f"""{Ledger.tables}
    CREATE TABLE IF NOT EXISTS shared (path TEXT PRIMARY KEY) WITHOUT ROWID;
    """

    def share(self, paths: Iterable[str]) -> None:
        """Note that several samples would take these paths."""
        with self._writing():
            self._db.executemany("INSERT OR IGNORE INTO shared VALUES (?)", ((path,) for path in paths))

    def is_shared(self, path: str) -> bool:
        """Whether several samples would take a path."""
        return self._db.execute("SELECT 1 FROM shared WHERE path = ?", (path,)).fetchone() is not None
