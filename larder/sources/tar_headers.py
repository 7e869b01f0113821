"""Parse the headers of a tar archive one at a time: v7, ustar, GNU and pax.

The standard library's reader isn't used (docs/decisions/0003-archive-readers.md): it reads each whole pax header and
long name into memory, recurses for several in a row, keeps the content of global headers, and follows the maps of
sparse files without a limit. Formats: POSIX.1-2017, pax, and GNU tar's manual, "Basic Tar Format".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from larder.sources.limits import ReadMeter
from larder.sources.members import (
    BadSourceError,
    EntryFaults,
    Member,
    UnsafeNameError,
    damaged_source_error,
    is_litter,
    link_target,
    quote_name,
    safe_path,
    unsafe_source_error,
)

BLOCK_BYTES = 512
_ZEROS = bytes(BLOCK_BYTES)
_MAX_EXTENSION_BYTES = 1 << 20
_REGULAR, _HARD_LINK, _SYMLINK, _DEVICES, _FOLDERS = b"\x000\x37", b"1", b"2", b"346", b"5D"
_PAX, _LONG_NAME, _LONG_LINK, _SPARSE, _MULTI_VOLUME, _LABEL = b"xgX", b"L", b"K", b"S", b"M", b"V"
_EXTENSIONS = _PAX + _LONG_NAME + _LONG_LINK
_WITHOUT_CONTENT = _HARD_LINK + _SYMLINK + _DEVICES + b"5" + _LABEL  # even if the header states a size


class TarCursor(Protocol):
    """Position in an archive that is read from front to back."""

    position: int

    def take(self, length: int) -> bytes:
        """Read the next `length` bytes, or fewer at the end."""

    def skip_to(self, position: int) -> None:
        """Move forward to `position`."""


class TarHeader(NamedTuple):
    """A header, combined with the headers that extend it. `position` is where its content begins."""

    name: str
    kind: bytes
    size: int
    link: str
    sparse: bool
    position: int

    @property
    def end(self) -> int:
        """Position of the next header."""
        length = 0 if self.kind in _WITHOUT_CONTENT else self.size
        return self.position + length + -length % BLOCK_BYTES


def is_header(block: bytes) -> bool:
    """Return whether a block has the checksum of a tar header of any format."""
    return len(block) == BLOCK_BYTES and block != _ZEROS and _has_checksum(block)


def read_members(
    cursor: TarCursor, source: str, meter: ReadMeter, faults: EntryFaults | None = None
) -> Iterator[Member]:
    """Yield every file and link except litter. A member's `location` is the position of its content.

    Args:
        cursor: Reads the archive.
        source: Name of the archive in messages.
        meter: Counts files and bytes.
        faults: Collects unsafe entries; if None, the first one raises an error.

    Raises:
        InputError: If the archive is damaged.
    """
    while (entry := _next_entry(cursor, source, meter)) is not None:
        if entry.kind in _FOLDERS + _LABEL or is_litter(entry.name):
            meter.count_skipped()
            meter.count_overhead(entry.end - entry.position)
        else:
            try:
                member = _member(entry)
                meter.count_file(member.bytes)
                meter.count_overhead(entry.end - entry.position - member.bytes)
                yield member
            except UnsafeNameError as fault:
                if faults is None:
                    raise unsafe_source_error(source, entry.name, fault) from None
                faults.add(entry.name, fault)
                if entry.kind == _SPARSE:
                    raise faults.error(source) from None  # the position of the next header isn't known
        cursor.skip_to(entry.end)
    _require_zeros(cursor, source, meter)


def _member(entry: TarHeader) -> Member:
    path = safe_path(entry.name)
    if entry.sparse or entry.kind == _SPARSE:
        raise UnsafeNameError("is a sparse file, which can't be an image")
    if entry.kind == _SYMLINK:
        return Member(path, 0, entry.position, link=link_target(path, entry.link))
    if entry.kind == _HARD_LINK:
        return Member(path, 0, entry.position, link=safe_path(entry.link))
    if entry.kind in _REGULAR:
        return Member(path, entry.size, entry.position)
    if entry.kind in _DEVICES:
        raise UnsafeNameError("is a device or pipe")
    if entry.kind == _MULTI_VOLUME:
        raise UnsafeNameError("continues another volume: join the volumes first")
    raise UnsafeNameError(f"is of the unknown kind {entry.kind!r}")


def _next_entry(cursor: TarCursor, source: str, meter: ReadMeter) -> TarHeader | None:
    """Return the next entry, combined with the headers that extend it, or None at the end of the archive."""
    extensions: dict[str, str] = {}
    while True:
        at = cursor.position
        block = cursor.take(BLOCK_BYTES)
        meter.count_overhead(BLOCK_BYTES)
        if len(block) < BLOCK_BYTES:
            raise damaged_source_error(source, "it has no end-of-archive block, so it was cut off")
        if block == _ZEROS:
            return None
        if not _has_checksum(block):
            raise damaged_source_error(source, f"there is no header at byte {at:,}")
        kind, size = block[156:157], _number(block[124:136], source)
        if kind not in _EXTENSIONS:
            return _entry(block, kind, size, extensions, cursor.position, source)
        content = _read_extension(cursor, kind, size, source, meter)
        if kind in _PAX:
            if kind != b"g":  # global headers have nothing that is needed here
                extensions.update(_pax_records(content, source))
        else:
            extensions["path" if kind == _LONG_NAME else "linkpath"] = _text(content)


def _entry(block: bytes, kind: bytes, size: int, extensions: dict[str, str], position: int, source: str) -> TarHeader:
    name = extensions.get("path") or _name(block)
    if "size" in extensions:
        size = _decimal(extensions["size"], source)
    if name.endswith("/") and kind in b"\x000":  # a folder in v7
        kind = b"5"
    return TarHeader(
        name, kind, size, extensions.get("linkpath") or _text(block[157:257]), "sparse" in extensions, position
    )


def _name(block: bytes) -> str:
    """Return the name in the header itself. Only ustar has a prefix: GNU stores times in its place, v7 nothing."""
    name = _text(block[:100])
    if block[257:262] != b"ustar" or block[262:264] == b"  ":
        return name
    prefix = _text(block[345 : 476 if block[508:512] == b"tar\0" else 500])  # star's is shorter
    return f"{prefix}/{name}" if prefix else name


def _read_extension(cursor: TarCursor, kind: bytes, size: int, source: str, meter: ReadMeter) -> bytes:
    """Read the content of a header that extends the next one."""
    if size > _MAX_EXTENSION_BYTES:
        what = "a pax header" if kind in _PAX else "a name"
        raise BadSourceError(
            f"{source} is refused: it has {what} of {size:,} bytes, and {_MAX_EXTENSION_BYTES:,} are read at most",
            next_step="unpack it by hand and give the folder as the source, or pack it without extended attributes",
        )
    padded = size + -size % BLOCK_BYTES
    meter.count_overhead(padded)
    content = cursor.take(padded)
    if len(content) < padded:
        raise damaged_source_error(source, "a header breaks off, so it was cut off")
    return content[:size]


def _pax_records(content: bytes, source: str) -> Iterator[tuple[str, str]]:
    r"""Yield the relevant records of a pax header. A record is `<length> <key>=<value>\n`; the length includes all."""
    at = 0
    while at < len(content) and content[at]:
        space = content.find(b" ", at, at + 20)
        length = content[at:space]
        end = at + int(length) if space > at and length.isdigit() else 0
        equals = content.find(b"=", space, end)
        if equals < 0 or not space < end <= len(content) or content[end - 1 : end] != b"\n":
            raise damaged_source_error(source, "a pax header is malformed")
        key = content[space + 1 : equals]
        if key in (b"path", b"linkpath", b"size"):
            yield key.decode(), _decode(content[equals + 1 : end - 1])
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
    return total == expected or total - 256 * sum(byte > 127 for byte in rest) == expected  # some tools sum as signed


def _number(field: bytes, source: str) -> int:
    """Parse a size: octal digits, or a binary number (GNU, star) if the first bit is set."""
    if field[0] & 0x80:
        number = int.from_bytes(field[1:], "big")
        if field[0] == 0x80 and number < 1 << 63:
            return number
        raise damaged_source_error(source, "a header states an impossible size")
    digits = field.split(b"\0", 1)[0].strip()
    try:
        return int(digits or b"0", 8) if not digits or digits.isdigit() else _decimal("", source)
    except ValueError:
        raise damaged_source_error(source, f"a header states the size {field!r}") from None


def _decimal(text: str, source: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise damaged_source_error(source, f"a header states the size {quote_name(text)}")
    return int(text)


def _text(field: bytes) -> str:
    return _decode(field.split(b"\0", 1)[0])


def _decode(text: bytes) -> str:
    return text.decode(errors="surrogateescape")  # safe_path refuses invalid names and shows them


def _require_zeros(cursor: TarCursor, source: str, meter: ReadMeter) -> None:
    """Read to the end of the file. This verifies a compressed file's checksum, and detects an appended archive."""
    while chunk := cursor.take(1 << 20):
        meter.count_overhead(len(chunk))
        if chunk.strip(b"\0"):
            raise damaged_source_error(source, "there are data after its end: does the file hold several archives?")
