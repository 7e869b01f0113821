"""Locations of artifacts, a folder on a volume or in a bucket, with one interface. Both are picklable."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from larder.contract import IndexEntry
from larder.packing.pack_input import open_prefix
from larder.store import BucketSettings
from services.verify.findings import EDITED, REPLACED
from services.verify.sorted_index import SeenEntries, SortedIndex

if TYPE_CHECKING:
    from botocore.response import StreamingBody

R = TypeVar("R")
RangeReader = Callable[[int, int], bytes]
"""Reads a file's bytes from one offset to another, or fewer at its end."""
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class FileStat(NamedTuple):
    """Facts about a file without reading it; `bytes` is None if the file is missing."""

    entry: IndexEntry
    bytes: int | None
    etag: str = ""


class Location(Protocol):
    """The interface of both locations."""

    @property
    def name(self) -> str:
        """The name for messages."""

    @property
    def cause(self) -> str:
        """The likely cause of wrong content, for messages."""

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """Read a small file, at most `max_bytes` + 1 bytes. Return None if it is missing."""

    def fetch(self, path: str, work: Path, max_bytes: int) -> tuple[Path, str] | None:
        """Return a local path of a file, in `work` if it must be downloaded, and its sha256; None if it is missing.

        A download of more than `max_bytes` bytes is cut off, so that its digest differs.
        """

    def stat_files(self, index: SortedIndex) -> Iterator[FileStat]:
        """Yield every file of the index in any order. Of the missing files, yield only the first, as the last item."""

    def digest(self, path: str, max_bytes: int) -> tuple[int, str] | None:
        """Read a file and return its length and sha256, or None if it is missing. For `max_bytes`, see `fetch`."""

    def read_parts(self, path: str, whole: bool, use: Callable[[RangeReader], R]) -> R | None:
        """Return the result of `use`, which reads parts of a file, or None if the file is missing.

        If `whole` is true, the parts must be contiguous.
        """


class VolumeLocation(NamedTuple):
    """A folder on a volume."""

    folder: Path

    @property
    def name(self) -> str:
        """See Location."""
        return str(self.folder)

    @property
    def cause(self) -> str:
        """See Location."""
        return EDITED

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """See Location."""
        try:
            with (self.folder / path).open("rb") as file:
                return file.read(max_bytes + 1)
        except _ABSENT:
            return None

    def fetch(self, path: str, work: Path, max_bytes: int) -> tuple[Path, str] | None:
        """See `Location`. Returns the file itself."""
        length_and_digest = self.digest(path, max_bytes)
        return None if length_and_digest is None else (self.folder / path, length_and_digest[1])

    def stat_files(self, index: SortedIndex) -> Iterator[FileStat]:
        """See Location."""
        for entry in index:
            try:
                yield FileStat(entry, os.stat(f"{self.folder}/{entry.path}", follow_symlinks=False).st_size)
            except _ABSENT:
                yield FileStat(entry, None)
                return

    def digest(self, path: str, max_bytes: int) -> tuple[int, str] | None:
        """See `Location`. Ignores `max_bytes`."""
        try:
            with open(self.folder / path, "rb", buffering=0) as file:
                return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
        except _ABSENT:
            return None

    def read_parts(self, path: str, whole: bool, use: Callable[[RangeReader], R]) -> R | None:
        """See Location."""
        try:
            file = open(self.folder / path, "rb")  # noqa: SIM115  (closed below; what `use` raises isn't about opening)
        except _ABSENT:
            return None
        with file:

            def take(begin: int, end: int) -> bytes:
                file.seek(begin)
                return file.read(end - begin)

            return use(take)


class StoreLocation(NamedTuple):
    """A folder in a bucket. Each process opens its own client."""

    settings: BucketSettings
    folder: str

    @property
    def name(self) -> str:
        """See Location."""
        return open_prefix(*self).uri

    @property
    def cause(self) -> str:
        """See Location."""
        return REPLACED

    def read(self, path: str, max_bytes: int) -> bytes | None:
        """See Location."""
        return open_prefix(*self).with_body(path, lambda body: body.read(max_bytes + 1))

    def fetch(self, path: str, work: Path, max_bytes: int) -> tuple[Path, str] | None:
        """See Location."""
        file = work / f"{self.folder}-{path.replace('/', '-')}"
        digest = open_prefix(*self).download(path, file, max_bytes)
        return None if digest is None else (file, digest)

    def stat_files(self, index: SortedIndex) -> Iterator[FileStat]:
        """See `Location`. Sends one request per thousand objects."""
        seen = SeenEntries(index)
        for item in open_prefix(*self).list():
            location = index.find_offset(item.path)
            if location is not None and seen.add(location):
                yield FileStat(index.entry_at(location), item.bytes, item.etag)
        if (missing := seen.first_missing()) is not None:
            yield FileStat(missing, None)

    def digest(self, path: str, max_bytes: int) -> tuple[int, str] | None:
        """See Location."""
        return open_prefix(*self).digest(path, max_bytes)

    def read_parts(self, path: str, whole: bool, use: Callable[[RangeReader], R]) -> R | None:
        """See `Location`. Sends one request for the whole file, or one per part."""
        if whole:
            return open_prefix(*self).with_body(path, lambda body: use(_sequential_reader(body)))

        def take(begin: int, end: int) -> bytes:
            data = open_prefix(*self).read_range(path, begin, end - begin)
            if data is None:
                raise _GoneError
            return data

        try:
            return use(take)
        except _GoneError:
            return None


class _GoneError(Exception):
    """The object is missing."""


def _sequential_reader(body: StreamingBody) -> RangeReader:
    def take(begin: int, end: int) -> bytes:
        pieces, left = [], end - begin
        while left and (piece := body.read(left)):
            pieces.append(piece)
            left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    return take
