"""The links of an archive, on disk until all files are there: they may come in any order, and be many."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from larder.contract import IndexEntry
from larder.ledger import Ledger, WorkFile, explained
from larder.sources.limits import Meter
from larder.sources.members import BadSourceError, Faults, refuse, shown

_BATCH_FILES = 500
_LINK = "a link"
"""The claimant of a path that is not a regular file."""


class Links(WorkFile):
    """Paths and what they are links to, and a queue of those whose target is there."""

    tables = """
    CREATE TABLE IF NOT EXISTS links (path TEXT PRIMARY KEY, target TEXT NOT NULL) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS links_by_target ON links (target);
    CREATE TABLE IF NOT EXISTS ready (number INTEGER PRIMARY KEY, path TEXT NOT NULL, target TEXT NOT NULL);
    """

    def add(self, path: str, target: str) -> bool:
        """Note a link. False when there is one at this path already."""
        return self._execute("INSERT OR IGNORE INTO links VALUES (?, ?)", path, target) == 1

    def all(self) -> Iterator[tuple[str, str]]:
        """Every path with its target."""
        yield from self._db.execute("SELECT path, target FROM links")

    def put(self, path: str, target: str) -> None:
        """Queue a link whose target is there."""
        self._execute("INSERT INTO ready (path, target) VALUES (?, ?)", path, target)

    def put_links_to(self, target: str) -> None:
        """Queue every link to a path that is there now."""
        self._execute("INSERT INTO ready (path, target) SELECT path, target FROM links WHERE target = ?", target)

    def queued(self) -> Iterator[tuple[str, str]]:
        """What is in the queue, with what is put into it meanwhile."""
        number = 0
        while rows := self._db.execute(
            "SELECT number, path, target FROM ready WHERE number > ? ORDER BY number LIMIT ?", (number, _BATCH_FILES)
        ).fetchall():
            number = rows[-1][0]
            yield from ((path, target) for _, path, target in rows)

    def _execute(self, statement: str, *values: str) -> int:
        with explained(self.path):
            return self._db.execute(statement, values).rowcount


class LinkedFiles:
    """Makes every link a second name of the file that it stands for, so that no link can point elsewhere later."""

    def __init__(self, source: str, folder: Path, ledger: Ledger, meter: Meter) -> None:
        self._source, self._folder, self._ledger, self._meter = source, folder, ledger, meter
        self._links: Links | None = None
        self._new: dict[str, IndexEntry] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._links is not None:
            self._links.remove()

    def add(self, path: str, target: str) -> None:
        """Note that `path` is a link to `target`. Raises InputError when there is a link at `path` already."""
        if self._links is None:
            self._links = Links(self._ledger.path.with_name("links.sqlite"), "")
            self._links.clear()  # left by a killed run: the archive is read from its start
        if not self._links.add(path, target):
            raise TwiceError(self._source, path)

    def make(self, resumed: bool) -> None:
        """Make all of them. Each is looked at once, however long the chains are that they form.

        `resumed` says that an earlier run may have made some, and that the ledger's claims are the archive's files.
        Raises InputError for links to what is no file of the archive, and for a path that is a file, too.
        """
        links = self._links
        if links is None:
            return
        for path, target in links.all():
            if (made := self._ledger.get(path)) is not None:
                if not resumed or self._ledger.claim(path, _LINK) != _LINK:
                    raise TwiceError(self._source, path)
                self._meter.count_again(made.bytes)
            if target in self._ledger:
                links.put(path, target)
        for path, target in links.queued():
            if path not in self._ledger:
                self._make(path, target)
                links.put_links_to(path)
        record(self._ledger, list(self._new.values()), self._source)
        self._refuse_the_rest(links)

    def _make(self, path: str, target: str) -> None:
        entry = self._new.get(target) or self._ledger.get(target)
        assert entry is not None, "only links to files are queued"
        self._meter.count_again(entry.bytes)
        try:
            self._name(os.path.join(self._folder, target), os.path.join(self._folder, path))
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise clash(self._source, path) from None
        self._new[path] = entry._replace(path=path)
        if len(self._new) == _BATCH_FILES:
            record(self._ledger, list(self._new.values()), self._source)
            self._new.clear()

    def _name(self, old: str, new: str) -> None:
        """Give a file another name, or copy it where it has as many as its file system takes (ext4: 65,000)."""
        try:
            os.link(old, new)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(new), exist_ok=True)
            os.link(old, new)
        except FileExistsError:
            os.unlink(new)  # of a run that was killed before it noted it
            self._name(old, new)
        except OSError as fault:
            if fault.errno != errno.EMLINK:
                raise
            shutil.copyfile(old, new)

    def _refuse_the_rest(self, links: Links) -> None:
        faults = Faults()
        for path, target in links.all():
            if path not in self._ledger:
                faults.add(path, f"is a link to {shown(target)}, which is no file in it")
        faults.raise_if_any(self._source)


def record(ledger: Ledger, entries: Sequence[IndexEntry], source: str) -> None:
    """Put finished files into the ledger. Raises InputError when one's path is there already."""
    if (again := ledger.add(entries)) is not None:
        raise TwiceError(source, again.path)


class TwiceError(BadSourceError):
    """A path is in a source more than once."""

    def __init__(self, source: str, path: str) -> None:
        error = refuse(source, path, "is in it twice")
        super().__init__(error.what, next_step=error.next_step)
        self.path = path


def clash(source: str, path: str) -> BadSourceError:
    """The error for a path that can't be a file, since it or a part of it is also something else."""
    return refuse(source, path, "is a file and a folder at once")
