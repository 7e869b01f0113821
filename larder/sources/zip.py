"""A zip archive as a source: its directory is streamed, its members are read in parallel.

By hand, since the standard library's reader holds an object per member in memory, about 100 MB for 200,000 files, and
reads members one after another; this one holds one at a time (docs/decisions/0003-zip-reader.md). Format: PKWARE
APPNOTE.TXT 6.3.10, sections 4.3 (records) and 4.5.3 (Zip64).
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple, cast

from isal import isal_zlib

from larder.sources.members import (
    CHUNK_BYTES,
    Member,
    UnsafeNameError,
    damaged,
    is_litter,
    link_target,
    refuse,
    safe_path,
)  # fmt: skip
from larder.sources.positioned import PositionedFile

InflateError = cast(type[Exception], isal_zlib.error)  # isal's type stub calls it an instance

_END = struct.Struct("<4sHHHHIIH")  # end of central directory, 4.3.16
_END64_LOCATOR = struct.Struct("<4sIQI")  # 4.3.15
_END64 = struct.Struct("<4sQHHIIQQQQ")  # 4.3.14
_ENTRY = struct.Struct("<4s6H3I5H2I")  # central directory header, 4.3.12
_LOCAL = struct.Struct("<4s5H3I2H")  # local file header, 4.3.7
_LONGEST_COMMENT = 0xFFFF
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _UTF8 = 0x1, 0x800
_UNIX = 3
_MAX_LINK_BYTES = 4096
_NEXT_PROBE_BYTES = 128  # a local header's extra field may be longer than the central one's: read this much more


class Place(NamedTuple):
    """Where a member's bytes are: offset of its local header, length there, method, checksum."""

    offset: int
    bytes: int
    method: int
    crc32: int


