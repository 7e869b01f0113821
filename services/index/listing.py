"""List a source with parallel requests into an SQLite file, so that memory doesn't limit its size."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from larder.errors import InputError
from larder.ledger import map_database_errors
from larder.sources.kinds import KindDetector
from larder.sources.limits import TooLargeError
from larder.sources.members import BadSourceError, unsafe_source_error
from larder.sources.prefix_reader import ListingPage, PrefixReader, S3Object

_CONCURRENT_REQUESTS = 16
_MAX_PARALLEL_DEPTH = 4
"""Levels of folders that are listed in parallel. Below, a folder is listed by one request after the other."""
_MIN_IMAGES_PER_FOLDER = 100
"""Smaller folders, judged by the first response, aren't listed in parallel: each takes a request."""
_COLUMNS = "path, bytes, etag, key, bucket"
_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE objects (
    path TEXT PRIMARY KEY, bytes INTEGER, etag TEXT, key TEXT, bucket TEXT
) WITHOUT ROWID;
"""


class StoredObject(NamedTuple):
    """An object, with its path in the source and its location."""

    path: str
    bytes: int
    etag: str
    key: str
    bucket: str

    @property
    def uri(self) -> str:
        """The object's URI, as in an index."""
        return f"s3://{self.bucket}/{self.key}"


class ObjectListing:
    """The objects of a source, sorted by path. Every run lists them again."""

    def __init__(self, path: Path, max_files: int) -> None:
        self._path, self._max_files, self._keys = path, max_files, 0
        self.files = self.bytes = 0
        self.sha256 = ""
        """The digest of all objects, set by `finish`."""
        self.kinds = KindDetector()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with map_database_errors(path):
            self._db = sqlite3.connect(path)
            self._db.executescript(_SCHEMA)

    def add(self, source: str, bucket: str, objects: Sequence[S3Object], keys: int) -> None:
        """Add objects of `source`. `keys` is the number of keys that the store has listed for them.

        Raises BadSourceError for two objects with one path, TooLargeError for too many keys.
        """
        rows = [StoredObject(item.path, item.bytes, item.etag, item.key, bucket) for item in objects]
        try:
            with map_database_errors(self._path):
                self._db.executemany("INSERT INTO objects VALUES (?, ?, ?, ?, ?)", rows)
        except sqlite3.IntegrityError:
            raise self._duplicate_error(source, rows) from None
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

    def _duplicate_error(self, source: str, rows: Sequence[StoredObject]) -> BadSourceError:
        """Return the error for a path that several objects have."""
        for row in rows:
            existing = self.find(row.path)
            if existing is not None and (existing.bucket, existing.key) != (row.bucket, row.key):
                return unsafe_source_error(
                    source,
                    row.path,
                    f"is the path of both {existing.uri} and {row.uri}",
                    "give one of the two another name",
                )
        [(path, _)] = Counter(row.path for row in rows).most_common(1)
        return unsafe_source_error(source, path, "is listed twice", "name no folder or archive in LARDER_SOURCE twice")

    def finish(self) -> None:
        """Commit and compute the digest, after the last object."""
        with map_database_errors(self._path):
            self._db.commit()
        digest = hashlib.sha256()
        for row in self:
            digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self.sha256 = digest.hexdigest()

    def find(self, path: str) -> StoredObject | None:
        """Return the object at a path, or None."""
        row = self._db.execute(f"SELECT {_COLUMNS} FROM objects WHERE path = ?", (path,)).fetchone()
        return StoredObject(*row) if row else None

    def __iter__(self) -> Iterator[StoredObject]:
        for row in self._db.execute(f"SELECT {_COLUMNS} FROM objects ORDER BY path"):
            yield StoredObject(*row)

    def paths(self) -> Iterator[str]:
        """Yield the paths, sorted in UTF-8 byte order."""
        for (path,) in self._db.execute("SELECT path FROM objects ORDER BY path"):
            yield path

    def remove(self) -> None:
        """Close and delete the file."""
        self._db.close()
        self._path.unlink(missing_ok=True)


class _PageRequest(NamedTuple):
    """A page to request: of the folder `start`, from the continuation token on, at this depth."""

    start: str
    token: str = ""
    level: int = 0


def list_parallel(prefix: PrefixReader) -> Iterator[ListingPage]:
    """Yield every object below a prefix, in unordered pages. See `PrefixReader.list`.

    If a folder has more objects than one response holds, its subfolders are listed in parallel. The deepest known
    folders come first: this keeps the queue short, and few pages wait for the caller.
    """
    with ThreadPoolExecutor(_CONCURRENT_REQUESTS) as pool:
        steps, running = [_PageRequest(prefix.start)], set[Future[tuple[ListingPage, list[_PageRequest]]]]()
        try:
            while steps or running:
                while steps and len(running) < 2 * _CONCURRENT_REQUESTS:
                    running.add(pool.submit(_request_page, prefix, steps.pop()))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    page, next_steps = future.result()
                    yield page
                    steps += next_steps
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _request_page(prefix: PrefixReader, step: _PageRequest) -> tuple[ListingPage, list[_PageRequest]]:
    page = prefix.list_page(step.start, step.token)
    if not page.next_token:
        return page, []
    if not step.token and step.level < _MAX_PARALLEL_DEPTH and _has_large_folders(page, step.start):
        inside = prefix.list_folder(step.start)
        if inside is not None and inside.folders:
            return inside, [_PageRequest(folder, "", step.level + 1) for folder in inside.folders]
    return page, [step._replace(token=page.next_token)]


def _has_large_folders(page: ListingPage, start: str) -> bool:
    """Return whether the first objects of a folder are in few subfolders, which are then large."""
    folders = {inside[0] for item in page.objects if len(inside := item.key[len(start) :].split("/", 1)) > 1}
    return len(folders) * _MIN_IMAGES_PER_FOLDER <= page.keys


def require_objects(listing: ObjectListing, source: str) -> None:
    """Raise InputError if the source has no objects."""
    if not listing.files:
        with suppress(OSError):
            listing.remove()
        raise InputError(f"{source} holds no objects", next_step="check LARDER_SOURCE: bucket and prefix")
