"""Build archives field by field, including those that no available program writes."""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import tarfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import inflate64
import zstandard

from larder.sources import Source

STORED, DEFLATE, DEFLATE64, BZIP2, LZMA, OLD_ZSTD, ZSTD, XZ, PPMD = 0, 8, 9, 12, 14, 20, 93, 95, 98
DOS, UNIX, WINDOWS, MACOS = 0, 3, 10, 19


def packed(content: bytes, method: int) -> bytes:
    """Compress content as a zip's method does."""
    if method == DEFLATE:
        deflater = zlib.compressobj(6, wbits=-15)
        return deflater.compress(content) + deflater.flush()
    if method == DEFLATE64:
        deflater64 = inflate64.Deflater()
        return bytes(deflater64.deflate(content) + deflater64.flush())
    if method == BZIP2:
        return bz2.compress(content, 1)
    if method == LZMA:
        raw = lzma.compress(content, lzma.FORMAT_ALONE, preset=0)
        return b"\x09\x04\x05\x00" + raw[:5] + raw[13:]
    if method in (ZSTD, OLD_ZSTD):
        return zstandard.compress(content)
    if method == XZ:
        return lzma.compress(content, preset=0)
    return content


@dataclass
class ZipEntry:
    """A member of a zip. Fields that are None are derived from the others."""

    name: bytes
    content: bytes = b""
    method: int = STORED
    host: int = UNIX
    flags: int = 0
    mode: int = 0o100644
    attributes: int | None = None
    extra: bytes = b""
    local_extra: bytes = b""
    comment: bytes = b""
    data: bytes | None = None
    crc: int | None = None
    size: int | None = None
    packed_size: int | None = None
    offset: int | None = None
    local_name: bytes | None = None


def zip_of(
    entries: Iterable[ZipEntry], before: bytes = b"", counted: bool = True, comment: bytes = b"", junk: bytes = b""
) -> bytes:
    """Build a zip. `before` precedes it; with `counted`, offsets include it. `junk` precedes the directory."""
    body, directory, count = bytearray(before), bytearray(), 0
    base = 0 if counted else len(before)
    for entry in entries:
        data = packed(entry.content, entry.method) if entry.data is None else entry.data
        crc = zlib.crc32(entry.content) if entry.crc is None else entry.crc
        size = len(entry.content) if entry.size is None else entry.size
        length = len(data) if entry.packed_size is None else entry.packed_size
        offset = len(body) - base if entry.offset is None else entry.offset
        attributes = entry.mode << 16 if entry.attributes is None else entry.attributes
        local_name = entry.name if entry.local_name is None else entry.local_name
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", entry.host << 8 | 20, 20, entry.flags, entry.method, 0, 33, crc, length, size,
            len(entry.name), len(entry.extra), len(entry.comment), 0, 0, attributes, offset & 0xFFFFFFFF,
        ) + entry.name + entry.extra + entry.comment  # fmt: skip
        body += struct.pack(
            "<4s5H3I2H", b"PK\3\4", 20, entry.flags, entry.method, 0, 33, crc, length, size, len(local_name),
            len(entry.local_extra),
        ) + local_name + entry.local_extra + data  # fmt: skip
        count += 1
    body += junk
    start = len(body) - base
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count % 65536, count % 65536, len(directory), start, len(comment))
    return bytes(body + directory + end + comment)


def files_in_zip(files: dict[str, bytes], method: int = DEFLATE) -> bytes:
    """A zip of files with UTF-8 names."""
    return zip_of(ZipEntry(name.encode(), content, method, flags=0x800) for name, content in files.items())


def extra_field(kind: int, content: bytes) -> bytes:
    """One field of a zip's extra field."""
    return struct.pack("<HH", kind, len(content)) + content


def unicode_path(raw: bytes, name: str, crc: int | None = None) -> bytes:
    """Info-ZIP's extra field with a name in Unicode."""
    return extra_field(0x7075, struct.pack("<BI", 1, zlib.crc32(raw) if crc is None else crc) + name.encode())


TarEntry = tuple[str, bytes, bytes | str]
"""Name, type and, by the type, content or what it is a link to."""
FILE, SYMLINK, HARD, FOLDER = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


def tar_of(entries: Iterable[TarEntry], format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of entries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, kind, text in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            content = text.encode() if isinstance(text, str) else text
            if kind in (SYMLINK, HARD):
                info.linkname, content = content.decode(), b""
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def files_in_tar(files: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of files."""
    return tar_of(((name, FILE, content) for name, content in files.items()), format)


def tar_header(
    name: bytes,
    kind: bytes = b"0",
    size: int | bytes = 0,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
) -> bytes:
    """One header of a tar, with its checksum."""
    digits = size if isinstance(size, bytes) else b"%011o\0" % size
    block = b"".join(
        (
            name.ljust(100, b"\0"),
            b"0000644\0",
            b"0000000\0" * 2,
            digits,
            b"00000000000\0",
            b" " * 8,
            kind,
            link.ljust(100, b"\0"),
            magic.ljust(88, b"\0"),
            prefix.ljust(167, b"\0"),
        )
    )
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padded(content: bytes) -> bytes:
    """Pad content with zeros, as in a tar."""
    return content + bytes(-len(content) % 512)


def v7_tar(files: dict[str, bytes], folders: Sequence[str] = ()) -> bytes:
    """Build a tar of Unix version 7: without magic, and with folders marked by a trailing slash."""
    parts = [tar_header(name.encode(), b"\0", magic=b"") for name in folders]
    for name, content in files.items():
        parts += [tar_header(name.encode(), b"\0", len(content), magic=b""), padded(content)]
    return b"".join(parts) + bytes(10240)


def contents(source: Source) -> dict[str, bytes]:
    """Read all files of a source: path and content."""
    return {member.path: b"".join(source.read(member)) for member in source.scan() if member.link is None}
