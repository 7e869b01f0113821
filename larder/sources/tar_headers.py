"""The headers of a tar archive, one at a time: v7, ustar, GNU and pax.

By hand, since the standard library's reader takes each pax header or long name into memory whole, calls itself for each
of several in a row, keeps what global headers say, and follows a sparse file's map wherever it leads
(docs/decisions/0003-archive-readers.md). Formats: POSIX.1-2017, pax, and GNU tar's manual, "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from larder.sources.limits import Meter
from larder.sources.members import (
    BadSourceError,
    Faults,
    Member,
    UnsafeNameError,
    damaged,
    is_litter,
    link_target,
    refuse,
    safe_path,
    shown,
)  # fmt: skip

BLOCK_BYTES = 512
_ZEROS = bytes(BLOCK_BYTES)
_LARGEST_EXTENSION_BYTES = 1 << 20
_REGULAR, _HARD_LINK, _SYMLINK, _DEVICES, _FOLDERS = b"\x000\x37", b"1", b"2", b"346", b"5D"
_PAX, _LONG_NAME, _LONG_LINK, _SPARSE, _CONTINUED, _LABEL = b"xgX", b"L", b"K", b"S", b"M", b"V"
_EXTENSIONS = _PAX + _LONG_NAME + _LONG_LINK
_WITHOUT_CONTENT = _HARD_LINK + _SYMLINK + _DEVICES + b"5" + _LABEL  # whatever size their header states


class Cursor(Protocol):
    """Where an archive is being read."""

    position: int

    def take(self, length: int) -> bytes:
        """The next bytes, fewer at the end."""

    def skip_to(self, position: int) -> None:
        """Go on at `position`, which is not before the present one."""


class Entry(NamedTuple):
    """A header with what extends it. `position` is where its content begins."""

    name: str
    kind: bytes
    size: int
    link: str
    sparse: bool
    position: int

    @property
    def end(self) -> int:
        """Where the next header begins."""
        length = 0 if self.kind in _WITHOUT_CONTENT else self.size
        return self.position + length + -length % BLOCK_BYTES


def is_header(block: bytes) -> bool:
    """Whether a block's checksum is that of a tar header, of whatever kind."""
    return len(block) == BLOCK_BYTES and block != _ZEROS and _has_checksum(block)


def members_of(cursor: Cursor, source: str, meter: Meter, faults: Faults | None = None) -> Iterator[Member]:
    """Every file and link, without litter; `place` is the position of its content.

    Unsafe entries are put into `faults`, or raised at once without. Raises InputError for a damaged archive.
    """
    while (entry := _next_entry(cursor, source, meter)) is not None:
        if entry.kind in _FOLDERS + _LABEL or is_litter(entry.name):
            meter.skip()
            meter.other(entry.end - entry.position)
        else:
            try:
                member = _member(entry)
                meter.count(member.bytes)
                meter.other(entry.end - entry.position - member.bytes)
                yield member
            except UnsafeNameError as fault:
                if faults is None:
                    raise refuse(source, entry.name, fault) from None
                faults.add(entry.name, fault)
                if entry.kind == _SPARSE:
                    raise faults.error(source) from None  # where it ends isn't known
        cursor.skip_to(entry.end)
    _require_zeros(cursor, source, meter)


def _member(entry: Entry) -> Member:
    path = safe_path(entry.name)
    if entry.sparse or entry.kind == _SPARSE:
        raise UnsafeNameError("is a sparse file, which no image is")
    if entry.kind == _SYMLINK:
        return Member(path, 0, entry.position, link=link_target(path, entry.link))
    if entry.kind == _HARD_LINK:
        return Member(path, 0, entry.position, link=safe_path(entry.link))
    if entry.kind in _REGULAR:
        return Member(path, entry.size, entry.position)
    if entry.kind in _DEVICES:
        raise UnsafeNameError("is a device or pipe")
    if entry.kind == _CONTINUED:
        raise UnsafeNameError("goes on from another volume: join the volumes first")
    raise UnsafeNameError(f"is of the unknown kind {entry.kind!r}")


def _next_entry(cursor: Cursor, source: str, meter: Meter) -> Entry | None:
    """The next entry, with what the headers before it say of it; None at the archive's end."""
    said: dict[str, str] = {}
    while True:
        at = cursor.position
        block = cursor.take(BLOCK_BYTES)
        meter.other(BLOCK_BYTES)
        if len(block) < BLOCK_BYTES:
            raise damaged(source, "it has no end-of-archive block, so it was cut off")
        if block == _ZEROS:
            return None
        if not _has_checksum(block):
            raise damaged(source, f"at byte {at:,}, where a header is due, there is none")
        kind, size = block[156:157], _number(block[124:136], source)
        if kind not in _EXTENSIONS:
            return _entry(block, kind, size, said, cursor.position, source)
        content = _extension(cursor, kind, size, source, meter)
        if kind in _PAX:
            if kind != b"g":  # what a global one may say of all files is of no use to us
                said.update(_records(content, source))
        else:
            said["path" if kind == _LONG_NAME else "linkpath"] = _text(content)


