"""Archives told by their content, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from larder.sources.limits import Limits
from larder.sources.members import Archive

if TYPE_CHECKING:
    from larder.sources.decoders import Codec

HEAD_BYTES = 512
TAIL_BYTES = (1 << 16) + 22  # zip's end record, with the longest comment


class Options(NamedTuple):
    """How sources are read."""

    limits: Limits = Limits()
    zip_encoding: str = ""
    """The encoding of zip's names that state none; empty takes UTF-8 where a name is valid in it, else cp437."""
    inner: bool = True
    """Whether archives in an archive are unpacked, too."""
    follow_links: bool = True
    """Whether links in a local folder may lead out of it."""
    work: Path | None = None
    """Where inner archives are unpacked from that can't be read in place; by default, a temporary folder."""


def open_archive(path: Path, name: str, options: Options, start: int = 0, length: int | None = None) -> Archive | None:
    """The archive in a file, or in `length` bytes of it from `start` on; None when it isn't one.

    Only the reader for its kind is imported.
    """
    with path.open("rb") as file:
        whole = file.seek(0, 2) if length is None else length
        file.seek(start)
        head = file.read(min(HEAD_BYTES, whole))
        file.seek(start + max(0, whole - TAIL_BYTES))
        tail = file.read(min(whole, TAIL_BYTES))
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip(path, name, options, start, length)
    if head[257:262] == b"ustar":
        return _tar(path, name, options, start, length)
    if (codec := codec_of(head)) is not None and length is None:
        from larder.sources.tar_stream import TarStreamSource

        return TarStreamSource(path, name, options.limits, codec)
    from larder.sources.tar_headers import is_header
    from larder.sources.zip import is_zip

    if is_header(head):  # v7
        return _tar(path, name, options, start, length)
    if is_zip(tail):  # behind a program that unpacks it, or a mark of several volumes
        return _zip(path, name, options, start, length)
    return None


def codec_of(head: bytes) -> Codec | None:
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:4] == b"\x28\xb5\x2f\xfd" or head[1:4] == b"\x2a\x4d\x18":  # a frame, or one to skip (RFC 8878, 3.1)
        return "zstd"
    if head[:3] == b"BZh" and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):  # a block, or the end of an empty stream
        return "bzip2"
    if head[:6] == b"\xfd7zXZ\0" or (head[:3] == b"\x5d\0\0" and head[12:13] in (b"\0", b"\xff")):  # or lzma alone
        return "xz"
    return None


def _zip(path: Path, name: str, options: Options, start: int, length: int | None) -> Archive:
    from larder.sources.zip import ZipSource

    return ZipSource(path, name, options.limits, start, length, options.zip_encoding)


def _tar(path: Path, name: str, options: Options, start: int, length: int | None) -> Archive:
    from larder.sources.tar import TarSource

    return TarSource(path, name, options.limits, start, length)
