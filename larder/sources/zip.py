"""A zip archive as a source: its directory is streamed, its members are read in parallel.

By hand, since the standard library's reader holds an object per member in memory, about 100 MB for 200,000 files, and
reads members one after another; this one holds one at a time (docs/decisions/0003-archive-readers.md). Format: PKWARE
APPNOTE.TXT 6.3.10, sections 4.3 (records), 4.5.3 (Zip64) and 4.6.9 (names in Unicode).
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

from isal import isal_zlib

from larder.sources.limits import Limits, Meter
from larder.sources.members import (
    CHUNK_BYTES,
    BadSourceError,
    Faults,
    Member,
    UnsafeNameError,
    damaged,
    is_litter,
    link_target,
    safe_path,
    shown,
)  # fmt: skip
from larder.sources.positioned import PositionedFile

InflateError = cast(type[Exception], isal_zlib.error)  # isal's type stub calls it an instance

_END = struct.Struct("<4sHHHHIIH")  # end of central directory, 4.3.16
_END64_LOCATOR = struct.Struct("<4sIQI")  # 4.3.15
_END64 = struct.Struct("<4sQHHIIQQQQ")  # 4.3.14
_ENTRY = struct.Struct("<4s6H3I5H2I")  # central directory header, 4.3.12
_LOCAL = struct.Struct("<4s5H3I2H")  # local file header, 4.3.7
_UNICODE_PATH = struct.Struct("<BI")  # version, CRC-32 of the name that it replaces; 4.6.9
_LONGEST_TEXT = 0xFFFF
_LONGEST_ENTRY = _ENTRY.size + 3 * _LONGEST_TEXT
_FULL = 0xFFFFFFFF
_WRAP = 1 << 32
_STORED, _DEFLATED, _DEFLATE64, _AES = 0, 8, 9, 99
_ENCRYPTED, _UTF8 = 0x1, 0x800
_UNIX = (3, 19)  # and macOS
_WINDOWS = (0, 6, 10, 11, 14)  # the hosts whose names can't hold a backslash: DOS, OS/2, Windows
_DOS_FOLDER = 0x10
_MAX_LINK_BYTES = 4096
_NEXT_PROBE_BYTES = 128  # a local header's extra field may be longer than the central one's: read this much more
_7ZIP = "unpack it with 7-Zip (`7z x`) and give the folder as the source"


class Place(NamedTuple):
    """Where a member's bytes are: offset of its local header, length there, method, checksum."""

    offset: int
    bytes: int
    method: int
    crc32: int


class Entry(NamedTuple):
    """What the directory says of a member. `mode` is Unix's, 0 when unknown; `raw` the name's bytes."""

    name: str
    mode: int
    size: int
    place: Place
    raw: bytes
    flags: int


class Directory(NamedTuple):
    """Where the directory lies, what its end record states, and how its entries count offsets."""

    entries: int
    start: int
    end: int
    wide: bool
    shift: int
    """What lies before the archive that its offsets don't count."""
    wrapped: bool
    """Offsets and sizes are modulo 2**32."""


