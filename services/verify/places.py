"""Where an artifact lies: a folder on a volume, or one in a bucket. Both are picklable, and read alike."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from larder.contract import IndexEntry
from larder.packing.source import open_folder
from larder.store import BucketSettings
from services.verify.findings import EDITED, REPLACED
from services.verify.index import Marks, SortedIndex

if TYPE_CHECKING:
    from botocore.response import StreamingBody

R = TypeVar("R")
Take = Callable[[int, int], bytes]
"""The bytes of a file from one offset to another, or fewer where it ends before."""


class Look(NamedTuple):
    """What a place shows of a file without reading it; `bytes` is None where there is no file."""

    entry: IndexEntry
    bytes: int | None
    etag: str = ""


class Place(Protocol):
    """The interface that both have."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def cause(self) -> str:
        """The likely cause of other content."""

    def read(self, path: str, most: int) -> bytes | None:
        """A small file, or its first `most` bytes and one more; None when there is none."""

    def fetch(self, path: str, work: Path, most: int) -> tuple[Path, str] | None:
        """A file on this machine, for which `work` may be used, and its sha256; None when there is none.

        One of more than `most` bytes isn't read to its end, and the digest is another one then.
        """

    def look(self, index: SortedIndex) -> Iterator[Look]:
        """Every file of the index, in some order; of those that are missing, the first one, last."""

    def digest(self, path: str, most: int) -> tuple[int, str] | None:
        """Length and sha256 of a file, which is read; None when there is none. For `most`, see `fetch`."""

    def parts(self, path: str, whole: bool, use: Callable[[Take], R]) -> R | None:
        """What `use` makes of parts of a file; None when there is none.

        When it is read `whole`, each part must begin where the one before ended.
        """


class VolumePlace(NamedTuple):
    """A folder on a volume."""

    folder: Path

    @property
    def name(self) -> str:
        """See Place."""
        return str(self.folder)

    @property
    def cause(self) -> str:
        """See Place."""
        return EDITED

    def read(self, path: str, most: int) -> bytes | None:
        """See Place."""
        try:
            with (self.folder / path).open("rb") as file:
                return file.read(most + 1)
        except _ABSENT:
            return None

    def fetch(self, path: str, work: Path, most: int) -> tuple[Path, str] | None:
        """See Place: the file itself."""
        found = self.digest(path, most)
        return None if found is None else (self.folder / path, found[1])

    def look(self, index: SortedIndex) -> Iterator[Look]:
        """See Place."""
        for entry in index:
            try:
                yield Look(entry, os.stat(self.folder / entry.path, follow_symlinks=False).st_size)
            except _ABSENT:
                yield Look(entry, None)
                return

    def digest(self, path: str, most: int) -> tuple[int, str] | None:
        """See Place. The length is known before it is read, and all is read."""
        try:
            with open(self.folder / path, "rb", buffering=0) as file:
                return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
        except _ABSENT:
            return None

    def parts(self, path: str, whole: bool, use: Callable[[Take], R]) -> R | None:
        """See Place."""
        try:
            file = open(self.folder / path, "rb")  # noqa: SIM115  (closed below; what `use` raises isn't about opening)
        except _ABSENT:
            return None
        with file:

            def take(begin: int, end: int) -> bytes:
                file.seek(begin)
                return file.read(end - begin)

            return use(take)


_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class StorePlace(NamedTuple):
    """A folder in a bucket. Each process has a client of its own."""

    settings: BucketSettings
    folder: str

    @property
    def name(self) -> str:
        """See Place."""
        return open_folder(*self).uri

    @property
    def cause(self) -> str:
        """See Place."""
        return REPLACED

    def read(self, path: str, most: int) -> bytes | None:
        """See Place."""
        return open_folder(*self).with_body(path, lambda body: body.read(most + 1))

    def fetch(self, path: str, work: Path, most: int) -> tuple[Path, str] | None:
        """See Place."""
        file = work / f"{self.folder}-{path.replace('/', '-')}"
        digest = open_folder(*self).download(path, file, most)
        return None if digest is None else (file, digest)

    def look(self, index: SortedIndex) -> Iterator[Look]:
        """See Place: a request for each thousand objects."""
        met = Marks(index)
        for item in open_folder(*self).list():
            place = index.place(item.path)
            if place is not None and met.add(place):
                yield Look(index.at(place), item.bytes, item.etag)
        if (missing := met.first_missing()) is not None:
            yield Look(missing, None)

    def digest(self, path: str, most: int) -> tuple[int, str] | None:
        """See Place."""
        return open_folder(*self).digest(path, most)

    def parts(self, path: str, whole: bool, use: Callable[[Take], R]) -> R | None:
        """See Place: one request for the whole file, or one for each part."""
        if whole:
            return open_folder(*self).with_body(path, lambda body: use(_onward(body)))

        def take(begin: int, end: int) -> bytes:
            data = open_folder(*self).read_range(path, begin, end - begin)
            if data is None:
                raise _GoneError
            return data

        try:
            return use(take)
        except _GoneError:
            return None


class _GoneError(Exception):
    """The object isn't there."""


def _onward(body: StreamingBody) -> Take:
    def take(begin: int, end: int) -> bytes:
        pieces, left = [], end - begin
        while left and (piece := body.read(left)):
            pieces.append(piece)
            left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    return take
