"""Read archives in place in a store: tar, and zip with stored or deflated members."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from larder.codecs import Codec
from larder.errors import InputError
from larder.images import MAX_IMAGE_BYTES
from larder.next_step import CREATED_BY
from larder.packing.pack_input import open_prefix
from larder.sources.archive import HEAD_BYTES, TAIL_BYTES, detect_codec
from larder.sources.formats import unsupported_format_error
from larder.sources.limits import SourceLimits
from larder.sources.members import Member, join_chunks
from larder.sources.random_access import RandomAccessArchive
from larder.sources.tar import TarSource
from larder.sources.tar_headers import is_header
from larder.sources.zip import ZipSource, find_deflated_range, is_zip
from larder.store import BucketSettings
from services.index.listing import StoredObject

_BLOCK_BYTES = 8 << 20
_MAX_BLOCKS = 3
"""Blocks kept in memory. Members are read roughly in order; a zip's directory takes another block."""
USE_EXTRACT_HINT = f"set LARDER_SOURCE for {CREATED_BY['tree']}, which unpack it"


class ObjectFile(RandomAccessArchive):
    """An object, read in blocks."""

    def __init__(self, settings: BucketSettings, stored: StoredObject, limits: SourceLimits) -> None:
        super().__init__(Path(), stored.uri, limits)
        self._settings, self._stored = settings, stored
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def close(self) -> None:
        """See RandomAccessArchive. Nothing is open."""

    def length(self) -> int:
        """See RandomAccessArchive."""
        return self._stored.bytes

    def bytes_at(self, start: int, length: int) -> bytes:
        """See RandomAccessArchive.

        Raises InputError if the object is gone or replaced, ServiceError if the store fails.
        """
        pieces, end = [], min(start + length, self._stored.bytes)
        while start < end:
            number, skip = divmod(start, _BLOCK_BYTES)
            piece = self._block(number)[skip : skip + end - start]
            if not piece:
                raise changed_object_error(self._stored)
            pieces.append(piece)
            start += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            while len(self._blocks) >= _MAX_BLOCKS:
                self._blocks.popitem(last=False)
            folder = open_prefix(self._settings, "")
            data = folder.read_range(self._stored.key, number * _BLOCK_BYTES, _BLOCK_BYTES, self._stored.etag)
            if data is None:
                raise changed_object_error(self._stored)
            self._blocks[number] = data
        self._blocks.move_to_end(number)
        return self._blocks[number]


class StoredTar(ObjectFile, TarSource):
    """A tar archive in a store."""


class StoredZip(ObjectFile, ZipSource):
    """A zip archive in a store."""

    encoding = ""


def open_stored(settings: BucketSettings, stored: StoredObject, limits: SourceLimits) -> StoredTar | StoredZip:
    """Open an object as a tar or zip archive, by its content.

    Raises InputError if it is no archive, or one that must be decompressed as a whole.
    """
    tar = StoredTar(settings, stored, limits)
    head = tar.bytes_at(0, HEAD_BYTES)
    if head[257:262] == b"ustar" or is_header(head):
        return tar
    if (codec := detect_codec(head)) is not None:
        raise InputError(
            f"{stored.uri} is compressed as a whole ({codec}): nothing in it can be read in place",
            next_step=USE_EXTRACT_HINT,
        )
    tail_offset = max(0, stored.bytes - TAIL_BYTES)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06") or is_zip(tar.bytes_at(tail_offset, TAIL_BYTES)):
        return StoredZip(settings, stored, limits)
    raise unsupported_format_error(stored.uri, head)


class ByteRange(NamedTuple):
    """The location of an image's bytes in an object; see IndexEntry."""

    offset: int
    packed: int | None = None
    codec: Codec | None = None
    at: int | None = None


def find_byte_range(archive: StoredTar | StoredZip, member: Member) -> ByteRange:
    """Return the location of a member's bytes. Raises InputError if they can't be read separately."""
    if member.link is not None:
        raise InputError(f"{archive.name} has links, such as {member.path!r}", next_step=USE_EXTRACT_HINT)
    if (byte_range := archive.range_of(member)) is not None:
        return ByteRange(byte_range[0])
    if isinstance(archive, StoredZip) and (deflated := find_deflated_range(archive, member)) is not None:
        return ByteRange(*deflated, "deflate")
    raise InputError(
        f"{archive.name} holds {member.path!r} compressed by a rare method, which can't be read in place",
        next_step=f"{USE_EXTRACT_HINT}; or pack the archive without compression (`zip -0`), which images don't need",
    )


def read_member(archive: StoredTar | StoredZip, member: Member) -> bytes:
    """Return a member's content. Raises ValueError if it is longer than the limit for images."""
    if member.bytes > MAX_IMAGE_BYTES:
        raise ValueError(f"{member.bytes:,} bytes")
    return join_chunks(archive.read(member))


def changed_object_error(stored: StoredObject) -> InputError:
    """Return the error for an object that has changed since it was listed."""
    return InputError(f"{stored.uri} has changed since it was listed", next_step="run again, which lists it again")
