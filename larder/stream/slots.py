"""Reuse the memory of batches and blocks: fresh memory costs a page fault for every 4 KiB that is written."""

from __future__ import annotations

import mmap
import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.uint8]
_MAX_FREE = 8


class Slots:
    """Arrays of one size that are used again when nobody refers to them, to a view of them, or to a tensor of them.

    Args:
        size: Length of an array in bytes.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        # Without a lock: an array may be given back by the garbage collector, in a thread that is taking one.
        self._free = deque[Array](maxlen=_MAX_FREE)

    def take(self) -> Array:
        """Return an unused array, uint8 [size]."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = _allocate(self.size)
        # Slices of an array refer to the array that owns the memory, and so would outlive `view` unnoticed. Slices of
        # an array of a memoryview refer to that array.
        view: Array = np.frombuffer(memory.data, np.uint8)
        weakref.finalize(view, self._free.append, memory).atexit = False
        return view


def _allocate(size: int) -> Array:
    """Return fresh memory, uint8 [size].

    numpy's, from 4 MiB on, has huge pages. In a virtual machine whose host takes free memory back, the first write to
    one costs up to seven times as much as those to its 512 usual pages.
    """
    if not size:
        return np.empty(0, np.uint8)
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), np.uint8)
