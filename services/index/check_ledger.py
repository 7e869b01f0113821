"""Record in SQLite what was found in a source: checked images, rejects, other files and finished archives."""

from __future__ import annotations

import itertools
import operator
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from larder.contract import IndexEntry
from larder.ledger import Ledger
from larder.sources.random_access import BEGINNING, ScanPlace
from larder.tree.shard_labels import CLASS, key_of

_KEYS_PER_BATCH = 1000
_IMAGE, _REJECT, _OTHER, _LABEL = range(4)
"""Kinds of members."""


class CheckResult(NamedTuple):
    """The result of checking an object or the members of an archive, with paths in the source."""

    images: list[IndexEntry]
    """Images that can be samples. In a shard, `source` is the label beside the image."""
    rejects: list[tuple[str, str]]
    """Images that can't be samples: path and reason."""
    other_paths: list[str]
    """Paths of other files."""
    archive: str = ""
    """The archive's path; empty for objects that are images themselves."""
    labels: Mapping[str, int] = {}
    """Images per label, for an archive with labels beside its images."""


class CheckLedger(Ledger):
    """The ledger of checked files, by path in the source."""

    tables = f"""{Ledger.tables}
    CREATE TABLE IF NOT EXISTS others (path TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS archives (path TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS labels (
        archive TEXT, label TEXT, count INTEGER, PRIMARY KEY (archive, label)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS begun (
        path TEXT PRIMARY KEY, position INTEGER, entries INTEGER, files INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS members (
        archive TEXT, key TEXT, path TEXT, kind INTEGER, line TEXT, PRIMARY KEY (archive, key, path, kind)
    ) WITHOUT ROWID;
    """

    def record(self, result: CheckResult) -> IndexEntry | None:
        """Record a result in one transaction.

        If an image's path is already recorded, return its entry and record nothing.
        """
        return self.record_all((result,))

    def record_all(self, results: Iterable[CheckResult]) -> IndexEntry | None:
        """Record results in one transaction, with all results of an archive together. See `record`."""
        with self._writing():
            for result in results:
                if (duplicate := self._add(result.images)) is not None:
                    return duplicate
                self._db.executemany("INSERT OR REPLACE INTO rejects VALUES (?, ?)", result.rejects)
                self._db.executemany(
                    "INSERT OR REPLACE INTO others VALUES (?)", ((path,) for path in result.other_paths)
                )
                if result.archive:
                    self._db.execute("INSERT OR REPLACE INTO archives VALUES (?)", (result.archive,))
                    rows = ((result.archive, label, count) for label, count in result.labels.items())
                    self._db.executemany(
                        "INSERT INTO labels VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
                        rows,
                    )
                    self._db.execute("DELETE FROM begun WHERE path = ?", (result.archive,))
        return None

    def record_part(self, part: CheckResult, labels: Mapping[str, str], rest: ScanPlace) -> str | None:
        """Record a part of an archive, with paths in the archive, and where the next part begins.

        If an image or a label is in the archive twice, return its path and record nothing.
        """
        images = ((entry.path, _IMAGE, entry.to_json()) for entry in part.images)
        with self._writing():
            for path, kind, line in itertools.chain(
                images, ((f"{key}{CLASS}", _LABEL, label) for key, label in labels.items())
            ):
                try:
                    row = (part.archive, key_of(path), path, kind, line)
                    self._db.execute("INSERT INTO members VALUES (?, ?, ?, ?, ?)", row)
                except sqlite3.IntegrityError:
                    self._db.rollback()
                    return path
            other_files = ((path, _OTHER, "") for path in part.other_paths)
            rejects = ((path, _REJECT, reason) for path, reason in part.rejects)
            self._db.executemany(
                "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?)",
                (
                    (part.archive, key_of(path), path, kind, line)
                    for path, kind, line in itertools.chain(other_files, rejects)
                ),
            )
            self._db.execute("INSERT OR REPLACE INTO begun VALUES (?, ?, ?, ?)", (part.archive, *rest))
        return None

    def begin_of(self, archive: str) -> ScanPlace:
        """Return where the next part of an archive begins."""
        row = self._db.execute("SELECT position, entries, files FROM begun WHERE path = ?", (archive,)).fetchone()
        return ScanPlace(*row) if row else BEGINNING

    def has_labels(self, archive: str) -> bool:
        """Return whether the recorded parts of an archive have labels."""
        query = "SELECT 1 FROM members WHERE archive = ? AND kind = ? LIMIT 1"
        return self._db.execute(query, (archive, _LABEL)).fetchone() is not None

    def parts(self, archive: str) -> Iterator[tuple[CheckResult, dict[str, str]]]:
        """Yield what the recorded parts of an archive hold, in batches of whole keys, each with its labels by key."""
        query = "SELECT key, path, kind, line FROM members WHERE archive = ? ORDER BY key"
        result, labels, keys = CheckResult([], [], [], archive), dict[str, str](), 0
        rows = self._db.execute(query, (archive,))
        for key, members in itertools.groupby(rows, key=operator.itemgetter(0)):
            for _, path, kind, line in members:
                if kind == _IMAGE:
                    result.images.append(IndexEntry.from_json(line))
                elif kind == _REJECT:
                    result.rejects.append((path, line))
                elif kind == _LABEL:
                    labels[key] = line
                else:
                    result.other_paths.append(path)
            keys += 1
            if keys == _KEYS_PER_BATCH:
                yield result, labels
                result, labels, keys = CheckResult([], [], [], archive), dict[str, str](), 0
        yield result, labels

    def drop_parts(self, archive: str) -> None:
        """Delete the parts of an archive that is recorded as a whole."""
        with self._writing():
            self._db.execute("DELETE FROM members WHERE archive = ?", (archive,))

    def is_checked(self, path: str) -> bool:
        """Return whether an object was checked, as an image or another file."""
        return path in self or self.is_rejected(path) or self.is_other(path)

    def has_archive(self, path: str) -> bool:
        """Return whether an archive was checked."""
        return self._db.execute("SELECT 1 FROM archives WHERE path = ?", (path,)).fetchone() is not None

    def archives(self) -> Iterator[str]:
        """Yield the paths of checked archives."""
        for (path,) in self._db.execute("SELECT path FROM archives"):
            yield path

    def archive_count(self) -> int:
        """Return the number of checked archives."""
        return int(self._db.execute("SELECT count(*) FROM archives").fetchone()[0])

    def is_other(self, path: str) -> bool:
        """Return whether a path was recorded as a file that isn't an image."""
        return self._db.execute("SELECT 1 FROM others WHERE path = ?", (path,)).fetchone() is not None

    def reason(self, path: str) -> str | None:
        """Return why an image was rejected, or None if it wasn't."""
        row = self._db.execute("SELECT reason FROM rejects WHERE path = ?", (path,)).fetchone()
        return str(row[0]) if row else None

    def labelled_count(self) -> int:
        """Return the number of images with a label beside them."""
        return int(self._db.execute("SELECT coalesce(sum(count), 0) FROM labels").fetchone()[0])

    def labels_of_archives(self) -> Iterator[tuple[str, str]]:
        """Yield each archive with each of its labels."""
        yield from self._db.execute("SELECT archive, label FROM labels")

    def paths(self) -> Iterator[str]:
        """Yield every path, sorted in UTF-8 byte order."""
        tables = ("entries", "rejects", "others")
        union = " UNION ".join(f"SELECT path FROM {table}" for table in tables)
        for (path,) in self._db.execute(f"{union} ORDER BY path"):
            yield path


class SampleLedger(Ledger):
    """The samples by path in the tree, and the paths that several samples would take."""

    tables = f"""{Ledger.tables}
    CREATE TABLE IF NOT EXISTS shared (path TEXT PRIMARY KEY) WITHOUT ROWID;
    """

    def add_shared(self, paths: Iterable[str]) -> None:
        """Record that several samples would take these paths."""
        with self._writing():
            self._db.executemany("INSERT OR IGNORE INTO shared VALUES (?)", ((path,) for path in paths))

    def is_shared(self, path: str) -> bool:
        """Return whether several samples would take a path."""
        return self._db.execute("SELECT 1 FROM shared WHERE path = ?", (path,)).fetchone() is not None
