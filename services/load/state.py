"""Store the expected files and the listed objects in an SQLite database, so that no list of objects is in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from larder.batches import batches
from larder.bucket import ListedObject
from larder.contract import META, IndexEntry
from larder.fingerprint import Fingerprint
from larder.ledger import WorkFile

Trust = Literal["size", "etag", "sent"]
"""What proves that an object of the right size is right: nothing more, its ETag, or that larder uploaded it."""

_ROWS_PER_BATCH = 10_000

# `sent`: the store has accepted exactly this content. `replaces`: the current manifest lists other content here.
_IS_MISMATCHED = """
(l.path IS NULL OR l.bytes <> w.bytes OR CASE :trust
    WHEN 'etag' THEN l.etag IS NOT w.etag WHEN 'sent' THEN NOT w.sent ELSE 0 END)
"""
_MISMATCHED = f"FROM wanted AS w LEFT JOIN listed AS l ON l.path = :below || w.path WHERE {_IS_MISMATCHED}"


class Expected(NamedTuple):
    """A file that the store should hold."""

    path: str
    bytes: int
    sha256: str


class SyncState(WorkFile):
    """Tables of expected files and of listed objects, by path."""

    tables = """
    CREATE TABLE IF NOT EXISTS wanted (
        path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, line TEXT NOT NULL, etag TEXT,
        hashed INTEGER NOT NULL DEFAULT 0, sent INTEGER NOT NULL DEFAULT 0, replaces INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS listed (path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, etag TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS before (path TEXT PRIMARY KEY) WITHOUT ROWID;
    """

    def add_expected(self, entries: Iterable[IndexEntry]) -> None:
        """Add the expected files. Keep what earlier runs recorded of them, but mark each to be read again."""
        with self._writing():
            self._db.execute("UPDATE wanted SET hashed = 0")
            self._db.executemany(
                "INSERT OR IGNORE INTO wanted (path, bytes, sha256, line) VALUES (?, ?, ?, ?)",
                ((entry.path, entry.bytes, entry.sha256, entry.to_json()) for entry in entries),
            )

    def compare(self, entries: Iterable[IndexEntry], *, etags: bool) -> None:
        """Compare the current manifest's index with the expected files, and record which have the same content.

        `etags` is whether it was uploaded with the same part sizes, so that its ETags are still valid.
        """
        with self._writing():
            self._db.execute("UPDATE wanted SET replaces = 0")
            for batch in batches(entries, _ROWS_PER_BATCH):
                self._db.executemany(
                    "UPDATE wanted SET sent = 1, etag = ? WHERE path = ? AND sha256 = ?",
                    ((entry.etag if etags else None, entry.path, entry.sha256) for entry in batch),
                )
                self._db.executemany(
                    "UPDATE wanted SET replaces = 1, sent = 0 WHERE path = ? AND sha256 <> ?",
                    ((entry.path, entry.sha256) for entry in batch),
                )

    def replace_listing(self, objects: Iterable[ListedObject], below: str = "") -> None:
        """Replace the listing of the folder `below`."""
        with self._writing():
            self._db.execute("DELETE FROM listed WHERE substr(path, 1, ?) = ?", (len(below), below))
            self._db.executemany("INSERT OR REPLACE INTO listed VALUES (?, ?, ?)", objects)

    def unhashed(self, below: str = "") -> Iterator[Expected]:
        """Yield files without a known ETag whose object in the folder `below` has the right size."""
        yield from self._pages(
            "SELECT w.path, w.bytes, w.sha256 FROM wanted AS w JOIN listed AS l ON l.path = :below || w.path "
            "WHERE w.etag IS NULL AND l.bytes = w.bytes AND w.path > :after ORDER BY w.path LIMIT :limit",
            below=below,
        )

    def mismatched(self, trust: Trust, below: str = "", *, replacing: bool | None = None) -> Iterator[Expected]:
        """Yield files whose object is missing or different, sorted by path.

        `replacing` selects those that replace an object of the current manifest (True) or don't (False).
        """
        which = "" if replacing is None else f"AND w.replaces = {replacing:d}"
        yield from self._pages(
            f"SELECT w.path, w.bytes, w.sha256 {_MISMATCHED} {which} AND w.path > :after ORDER BY w.path LIMIT :limit",
            trust=trust,
            below=below,
        )

    def verified_incoming(self, trust: Trust, below: str) -> Iterator[Expected]:
        """Yield files whose object is missing or different, but whose object in the folder `below` is right."""
        yield from self._pages(
            "SELECT w.path, w.bytes, w.sha256 FROM wanted AS w "
            "JOIN listed AS i ON i.path = :below || w.path AND i.bytes = w.bytes "
            "AND (:trust <> 'etag' OR i.etag IS w.etag) LEFT JOIN listed AS l ON l.path = w.path "
            f"WHERE {_IS_MISMATCHED} AND w.path > :after ORDER BY w.path LIMIT :limit",
            trust=trust,
            below=below,
        )

    def forget_uploads(self) -> None:
        """Forget which files were uploaded."""
        with self._writing():
            self._db.execute("UPDATE wanted SET sent = 0")

    def count_mismatched(self, trust: Trust, below: str = "", *, replacing: bool | None = None) -> tuple[int, int]:
        """Return the number of files that `mismatched` yields, and their bytes."""
        which = "" if replacing is None else f"AND w.replaces = {replacing:d}"
        query = f"SELECT count(*), coalesce(sum(w.bytes), 0) {_MISMATCHED} {which}"
        files, size = self._db.execute(query, {"trust": trust, "below": below}).fetchone()
        return int(files), int(size)

    def _pages(self, query: str, **values: str) -> Iterator[Expected]:
        """Yield rows in pages by path, so that the caller may change rows meanwhile."""
        after = ""
        while rows := self._db.execute(query, {**values, "after": after, "limit": _ROWS_PER_BATCH}).fetchall():
            yield from (Expected(*row) for row in rows)
            after = rows[-1][0]

    def record_hashes(self, fingerprints: Iterable[tuple[str, Fingerprint]]) -> None:
        """Record files as read, with their ETags."""
        with self._writing():
            self._db.executemany(
                "UPDATE wanted SET hashed = 1, etag = ? WHERE path = ?",
                ((fingerprint.etag, path) for path, fingerprint in fingerprints),
            )

    def is_hashed(self, path: str) -> bool:
        """Return whether this run has read the file."""
        return bool(self._db.execute("SELECT hashed FROM wanted WHERE path = ?", (path,)).fetchone()[0])

    def record_uploads(self, paths: Iterable[str]) -> None:
        """Record files as uploaded."""
        with self._writing():
            self._db.executemany("UPDATE wanted SET sent = 1 WHERE path = ?", ((path,) for path in paths))

    def invalidate(self, path: str) -> None:
        """Remove an object from the listing, so that it counts as missing."""
        with self._writing():
            self._db.execute("DELETE FROM listed WHERE path = ?", (path,))

    def expected(self) -> Iterator[Expected]:
        """Yield every expected file, sorted by path."""
        yield from self._pages("SELECT path, bytes, sha256 FROM wanted WHERE path > :after ORDER BY path LIMIT :limit")

    def entries(self) -> Iterator[IndexEntry]:
        """Yield the new index: the expected files with their ETags, sorted by path in UTF-8 byte order."""
        for line, etag in self._db.execute("SELECT line, etag FROM wanted ORDER BY path"):
            yield IndexEntry.from_json(line)._replace(etag=etag)

    def add_previous(self, entries: Iterable[IndexEntry]) -> None:
        """Record the files of a previous dataset."""
        with self._writing():
            self._db.executemany("INSERT OR IGNORE INTO before VALUES (?)", ((entry.path,) for entry in entries))

    def unexpected_objects(self, where: Literal["data", "before", "meta"]) -> Iterator[ListedObject]:
        """Yield listed objects that aren't expected files.

        `where` selects objects that no dataset lists ("data"), those of previous datasets ("before"), or larder's own
        ("meta").
        """
        rows = self._db.execute(
            "SELECT l.path, l.bytes, l.etag FROM listed AS l "
            "LEFT JOIN wanted AS w USING (path) LEFT JOIN before AS b USING (path) "
            "WHERE w.path IS NULL AND (substr(l.path, 1, ?) = ?) = ? AND (b.path IS NOT NULL) = ? ORDER BY l.path",
            (len(META) + 1, f"{META}/", where == "meta", where == "before"),
        )
        for row in rows:
            yield ListedObject(*row)
