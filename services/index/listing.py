"""What lies in a store, in an SQLite file, so that its number doesn't matter: listed by many requests at once."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from larder.errors import InputError
from larder.ledger import explained
from larder.sources.kinds import Kinds
from larder.sources.limits import TooLargeError
from larder.sources.members import refuse
from larder.sources.prefix import Object, Page, Prefix

_REQUESTS_AT_ONCE = 16
_DEEPEST = 4
"""How many levels of folders are listed side by side. Below, all of a folder is one listing."""
_COLUMNS = "path, bytes, etag, key, bucket"
_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE objects (
    path TEXT PRIMARY KEY, bytes INTEGER, etag TEXT, key TEXT, bucket TEXT
) WITHOUT ROWID;
"""


class Stored(NamedTuple):
    """An object: its path in the source, and where it lies."""

    path: str
    bytes: int
    etag: str
    key: str
    bucket: str

    @property
    def uri(self) -> str:
        """Its place, as an index has it."""
        return f"s3://{self.bucket}/{self.key}"


class Listing:
    """The objects of a source, sorted by their paths in it. Every run lists them again."""

    def __init__(self, path: Path, max_files: int) -> None:
        self._path, self._max_files, self._keys = path, max_files, 0
        self.files = self.bytes = 0
        self.sha256 = ""
        """Of all lines, once `finish` was called: the same objects have the same."""
        self.kinds = Kinds()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with explained(path):
            self._db = sqlite3.connect(path)
            self._db.executescript(_SCHEMA)

    def add(self, source: str, bucket: str, objects: Sequence[Object], keys: int) -> None:
        """Add objects of `source`, of so many keys that the store has named.

        Raises BadSourceError for two of one path, TooLargeError for too many keys.
        """
        rows = [Stored(found.path, found.bytes, found.etag, found.key, bucket) for found in objects]
        try:
            with explained(self._path):
                self._db.executemany("INSERT INTO objects VALUES (?, ?, ?, ?, ?)", rows)
        except sqlite3.IntegrityError:
            others = (row.path for row in rows if (held := self.find(row.path)) is not None and held.key != row.key)
            path = next(others, rows[0].path)
            raise refuse(source, path, "is in it twice", "give one of the two keys another name") from None
        self.files += len(rows)
        self.bytes += sum(row.bytes for row in rows)
        self._keys += keys
        if self._keys > self._max_files:
            raise TooLargeError(
                f"{source} holds more than {self._max_files:,} objects",
                next_step="if you trust it, raise LARDER_MAX_FILES and run again",
            )
        for row in rows:
            self.kinds.add(row.path)

    def finish(self) -> None:
        """Sum up, after the last object."""
        with explained(self._path):
            self._db.commit()
        digest = hashlib.sha256()
        for row in self:
            digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self.sha256 = digest.hexdigest()

    def find(self, path: str) -> Stored | None:
        """The object at a path."""
        row = self._db.execute(f"SELECT {_COLUMNS} FROM objects WHERE path = ?", (path,)).fetchone()
        return Stored(*row) if row else None

    def __iter__(self) -> Iterator[Stored]:
        for row in self._db.execute(f"SELECT {_COLUMNS} FROM objects ORDER BY path"):
            yield Stored(*row)

    def paths(self) -> Iterator[str]:
        """The paths, sorted in UTF-8 byte order."""
        for (path,) in self._db.execute("SELECT path FROM objects ORDER BY path"):
            yield path

    def remove(self) -> None:
        """Close and delete the file."""
        self._db.close()
        self._path.unlink(missing_ok=True)


class _Step(NamedTuple):
    """A page to ask for: of the folder `start`, at the place that `token` says, so many levels deep."""

    start: str
    token: str = ""
    level: int = 0


def list_at_once(prefix: Prefix) -> Iterator[Page]:
    """Every object below a prefix, in pages of no order. See `Prefix.list`.

    A folder with more objects than an answer holds is listed folder by folder, side by side.
    """
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        running: set[Future[tuple[Page, list[_Step]]]] = {pool.submit(_ask, prefix, _Step(prefix.start))}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    page, steps = future.result()
                    yield page
                    running |= {pool.submit(_ask, prefix, step) for step in steps}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ask(prefix: Prefix, step: _Step) -> tuple[Page, list[_Step]]:
    page = prefix.page(step.start, step.token)
    if not page.following:
        return page, []
    if not step.token and step.level < _DEEPEST:
        inside = prefix.folders(step.start)
        if inside is not None and inside.folders:
            return inside, [_Step(folder, "", step.level + 1) for folder in inside.folders]
    return page, [step._replace(token=page.following)]


def require_objects(listing: Listing, source: str) -> None:
    """Raise InputError for a source without objects."""
    if not listing.files:
        with suppress(OSError):
            listing.remove()
        raise InputError(f"{source} holds no objects", next_step="check LARDER_SOURCE: bucket and prefix")
