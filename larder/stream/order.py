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
        begin, end = self.share(samples, rank)
        length, number = end - begin, self.count(samples)
        cuts = [min(at * self.batch_size, length) for at in range(number + 1)]
        if self.last == "keep" and number:
            cuts[-1] = length
            if (
                number > 1 and cuts[-2] == length
            ):  # this rank has a sample less than others, and its last batch would be empty
                cuts[-2] -= 1
        return cuts


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
    total = _count_left(shuffle.samples, earlier)
    number, cuts = batching.count(total), batching.cuts(total, rank)
    if current.batches >= number:
        return []
    mine = remaining(shuffle, epoch, earlier, rank, batching.world_size)
    if not len(mine):
        mine = remaining(shuffle, epoch, earlier, 0, 1)[:1]
        cuts = list(range(number + 1))
    if batching.last == "pad":
        mine, cuts = (
            np.resize(mine, number * batching.batch_size),
            [at * batching.batch_size for at in range(number + 1)],
        )
    batches = [mine[begin:end] for begin, end in itertools.pairwise(cuts)]
    return batches[current.batches :]


def remaining(
    shuffle: Shuffle,
    epoch: int,
    segments: Sequence[Segment],
    rank: int,
    world_size: int,
    known: dict[tuple[int, int, int], Samples] | None = None,
) -> Samples:
    """Return one rank's share of the samples that remain after `segments`.

    The remaining samples of the last segment's ranks are joined in the order of ranks, and divided among the new ranks.
    `known` caches the results of this call: without it, the work would double with each segment.
    """
    known = {} if known is None else known
    key = len(segments), rank, world_size
    if key not in known:
        known[key] = _remaining(shuffle, epoch, segments, rank, world_size, known)
    return known[key]


def _remaining(
    shuffle: Shuffle,
    epoch: int,
    segments: Sequence[Segment],
    rank: int,
    world_size: int,
    known: dict[tuple[int, int, int], Samples],
) -> Samples:
    if not segments:
        return shuffle.run(epoch, rank, world_size)
    *earlier, (batching, batches) = segments
    before = _count_left(shuffle.samples, earlier)
    left_counts = _left_of_ranks(before, batching, batches)
    total = sum(left_counts)
    begin, end = total * rank // world_size, total * (rank + 1) // world_size
    parts, at = [np.empty(0, np.int64)], 0
    for old_rank, count in enumerate(left_counts):
        if at < end and at + count > begin:
            old = remaining(shuffle, epoch, earlier, old_rank, batching.world_size, known)
            parts.append(old[len(old) - count :][max(0, begin - at) : end - at])
        at += count
    return np.concatenate(parts)


def _count_left(samples: int, segments: Sequence[Segment]) -> int:
    """Return how many of an epoch's samples remain after `segments`."""
    for batching, batches in segments:
        samples = sum(_left_of_ranks(samples, batching, batches))
    return samples


def _left_of_ranks(samples: int, batching: Batching, batches: int) -> list[int]:
    """Return how many samples each rank has left after some batches."""
    left = []
    for rank in range(batching.world_size):
        begin, end = batching.share(samples, rank)
        cuts = batching.cuts(samples, rank)
        left.append(end - begin - cuts[min(batches, len(cuts) - 1)])
    return left


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