def _entry(block: bytes, kind: bytes, size: int, said: dict[str, str], position: int, source: str) -> Entry:
    name = said.get("path") or _name(block)
    if "size" in said:
        size = _decimal(said["size"], source)
    if name.endswith("/") and kind in b"\x000":  # as v7 has folders
        kind = b"5"
    return Entry(name, kind, size, said.get("linkpath") or _text(block[157:257]), "sparse" in said, position)


def _name(block: bytes) -> str:
    """The name as the header itself has it. Only ustar has a prefix: GNU keeps times in its place, v7 nothing."""
    name = _text(block[:100])
    if block[257:262] != b"ustar" or block[262:264] == b"  ":
        return name
    prefix = _text(block[345 : 476 if block[508:512] == b"tar\0" else 500])  # star's is shorter
    return f"{prefix}/{name}" if prefix else name


def _extension(cursor: Cursor, kind: bytes, size: int, source: str, meter: Meter) -> bytes:
    """The content of a header that extends the next one."""
    if size > _LARGEST_EXTENSION_BYTES:
        what = "a pax header" if kind in _PAX else "a name"
        raise BadSourceError(
            f"{source} is refused: it has {what} of {size:,} bytes, and {_LARGEST_EXTENSION_BYTES:,} are read at most",
            next_step="unpack it by hand and give the folder as the source, or pack it without extended attributes",
        )
    padded = size + -size % BLOCK_BYTES
    meter.other(padded)
    content = cursor.take(padded)
    if len(content) < padded:
        raise damaged(source, "a header breaks off, so it was cut off")
    return content[:size]


def _records(content: bytes, source: str) -> Iterator[tuple[str, str]]:
    """Those records of a pax header that matter here. They are `<length> <key>=<value>\\n`; the length counts all."""
    at = 0
    while at < len(content) and content[at]:
        space = content.find(b" ", at, at + 20)
        length = content[at:space]
        end = at + int(length) if space > at and length.isdigit() else 0
        equals = content.find(b"=", space, end)
        if equals < 0 or not space < end <= len(content) or content[end - 1 : end] != b"\n":
            raise damaged(source, "a pax header holds something else than records")
        key = content[space + 1 : equals]
        if key in (b"path", b"linkpath", b"size"):
            yield key.decode(), _decoded(content[equals + 1 : end - 1])
        elif key.startswith(b"GNU.sparse.") or key == b"SCHILY.realsize":
            yield "sparse", ""
        at = end


def _has_checksum(block: bytes) -> bool:
    stated = block[148:156].replace(b"\0", b" ").split()
    if not stated or not stated[0].isdigit() or b"8" in stated[0] or b"9" in stated[0]:
        return False
    expected = int(stated[0], 8)
    rest = block[:148] + block[156:]
    total = sum(rest) + 8 * ord(" ")
    return total == expected or total - 256 * sum(byte > 127 for byte in rest) == expected  # some packers sum signed


def _number(field: bytes, source: str) -> int:
    """A size: octal digits, or where its first bit is set, binary as GNU and star write it."""
    if field[0] & 0x80:
        number = int.from_bytes(field[1:], "big")
        if field[0] == 0x80 and number < 1 << 63:
            return number
        raise damaged(source, "a header states an impossible size")
    digits = field.split(b"\0", 1)[0].strip()
    try:
        return int(digits or b"0", 8) if not digits or digits.isdigit() else _decimal("", source)
    except ValueError:
        raise damaged(source, f"a header states the size {field!r}") from None


def _decimal(text: str, source: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise damaged(source, f"a header states the size {shown(text)}")
    return int(text)


def _text(field: bytes) -> str:
    return _decoded(field.split(b"\0", 1)[0])


def _decoded(text: bytes) -> str:
    return text.decode(errors="surrogateescape")  # names that aren't UTF-8 are refused by name


def _require_zeros(cursor: Cursor, source: str, meter: Meter) -> None:
    """Read on: a compressed file's checksum comes last, and another archive may have been appended."""
    while chunk := cursor.take(1 << 20):
        meter.other(len(chunk))
        if chunk.strip(b"\0"):
            raise damaged(source, "it goes on after its end: are there several archives in one file?")
