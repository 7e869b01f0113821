"""An artifact's index as a file in which entries are found by their paths: it is sorted, and never held in memory."""

from __future__ import annotations

import bisect
import json
import mmap
from collections.abc import Iterator
from pathlib import Path

from larder.contract import LINE_BYTES, IndexEntry

_BLOCK_BYTES, _MOST_BLOCKS = 16 << 10, 1 << 14
_MOST_PATH_BYTES = 4096
"""Of a path: no file system takes longer ones, and no store."""
_MAPPED_BYTES = 64 << 20
"""How much of the file may be in memory, of what was looked at last; the kernel keeps the rest as it likes."""
_SHORTEST_LINE_BYTES = 64
"""A line holds a sha256, and is longer."""


class SortedIndex:
    """The lines of an index. One path for each block of lines is kept, and a block is searched as bytes. However long
    an index is, there are so few blocks that their paths take less than 100 MB.

    Raises ValueError on a line that isn't one, here where a block begins, and for all others when it is iterated.
    """

    def __init__(self, file: Path) -> None:
        with file.open("rb") as lines:
            self._lines = mmap.mmap(lines.fileno(), 0, access=mmap.ACCESS_READ) if file.stat().st_size else b""
        self._touched = 0
        self._blocks: list[int] = []
        self._first: list[bytes] = []
        begin, step = 0, max(_BLOCK_BYTES, len(self._lines) // _MOST_BLOCKS)
        while begin < len(self._lines):
            self._blocks.append(begin)
            self._first.append(self._checked(begin, self.after(begin)).path.encode())
            begin = self.after(begin + step)
        self._blocks.append(len(self._lines))

    def __len__(self) -> int:
        """In bytes."""
        return len(self._lines)

    def __iter__(self) -> Iterator[IndexEntry]:
        """Every entry. Raises ValueError on a line that isn't one."""
        begin = 0
        while begin < len(self._lines):
            end = self.after(begin)
            yield self._checked(begin, end)
            begin = end

    def _checked(self, begin: int, end: int) -> IndexEntry:
        if not _SHORTEST_LINE_BYTES <= end - begin <= LINE_BYTES:
            raise ValueError(f"it has {end - begin:,} bytes")
        self._touch(end - begin)
        entry = IndexEntry.checked(self._lines[begin:end])
        if len(entry.path.encode()) > _MOST_PATH_BYTES:
            raise ValueError(f"its path has more than {_MOST_PATH_BYTES:,} bytes")
        return entry

    def place(self, path: str) -> int | None:
        """Where the line of a path begins; None when it isn't in the index."""
        block = bisect.bisect_right(self._first, path.encode()) - 1
        if block < 0:
            return None
        start = f'{{"path":{json.dumps(path, ensure_ascii=False)},'.encode()
        self._touch(self._blocks[block + 1] - self._blocks[block])
        place = self._lines.find(start, self._blocks[block], self._blocks[block + 1])
        return place if place >= 0 else None

    def at(self, place: int) -> IndexEntry:
        """The entry whose line begins there."""
        return IndexEntry.from_json(self._lines[place : self.after(place)])

    def find(self, path: str) -> IndexEntry | None:
        """The entry of a path."""
        place = self.place(path)
        return None if place is None else self.at(place)

    def _touch(self, count: int) -> None:
        """Count what is looked at, and give back the pages that this process maps when it is much."""
        self._touched += count
        if self._touched > _MAPPED_BYTES and isinstance(self._lines, mmap.mmap):
            self._lines.madvise(mmap.MADV_DONTNEED)
            self._touched = 0

    def after(self, place: int) -> int:
        """Where the line after the one that holds `place` begins."""
        return self._lines.find(b"\n", min(place, len(self._lines) - 1)) + 1 or len(self._lines)


class Marks:
    """Which entries of an index were met: one bit for each that could be there."""

    def __init__(self, index: SortedIndex) -> None:
        self._index = index
        self._bits = bytearray(len(index) // (8 * _SHORTEST_LINE_BYTES) + 1)

    def add(self, place: int) -> bool:
        """Mark the entry whose line begins at `place`. False when it was marked already."""
        byte, bit = divmod(place // _SHORTEST_LINE_BYTES, 8)
        new = not self._bits[byte] >> bit & 1
        self._bits[byte] |= 1 << bit
        return new

    def first_missing(self) -> IndexEntry | None:
        """The first entry that isn't marked."""
        place = 0
        while place < len(self._index):
            if self.add(place):
                return self._index.at(place)
            place = self._index.after(place)
        return None
