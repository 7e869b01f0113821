"""Sets of entries in eight bytes each, and the choice of samples: so memory hardly grows with their number.

A work file of all entries would need a disk; here there is only the volumes, which are read-only, and a container's
/tmp, which is memory. Instead a 64-bit hash stands for each entry. Two entries that differ have the same one by chance
in 1 of 2⁶⁴ cases.
"""

from __future__ import annotations

import hashlib
import heapq
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from itertools import pairwise


def key(*parts: str | int) -> int:
    """What stands for an entry: a hash of the parts of it that matter."""
    text = "\0".join(map(str, parts)).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())


class Keys:
    """A multiset of keys. While it is made, each takes 50 bytes for a moment."""

    def __init__(self, keys: Iterable[int]) -> None:
        self._keys = array("Q", sorted(array("Q", keys)))

    def __contains__(self, one: int) -> bool:
        at = bisect_left(self._keys, one)
        return at < len(self._keys) and self._keys[at] == one

    def __len__(self) -> int:
        return len(self._keys)

    def repeated(self) -> int | None:
        """A key that is there more than once, if there is one."""
        return next((one for one, other in pairwise(self._keys) if one == other), None)


class Selection:
    """The samples that are followed, by their paths in the tree: `count` of `paths`, or all with 0.

    They are those with the smallest keyed hash, so that the choice depends on the seed and the paths alone.
    """

    def __init__(self, paths: Iterable[str], count: int, seed: int) -> None:
        self._seed = seed
        ranks = heapq.nsmallest(count, map(self._rank, paths)) if count else []
        self._last = ranks[-1] if ranks else -1
        self.whole = count == 0

    def __contains__(self, path: str) -> bool:
        return self.whole or self._rank(path) <= self._last

    def _rank(self, path: str) -> int:
        return key(self._seed, path)
