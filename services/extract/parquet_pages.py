"""The pages of a Parquet file, before anything decompresses one: a page's header says how large it becomes, and readers
take its word.

The format: https://parquet.apache.org/docs/file-format/ and parquet.thrift; headers are in Thrift's compact protocol:
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

_HEADER_BYTES, _MOST_HEADER_BYTES = 64 << 10, 16 << 20
"""What is read for a header at first, and the most that one may have: statistics hold the least and largest value."""
_MOST_DEPTH = 16
_UNPACKED, _PACKED, _DICTIONARY = 2, 3, 7  # the fields of a PageHeader
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12


class Page(NamedTuple):
    """A page: its length in the file, and the one that its header says it has unpacked."""

    packed: int
    unpacked: int
    is_dictionary: bool


def pages(path: Path, start: int, length: int) -> Iterator[Page]:
    """The pages of a column in a row group, which takes `length` bytes of the file from `start` on.

    Raises ValueError where no page begins, and for one that reaches beyond the column.
    """
    with path.open("rb") as file:
        at, end = start, start + length
        while at < end:
            page, header = _page(file, at, end - at)
            at += header + page.packed
            if at > end:
                raise ValueError(f"a page of {page.packed:,} bytes reaches beyond its column")
            yield page


def _page(file: IO[bytes], at: int, most: int) -> tuple[Page, int]:
    """The page whose header begins there, and the header's length."""
    for window in (_HEADER_BYTES, _MOST_HEADER_BYTES):
        file.seek(at)
        header = _Header(file.read(min(window, most)))
        try:
            fields = header.struct()
        except IndexError:
            continue
        packed, unpacked = fields.get(_PACKED, -1), fields.get(_UNPACKED, -1)
        if packed < 0 or unpacked < 0:
            raise ValueError("a page has no length")
        return Page(packed, unpacked, _DICTIONARY in fields), header.at
    raise ValueError("the header of a page doesn't end")


class _Header:
    """Thrift's compact protocol. Raises IndexError where the data end, ValueError where they are no struct."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def struct(self, depth: int = 0) -> dict[int, int]:
        """The numbers in a struct by their fields; 0 for each field that holds something else."""
        if depth > _MOST_DEPTH:
            raise ValueError("the header of a page is nested too deeply")
        found, field = dict[int, int](), 0
        while (head := self._byte()) != 0:
            step, kind = head >> 4, head & 15
            field = field + step if step else self._number()
            if kind in (_TRUE, _FALSE):  # the value is the kind
                found[field] = 0
            else:
                found[field] = self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> int:
        if _BYTE < kind < _DOUBLE:
            return self._number()
        if kind in (_TRUE, _FALSE, _BYTE):
            self._skip(1)
        elif kind == _DOUBLE:
            self._skip(8)
        elif kind == _BINARY:
            self._skip(self._varint())
        elif kind in (_LIST, _SET):
            head = self._byte()
            self._values((head & 15,), self._varint() if head >> 4 == 15 else head >> 4, depth)
        elif kind == _MAP:
            if count := self._varint():
                kinds = self._byte()
                self._values((kinds >> 4, kinds & 15), count, depth)
        elif kind == _STRUCT:
            self.struct(depth + 1)
        else:
            raise ValueError(f"the header of a page has a field of kind {kind}")
        return 0

    def _values(self, kinds: tuple[int, ...], count: int, depth: int) -> None:
        if depth > _MOST_DEPTH:
            raise ValueError("the header of a page is nested too deeply")
        for _ in range(count):
            for kind in kinds:
                self._value(kind, depth + 1)

    def _number(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("the header of a page holds a number that is too long")

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self._data):
            raise IndexError
