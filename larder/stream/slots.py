"""Reuse the memory of batches: fresh memory costs a page fault for every 4 KiB that is written."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.uint8]


class Slots:
    """Arrays of one size that are used again when nobody refers to them, to a view of them, or to a tensor of them.

    Args:
        size: Length of an array in bytes.
        allocate: Returns a new uint8 array of that length; by default numpy's.
    """

    def __init__(self, size: int, allocate: Callable[[int], Array] | None = None) -> None:
        self.size = size
        self._allocate = allocate or (lambda size: np.empty(size, np.uint8))
        self._free: list[Array] = []
        self._lock = threading.Lock()

    def take(self) -> Array:
        """Return an unused array, uint8 [size]."""
        with self._lock:
            memory = self._free.pop() if self._free else None
        memory = self._allocate(self.size) if memory is None else memory
        # Slices of an array refer to the array that owns the memory, and so would outlive `view` unnoticed. Slices of
        # an array of a memoryview refer to that array.
        view: Array = np.frombuffer(memory.data, np.uint8)
        weakref.finalize(view, self._give_back, memory).atexit = False
        return view

    def _give_back(self, memory: Array) -> None:
        with self._lock:
            self._free.append(memory)
