"""Detect the kind of an archive by its content, and open it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from larder.sources.limits import SourceLimits
from larder.sources.members import Archive

if TYPE_CHECKING:
    from larder.sources.decoders import Codec

HEAD_BYTES = 512
TAIL_BYTES = (1 << 16) + 22  # size of zip's end record with the longest comment


class SourceOptions(NamedTuple):
    """Options for reading a source."""

    limits: SourceLimits = SourceLimits()
    zip_encoding: str = ""
    """Encoding of names in a zip that state none. If empty, UTF-8 if the name is valid UTF-8, else cp437."""
    inner: bool = True
    """Whether to unpack archives inside an archive."""
    follow_links: bool = True
    """Whether links in a local folder may point outside it."""
    work: Path | None = None
    """Folder for copies of inner archives that can't be read in place; by default a temporary folder."""


def open_archive(
    path: Path, name: str, options: SourceOptions, start: int = 0, length: int | None = None
) -> Archive | None:
    """Open the archive in a file, or in a byte range of a file. Import only the reader that it needs.

    Args:
        path: The file.
        name: Name of the archive in messages.
        options: How to read the archive.
        start: Position of the archive in the file.
        length: Length of the archive in bytes; None for the whole file.

    Returns:
        The archive, or None if it isn't a supported one.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2) if length is None else length
        file.seek(start)
        head = file.read(min(HEAD_BYTES, size))
        file.seek(start + max(0, size - TAIL_BYTES))
        tail = file.read(min(size, TAIL_BYTES))
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip(path, name, options, start, length)
    if head[257:262] == b"ustar":
        return _tar(path, name, options, start, length)
    if (codec := detect_codec(head)) is not None and length is None:
        from larder.sources.tar_stream import TarStreamSource

        return TarStreamSource(path, name, options.limits, codec)
    from larder.sources.tar_headers import is_header
    from larder.sources.zip import is_zip

    if is_header(head):  # v7
        return _tar(path, name, options, start, length)
    if is_zip(tail):  # a self-extracting archive, or one with a marker for split archives
        return _zip(path, name, options, start, length)
    return None


def detect_codec(head: bytes) -> Codec | None:
    """Return the codec of a file by its first 16 bytes; None if it is not compressed."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:4] == b"\x28\xb5\x2f\xfd" or head[1:4] == b"\x2a\x4d\x18":  # a frame, or a skippable frame (RFC 8878, 3.1)
        return "zstd"
    if head[:3] == b"BZh" and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):  # a block, or an empty stream
        return "bzip2"
    if head[:6] == b"\xfd7zXZ\0" or (head[:3] == b"\x5d\0\0" and head[12:13] in (b"\0", b"\xff")):  # or .lzma
        return "xz"
    return None


def _zip(path: Path, name: str, options: SourceOptions, start: int, length: int | None) -> Archive:
    from larder.sources.zip import ZipSource

    return ZipSource(path, name, options.limits, start, length, options.zip_encoding)


def _tar(path: Path, name: str, options: SourceOptions, start: int, length: int | None) -> Archive:
    from larder.sources.tar import TarSource

    return TarSource(path, name, options.limits, start, length)
