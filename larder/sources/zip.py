"""Read a zip archive as a source: stream its directory, and read members in parallel.

The standard library's reader isn't used (docs/decisions/0003-archive-readers.md): it keeps an object per member in
memory, about 100 MB for 200,000 files, and reads members one after another. This reader keeps one object at a time.
Format: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 (records), 4.5.3 (Zip64) and 4.6.9 (names in Unicode).
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

from isal import isal_zlib

from larder.sources.limits import ReadMeter, SourceLimits
from larder.sources.members import (
    BUFFER_BYTES,
    BadSourceError,
    EntryFaults,
    Member,
    UnsafeNameError,
    damaged_source_error,
    is_litter,
    link_target,
    quote_name,
    safe_path,
)
from larder.sources.random_access import RandomAccessArchive, ScanPlace

InflateError = cast(type[Exception], isal_zlib.error)  # isal's type stub calls it an instance

_END = struct.Struct("<4sHHHHIIH")  # end of central directory, 4.3.16
_END64_LOCATOR = struct.Struct("<4sIQI")  # 4.3.15
_END64 = struct.Struct("<4sQHHIIQQQQ")  # 4.3.14
_ENTRY = struct.Struct("<4s6H3I5H2I")  # central directory header, 4.3.12
_LOCAL = struct.Struct("<4s5H3I2H")  # local file header, 4.3.7
_UNICODE_PATH = struct.Struct("<BI")  # version, CRC-32 of the replaced name; 4.6.9
_MAX_TEXT_BYTES = 0xFFFF
_MAX_ENTRY_BYTES = _ENTRY.size + 3 * _MAX_TEXT_BYTES
_FULL = 0xFFFFFFFF
_WRAP = 1 << 32
_STORED, _DEFLATED, _DEFLATE64, _AES = 0, 8, 9, 99
_ENCRYPTED, _UTF8 = 0x1, 0x800
_UNIX = (3, 19)  # and macOS
_WINDOWS = (0, 6, 10, 11, 14)  # the hosts whose names can't hold a backslash: DOS, OS/2, Windows
_DOS_FOLDER = 0x10
_MAX_LINK_BYTES = 4096
_NEXT_PROBE_BYTES = 128  # extra bytes to read, since a local header's extra field may be longer than the central one
_7ZIP = "unpack it with 7-Zip (`7z x`) and give the folder as the source"


class ZipLocation(NamedTuple):
    """Place of a member: offset of its local header, compressed length, compression method, checksum."""

    offset: int
    bytes: int
    method: int
    crc32: int


class ZipDirectoryEntry(NamedTuple):
    """A member's entry in the directory. `mode` is the Unix mode, 0 if unknown; `raw_name` is not decoded."""

    name: str
    mode: int
    size: int
    location: ZipLocation
    raw_name: bytes
    flags: int


class ZipDirectory(NamedTuple):
    """Place of the central directory, its number of entries, and how to interpret their offsets."""

    entries: int
    start: int
    end: int
    wide: bool
    """Whether there is a Zip64 end record."""
    shift: int
    """Number of bytes in front of the archive that offsets don't include."""
    wrapped: bool
    """Whether offsets and sizes are modulo 2**32."""


