"""Decide which ranges of the shards an epoch reads, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from larder.stream.order import Samples
from larder.stream.samples import Column

_REQUEST_BYTES = 1 << 20
"""Bytes that take about as long as one more request."""


@dataclass(eq=False)
class Block:
    """A range of a shard that is read with one request."""

    shard: str
    begin: int
    end: int
    first_batch: int
    """The first batch that needs it."""
    unused: int
    """Samples that weren't decoded yet."""
    is_read: bool = False
    content: memoryview | None = None
    fault: BaseException | None = None

    @property
    def length(self) -> int:
        """Length in bytes."""
        return self.end - self.begin


class Places(NamedTuple):
    """Where samples are."""

    shards: Sequence[str]
    """Path of each shard."""
    shard: Column
    """Shard of each sample, int [N]."""
    begin: Column
    """Position of each sample in its shard, int [N]."""
    end: Column
    """Position after each sample, int [N]."""
    block: Column
    """Block of each sample, int [N]."""


class ReadPlan(NamedTuple):
    """What to read."""

    queue: list[Block]
    """In the order of need."""
    blocks: dict[int, Block]
    """The range of each block that is needed, by the block's number."""
    alone: dict[tuple[int, int], Block]
    """Ranges of samples that aren't read with their blocks, by batch and sample."""


NOTHING = ReadPlan([], {}, {})


def plan_reading(places: Places, batches: Sequence[Samples], *, read_first: bool) -> ReadPlan:
    """Return what to read: blocks, cut to the samples that are needed, and samples that are needed once more.

    Args:
        places: Where the samples are.
        batches: The samples of each batch; at least one batch.
        read_first: Whether to read the first batch's samples alone where that is much faster than to read their blocks.
            In the middle of an epoch, they are scattered over all blocks of the window.
    """
    needs = _Needs(places, np.concatenate(batches), np.repeat(np.arange(len(batches)), list(map(len, batches))))
    is_alone = _find_repeated(needs.samples)  # a sample that is needed once more is read once more
    if read_first:
        is_alone[: len(batches[0])] |= needs.are_faster_alone(len(batches[0]))
    if is_alone.any():
        keys = needs.batch * (int(needs.samples.max()) + 1) + needs.samples
        is_alone |= np.isin(keys, keys[is_alone])  # all occurrences in a batch share one range
    alone, together = np.flatnonzero(is_alone), np.flatnonzero(~is_alone)
    ranges, blocks, by_sample, by_number = list[tuple[int, Block]](), list[tuple[int, Block]](), {}, {}
    if len(alone):
        alone, starts = needs.sort_into_ranges(alone)
        ranges = needs.blocks_of(alone, starts)
        named = zip(needs.batch[alone].tolist(), needs.samples[alone].tolist(), strict=True)
        by_sample = dict(zip(named, (block for _, block in ranges for _ in range(block.unused)), strict=True))
    if len(together):
        together = together[np.argsort(places.block[needs.samples[together]], kind="stable")]
        numbers = places.block[needs.samples[together]]
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        blocks = needs.blocks_of(together, starts)
        by_number = dict(zip(numbers[starts].tolist(), (block for _, block in blocks), strict=True))
    queue = sorted(ranges + blocks, key=lambda entry: entry[0])
    return ReadPlan([block for _, block in queue], by_number, by_sample)


def _find_repeated(samples: Samples) -> NDArray[np.bool_]:
    """Return which samples were needed before, bool [N]. Usually none is, which takes little memory to find out."""
    repeated = np.zeros(len(samples), bool)
    needed = np.zeros(int(samples.max()) + 1, bool)
    needed[samples] = True
    if np.count_nonzero(needed) < len(samples):
        repeated[:] = True
        repeated[np.unique(samples, return_index=True)[1]] = False
    return repeated


class _Needs(NamedTuple):
    """Samples in the order in which they are needed."""

    places: Places
    samples: Samples
    """int64 [N]."""
    batch: Samples
    """The batch of each, int64 [N]."""

    def are_faster_alone(self, first: int) -> NDArray[np.bool_]:
        """Return for each of the `first` samples whether those of its block take less than half of the block's time.

        Else it isn't worth while to read them alone: their bytes are read with the rest of the block again.
        """
        at, starts = self.sort_into_ranges(np.arange(first))
        number, begin, end = self._extents(at, starts)
        alone_bytes = np.bincount(number, end - begin + _REQUEST_BYTES)
        in_blocks = np.argsort(self.places.block[self.samples], kind="stable")
        starts = np.flatnonzero(np.diff(self.places.block[self.samples[in_blocks]], prepend=-1))
        number, begin, end = self._extents(in_blocks, starts)
        whole_bytes = np.zeros(int(number[-1]) + 1)
        whole_bytes[number] = end - begin + _REQUEST_BYTES
        mine = self.places.block[self.samples[:first]]
        faster: NDArray[np.bool_] = 2 * alone_bytes[mine] < whole_bytes[mine]
        return faster

    def sort_into_ranges(self, at: Samples) -> tuple[Samples, Samples]:
        """Return the needs `at` in the order of batches and positions, and where each range begins among them.

        To read what is between two near samples takes less time than one more request.
        """
        samples = self.samples[at]
        order = np.lexsort((self.places.begin[samples], self.places.block[samples], self.batch[at]))
        at, samples = at[order], samples[order]
        gaps = self.places.begin[samples[1:]] - self.places.end[samples[:-1]]
        is_near = (gaps <= _REQUEST_BYTES) & (np.diff(self.places.block[samples]) == 0) & (np.diff(self.batch[at]) == 0)
        return at, np.flatnonzero(np.append(True, ~is_near))

    def _extents(self, at: Samples, starts: Samples) -> tuple[Column, Column, Column]:
        """Return number of the block, begin and end of each range that begins at `starts` in `at`."""
        samples = self.samples[at]
        begin = np.minimum.reduceat(self.places.begin[samples], starts)
        end = np.maximum.reduceat(self.places.end[samples], starts)
        return self.places.block[samples[starts]], begin, end

    def blocks_of(self, at: Samples, starts: Samples) -> list[tuple[int, Block]]:
        """Return the ranges that begin at `starts` in `at`, each after the place where it is needed first."""
        _, begin, end = self._extents(at, starts)
        first = np.minimum.reduceat(at, starts)
        shard, count = self.places.shard[self.samples[at[starts]]], np.diff(starts, append=len(at))
        columns = (first, shard, begin, end, self.batch[first], count)
        return [
            (place, Block(self.places.shards[shard], *numbers))
            for place, shard, *numbers in zip(*(column.tolist() for column in columns), strict=True)
        ]
