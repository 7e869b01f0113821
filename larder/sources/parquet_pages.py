"""Find the byte ranges of a binary column's values in a Parquet file, so that each value can be fetched alone.

A column chunk is a sequence of pages, each with a header in Thrift's compact protocol. A value is stored in a page, or
in the dictionary to which the page refers, as its length in 4 bytes and its bytes. pyarrow doesn't tell where they are.
Formats: https://parquet.apache.org/docs/file-format/data-pages/ and .../encodings/, and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from larder.codecs import Codec, decompress

ReadRange = Callable[[int, int], bytes]
"""Function that returns `length` bytes from `offset` on, or fewer at the end of the file."""
CODECS: dict[str, Codec | None] = {"UNCOMPRESSED": None, "SNAPPY": "snappy", "GZIP": "gzip"}
"""Supported compression of pages, by pyarrow's name; None means uncompressed."""
MAX_PAGE_BYTES = 1 << 30

_DATA, _INDEX, _DICTIONARY, _DATA_V2 = 0, 1, 2, 3  # PageType
_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY = 0, 2, 8  # Encoding
_HEADER_BYTES = (1 << 10, 1 << 16, 16 << 20)
"""Bytes to read for a header, in up to three attempts. Headers are large if their statistics hold large values."""
_MAX_DEPTH = 8


class ColumnChunk(NamedTuple):
    """A column in a row group, as the footer describes it."""

    offset: int
    bytes: int
    values: int
    codec: Codec | None
    deepest_level: int
    """Definition level of a value that isn't null; 0 if the column has no nulls."""


class ColumnValue(NamedTuple):
    """A value and its place: `packed` compressed bytes at `offset`, and position `at` in the decompressed bytes.

    `packed` and `at` are None if the value is stored uncompressed at `offset`.
    """

    offset: int
    packed: int | None
    at: int | None
    data: bytes


class PageSize(NamedTuple):
    """Size and type of a page, from its header."""

    bytes: int
    """Decompressed size."""
    is_dictionary: bool


class PageError(ValueError):
    """A page is damaged or has an unsupported format."""


class _PageHeader(NamedTuple):
    """A page's header, and where the page lies in the file."""

    kind: int
    """PageType."""
    body: int
    """Position of the first byte after the header."""
    packed: int
    """Compressed length of the body."""
    size: int
    """Decompressed length of the body."""
    header: dict[int, Any]
    """Fields of the header for this type of page, by number."""
    end: int
    """Position of the first byte after the page."""


def read_values(read: ReadRange, chunk: ColumnChunk) -> Iterator[ColumnValue]:
    """Yield every value of a column chunk, in the order of the rows.

    Args:
        read: Reads byte ranges of the file.
        chunk: The column chunk.

    Raises:
        PageError: If a page is damaged or unsupported, or a value is missing.
    """
    at, end, left = chunk.offset, chunk.offset + chunk.bytes, chunk.values
    dictionary: Sequence[ColumnValue] = ()
    while left:
        if at >= end:
            raise PageError(f"{left:,} values are missing at its end")
        page = _read_header(read, at, end)
        at = page.end
        if page.kind == _DICTIONARY:
            dictionary = list(_decode_plain(_PageBody(read, page, chunk.codec, 0), _count(page, 1)))
        elif page.kind in (_DATA, _DATA_V2):
            values = list(_read_data_page(read, page, chunk, dictionary))
            left -= len(values)
            if left < 0 or not values:
                raise PageError("a page has another number of values than it states")
            yield from values
        elif page.kind != _INDEX:
            raise PageError(f"a page is of the unknown kind {page.kind}")


def page_sizes(read: ReadRange, start: int, length: int) -> Iterator[PageSize]:
    """Yield the sizes of a column chunk's pages, without decompressing any.

    Check the sizes before reading the pages, since readers allocate memory for what the headers state.

    Args:
        read: Reads byte ranges of the file.
        start: Position of the column chunk.
        length: Length of the column chunk in bytes.

    Raises:
        PageError: If a page's header is damaged, or a page reaches beyond the chunk.
    """
    at, end = start, start + length
    while at < end:
        page = _read_header(read, at, end)
        at = page.end
        yield PageSize(page.size, page.kind == _DICTIONARY)


class _PageBody:
    """The decompressed content of a page, after its header and `skipped` bytes that are never compressed."""

    def __init__(self, read: ReadRange, page: _PageHeader, codec: Codec | None, skipped: int) -> None:
        if max(page.size, page.packed) > MAX_PAGE_BYTES:
            raise PageError(f"a page has {page.size:,} bytes; at most {MAX_PAGE_BYTES:,} are read at once")
        self._offset, self._packed, self._codec = page.body + skipped, page.packed - skipped, codec
        raw = read(self._offset, self._packed)
        if len(raw) != self._packed:
            raise PageError("a page breaks off")
        size = page.size - skipped
        try:
            self.data = raw if codec is None else decompress(codec, raw, size)
        except ValueError as fault:
            raise PageError(f"a page can't be unpacked: {fault}") from None
        if len(self.data) != size:
            raise PageError("a page unpacks to another length than it states")

    def value(self, begin: int, end: int) -> ColumnValue:
        data = self.data[begin:end]
        if self._codec is None:
            return ColumnValue(self._offset + begin, None, None, data)
        return ColumnValue(self._offset, self._packed, begin, data)


