"""Choose the samples to read: a share of each split and class, by a keyed hash of the path.

The choice depends only on the samples, the number and the seed. So all links choose the same samples independently.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from larder.contract import Manifest
from services.verify.verified_artifact import IndexedSample

Cell = tuple[str, int | None]
"""A split and a label. The samples of a cell are chosen together."""
WHOLE_ARTIFACT: Cell = ("", None)


@dataclass(frozen=True)
class Choice:
    """The chosen paths; None stands for all."""

    paths: frozenset[str] | None

    def __contains__(self, path: object) -> bool:
        return self.paths is None or path in self.paths

    @property
    def whole(self) -> bool:
        """Whether all samples are chosen."""
        return self.paths is None


ALL = Choice(None)


def choose_samples(samples: Iterable[IndexedSample], manifest: Manifest, number: int, seed: int) -> Choice:
    """Choose at least `number` samples, spread over splits and classes by their size, and at least one of each.

    Args:
        samples: All samples.
        manifest: Manifest with the number of samples of each split and class.
        number: Minimum number of samples to choose; 0 chooses all.
        seed: Seed of the choice.
    """
    cells = _cells(manifest)
    total = sum(cells.values())
    if number == 0 or number >= total:
        return ALL
    key = str(seed).encode()
    heaps: defaultdict[Cell, list[tuple[int, str]]] = defaultdict(list)
    for sample in samples:
        cell = (sample.split, sample.label) if manifest.splits else WHOLE_ARTIFACT
        rank = -int.from_bytes(hashlib.blake2b(sample.path.encode(), digest_size=8, key=key).digest())
        if len(heaps[cell]) < -(-cells.get(cell, 0) * number // total):
            heapq.heappush(heaps[cell], (rank, sample.path))
        else:
            heapq.heappushpop(heaps[cell], (rank, sample.path))
    return Choice(frozenset(path for heap in heaps.values() for _, path in heap))


def _cells(manifest: Manifest) -> dict[Cell, int]:
    """Count the samples by split and class. For raw, which has neither, count its files."""
    return {
        (split, label): count
        for split, summary in manifest.splits.items()
        for label, count in enumerate(summary.samples_per_class)
        if count
    } or {WHOLE_ARTIFACT: manifest.files}