class ZipSource(PositionedFile):
    """The files of a zip archive."""

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`."""
        faults: list[str] = []
        for name, mode, size, place in self._directory():
            if name.endswith("/") or is_litter(name):
                continue
            try:
                yield self._member(safe_path(name), mode, size, place)
            except UnsafeNameError as fault:
                faults.append(f"{name!r} {fault}")
        if faults:
            raise refuse(self.name, faults[:20] + ([f"and {len(faults) - 20} more"] if len(faults) > 20 else []))

    def _member(self, path: str, mode: int, size: int, place: Place) -> Member:
        if stat.S_ISLNK(mode):
            if size > _MAX_LINK_BYTES:
                raise UnsafeNameError("is a link with too long a target")
            target = b"".join(self.read(Member(path, size, place))).decode(errors="surrogateescape")
            return Member(path, 0, place, link=link_target(path, target))
        if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise UnsafeNameError("is a device, pipe or socket")
        return Member(path, size, place)

    def _directory(self) -> Iterator[tuple[str, int, int, Place]]:
        """Name, Unix mode (0 when unknown), unpacked size and place of every entry of the central directory."""
        with self.path.open("rb") as file:
            length = file.seek(0, os.SEEK_END)
            count, start, end, wide = self._find_directory(file.fileno(), length)
            file.seek(start)
            entries = 0
            while file.tell() < end:
                entries += 1
                head = file.read(_ENTRY.size)
                if len(head) < _ENTRY.size or not head.startswith(b"PK\x01\x02"):
                    raise damaged(self.name, "its directory of files breaks off")
                (_, made_by, _, flags, method, _, _, crc, packed, unpacked, names, extras, comments, _, _,
                 attributes, offset) = _ENTRY.unpack(head)  # fmt: skip
                raw, extra = file.read(names), file.read(extras)
                file.seek(comments, os.SEEK_CUR)
                unpacked, packed, offset = _zip64(extra, unpacked, packed, offset)
                name = raw.decode("utf-8" if flags & _UTF8 or _is_utf8(raw) else "cp437", errors="surrogateescape")
                self._refuse_unreadable(name, flags, method)
                if offset + packed > length:
                    raise damaged(self.name, f"{name!r} lies beyond the file's end")
                mode = attributes >> 16 if made_by >> 8 == _UNIX else 0
                yield name, mode, unpacked, Place(offset, packed, method, crc)
            # Some archivers write more files than 16 bits count without Zip64's wider record.
            if file.tell() != end or (entries != count and (wide or entries % 0x10000 != count)):
                raise damaged(self.name, f"its directory lists {entries:,} files, and its end record states {count:,}")

    def _find_directory(self, descriptor: int, length: int) -> tuple[int, int, int, bool]:
        """The central directory: number of entries, start, end, and whether Zip64 states them."""
        tail_at = max(0, length - _END.size - _LONGEST_COMMENT)
        tail = os.pread(descriptor, length - tail_at, tail_at)
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < _END.size:
            raise damaged(self.name, "it has no directory of files at its end, so it was cut off or isn't a zip")
        _, _, _, _, count, size, start, _ = _END.unpack_from(tail, at)
        locator_at = tail_at + at - _END64_LOCATOR.size
        locator = os.pread(descriptor, _END64_LOCATOR.size, locator_at) if locator_at >= 0 else b""
        wide = locator.startswith(b"PK\x06\x07")
        if wide:
            record_at = min(_END64_LOCATOR.unpack(locator)[2], locator_at)
            record = os.pread(descriptor, _END64.size, record_at)
            if len(record) < _END64.size or not record.startswith(b"PK\x06\x06"):
                raise damaged(self.name, "its Zip64 end record is missing")
            *_, count, size, start = _END64.unpack(record)
        if start + size > tail_at + at:
            raise damaged(self.name, "its directory of files is not where the end record says: bytes are missing")
        return count, start, start + size, wide

    def _refuse_unreadable(self, name: str, flags: int, method: int) -> None:
        if flags & _ENCRYPTED:
            raise refuse(self.name, [f"{name!r} is encrypted"])
        if method not in (_STORED, _DEFLATED):
            raise refuse(self.name, [f"{name!r} is packed with method {method}; stored (0) and deflate (8) are read"])

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`. Checks the size and the CRC-32."""
        place: Place = member.place
        crc, length = 0, 0
        try:
            for chunk in self._inflate(member, place):
                crc, length = isal_zlib.crc32(chunk, crc), length + len(chunk)
                if length > member.bytes:
                    break
                yield chunk
        except InflateError as fault:
            raise damaged(self.name, f"{member.path!r} does not inflate ({fault})") from None
        if length != member.bytes or crc != place.crc32:
            raise damaged(self.name, f"{member.path!r} does not have the size and CRC-32 that the archive states")

    def _inflate(self, member: Member, place: Place) -> Iterator[bytes]:
        if place.method == _STORED:
            yield from self._packed(member, place)
            return
        inflater = isal_zlib.decompressobj(-15)
        most = min(member.bytes + 1, CHUNK_BYTES)  # a buffer that fits; one byte more shows a size that is a lie
        for packed in self._packed(member, place):
            while packed and not inflater.eof:
                yield inflater.decompress(packed, most)
                packed = inflater.unconsumed_tail
        if tail := inflater.flush():
            yield tail

    def _packed(self, member: Member, place: Place) -> Iterator[bytes]:
        """The member's bytes as they lie in the archive. The first read takes header and data in one."""
        guess = _LOCAL.size + len(member.path.encode()) + _NEXT_PROBE_BYTES
        head = self.bytes_at(place.offset, guess + min(place.bytes, CHUNK_BYTES))
        if len(head) < _LOCAL.size or not head.startswith(b"PK\x03\x04"):
            raise damaged(self.name, f"{member.path!r} is not where the directory says")
        *_, names, extras = _LOCAL.unpack_from(head)
        start = _LOCAL.size + names + extras
        first = head[start : start + place.bytes]
        yield first
        end = place.offset + start + place.bytes
        yield from self.chunks_at(place.offset + start + len(first), end, member.path)


def _is_utf8(raw: bytes) -> bool:
    """Archivers on Unix and macOS write UTF-8 names without saying so; cp437 text is hardly ever valid UTF-8."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _zip64(extra: bytes, unpacked: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Replace the 32-bit fields that are full by the Zip64 extra field's, which holds only those, in this order."""
    fields = [unpacked, packed, offset]
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if kind == 0x0001:
            content = extra[at + 4 : at + 4 + size]
            values = iter(value for (value,) in struct.iter_unpack("<Q", content[: len(content) // 8 * 8]))
            fields = [next(values, field) if field == 0xFFFFFFFF else field for field in fields]
        at += 4 + size
    return fields[0], fields[1], fields[2]
