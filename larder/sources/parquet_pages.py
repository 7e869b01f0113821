"""Where the values of a column of bytes lie in a Parquet file, so that each can be fetched by itself.

A column chunk is a row of pages, each with a header in Thrift's compact protocol. In a page, or in the dictionary that
it refers to, a value is its length in 4 bytes and its bytes. pyarrow reads pages, but doesn't say where they are.
Formats: https://parquet.apache.org/docs/file-format/data-pages/ and .../encodings/, and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from larder.packed import Codec, unpack

Read = Callable[[int, int], bytes]
"""The bytes from an offset on, so many of them, or fewer at the file's end."""
CODECS: dict[str, Codec | None] = {"UNCOMPRESSED": None, "SNAPPY": "snappy", "GZIP": "gzip"}
"""The codecs of pages that can be read, by pyarrow's names; None for none."""
MOST_PAGE_BYTES = 1 << 30

_DATA, _INDEX, _DICTIONARY, _DATA_V2 = 0, 1, 2, 3  # PageType
_PLAIN, _PLAIN_DICTIONARY, _RLE_DICTIONARY = 0, 2, 8  # Encoding
_HEADER_BYTES = (1 << 10, 1 << 16, 16 << 20)
"""What is read of a header at first, and then: statistics hold the least and largest value."""
_DEEPEST = 8


class Chunk(NamedTuple):
    """A column in a row group, as the footer describes it."""

    offset: int
    bytes: int
    values: int
    codec: Codec | None
    deepest_level: int
    """The definition level of a value that is there: 0 where none may be missing."""


class Value(NamedTuple):
    """A value and where it lies: `packed` bytes at `offset`, in what they unpack to from `at` on.

    Both are None where it lies at `offset` as it is.
    """

    offset: int
    packed: int | None
    at: int | None
    data: bytes


class PageSize(NamedTuple):
    """What the header of a page says."""

    bytes: int
    """When it is unpacked."""
    is_dictionary: bool


class PageError(ValueError):
    """A page that isn't understood, or is damaged."""


class _Page(NamedTuple):
    kind: int
    body: int
    packed: int
    size: int
    header: dict[int, Any]
    end: int


def values_of(read: Read, chunk: Chunk) -> Iterator[Value]:
    """Every value of a chunk, in the order of the rows. Raises PageError where one is missing, too."""
    at, end, left = chunk.offset, chunk.offset + chunk.bytes, chunk.values
    dictionary: Sequence[Value] = ()
    while left:
        if at >= end:
            raise PageError(f"{left:,} values are missing at its end")
        page = _page(read, at, end)
        at = page.end
        if page.kind == _DICTIONARY:
            dictionary = list(_plain(_Body(read, page, chunk.codec, 0), int(page.header.get(1, 0))))
        elif page.kind in (_DATA, _DATA_V2):
            found = list(_data(read, page, chunk, dictionary))
            left -= len(found)
            if left < 0 or not found:
                raise PageError("a page has another number of values than it states")
            yield from found
        elif page.kind != _INDEX:
            raise PageError(f"a page is of the unknown kind {page.kind}")


def page_sizes(read: Read, start: int, length: int) -> Iterator[PageSize]:
    """The pages of a column chunk of `length` bytes, before anything unpacks one: readers take a header's word.

    Raises PageError where no page begins, and for one that reaches beyond the chunk.
    """
    at, end = start, start + length
    while at < end:
        page = _page(read, at, end)
        at = page.end
        yield PageSize(page.size, page.kind == _DICTIONARY)


class _Body:
    """What a page holds behind its header and `skipped` bytes that are never packed."""

    def __init__(self, read: Read, page: _Page, codec: Codec | None, skipped: int) -> None:
        if max(page.size, page.packed) > MOST_PAGE_BYTES:
            raise PageError(f"a page has {page.size:,} bytes; at most {MOST_PAGE_BYTES:,} are read at once")
        self._offset, self._packed, self._codec = page.body + skipped, page.packed - skipped, codec
        raw = read(self._offset, self._packed)
        if len(raw) != self._packed:
            raise PageError("a page breaks off")
        size = page.size - skipped
        try:
            self.data = raw if codec is None else unpack(codec, raw, size)
        except ValueError as fault:
            raise PageError(f"a page can't be unpacked: {fault}") from None
        if len(self.data) != size:
            raise PageError("a page unpacks to another length than it states")

    def value(self, begin: int, end: int) -> Value:
        data = self.data[begin:end]
        if self._codec is None:
            return Value(self._offset + begin, None, None, data)
        return Value(self._offset, self._packed, begin, data)


