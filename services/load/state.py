"""What is wanted in the store and what is there, side by side on disk, so that no list of objects is in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from larder.batches import batches
from larder.bucket import Listed
from larder.contract import META, IndexEntry
from larder.fingerprint import Fingerprint
from larder.ledger import WorkFile

Trust = Literal["size", "etag", "sent"]
"""What makes an object that is there with the right size the right one: nothing more; its ETag; that we sent it."""

_WRITTEN_AT_ONCE = 10_000

# `sent`: the store is known to have taken just this content. `replaces`: the manifest that is in place names another.
_IS_WRONG = """
(l.path IS NULL OR l.bytes <> w.bytes OR CASE :trust
    WHEN 'etag' THEN l.etag IS NOT w.etag WHEN 'sent' THEN NOT w.sent ELSE 0 END)
"""
_WRONG = f"FROM wanted AS w LEFT JOIN listed AS l ON l.path = :below || w.path WHERE {_IS_WRONG}"


class Wanted(NamedTuple):
    """A file that is wanted in the store."""

    path: str
    bytes: int
    sha256: str


class State(WorkFile):
    """The wanted files by path, and the listed objects by path."""

    tables = """
    CREATE TABLE IF NOT EXISTS wanted (
        path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, line TEXT NOT NULL, etag TEXT,
        hashed INTEGER NOT NULL DEFAULT 0, sent INTEGER NOT NULL DEFAULT 0, replaces INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS listed (path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, etag TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS before (path TEXT PRIMARY KEY) WITHOUT ROWID;
    """

    def want(self, entries: Iterable[IndexEntry]) -> None:
        """Note the files that are wanted. What an earlier run learned of them stays, but each is read once more."""
        with self._writing():
            self._db.execute("UPDATE wanted SET hashed = 0")
            self._db.executemany(
                "INSERT OR IGNORE INTO wanted (path, bytes, sha256, line) VALUES (?, ?, ?, ?)",
                ((entry.path, entry.bytes, entry.sha256, entry.to_json()) for entry in entries),
            )

    def compare(self, entries: Iterable[IndexEntry], *, etags: bool) -> None:
        """Note what the manifest that is in place names: the same content, or another.

        `etags` says whether it was loaded in parts of the same sizes, so that its ETags are those wanted now.
        """
        with self._writing():
            self._db.execute("UPDATE wanted SET replaces = 0")
            for some in batches(entries, _WRITTEN_AT_ONCE):
                self._db.executemany(
                    "UPDATE wanted SET sent = 1, etag = ? WHERE path = ? AND sha256 = ?",
                    ((entry.etag if etags else None, entry.path, entry.sha256) for entry in some),
                )
                self._db.executemany(
                    "UPDATE wanted SET replaces = 1, sent = 0 WHERE path = ? AND sha256 <> ?",
                    ((entry.path, entry.sha256) for entry in some),
                )

    def note_listing(self, objects: Iterable[Listed], below: str = "") -> None:
        """Note what is in the store below the folder `below`, in place of what was noted before."""
        with self._writing():
            self._db.execute("DELETE FROM listed WHERE substr(path, 1, ?) = ?", (len(below), below))
            self._db.executemany("INSERT OR REPLACE INTO listed VALUES (?, ?, ?)", objects)

    def unhashed(self, below: str = "") -> Iterator[Wanted]:
        """Files whose object below the folder `below` has the right size, and whose right ETag isn't known."""
        yield from self._pages(
            "SELECT w.path, w.bytes, w.sha256 FROM wanted AS w JOIN listed AS l ON l.path = :below || w.path "
            "WHERE w.etag IS NULL AND l.bytes = w.bytes AND w.path > :after ORDER BY w.path LIMIT :limit",
            below=below,
        )

    def wrong(self, trust: Trust, below: str = "", *, replacing: bool | None = None) -> Iterator[Wanted]:
        """Files whose object is missing or different, sorted by path; only those that do or don't replace another."""
        which = "" if replacing is None else f"AND w.replaces = {replacing:d}"
        yield from self._pages(
            f"SELECT w.path, w.bytes, w.sha256 {_WRONG} {which} AND w.path > :after ORDER BY w.path LIMIT :limit",
            trust=trust, below=below,
        )  # fmt: skip

    def ready(self, trust: Trust, below: str) -> Iterator[Wanted]:
        """Files whose object is wrong, while another below the folder `below` is right."""
        yield from self._pages(
            "SELECT w.path, w.bytes, w.sha256 FROM wanted AS w "
            "JOIN listed AS i ON i.path = :below || w.path AND i.bytes = w.bytes "
            "AND (:trust <> 'etag' OR i.etag IS w.etag) LEFT JOIN listed AS l ON l.path = w.path "
            f"WHERE {_IS_WRONG} AND w.path > :after ORDER BY w.path LIMIT :limit",
            trust=trust, below=below,
        )  # fmt: skip

    def trust_nothing(self) -> None:
        """Forget what the store is known to have taken."""
        with self._writing():
            self._db.execute("UPDATE wanted SET sent = 0")

    def count_wrong(self, trust: Trust, below: str = "", *, replacing: bool | None = None) -> tuple[int, int]:
        """How many those are, and their bytes."""
        which = "" if replacing is None else f"AND w.replaces = {replacing:d}"
        query = f"SELECT count(*), coalesce(sum(w.bytes), 0) {_WRONG} {which}"
        files, size = self._db.execute(query, {"trust": trust, "below": below}).fetchone()
        return int(files), int(size)

    def _pages(self, query: str, **values: str) -> Iterator[Wanted]:
        """Rows in pages by path, so that rows may be changed on the way."""
        after = ""
        while rows := self._db.execute(query, {**values, "after": after, "limit": _WRITTEN_AT_ONCE}).fetchall():
            yield from (Wanted(*row) for row in rows)
            after = rows[-1][0]

    def hashed(self, prints: Iterable[tuple[str, Fingerprint]]) -> None:
        """Note the files that were read, with their ETags."""
        with self._writing():
            self._db.executemany(
                "UPDATE wanted SET hashed = 1, etag = ? WHERE path = ?", ((found.etag, path) for path, found in prints)
            )

    def is_hashed(self, path: str) -> bool:
        """Whether the file was read already."""
        return bool(self._db.execute("SELECT hashed FROM wanted WHERE path = ?", (path,)).fetchone()[0])

    def sent(self, paths: Iterable[str]) -> None:
        """Note the files that the store took."""
        with self._writing():
            self._db.executemany("UPDATE wanted SET sent = 1 WHERE path = ?", ((path,) for path in paths))

    def distrust(self, path: str) -> None:
        """Note that an object is not what it seems."""
        with self._writing():
            self._db.execute("DELETE FROM listed WHERE path = ?", (path,))

    def wanted(self) -> Iterator[Wanted]:
        """Every wanted file, sorted by path."""
        yield from self._pages("SELECT path, bytes, sha256 FROM wanted WHERE path > :after ORDER BY path LIMIT :limit")

    def entries(self) -> Iterator[IndexEntry]:
        """The new index: the wanted files with their ETags, sorted by path in UTF-8 byte order."""
        for line, etag in self._db.execute("SELECT line, etag FROM wanted ORDER BY path"):
            yield IndexEntry.from_json(line)._replace(etag=etag)

    def named_before(self, entries: Iterable[IndexEntry]) -> None:
        """Note the files of a data set that was in place before."""
        with self._writing():
            self._db.executemany("INSERT OR IGNORE INTO before VALUES (?)", ((entry.path,) for entry in entries))

    def objects(self, where: Literal["data", "before", "meta"]) -> Iterator[Listed]:
        """What is in the store: objects that are no wanted file and no data set has named, those that one has named
        that was in place before, or those of larder itself.
        """
        rows = self._db.execute(
            "SELECT l.path, l.bytes, l.etag FROM listed AS l "
            "LEFT JOIN wanted AS w USING (path) LEFT JOIN before AS b USING (path) "
            "WHERE w.path IS NULL AND (substr(l.path, 1, ?) = ?) = ? AND (b.path IS NOT NULL) = ? ORDER BY l.path",
            (len(META) + 1, f"{META}/", where == "meta", where == "before"),
        )
        for row in rows:
            yield Listed(*row)
