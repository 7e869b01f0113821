"""Archives that are read where they lie in a store: tar, and zip with members that are stored or deflated."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from larder.errors import InputError
from larder.images import MOST_BYTES
from larder.next_step import MAKES
from larder.packed import Codec
from larder.packing.source import open_folder
from larder.sources.archive import HEAD_BYTES, TAIL_BYTES, codec_of
from larder.sources.formats import no_archive
from larder.sources.limits import Limits
from larder.sources.members import Member
from larder.sources.positioned import PositionedFile
from larder.sources.tar import TarSource
from larder.sources.tar_headers import is_header
from larder.sources.zip import ZipSource, deflated_range_of, is_zip
from larder.store import BucketSettings
from services.index.listing import Stored

_BLOCK_BYTES = 8 << 20
_BLOCKS = 3
"""Held at a time: members are read in about the order in which they lie, and a zip's directory beside them."""
_BY_EXTRACT = f"set LARDER_SOURCE for {MAKES['tree']}, which unpack it"


class InStore(PositionedFile):
    """The bytes of an object, fetched block by block."""

    def __init__(self, settings: BucketSettings, found: Stored, limits: Limits) -> None:
        super().__init__(Path(), found.uri, limits)
        self._settings, self._found = settings, found
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def close(self) -> None:
        """See PositionedFile: nothing is open."""

    def length(self) -> int:
        """See PositionedFile."""
        return self._found.bytes

    def bytes_at(self, start: int, length: int) -> bytes:
        """See PositionedFile. Raises InputError when the object is gone, ServiceError when the store fails."""
        pieces, end = [], min(start + length, self._found.bytes)
        while start < end:
            number, skip = divmod(start, _BLOCK_BYTES)
            piece = self._block(number)[skip : skip + end - start]
            if not piece:
                raise changed(self._found)
            pieces.append(piece)
            start += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            while len(self._blocks) >= _BLOCKS:
                self._blocks.popitem(last=False)
            folder = open_folder(self._settings, "")
            data = folder.read_range(self._found.key, number * _BLOCK_BYTES, _BLOCK_BYTES)
            if data is None:
                raise changed(self._found)
            self._blocks[number] = data
        self._blocks.move_to_end(number)
        return self._blocks[number]


class StoredTar(InStore, TarSource):
    """A tar archive in a store."""


class StoredZip(InStore, ZipSource):
    """A zip archive in a store."""

    encoding = ""


def open_stored(settings: BucketSettings, found: Stored, limits: Limits) -> StoredTar | StoredZip:
    """The archive that an object of the bucket is, told by its content.

    Raises InputError when it is none, or one whose members don't lie in it as they are.
    """
    tar = StoredTar(settings, found, limits)
    head = tar.bytes_at(0, HEAD_BYTES)
    if head[257:262] == b"ustar" or is_header(head):
        return tar
    if (codec := codec_of(head)) is not None:
        raise InputError(
            f"{found.uri} is compressed as a whole ({codec}): nothing in it can be read where it lies",
            next_step=_BY_EXTRACT,
        )
    tail_at = max(0, found.bytes - TAIL_BYTES)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06") or is_zip(tar.bytes_at(tail_at, TAIL_BYTES)):
        return StoredZip(settings, found, limits)
    raise no_archive(found.uri, head)


class Range(NamedTuple):
    """Where an image's bytes lie in an object; see IndexEntry."""

    offset: int
    packed: int | None = None
    codec: Codec | None = None
    at: int | None = None


def range_of(archive: StoredTar | StoredZip, member: Member) -> Range:
    """Raises InputError where an image's bytes can't be fetched by themselves."""
    if member.link is not None:
        raise InputError(f"{archive.name} has links, such as {member.path!r}", next_step=_BY_EXTRACT)
    if (found := archive.range_of(member)) is not None:
        return Range(found[0])
    if isinstance(archive, StoredZip) and (deflated := deflated_range_of(archive, member)) is not None:
        return Range(*deflated, "deflate")
    raise InputError(
        f"{archive.name} holds {member.path!r} compressed by a rarer method, and it can't be read where it lies",
        next_step=f"{_BY_EXTRACT}; or pack the archive without compression (`zip -0`), which images don't need",
    )


def read(archive: StoredTar | StoredZip, member: Member) -> bytes:
    """A member's content, which is no longer than images are."""
    if member.bytes > MOST_BYTES:
        raise ValueError(f"{member.bytes:,} bytes")
    return b"".join(archive.read(member))


def changed(found: Stored) -> InputError:
    """The error for an object that isn't the one that was listed."""
    return InputError(f"{found.uri} has changed since it was listed", next_step="run again, which lists it again")