def _page(read: Read, at: int, end: int) -> _Page:
    for length in _HEADER_BYTES:
        data = read(at, min(length, end - at))
        try:
            fields, header_bytes = _struct(data, 0)
        except IndexError:
            continue
        kind, size, packed = (_number(fields, number) for number in (1, 2, 3))
        if size < 0 or packed < 0 or at + header_bytes + packed > end:
            break
        header = fields.get({_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}.get(kind, 0)) or {}
        return _Page(kind, at + header_bytes, packed, size, header, at + header_bytes + packed)
    raise PageError("the header of a page is damaged")


def _number(fields: dict[int, Any], number: int) -> int:
    """A field that is a number; -1 for one that is missing or something else."""
    value = fields.get(number)
    return value if isinstance(value, int) else -1


def _data(read: Read, page: _Page, chunk: Chunk, dictionary: Sequence[Value]) -> Iterator[Value]:
    header, deepest = page.header, chunk.deepest_level
    count = int(header.get(1, 0))
    if page.kind == _DATA_V2:
        levels = int(header.get(5, 0))
        if header.get(6) or not 0 <= levels <= page.packed:
            raise PageError("a page has lists of values")
        codec = chunk.codec if header.get(7, True) else None
        body, encoding, at = _Body(read, page, codec, levels), header.get(4), 0
        whole = not header.get(2)
    else:
        body, encoding, at, whole = _Body(read, page, chunk.codec, 0), header.get(2), 0, True
        if deepest:
            length = int.from_bytes(body.data[:4], "little")
            at = 4 + length
            levels_found = _hybrid(body.data[4:at], deepest.bit_length(), count)
            whole = all(level == deepest for level in levels_found)
    if not whole:
        raise PageError("a row has no image")
    if encoding == _PLAIN:
        yield from _plain(body, count, at)
    elif encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY) and at < len(body.data):
        for number in _hybrid(body.data[at + 1 :], body.data[at], count):
            if number >= len(dictionary):
                raise PageError("a page refers to what its dictionary hasn't")
            yield dictionary[number]
    else:
        raise PageError(f"a page has the encoding {encoding}, which isn't read")


def _plain(body: _Body, count: int, at: int = 0) -> Iterator[Value]:
    for _ in range(count):
        begin = at + 4
        at = begin + int.from_bytes(body.data[at:begin], "little")
        if at > len(body.data) or begin > len(body.data):
            raise PageError("a value goes beyond its page")
        yield body.value(begin, at)


def _hybrid(data: bytes, width: int, count: int) -> Iterator[int]:
    """So many numbers of `width` bits, in runs and in groups of eight."""
    if width > 32:
        raise PageError("a page has numbers of more than 32 bits")
    at, left, size = 0, count, (width + 7) // 8
    try:
        while left:
            header, at = _varint(data, at)
            if header & 1:
                groups = min(header >> 1, left // 8 + 1)
                packed = int.from_bytes(data[at : at + groups * width], "little")
                if at + groups * width > len(data) and width:
                    raise IndexError
                at += (header >> 1) * width
                for place in range(min(groups * 8, left)):
                    yield packed >> place * width & (1 << width) - 1
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


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
    raise PageError("a number is too long")


def _struct(data: bytes, at: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """A structure in Thrift's compact protocol, by the numbers of its fields; IndexError where `data` end before it."""
    if depth > _DEEPEST:
        raise PageError("the header of a page is damaged")
    fields: dict[int, Any] = {}
    number = 0
    while (head := data[at]) != 0:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            raw, at = _varint(data, at)
            number = raw >> 1 ^ -(raw & 1)
        kind = head & 15
        if kind in (1, 2):
            fields[number] = kind == 1
        else:
            fields[number], at = _field(data, at, kind, depth)
    return fields, at + 1


def _field(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind == 3:
        return data[at], at + 1
    if kind in (4, 5, 6):
        raw, at = _varint(data, at)
        return raw >> 1 ^ -(raw & 1), at
    if kind == 7:
        return None, at + 8
    if kind == 8:
        length, at = _varint(data, at)
        if at + length > len(data):
            raise IndexError
        return None, at + length
    if kind == 12:
        return _struct(data, at, depth + 1)
    raise PageError("the header of a page is damaged")
