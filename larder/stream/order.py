"""Compute the order of an epoch's samples: a pure function of (blocks, window, seed, epoch, ranks).

1. Blocks of consecutive samples are permuted. Each has a 64-bit key, a hash of (seed, epoch, block); they are sorted
   by it.
2. The line of samples in these blocks is cut into one run per rank. Their lengths differ by at most one.
3. Within a run, the sample at position p gets the key p + u * min(window, window // 8 + p), with u in [0, 1) a hash
   of (seed, epoch, sample), and the samples are sorted by it. So a sample moves by at most `window` positions, and a
   reader that holds the blocks of `window` samples delivers this order. The window begins small, so that the first
   batch needs less than half as many blocks.

Hashes are SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), computed
with integers alone, so that the order is the same on every machine.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int64]
"""Numbers of samples, int64 [N]."""
Last = Literal["drop", "pad", "keep"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_BLOCKS, _SAMPLES, _DRAWS = range(3)
"""Purposes of hashes."""
_FIRST_SHARE = 8
"""The window begins with this share of its length."""


class Batching(NamedTuple):
    """How an epoch is cut into batches."""

    world_size: int
    """Number of ranks."""
    batch_size: int
    """Samples per batch."""
    last: Last
    """What to do with samples at the end that don't fill a batch on every rank: "drop" leaves them out, "pad" repeats
    a rank's first samples, "keep" makes the last batches smaller, but never empty."""

    def count(self, samples: int) -> int:
        """Return the number of batches of each rank, for `samples` samples of all ranks together."""
        if self.last == "drop":
            return samples // self.world_size // self.batch_size
        full = -(-samples // (self.world_size * self.batch_size))
        return min(full, max(1, samples // self.world_size)) if self.last == "keep" else full

    def share(self, samples: int, rank: int) -> tuple[int, int]:
        """Return the first position of a rank, and the first one after it."""
        return samples * rank // self.world_size, samples * (rank + 1) // self.world_size

    def cuts(self, samples: int, rank: int) -> list[int]:
        """Return where each batch of a rank begins, and where the last one ends, from the rank's first sample on."""
        return [self.cut(samples, rank, batches) for batches in range(self.count(samples) + 1)]

    def cut(self, samples: int, rank: int, batches: int) -> int:
        """Return how many of a rank's samples are in its first `batches` batches."""
        begin, end = self.share(samples, rank)
        length, number = end - begin, self.count(samples)
        if batches >= number:
            return length if self.last == "keep" and number else min(number * self.batch_size, length)
        cut = min(batches * self.batch_size, length)
        if self.last == "keep" and batches == number - 1 > 0 and cut == length:
            return cut - 1  # this rank has a sample less than others, and its last batch would be empty
        return cut


class Segment(NamedTuple):
    """A part of an epoch that was read with the same ranks and batches."""

    batching: Batching
    batches: int
    """Batches that each rank has read."""


@dataclass(frozen=True)
class Shuffle:
    """How an epoch is ordered.

    Attributes:
        block_starts: First sample of each block, and the number of samples at the end, int64 [blocks + 1].
        window: Number of positions that a sample moves at most; 0 keeps the order within the line of blocks.
        seed: Seed of the order; None keeps the order of the shards.
    """

    block_starts: Samples
    window: int
    seed: int | None

    @property
    def samples(self) -> int:
        """Number of samples per epoch."""
        return int(self.block_starts[-1])

    def run(self, epoch: int, rank: int, world_size: int) -> Samples:
        """Return the samples of one rank, in order."""
        begin, end = self.samples * rank // world_size, self.samples * (rank + 1) // world_size
        line = self._line(epoch, begin, end)
        if self.seed is None or not self.window:
            return line
        keys = _unit(_hash(self.seed, epoch, _SAMPLES, line))
        positions = np.arange(len(line))
        keys *= np.minimum(self.window, self.window // _FIRST_SHARE + positions)
        keys += positions
        by_key: Samples = line[np.argsort(keys, kind="stable")]
        return by_key

    def _line(self, epoch: int, begin: int, end: int) -> Samples:
        """Return the positions `begin` to `end` of all samples in the order of the permuted blocks."""
        if self.seed is None:
            return np.arange(begin, end)
        blocks = np.argsort(_hash(self.seed, epoch, _BLOCKS, np.arange(len(self.block_starts) - 1)), kind="stable")
        ends = np.cumsum(np.diff(self.block_starts)[blocks])
        first, last = (int(np.searchsorted(ends, at, side="right")) for at in (begin, end - 1))
        blocks = blocks[first : last + 1]
        starts, lengths = self.block_starts[blocks], np.diff(self.block_starts)[blocks]
        before = int(ends[first] - lengths[0]) if len(blocks) else 0
        # Count up within each block: position in the line, minus the block's place in the line, plus its first sample.
        shift = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        line: Samples = (np.arange(len(shift)) + shift)[begin - before : end - before]
        return line


def rank_batches(
    shuffle: Shuffle, epoch: int, segments: Sequence[Segment], rank: int, batching: Batching
) -> list[Samples]:
    """Return the batches of one rank that remain of an epoch.

    All ranks get the same number of batches, so that no rank waits in vain for one that has no batch left. A rank
    without a sample, which happens only with fewer samples than ranks, repeats one.

    Args:
        shuffle: How the epoch is ordered.
        epoch: The epoch.
        segments: What was read before; empty at the beginning of an epoch.
        rank: The rank.
        batching: How the rest of the epoch is cut into batches.
    """
    *earlier, current = (
        segments if segments and segments[-1].batching == batching else [*segments, Segment(batching, 0)]
    )
    left = remaining(shuffle.samples, earlier)
    total = left.samples
    number, cuts = batching.count(total), batching.cuts(total, rank)
    if current.batches >= number:
        return []
    mine = left.share(shuffle, epoch, rank, batching.world_size)
    if not len(mine):
        mine = left.share(shuffle, epoch, 0, 1)[:1]
        cuts = list(range(number + 1))
    if batching.last == "pad":
        mine, cuts = (
            np.resize(mine, number * batching.batch_size),
            [at * batching.batch_size for at in range(number + 1)],
        )
    batches = [mine[begin:end] for begin, end in itertools.pairwise(cuts)]
    return batches[current.batches :]


class Remaining(NamedTuple):
    """The samples that remain of an epoch, in their order, as pieces of the runs of the first segment's ranks.

    The remaining samples of a segment's ranks are joined in the order of ranks, and divided among the next ranks.
    """

    world_size: int
    """Number of ranks of the first segment; 0 before the first one."""
    begin: Samples
    """First position of each piece among the joined runs, int64 [N]."""
    end: Samples
    """Position after each piece, int64 [N]."""

    @property
    def samples(self) -> int:
        """Number of samples."""
        return int((self.end - self.begin).sum())

    def without(self, segment: Segment) -> Remaining:
        """Return what remains after a segment."""
        batching, batches = segment
        total = self.samples
        shares = [batching.share(total, rank) for rank in range(batching.world_size)]
        cuts = [begin + batching.cut(total, rank, batches) for rank, (begin, _) in enumerate(shares)]
        begin, end = self._slices(np.array(cuts), np.array([end for _, end in shares]))
        return Remaining(self.world_size or batching.world_size, begin, end)

    def share(self, shuffle: Shuffle, epoch: int, rank: int, world_size: int) -> Samples:
        """Return the samples of one of the next ranks."""
        if not self.world_size:
            return shuffle.run(epoch, rank, world_size)
        total = self.samples
        pieces = self._slices(np.array([total * rank // world_size]), np.array([total * (rank + 1) // world_size]))
        starts = np.array([shuffle.samples * first // self.world_size for first in range(self.world_size + 1)])
        first_rank = np.searchsorted(starts, pieces[0], side="right") - 1
        parts, runs = [np.empty(0, np.int64)], dict[int, Samples]()
        for begin, end, first in zip(*(column.tolist() for column in (*pieces, first_rank)), strict=True):
            if first not in runs:
                runs[first] = shuffle.run(epoch, first, self.world_size)
            parts.append(runs[first][begin - starts[first] : end - starts[first]])
        return np.concatenate(parts)

    def _slices(self, begin: Samples, end: Samples) -> tuple[Samples, Samples]:
        """Return begin and end of the pieces that make up the ranges of these samples, counted among those that remain.

        The ranges must be in ascending order, without overlaps.
        """
        after = np.cumsum(self.end - self.begin)
        before = after - (self.end - self.begin)
        edges = np.unique(np.concatenate([before, after, begin, end]))
        low, high = edges[:-1], edges[1:]
        is_inside = np.searchsorted(begin, low, side="right") > np.searchsorted(end, low, side="right")
        low, high = low[is_inside], high[is_inside]
        piece = np.searchsorted(after, low, side="right")
        shift = self.begin[piece] - before[piece]
        return low + shift, high + shift


def remaining(samples: int, segments: Sequence[Segment]) -> Remaining:
    """Return what remains of an epoch's samples after `segments`."""
    left = Remaining(0, np.zeros(1, np.int64), np.full(1, samples, np.int64))
    for segment in segments:
        left = left.without(segment)
    return left


def join_segments(samples: int, segments: Sequence[Segment], batching: Batching) -> list[Segment]:
    """Return segments that leave the same samples, where those with the same number of ranks are joined.

    Each of these ranks reads on where it was, whatever the batch size, as long as no rank is at its end.

    Args:
        samples: Number of samples per epoch.
        segments: What was read.
        batching: How the epoch is read from now on. The last segment is left alone if it was read like this.
    """
    is_current = bool(segments) and segments[-1].batching == batching
    joined, before, left = list[Segment](), samples, samples
    for at, segment in enumerate(segments):
        (ranks, size, _), batches = segment
        if joined and joined[-1].batching.world_size == ranks and not (is_current and at == len(segments) - 1):
            length = joined[-1].batching.batch_size * joined[-1].batches + size * batches
            if length < before // ranks:
                segment = Segment(Batching(ranks, 1, "keep"), length)
                joined.pop()
                left = before
        before = left
        joined.append(segment)
        left -= sum(segment.batching.cut(before, rank, segment.batches) for rank in range(ranks))
    return joined


def uniform_draws(seed: int, epoch: int, samples: Samples, count: int) -> NDArray[np.float64]:
    """Return uniform random numbers in [0, 1) for samples, float64 [N, count].

    They depend on seed, epoch and sample alone: not on ranks, batches or threads.
    """
    numbers: Samples = samples[:, None] * count + np.arange(count)
    return _unit(_hash(seed, epoch, _DRAWS, numbers))


def _unit(hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return the upper 53 bits of each hash as a number in [0, 1)."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _hash(seed: int, epoch: int, purpose: int, numbers: Samples) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each number."""
    key = np.zeros(1, np.uint64)
    for part in (seed, epoch, purpose):
        key = _mix(key ^ np.uint64(part & 0xFFFFFFFFFFFFFFFF))
    return _mix(_mix(numbers.astype(np.uint64) ^ key) + key)


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply SplitMix64's finalizer, a bijection of 64-bit numbers."""
    mixed = numbers + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[0]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[1]
    return mixed ^ (mixed >> np.uint64(31))
