"""Find entries by path in an artifact's sorted index file, without loading it into memory."""

from __future__ import annotations

import bisect
import json
import mmap
from collections.abc import Iterator
from pathlib import Path

from larder.contract import MAX_LINE_BYTES, IndexEntry

_BLOCK_BYTES, _MAX_BLOCKS = 16 << 10, 1 << 14
_MAX_PATH_BYTES = 4096
"""Longest path: no file system and no store accepts longer ones."""
_MAPPED_BYTES = 64 << 20
"""Bytes to read before the process releases its mapped pages; the kernel may keep them in its cache."""
_MIN_LINE_BYTES = 64
"""Lower bound of a line's length: a sha256 alone has 64 digits."""


class SortedIndex:
    """The lines of an index.

    Keeps the first path of each block of lines in memory, and searches a block as bytes. The number of blocks is
    limited, so their paths take less than 100 MB for an index of any length.

    Raises ValueError for an invalid line: in the constructor for the first line of a block, for others on iteration.
    """

    def __init__(self, file: Path) -> None:
        with file.open("rb") as lines:
            self._lines = mmap.mmap(lines.fileno(), 0, access=mmap.ACCESS_READ) if file.stat().st_size else b""
        self._bytes_read = 0
        self._blocks: list[int] = []
        self._first_paths: list[bytes] = []
        begin, step = 0, max(_BLOCK_BYTES, len(self._lines) // _MAX_BLOCKS)
        while begin < len(self._lines):
            self._blocks.append(begin)
            self._first_paths.append(self._parse_line(begin, self.next_offset(begin)).path.encode())
            begin = self.next_offset(begin + step)
        self._blocks.append(len(self._lines))

    def __len__(self) -> int:
        """Return the length in bytes."""
        return len(self._lines)

    def __iter__(self) -> Iterator[IndexEntry]:
        """Yield every entry. Raises ValueError for an invalid line."""
        begin = 0
        while begin < len(self._lines):
            end = self.next_offset(begin)
            yield self._parse_line(begin, end)
            begin = end

    def _parse_line(self, begin: int, end: int) -> IndexEntry:
        if not _MIN_LINE_BYTES <= end - begin <= MAX_LINE_BYTES:
            raise ValueError(f"it has {end - begin:,} bytes")
        self._count_read(end - begin)
        entry = IndexEntry.checked(self._lines[begin:end])
        if len(entry.path.encode()) > _MAX_PATH_BYTES:
            raise ValueError(f"its path has more than {_MAX_PATH_BYTES:,} bytes")
        return entry

    def find_offset(self, path: str) -> int | None:
        """Return the offset of a path's line, or None if the index lacks it."""
        block = bisect.bisect_right(self._first_paths, path.encode()) - 1
        if block < 0:
            return None
        start = f'{{"path":{json.dumps(path, ensure_ascii=False)},'.encode()
        self._count_read(self._blocks[block + 1] - self._blocks[block])
        offset = self._lines.find(start, self._blocks[block], self._blocks[block + 1])
        return offset if offset >= 0 else None

    def entry_at(self, offset: int) -> IndexEntry:
        """Return the entry whose line begins at an offset."""
        return IndexEntry.from_json(self._lines[offset : self.next_offset(offset)])

    def find(self, path: str) -> IndexEntry | None:
        """Return the entry of a path, or None."""
        offset = self.find_offset(path)
        return None if offset is None else self.entry_at(offset)

    def _count_read(self, count: int) -> None:
        """Count the bytes read, and release the mapped pages when they exceed the limit."""
        self._bytes_read += count
        if self._bytes_read > _MAPPED_BYTES and isinstance(self._lines, mmap.mmap):
            self._lines.madvise(mmap.MADV_DONTNEED)
            self._bytes_read = 0

    def next_offset(self, offset: int) -> int:
        """Return the offset of the line after the one that holds `offset`."""
        return self._lines.find(b"\n", min(offset, len(self._lines) - 1)) + 1 or len(self._lines)


class SeenEntries:
    """Marks entries of an index as seen: one bit per possible entry."""

    def __init__(self, index: SortedIndex) -> None:
        self._index = index
        self._bits = bytearray(len(index) // (8 * _MIN_LINE_BYTES) + 1)

    def add(self, offset: int) -> bool:
        """Mark the entry at an offset. Return False if it was already marked."""
        byte, bit = divmod(offset // _MIN_LINE_BYTES, 8)
        new = not self._bits[byte] >> bit & 1
        self._bits[byte] |= 1 << bit
        return new

    def first_missing(self) -> IndexEntry | None:
        """Return the first entry that isn't marked, or None. Marks it."""
        offset = 0
        while offset < len(self._index):
            if self.add(offset):
                return self._index.entry_at(offset)
            offset = self._index.next_offset(offset)
        return None