def _read_header(read: ReadRange, at: int, end: int) -> _PageHeader:
    if at < 0:
        raise PageError("it begins before the file")
    for length in _HEADER_BYTES:
        data = read(at, min(length, end - at))
        try:
            fields, header_bytes = _parse_struct(data, 0)
        except IndexError:
            continue
        kind, size, packed = (_number_field(fields, number) for number in (1, 2, 3))
        if size < 0 or packed < 0 or at + header_bytes + packed > end:
            break
        header = fields.get({_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}.get(kind, 0))
        if header is not None and not isinstance(header, dict):
            break
        return _PageHeader(kind, at + header_bytes, packed, size, header or {}, at + header_bytes + packed)
    raise PageError("the header of a page is damaged")


def _number_field(fields: dict[int, Any], number: int) -> int:
    """Return a numeric field; -1 if it is missing or isn't a number."""
    value = fields.get(number)
    return value if isinstance(value, int) else -1


def _count(page: _PageHeader, number: int) -> int:
    """Return a count from the header of a page's type; 0 if it is missing."""
    value = page.header.get(number, 0)
    if not isinstance(value, int) or value < 0:
        raise PageError("the header of a page is damaged")
    return value


def _read_data_page(
    read: ReadRange, page: _PageHeader, chunk: ColumnChunk, dictionary: Sequence[ColumnValue]
) -> Iterator[ColumnValue]:
    header, deepest = page.header, chunk.deepest_level
    count = _count(page, 1)
    if page.kind == _DATA_V2:
        levels = _count(page, 5)
        if header.get(6) or levels > page.packed:
            raise PageError("a page has lists of values")
        codec = chunk.codec if header.get(7, True) else None
        body, encoding, at = _PageBody(read, page, codec, levels), header.get(4), 0
        has_no_nulls = not header.get(2)
    else:
        body, encoding, at, has_no_nulls = _PageBody(read, page, chunk.codec, 0), header.get(2), 0, True
        if deepest:
            length = int.from_bytes(body.data[:4], "little")
            at = 4 + length
            levels_found = _decode_hybrid(body.data[4:at], deepest.bit_length(), count)
            has_no_nulls = all(level == deepest for level in levels_found)
    if not has_no_nulls:
        raise PageError("a row has no image")
    if encoding == _PLAIN:
        yield from _decode_plain(body, count, at)
    elif encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY) and at < len(body.data):
        for number in _decode_hybrid(body.data[at + 1 :], body.data[at], count):
            if number >= len(dictionary):
                raise PageError("a page refers to an entry that its dictionary lacks")
            yield dictionary[number]
    else:
        raise PageError(f"a page has the encoding {encoding}, which isn't supported")


def _decode_plain(body: _PageBody, count: int, at: int = 0) -> Iterator[ColumnValue]:
    for _ in range(count):
        begin = at + 4
        at = begin + int.from_bytes(body.data[at:begin], "little")
        if at > len(body.data) or begin > len(body.data):
            raise PageError("a value goes beyond its page")
        yield body.value(begin, at)


def _decode_hybrid(data: bytes, width: int, count: int) -> Iterator[int]:
    """Decode `count` numbers of `width` bits from Parquet's hybrid of run lengths and bit-packed groups of eight."""
    if width > 32:
        raise PageError("a page has numbers of more than 32 bits")
    at, left, size = 0, count, (width + 7) // 8
    try:
        while left:
            header, at = _parse_varint(data, at)
            if header & 1:
                groups = min(header >> 1, left // 8 + 1)
                packed = int.from_bytes(data[at : at + groups * width], "little")
                if at + groups * width > len(data) and width:
                    raise IndexError
                at += (header >> 1) * width
                for position in range(min(groups * 8, left)):
                    yield packed >> position * width & (1 << width) - 1
                left -= min(groups * 8, left)
            else:
                run, value = min(header >> 1, left), int.from_bytes(data[at : at + size], "little")
                if not run or at + size > len(data):
                    raise IndexError
                at, left = at + size, left - run
                for _ in range(run):
                    yield value
    except IndexError:
        raise PageError("the numbers of a page break off") from None


def _parse_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
    raise PageError("a number is too long")


def _parse_struct(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """Parse a struct in Thrift's compact protocol into its fields by number. Raises IndexError if `data` end early."""
    if depth > _MAX_DEPTH:
        raise PageError("the header of a page is damaged")
    fields: dict[int, Any] = {}
    number = 0
    while (head := data[at]) != 0:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            raw, at = _parse_varint(data, at)
            number = raw >> 1 ^ -(raw & 1)
        kind = head & 15
        if kind in (1, 2):
            fields[number] = kind == 1
        else:
            fields[number], at = _parse_field(data, at, kind, depth)
    return fields, at + 1


def _parse_field(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind == 3:
        return data[at], at + 1
    if kind in (4, 5, 6):
        raw, at = _parse_varint(data, at)
        return raw >> 1 ^ -(raw & 1), at
    if kind == 7:
        return None, at + 8
    if kind == 8:
        length, at = _parse_varint(data, at)
        if at + length > len(data):
            raise IndexError
        return None, at + length
    if kind == 12:
        return _parse_struct(data, at, depth + 1)
    raise PageError("the header of a page is damaged")