class ZipSource(RandomAccessArchive):
    """The files of a zip archive. `RandomAccessArchive` describes the other arguments.

    Args:
        encoding: Encoding of names that state none. If empty, UTF-8 if the name is valid UTF-8, else cp437.
    """

    def __init__(
        self, path: Path, name: str, limits: SourceLimits, start: int = 0, length: int | None = None, encoding: str = ""
    ) -> None:
        super().__init__(path, name, limits, start, length)
        self.encoding = encoding
        self._reached: ScanPlace | None = None
        """Place after the entry that was read last."""

    def scan(self, meter: ReadMeter | None = None) -> Iterator[Member]:
        """See `Source.scan`."""
        self.faults, meter = EntryFaults(), meter or ReadMeter(self.name, self.limits)
        meter.files += self.begin.files
        for entry in self._directory(meter):
            name, size = entry.name, entry.size
            if name.endswith("/") or stat.S_ISDIR(entry.mode) or is_litter(name):
                meter.count_skipped()
                continue
            meter.count_file(size)
            if entry.location.bytes > size:
                # Many entries may share data that decompress to nothing.
                meter.count_overhead(entry.location.bytes - size)
            if entry.flags & _ENCRYPTED or entry.location.method not in (_STORED, _DEFLATED):
                unreadable = _find_unreadable_reason(entry)
                if unreadable is not None:
                    self.faults.add(name, *unreadable)
                    continue
            try:
                member = self._member(safe_path(name), entry)
            except UnsafeNameError as fault:
                self.faults.add(name, fault)
                continue
            self.place = None if self._reached is None else self._reached._replace(files=meter.files)
            yield member
        self.faults.raise_if_any(self.name)

    def _member(self, path: str, entry: ZipDirectoryEntry) -> Member:
        if stat.S_ISLNK(entry.mode):
            if entry.size > _MAX_LINK_BYTES:
                raise UnsafeNameError("is a link with too long a target")
            target = b"".join(self.read(Member(path, entry.size, entry.location))).decode(errors="surrogateescape")
            return Member(path, 0, entry.location, link=link_target(path, target))
        if entry.mode and stat.S_IFMT(entry.mode) not in (0, stat.S_IFREG):
            raise UnsafeNameError("is a device, pipe or socket")
        return Member(path, entry.size, entry.location)

    def _directory(self, meter: ReadMeter) -> Iterator[ZipDirectoryEntry]:
        """Return the entries of the central directory."""
        length = self.length()
        directory = self._find_directory(length)
        meter.count_overhead(directory.end - directory.start)
        return self._unwrap_offsets(directory) if directory.wrapped else self._entries(directory, length)

    def _entries(self, directory: ZipDirectory, length: int) -> Iterator[ZipDirectoryEntry]:
        """Yield the entries as written, from `begin` on. `length` is that of the archive in bytes."""
        buffer, at, reached, count = b"", 0, self.begin.position or directory.start, self.begin.entries
        while at < len(buffer) or reached < directory.end:
            if len(buffer) - at < _MAX_ENTRY_BYTES and reached < directory.end:
                more = self.bytes_at(reached, min(BUFFER_BYTES, directory.end - reached))
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
            offset += directory.shift
            name, host = self._name(raw, flags, extra), made_by >> 8
            if "\\" in name and (host in _WINDOWS or "/" not in name):  # .NET and other Windows tools write such paths
                name = name.replace("\\", "/")
            if offset + packed > length:
                raise damaged_source_error(self.name, f"{quote_name(name)} lies beyond the file's end")
            mode = attributes >> 16 if host in _UNIX else 0
            if attributes & _DOS_FOLDER and not mode and not unpacked:
                mode = stat.S_IFDIR
            self._reached = None if directory.wrapped else ScanPlace(reached - len(buffer) + at, count)
            yield ZipDirectoryEntry(name, mode, unpacked, ZipLocation(offset, packed, method, crc), raw, flags)
        else:
            # Some archivers write more than 65,535 files without a Zip64 end record.
            if count != directory.entries and (directory.wide or count % 0x10000 != directory.entries):
                raise damaged_source_error(
                    self.name, f"its directory lists {count:,} files, and its end record states {directory.entries:,}"
                )
            return
        raise damaged_source_error(self.name, "its directory of files breaks off")

    def _name(self, raw: bytes, flags: int, extra: bytes) -> str:
        """Decode an entry's name. Keep invalid bytes as surrogates, so that the error can show the name."""
        if flags & _UTF8:
            return raw.decode(errors="surrogateescape")
        if b"up" in extra and (text := _unicode_path(raw, extra)) is not None:
            return text
        if raw.isascii():
            return raw.decode()
        if self.encoding:
            return raw.decode(self.encoding, errors="surrogateescape")
        return raw.decode("utf-8" if _is_utf8(raw) else "cp437", errors="surrogateescape")

    def _unwrap_offsets(self, directory: ZipDirectory) -> Iterator[ZipDirectoryEntry]:
        """Yield the entries of an archive of more than 4 GiB without Zip64, as macOS' Archive Utility writes it.

        The entries are in the order of their offsets. So search each local header by its name, in steps of 4 GiB from
        the stated offset. Its data extend to the next header.
        """
        previous: ZipDirectoryEntry | None = None
        content = 0
        for entry in self._entries(directory, directory.start):
            offset, next_content = self._header_of(entry, content, directory.start)
            if previous is not None:
                yield self._restore_size(previous, offset - content)
            previous, content = entry._replace(location=entry.location._replace(offset=offset)), next_content
        if previous is not None:
            yield self._restore_size(previous, directory.start - content)

    def _header_of(self, entry: ZipDirectoryEntry, floor: int, end: int) -> tuple[int, int]:
        """Return the positions of an entry's local header and content, at or after `floor`."""
        offset = entry.location.offset
        offset += -(-max(0, floor - offset) // _WRAP) * _WRAP
        while offset < end:
            head = self.bytes_at(offset, _LOCAL.size + len(entry.raw_name))
            if head.startswith(b"PK\x03\x04") and head[_LOCAL.size :] == entry.raw_name:
                *_, names, extras = _LOCAL.unpack_from(head)
                return offset, offset + _LOCAL.size + names + extras
            offset += _WRAP
        raise BadSourceError(
            f"{self.name} has more than 4 GiB and no Zip64 records, and {quote_name(entry.name)} is not where "
            "its offset modulo 4 GiB says",
            next_step="unpack it with the program that made it (macOS: Archive Utility, or `ditto -x -k`) and give the "
            "folder as the source",
        )

    def _restore_size(self, entry: ZipDirectoryEntry, room: int) -> ZipDirectoryEntry:
        """Return an entry with its real sizes, which are stated modulo 2**32. `room` is the space to the next entry."""
        packed = entry.location.bytes
        if room < packed:
            raise damaged_source_error(self.name, f"{quote_name(entry.name)} overlaps the next file")
        if room - packed < _WRAP or self._is_whole(entry):
            return entry
        packed += (room - packed) // _WRAP * _WRAP
        size = packed if entry.location.method == _STORED else entry.size
        return entry._replace(size=size, location=entry.location._replace(bytes=packed))

    def _is_whole(self, entry: ZipDirectoryEntry) -> bool:
        """Return whether an entry's stated size is right. If so, 4 GiB or more of other data follow it."""
        try:
            for _ in self.read(Member(entry.name, entry.size, entry.location)):
                pass
        except BadSourceError:
            return False
        return True

    def _find_directory(self, length: int) -> ZipDirectory:
        """Find the central directory by the record at the end of the archive."""
        tail_at = max(0, length - _END.size - _MAX_TEXT_BYTES)
        tail = self.bytes_at(tail_at, length - tail_at)
        at = _find_end(tail)
        if at < 0:
            raise damaged_source_error(
                self.name, "it has no directory of files at its end, so it was cut off or isn't a zip"
            )
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
        return self._locate_directory(ZipDirectory(count, start, start + size, wide, 0, False), end)

    def _zip64_record(self, stated: int, locator_at: int) -> tuple[int, bytes]:
        """Return position and content of Zip64's end record: where its locator says, or right before the locator."""
        for at in (stated, locator_at - _END64.size):
            if 0 <= at <= locator_at - _END64.size:
                record = self.bytes_at(at, _END64.size)
                if record.startswith(b"PK\x06\x06"):
                    return at, record
        raise damaged_source_error(self.name, "its Zip64 end record is missing")

    def _locate_directory(self, stated: ZipDirectory, end: int) -> ZipDirectory:
        """Return the directory at its real place, which ends at `end`.

        It is after its stated place if other data precede the archive, such as a self-extracting program, or if offsets
        are modulo 4 GiB.
        """
        shift = end - stated.end
        if shift < 0:
            raise damaged_source_error(
                self.name, "its directory of files is not where the end record says: bytes are missing"
            )
        if shift == 0 or not self._is_entry(stated.start + shift):
            return stated
        moved = stated._replace(start=stated.start + shift, end=end)
        if shift % _WRAP == 0 and not stated.wide:
            first = self.bytes_at(moved.start, _ENTRY.size)
            if self.bytes_at(_ENTRY.unpack(first)[-1], 4) == b"PK\x03\x04":
                return moved._replace(wrapped=True)
        self._require_one_zip(shift)
        return moved._replace(shift=shift)

    def _require_one_zip(self, begin: int) -> None:
        """Raise BadSourceError if another zip ends where this one begins: only the last one would be read."""
        length = min(max(0, begin), _END.size + _MAX_TEXT_BYTES)
        preceding = self.bytes_at(begin - length, length) if length >= _END.size else b""
        at = _find_end(preceding)
        if at >= 0 and at + _END.size + _END.unpack_from(preceding, at)[-1] == len(preceding):
            raise BadSourceError(
                f"{self.name} is two zip archives or more, one behind the other, and only the last one can be read",
                next_step="split the file, or unpack each by hand, and give the folder as the source",
            )

    def _is_entry(self, at: int) -> bool:
        head = self.bytes_at(at, _ENTRY.size)
        return len(head) == _ENTRY.size and head.startswith(b"PK\x01\x02")

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`. Checks the size and the CRC-32."""
        location: ZipLocation = member.location
        crc, length = 0, 0
        for chunk in self._decompress(member, location):
            crc, length = isal_zlib.crc32(chunk, crc), length + len(chunk)
            if length > member.bytes:
                break
            yield chunk
        if length != member.bytes or crc != location.crc32:
            raise damaged_source_error(
                self.name, f"{quote_name(member.path)} does not have the size and CRC-32 that the archive states"
            )

    def _decompress(self, member: Member, location: ZipLocation) -> Iterator[bytes]:
        if location.method == _STORED:
            yield from self._read_compressed(member, location)
        elif location.method == _DEFLATED:
            try:
                yield from _inflate(self._read_compressed(member, location), member.bytes)
            except InflateError as fault:
                raise damaged_source_error(self.name, f"{quote_name(member.path)} does not inflate ({fault})") from None
        else:
            yield from self._decode_rare_method(member, location)

    def _decode_rare_method(self, member: Member, location: ZipLocation) -> Iterator[bytes]:
        """Decompress a member with one of the rarer methods."""
        from larder.sources import decoders

        decode = decoders.find_zip_decoder(location.method)
        assert decode is not None, "scan refuses other methods"
        try:
            yield from decode(self._read_compressed(member, location), member.bytes)
        except decoders.DECODE_ERRORS as fault:
            if isinstance(fault, OSError) and fault.errno is not None:
                raise
            raise _decode_error(self.name, member.path, location.method, fault) from None

    def _read_compressed(self, member: Member, location: ZipLocation) -> Iterator[bytes]:
        """Yield a member's bytes as stored. The first read gets the header and the data at once."""
        guess = _LOCAL.size + len(member.path.encode()) + _NEXT_PROBE_BYTES
        head = self.bytes_at(location.offset, guess + min(location.bytes, BUFFER_BYTES))
        start = self.content_at(head, member)
        first = head[start : start + location.bytes]
        yield first
        end = location.offset + start + location.bytes
        yield from self.iter_range(location.offset + start + len(first), end, member.path)

    def content_at(self, head: bytes, member: Member) -> int:
        """Return the position of a member's content, relative to its local header `head`."""
        if len(head) < _LOCAL.size or not head.startswith(b"PK\x03\x04"):
            raise damaged_source_error(self.name, f"{quote_name(member.path)} is not where the directory says")
        *_, names, extras = _LOCAL.unpack_from(head)
        return _LOCAL.size + int(names) + int(extras)

    def range_of(self, member: Member) -> tuple[int, int] | None:
        """See `RandomAccessArchive.range_of`."""
        location: ZipLocation = member.location
        if location.method != _STORED or location.bytes != member.bytes:
            return None
        content = location.offset + self.content_at(self.bytes_at(location.offset, _LOCAL.size), member)
        return self._start + content, location.bytes


def find_deflated_range(archive: ZipSource, member: Member) -> tuple[int, int] | None:
    """Return position and length of a member's deflated bytes in the file, or None for other methods."""
    location: ZipLocation = member.location
    if location.method != _DEFLATED:
        return None
    head = archive.bytes_at(location.offset, _LOCAL.size)
    return location.offset + archive.content_at(head, member), location.bytes


def is_zip(tail: bytes) -> bool:
    """Return whether a file is a zip, by its last 64 KiB and more, `tail`. It may begin with a program."""
    at = _find_end(tail)
    if at < 0:
        return False
    _, _, _, _, count, size, _, _ = _END.unpack_from(tail, at)
    return size > at or count == 0 or tail.startswith(b"PK\x01\x02", at - size) or b"PK\x06\x07" in tail


def _find_end(tail: bytes) -> int:
    """Find the end record: the one whose comment ends the file, even if the comment contains another. Else -1."""
    at = last = tail.rfind(b"PK\x05\x06", 0, max(0, len(tail) - _END.size + 4))
    while at >= 0:
        if at + _END.size + _END.unpack_from(tail, at)[-1] == len(tail):
            return at
        at = tail.rfind(b"PK\x05\x06", 0, at)
    return last


def _find_unreadable_reason(entry: ZipDirectoryEntry) -> tuple[str, str] | None:
    """Return why an entry can't be read, and the next step, or None if it can."""
    method = entry.location.method
    if entry.flags & _ENCRYPTED or method == _AES:
        return "is encrypted", "unpack it with its password (`7z x`) and give the folder as the source"
    from larder.sources import decoders
    from larder.sources.formats import ZIP_METHODS

    if decoders.find_zip_decoder(method) is not None:
        return None
    return f"is compressed with {ZIP_METHODS.get(method, 'an unknown method')} (method {method})", _7ZIP


def _decode_error(source: str, path: str, method: int, fault: Exception) -> BadSourceError:
    """Return the error for a member that a rarer method can't decompress; another program may support more of it."""
    from larder.sources.formats import ZIP_METHODS

    why = "Windows Explorer packs archives of 2 GB and more with Deflate64: " if method == _DEFLATE64 else ""
    return BadSourceError(
        f"{source} is damaged: {quote_name(path)} does not unpack from {ZIP_METHODS[method]} "
        f"({fault or 'it breaks off'})",
        next_step=f"{why}{_7ZIP}; if that fails as well, get the file again",
    )


def _inflate(packed: Iterator[bytes], size: int) -> Iterator[bytes]:
    inflater = isal_zlib.decompressobj(-15)
    max_bytes = min(size + 1, BUFFER_BYTES)  # a buffer that fits; one byte more detects a wrong size
    for piece in packed:
        while piece and not inflater.eof:
            yield inflater.decompress(piece, max_bytes)
            piece = inflater.unconsumed_tail
        if inflater.eof:
            return
    if tail := inflater.flush():
        yield tail


def _is_utf8(raw: bytes) -> bool:
    """Return whether a name is valid UTF-8, which Unix and macOS write unmarked. cp437 text is hardly ever valid."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of each part of an extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        yield kind, extra[at + 4 : at + 4 + size]
        at += 4 + size


def _zip64(extra: bytes, unpacked: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Replace full 32-bit fields by values of the Zip64 extra field, which has only those, in this order."""
    fields = [unpacked, packed, offset]
    for kind, content in _extra_fields(extra):
        if kind == 0x0001:
            values = iter(value for (value,) in struct.iter_unpack("<Q", content[: len(content) // 8 * 8]))
            fields = [next(values, field) if field == _FULL else field for field in fields]
    return fields[0], fields[1], fields[2]


def _unicode_path(raw: bytes, extra: bytes) -> str | None:
    """Return the name in the Unicode path field, or None without a field that belongs to this name."""
    for kind, content in _extra_fields(extra):
        if kind == 0x7075 and len(content) > _UNICODE_PATH.size:
            version, crc = _UNICODE_PATH.unpack_from(content)
            if version == 1 and crc == isal_zlib.crc32(raw):
                return content[_UNICODE_PATH.size :].decode(errors="surrogateescape")
    return None
