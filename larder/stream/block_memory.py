"""Reuse the memory of blocks while an epoch is read."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from larder.stream.samples import BLOCK_BYTES
from larder.stream.slots import Slots

_MAX_BYTES = BLOCK_BYTES + BLOCK_BYTES // 4
"""Blocks with a larger sample get memory of their own size."""


class BlockMemory:
    """Memory for blocks of about the same size.

    A block that fills at least three quarters of the usual size takes memory that is used again. The others, such as
    those of short shards, take no more than their length.

    Args:
        lengths: Lengths of all blocks, in bytes.
    """

    def __init__(self, lengths: Iterable[int]) -> None:
        self._slots = Slots(max((length for length in lengths if length <= _MAX_BYTES), default=0))

    def cost(self, length: int) -> int:
        """Return how much memory a block takes, in bytes."""
        size = self._slots.size
        return size if 3 * size <= 4 * length <= 4 * size else length

    def take(self, length: int) -> memoryview:
        """Return memory for a block. It is used again when nobody refers to it."""
        if self.cost(length) == length != self._slots.size:
            return np.empty(length, np.uint8).data
        return self._slots.take()[:length].data
