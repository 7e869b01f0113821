"""Which samples are read: of each split and class its share, chosen by a keyed hash of the path.

The choice depends on the samples, the number and the seed alone, so each link comes to the same one by itself.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from larder.contract import Manifest
from services.verify.paper import Sample

Cell = tuple[str, int | None]
ONE: Cell = ("", None)


@dataclass(frozen=True)
class Choice:
    """The paths that were chosen; None stands for all."""

    paths: frozenset[str] | None

    def __contains__(self, path: object) -> bool:
        return self.paths is None or path in self.paths

    @property
    def whole(self) -> bool:
        """Whether everything is read."""
        return self.paths is None


ALL = Choice(None)


def choose(samples: Iterable[Sample], manifest: Manifest, number: int, seed: int) -> Choice:
    """At least `number` samples (0: all), at least one of each split and class; `manifest` has their counts."""
    cells = _cells(manifest)
    total = sum(cells.values())
    if number == 0 or number >= total:
        return ALL
    key = str(seed).encode()
    held: defaultdict[Cell, list[tuple[int, str]]] = defaultdict(list)
    for sample in samples:
        cell = (sample.split, sample.label) if manifest.splits else ONE
        rank = -int.from_bytes(hashlib.blake2b(sample.path.encode(), digest_size=8, key=key).digest())
        if len(held[cell]) < -(-cells.get(cell, 0) * number // total):
            heapq.heappush(held[cell], (rank, sample.path))
        else:
            heapq.heappushpop(held[cell], (rank, sample.path))
    return Choice(frozenset(path for heap in held.values() for _, path in heap))


def _cells(manifest: Manifest) -> dict[Cell, int]:
    """The number of samples by split and class; of raw, which has neither yet, the number of files."""
    return {
        (split, label): count
        for split, summary in manifest.splits.items()
        for label, count in enumerate(summary.samples_per_class)
        if count
    } or {ONE: manifest.files}