class ZipSource(PositionedFile):
    """The files of a zip archive. `encoding` is that of names that don't state theirs; empty finds it out."""

    def __init__(
        self, path: Path, name: str, limits: Limits, start: int = 0, length: int | None = None, encoding: str = ""
    ) -> None:
        super().__init__(path, name, limits, start, length)
        self.encoding = encoding

    def scan(self, meter: Meter | None = None) -> Iterator[Member]:
        """See `Source.scan`."""
        faults, meter = Faults(), meter or Meter(self.name, self.limits)
        for entry in self._directory(meter):
            name, size = entry.name, entry.size
            if name.endswith("/") or stat.S_ISDIR(entry.mode) or is_litter(name):
                meter.skip()
                continue
            meter.count(size)
            if entry.place.bytes > size:
                meter.other(entry.place.bytes - size)  # many entries may share what unpacks to nothing
            if entry.flags & _ENCRYPTED or entry.place.method not in (_STORED, _DEFLATED):
                unreadable = _why_unreadable(entry)
                if unreadable is not None:
                    faults.add(name, *unreadable)
                    continue
            try:
                yield self._member(safe_path(name), entry)
            except UnsafeNameError as fault:
                faults.add(name, fault)
        faults.raise_if_any(self.name)

    def _member(self, path: str, entry: Entry) -> Member:
        if stat.S_ISLNK(entry.mode):
            if entry.size > _MAX_LINK_BYTES:
                raise UnsafeNameError("is a link with too long a target")
            target = b"".join(self.read(Member(path, entry.size, entry.place))).decode(errors="surrogateescape")
            return Member(path, 0, entry.place, link=link_target(path, target))
        if entry.mode and stat.S_IFMT(entry.mode) not in (0, stat.S_IFREG):
            raise UnsafeNameError("is a device, pipe or socket")
        return Member(path, entry.size, entry.place)

    def _directory(self, meter: Meter) -> Iterator[Entry]:
        """Every entry of the central directory."""
        length = self.length()
        found = self._find_directory(length)
        meter.other(found.end - found.start)
        return self._unwrapped(found) if found.wrapped else self._entries(found, length)

    def _entries(self, found: Directory, length: int) -> Iterator[Entry]:
        """The entries as they are written, in a file of `length` bytes."""
        buffer, at, reached, count = b"", 0, found.start, 0
        while at < len(buffer) or reached < found.end:
            if len(buffer) - at < _LONGEST_ENTRY and reached < found.end:
                more = self.bytes_at(reached, min(CHUNK_BYTES, found.end - reached))
                buffer, at, reached = buffer[at:] + more, 0, reached + len(more)
                if not more:
                    break
            if len(buffer) - at < _ENTRY.size:
                break
            (signature, made_by, _, flags, method, _, _, crc, packed, unpacked, names, extras, comments, _, _,
             attributes, offset) = _ENTRY.unpack_from(buffer, at)  # fmt: skip
            at += _ENTRY.size
            end = at + names + extras + comments
            if signature != b"PK\x01\x02" or end > len(buffer):
                break
            raw, extra = buffer[at : at + names], buffer[at + names : at + names + extras]
            at, count = end, count + 1
            if _FULL in (unpacked, packed, offset):
                unpacked, packed, offset = _zip64(extra, unpacked, packed, offset)
            offset += found.shift
            name, host = self._name(raw, flags, extra), made_by >> 8
            if "\\" in name and (host in _WINDOWS or "/" not in name):  # as .NET and others on Windows write folders
                name = name.replace("\\", "/")
            if offset + packed > length:
                raise damaged(self.name, f"{shown(name)} lies beyond the file's end")
            mode = attributes >> 16 if host in _UNIX else 0
            if attributes & _DOS_FOLDER and not mode and not unpacked:
                mode = stat.S_IFDIR
            yield Entry(name, mode, unpacked, Place(offset, packed, method, crc), raw, flags)
        else:
            # Some archivers write more files than 16 bits count without Zip64's wider record.
            if count != found.entries and (found.wide or count % 0x10000 != found.entries):
                raise damaged(
                    self.name, f"its directory lists {count:,} files, and its end record states {found.entries:,}"
                )
            return
        raise damaged(self.name, "its directory of files breaks off")

    def _name(self, raw: bytes, flags: int, extra: bytes) -> str:
        """An entry's name. What isn't valid in its encoding is kept so that it can be refused by name."""
        if flags & _UTF8:
            return raw.decode(errors="surrogateescape")
        if b"up" in extra and (text := _unicode_path(raw, extra)) is not None:
            return text
        if raw.isascii():
            return raw.decode()
        if self.encoding:
            return raw.decode(self.encoding, errors="surrogateescape")
        return raw.decode("utf-8" if _is_utf8(raw) else "cp437", errors="surrogateescape")

    def _unwrapped(self, found: Directory) -> Iterator[Entry]:
        """The entries of an archive of more than 4 GiB without Zip64, as macOS' Archive Utility writes it.

        Its entries come in the order of their offsets, so each is where the next header of its name is, in steps of
        4 GiB; and its bytes reach to the next one.
        """
        before: Entry | None = None
        content = 0
        for entry in self._entries(found, found.start):
            offset, next_content = self._header_of(entry, content, found.start)
            if before is not None:
                yield self._with_whole_size(before, offset - content)
            before, content = entry._replace(place=entry.place._replace(offset=offset)), next_content
        if before is not None:
            yield self._with_whole_size(before, found.start - content)

    def _header_of(self, entry: Entry, floor: int, end: int) -> tuple[int, int]:
        """Where an entry's local header and its content begin, at `floor` or later."""
        offset = entry.place.offset
        offset += -(-max(0, floor - offset) // _WRAP) * _WRAP
        while offset < end:
            head = self.bytes_at(offset, _LOCAL.size + len(entry.raw))
            if head.startswith(b"PK\x03\x04") and head[_LOCAL.size :] == entry.raw:
                *_, names, extras = _LOCAL.unpack_from(head)
                return offset, offset + _LOCAL.size + names + extras
            offset += _WRAP
        raise BadSourceError(
            f"{self.name} has more than 4 GiB and no Zip64 records, and {shown(entry.name)} is not where its offset "
            "modulo 4 GiB says",
            next_step="unpack it with the program that made it (macOS: Archive Utility, or `ditto -x -k`) and give the "
            "folder as the source",
        )

    def _with_whole_size(self, entry: Entry, room: int) -> Entry:
        """An entry with its sizes, where they were stated modulo 2**32."""
        packed = entry.place.bytes
        if room < packed:
            raise damaged(self.name, f"{shown(entry.name)} overlaps the next file")
        if room - packed < _WRAP or self._is_whole(entry):
            return entry
        packed += (room - packed) // _WRAP * _WRAP
        size = packed if entry.place.method == _STORED else entry.size
        return entry._replace(size=size, place=entry.place._replace(bytes=packed))

    def _is_whole(self, entry: Entry) -> bool:
        """Whether the bytes that an entry states are all it has: then 4 GiB of something else follow it."""
        try:
            for _ in self.read(Member(entry.name, entry.size, entry.place)):
                pass
        except BadSourceError:
            return False
        return True

    def _find_directory(self, length: int) -> Directory:
        """The central directory, by the record at the archive's end."""
        tail_at = max(0, length - _END.size - _LONGEST_TEXT)
        tail = self.bytes_at(tail_at, length - tail_at)
        at = _find_end(tail)
        if at < 0:
            raise damaged(self.name, "it has no directory of files at its end, so it was cut off or isn't a zip")
        _, disk, first_disk, _, count, size, start, _ = _END.unpack_from(tail, at)
        end, wide = tail_at + at, False
        if disk not in (0, 0xFFFF) or first_disk not in (0, 0xFFFF):
            raise BadSourceError(
                f"{self.name} is the last part of a split archive",
                next_step="join the parts (`zip -s 0 last.zip --out whole.zip`) and give the whole as the source",
            )
        locator_at = end - _END64_LOCATOR.size
        locator = self.bytes_at(locator_at, _END64_LOCATOR.size) if locator_at >= 0 else b""
        if locator.startswith(b"PK\x06\x07"):
            end, record = self._zip64_record(_END64_LOCATOR.unpack(locator)[2], locator_at)
            *_, count, size, start = _END64.unpack(record)
            wide = True
        return self._placed(Directory(count, start, start + size, wide, 0, False), end)

    def _zip64_record(self, stated: int, locator_at: int) -> tuple[int, bytes]:
        """The position and content of Zip64's end record: where its locator says, or right before that."""
        for at in (stated, locator_at - _END64.size):
            if 0 <= at <= locator_at - _END64.size:
                record = self.bytes_at(at, _END64.size)
                if record.startswith(b"PK\x06\x06"):
                    return at, record
        raise damaged(self.name, "its Zip64 end record is missing")

    def _placed(self, stated: Directory, end: int) -> Directory:
        """The directory where it is: it ends at `end`, and lies behind its stated place where something precedes the
        archive, as a program that unpacks it, or where offsets are modulo 4 GiB.
        """
        shift = end - stated.end
        if shift < 0:
            raise damaged(self.name, "its directory of files is not where the end record says: bytes are missing")
        if shift == 0 or not self._is_entry(stated.start + shift):
            return stated
        moved = stated._replace(start=stated.start + shift, end=end)
        if shift % _WRAP == 0 and not stated.wide:
            first = self.bytes_at(moved.start, _ENTRY.size)
            if self.bytes_at(_ENTRY.unpack(first)[-1], 4) == b"PK\x03\x04":
                return moved._replace(wrapped=True)
        return moved._replace(shift=shift)

    def _is_entry(self, at: int) -> bool:
        head = self.bytes_at(at, _ENTRY.size)
        return len(head) == _ENTRY.size and head.startswith(b"PK\x01\x02")

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`. Checks the size and the CRC-32."""
        place: Place = member.place
        crc, length = 0, 0
        for chunk in self._unpacked(member, place):
            crc, length = isal_zlib.crc32(chunk, crc), length + len(chunk)
            if length > member.bytes:
                break
            yield chunk
        if length != member.bytes or crc != place.crc32:
            raise damaged(self.name, f"{shown(member.path)} does not have the size and CRC-32 that the archive states")

    def _unpacked(self, member: Member, place: Place) -> Iterator[bytes]:
        if place.method == _STORED:
            yield from self._packed(member, place)
        elif place.method == _DEFLATED:
            try:
                yield from _inflate(self._packed(member, place), member.bytes)
            except InflateError as fault:
                raise damaged(self.name, f"{shown(member.path)} does not inflate ({fault})") from None
        else:
            yield from self._decoded(member, place)

    def _decoded(self, member: Member, place: Place) -> Iterator[bytes]:
        """What a member of a rarer method unpacks to."""
        from larder.sources import decoders

        decode = decoders.of_zip(place.method)
        assert decode is not None, "scan refuses other methods"
        try:
            yield from decode(self._packed(member, place), member.bytes)
        except decoders.FAULTS as fault:
            if isinstance(fault, OSError) and fault.errno is not None:
                raise
            raise _undecodable(self.name, member.path, place.method, fault) from None

    def _packed(self, member: Member, place: Place) -> Iterator[bytes]:
        """The member's bytes as they lie in the archive. The first read takes header and data in one."""
        guess = _LOCAL.size + len(member.path.encode()) + _NEXT_PROBE_BYTES
        head = self.bytes_at(place.offset, guess + min(place.bytes, CHUNK_BYTES))
        start = self.content_at(head, member)
        first = head[start : start + place.bytes]
        yield first
        end = place.offset + start + place.bytes
        yield from self.chunks_at(place.offset + start + len(first), end, member.path)

    def content_at(self, head: bytes, member: Member) -> int:
        """Where a member's content begins, counted from its local header, `head`."""
        if len(head) < _LOCAL.size or not head.startswith(b"PK\x03\x04"):
            raise damaged(self.name, f"{shown(member.path)} is not where the directory says")
        *_, names, extras = _LOCAL.unpack_from(head)
        return _LOCAL.size + int(names) + int(extras)

    def range_of(self, member: Member) -> tuple[int, int] | None:
        """See `PositionedFile.range_of`."""
        place: Place = member.place
        if place.method != _STORED or place.bytes != member.bytes:
            return None
        content = place.offset + self.content_at(self.bytes_at(place.offset, _LOCAL.size), member)
        return self._start + content, place.bytes


def deflated_range_of(archive: ZipSource, member: Member) -> tuple[int, int] | None:
    """Start and length of a member's bytes in the file, if they lie there deflated."""
    place: Place = member.place
    if place.method != _DEFLATED:
        return None
    head = archive.bytes_at(place.offset, _LOCAL.size)
    return place.offset + archive.content_at(head, member), place.bytes


def is_zip(tail: bytes) -> bool:
    """Whether a file is a zip that ends with `tail`, its last 64 KiB and more: it may begin with a program."""
    at = _find_end(tail)
    if at < 0:
        return False
    _, _, _, _, count, size, _, _ = _END.unpack_from(tail, at)
    return size > at or count == 0 or tail.startswith(b"PK\x01\x02", at - size) or b"PK\x06\x07" in tail


def _find_end(tail: bytes) -> int:
    """Where the end record begins, or -1. The one whose comment ends the file is it, even if that holds another."""
    at = last = tail.rfind(b"PK\x05\x06", 0, max(0, len(tail) - _END.size + 4))
    while at >= 0:
        if at + _END.size + _END.unpack_from(tail, at)[-1] == len(tail):
            return at
        at = tail.rfind(b"PK\x05\x06", 0, at)
    return last


def _why_unreadable(entry: Entry) -> tuple[str, str] | None:
    """What keeps an entry from being read, and the next step; None when nothing does."""
    method = entry.place.method
    if entry.flags & _ENCRYPTED or method == _AES:
        return "is encrypted", "unpack it with its password (`7z x`) and give the folder as the source"
    from larder.sources import decoders
    from larder.sources.formats import METHODS

    if decoders.of_zip(method) is not None:
        return None
    return f"is compressed with {METHODS.get(method, 'an unknown method')} (method {method})", _7ZIP


def _undecodable(source: str, path: str, method: int, fault: Exception) -> BadSourceError:
    """The error for a member of a rarer method that doesn't unpack: another program may know more of it."""
    from larder.sources.formats import METHODS

    why = "Windows Explorer packs archives of 2 GB and more with Deflate64: " if method == _DEFLATE64 else ""
    return BadSourceError(
        f"{source} is damaged: {shown(path)} does not unpack from {METHODS[method]} ({fault or 'it breaks off'})",
        next_step=f"{why}{_7ZIP}; if that fails as well, get the file again",
    )


def _inflate(packed: Iterator[bytes], size: int) -> Iterator[bytes]:
    inflater = isal_zlib.decompressobj(-15)
    most = min(size + 1, CHUNK_BYTES)  # a buffer that fits; one byte more shows a size that is a lie
    for piece in packed:
        while piece and not inflater.eof:
            yield inflater.decompress(piece, most)
            piece = inflater.unconsumed_tail
        if inflater.eof:
            return
    if tail := inflater.flush():
        yield tail


def _is_utf8(raw: bytes) -> bool:
    """Archivers on Unix and macOS write UTF-8 names without saying so; cp437 text is hardly ever valid UTF-8."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of an extra field: kind and content."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        yield kind, extra[at + 4 : at + 4 + size]
        at += 4 + size


def _zip64(extra: bytes, unpacked: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Replace the 32-bit fields that are full by the Zip64 extra field's, which holds only those, in this order."""
    fields = [unpacked, packed, offset]
    for kind, content in _fields(extra):
        if kind == 0x0001:
            values = iter(value for (value,) in struct.iter_unpack("<Q", content[: len(content) // 8 * 8]))
            fields = [next(values, field) if field == _FULL else field for field in fields]
    return fields[0], fields[1], fields[2]


def _unicode_path(raw: bytes, extra: bytes) -> str | None:
    """The name in the Unicode path field, where there is one and it is of this name."""
    for kind, content in _fields(extra):
        if kind == 0x7075 and len(content) > _UNICODE_PATH.size:
            version, crc = _UNICODE_PATH.unpack_from(content)
            if version == 1 and crc == isal_zlib.crc32(raw):
                return content[_UNICODE_PATH.size :].decode(errors="surrogateescape")
    return None
