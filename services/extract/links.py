"""Keep an archive's links on disk until all files are unpacked: links come in any order, and may be many."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from larder.contract import IndexEntry
from larder.ledger import Ledger, WorkFile, map_database_errors
from larder.sources.limits import ReadMeter
from larder.sources.members import BadSourceError, EntryFaults, quote_name, unsafe_source_error

_BATCH_FILES = 500
_LINK_OWNER = "a link"
"""The owner in whose name the ledger reserves a link's path."""


class LinkTable(WorkFile):
    """Table of links, and a queue of those whose target exists."""

    tables = """
    CREATE TABLE IF NOT EXISTS links (path TEXT PRIMARY KEY, target TEXT NOT NULL) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS links_by_target ON links (target);
    CREATE TABLE IF NOT EXISTS ready (number INTEGER PRIMARY KEY, path TEXT NOT NULL, target TEXT NOT NULL);
    """

    def add(self, path: str, target: str) -> bool:
        """Add a link. Return False if the path is already a link."""
        return self._execute("INSERT OR IGNORE INTO links VALUES (?, ?)", path, target) == 1

    def all(self) -> Iterator[tuple[str, str]]:
        """Yield every path with its target."""
        yield from self._db.execute("SELECT path, target FROM links")

    def queue(self, path: str, target: str) -> None:
        """Queue a link whose target exists."""
        self._execute("INSERT INTO ready (path, target) VALUES (?, ?)", path, target)

    def queue_links_to(self, target: str) -> None:
        """Queue every link to a path that now exists."""
        self._execute("INSERT INTO ready (path, target) SELECT path, target FROM links WHERE target = ?", target)

    def queued(self) -> Iterator[tuple[str, str]]:
        """Yield the queue, including links that are queued meanwhile."""
        number = 0
        while rows := self._db.execute(
            "SELECT number, path, target FROM ready WHERE number > ? ORDER BY number LIMIT ?", (number, _BATCH_FILES)
        ).fetchall():
            number = rows[-1][0]
            yield from ((path, target) for _, path, target in rows)

    def _execute(self, statement: str, *values: str) -> int:
        with map_database_errors(self.path):
            return self._db.execute(statement, values).rowcount


class LinkResolver:
    """Turns every link into a hard link to its file, so that no link can later point elsewhere."""

    def __init__(self, source: str, folder: Path, ledger: Ledger, meter: ReadMeter) -> None:
        self._source, self._folder, self._ledger, self._meter = source, folder, ledger, meter
        self._links: LinkTable | None = None
        self._new: dict[str, IndexEntry] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._links is not None:
            self._links.remove()

    def add(self, path: str, target: str) -> None:
        """Add a link. Raises InputError if `path` is already a link."""
        if self._links is None:
            self._links = LinkTable(self._ledger.path.with_name("links.sqlite"), "")
            self._links.clear()  # a killed run may have left links; the archive is scanned again from its start
        if not self._links.add(path, target):
            raise DuplicateMemberError(self._source, path)

    def make_links(self, resumed: bool) -> None:
        """Make all links. Each is visited once, however long chains of links are.

        Args:
            resumed: Whether an earlier run may have made some links. Then the ledger's claims are the archive's files.

        Raises:
            InputError: If a link's target is no file of the archive, or a link's path is also a file.
        """
        links = self._links
        if links is None:
            return
        for path, target in links.all():
            if (finished := self._ledger.get(path)) is not None:
                if not resumed or self._ledger.claim(path, _LINK_OWNER) != _LINK_OWNER:
                    raise DuplicateMemberError(self._source, path)
                self._meter.count_link(finished.bytes)
            if target in self._ledger:
                links.queue(path, target)
        for path, target in links.queued():
            if path not in self._ledger:
                self._make(path, target)
                links.queue_links_to(path)
        add_to_ledger(self._ledger, list(self._new.values()), self._source)
        self._require_no_dangling(links)

    def _make(self, path: str, target: str) -> None:
        entry = self._new.get(target) or self._ledger.get(target)
        assert entry is not None, "only links to files are queued"
        self._meter.count_link(entry.bytes)
        try:
            self._link_file(os.path.join(self._folder, target), os.path.join(self._folder, path))
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise path_conflict_error(self._source, path) from None
        self._new[path] = entry._replace(path=path)
        if len(self._new) == _BATCH_FILES:
            add_to_ledger(self._ledger, list(self._new.values()), self._source)
            self._new.clear()

    def _link_file(self, old: str, new: str) -> None:
        """Hard-link a file, or copy it at the file system's limit of links (ext4: 65,000)."""
        try:
            os.link(old, new)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(new), exist_ok=True)
            os.link(old, new)
        except FileExistsError:
            os.unlink(new)  # left by a run that was killed before it recorded the file
            self._link_file(old, new)
        except OSError as fault:
            if fault.errno != errno.EMLINK:
                raise
            shutil.copyfile(old, new)

    def _require_no_dangling(self, links: LinkTable) -> None:
        faults = EntryFaults()
        for path, target in links.all():
            if path not in self._ledger:
                faults.add(path, f"is a link to {quote_name(target)}, which is not a file in it")
        faults.raise_if_any(self._source)


def add_to_ledger(ledger: Ledger, entries: Sequence[IndexEntry], source: str) -> None:
    """Add finished files to the ledger. Raises InputError if the ledger already has a path."""
    if (duplicate := ledger.add(entries)) is not None:
        raise DuplicateMemberError(source, duplicate.path)


class DuplicateMemberError(BadSourceError):
    """A source holds a path more than once."""

    def __init__(self, source: str, path: str) -> None:
        error = unsafe_source_error(source, path, "is in it twice")
        super().__init__(error.what, next_step=error.next_step)
        self.path = path


def path_conflict_error(source: str, path: str) -> BadSourceError:
    """Return the error for a path that is both a file and a folder."""
    return unsafe_source_error(source, path, "is a file and a folder at once")
