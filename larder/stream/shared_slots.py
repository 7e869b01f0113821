"""Share the memory of batches between two processes: one writes slots, the other reads them and gives them back.

The memory is a file without a name: on Linux a memfd, which needs no space in /dev/shm. The kernel frees it when both
processes have ended, however they end.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_PAGE = mmap.ALLOCATIONGRANULARITY
_FIRST_EXTENT = 8
MAX_FREE = 8
"""Free slots that keep their memory."""


class SharedSlots:
    """A file in memory with two counters and any number of slots of one size.

    Slots are mapped in extents of 8, 8, 16, 32, ... slots: each mapping takes a file descriptor.

    Args:
        handle: Descriptor of the file, which `create_file` made. It is closed with this object; arrays stay valid.
        slot_bytes: Length of a slot in bytes.
    """

    def __init__(self, handle: int, slot_bytes: int) -> None:
        self._handle, self.slot_bytes = handle, slot_bytes
        weakref.finalize(self, os.close, handle).atexit = False
        self._stride = -(-max(slot_bytes, 1) // _PAGE) * _PAGE
        self._extents = list[mmap.mmap]()
        self._extend(_PAGE)
        self.counts: NDArray[np.int64] = np.frombuffer(mmap.mmap(handle, _PAGE), np.int64, 2)

    def slot(self, number: int) -> NDArray[np.uint8]:
        """Return a slot's memory, uint8 [slot_bytes], as an array that all of its slices refer to."""
        extent, first = _extent_of(number)
        while len(self._extents) <= extent:
            self._map_extent(len(self._extents))
        return np.frombuffer(self._extents[extent], np.uint8, self.slot_bytes, (number - first) * self._stride)

    def _map_extent(self, extent: int) -> None:
        first, slots = _first_of(extent), _slots_of(extent)
        begin, length = _PAGE + first * self._stride, slots * self._stride
        self._extend(begin + length)
        self._extents.append(mmap.mmap(self._handle, length, offset=begin))

    def _extend(self, length: int) -> None:
        """Make the file at least this long. The writer does so, before the reader hears of a slot in the new part."""
        if os.fstat(self._handle).st_size < length:
            os.ftruncate(self._handle, length)

    def release_memory(self, number: int) -> None:
        """Give a slot's memory back to the system. It is zero when it is used again."""
        if hasattr(mmap, "MADV_REMOVE"):  # Linux
            extent, first = _extent_of(number)
            self._extents[extent].madvise(mmap.MADV_REMOVE, (number - first) * self._stride, self._stride)


class SlotPool:
    """Numbers of slots that may be written. Its methods are called in several threads.

    Args:
        slots: The slots.
    """

    def __init__(self, slots: SharedSlots) -> None:
        self._slots = slots
        self._free, self._empty = list[int](), list[int]()
        self._used = 0
        self._lock = threading.Lock()

    def take(self) -> tuple[int, NDArray[np.uint8]]:
        """Return a free slot: its number and its memory, uint8 [slot_bytes]. If there is none, add one."""
        with self._lock:
            if self._free:
                number = self._free.pop()
            elif self._empty:
                number = self._empty.pop()
            else:
                number, self._used = self._used, self._used + 1
            return number, self._slots.slot(number)

    def give_back(self, numbers: Iterable[int]) -> None:
        """Take slots back that nobody reads any more."""
        with self._lock:
            self._free += numbers
            while len(self._free) > MAX_FREE:
                self._empty.append(self._free.pop())
                self._slots.release_memory(self._empty[-1])


def create_file() -> int:
    """Create an empty file in memory that has no name. Return its descriptor, which children don't inherit."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("larder-stream")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _first_of(extent: int) -> int:
    return _FIRST_EXTENT << (extent - 1) if extent else 0


def _slots_of(extent: int) -> int:
    return _FIRST_EXTENT << max(extent - 1, 0)


def _extent_of(number: int) -> tuple[int, int]:
    """Return the extent that has a slot, and the extent's first slot."""
    extent = (number // _FIRST_EXTENT).bit_length()
    return extent, _first_of(extent)
