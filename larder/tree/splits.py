"""Which split a sample belongs to: by the names that people give splits, or by chance."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from larder.contract import META
from larder.splits import SPLITS, known_split

NOT_SPLITS = "none"
"""As LARDER_SPLITS: no folder is a split, so that one called `train` is a class."""
OUT = "-"
"""In LARDER_SPLITS: what a folder or a value is set to that is left out."""


_LONGEST_BYTES = 200


class SplitNames(NamedTuple):
    """The splits that names mean: those of LARDER_SPLITS, then those that are known (larder.splits)."""

    given: Mapping[str, str] = {}
    """By name in lower case: a split, or "-"."""
    none: bool = False
    """Whether no folder is a split."""

    def find(self, name: str) -> str | None:
        """The split that a name means, "-" for one that is left out, None for a name that means nothing."""
        if self.none:
            return None
        return self.given.get(_key(name)) or known_split(name)

    def unused(self, names: Iterable[str]) -> list[str]:
        """The names of LARDER_SPLITS that are none of `names`."""
        there = {_key(name) for name in names}
        return sorted(name for name in self.given if name not in there)


KNOWN_NAMES = SplitNames()
"""Without LARDER_SPLITS."""


def parse_split_names(text: str) -> SplitNames:
    """Parse LARDER_SPLITS: `train=training,dev=validation`. Raises ValueError for anything else."""
    if text.strip().casefold() == NOT_SPLITS:
        return SplitNames(none=True)
    given: dict[str, str] = {}
    for pair in filter(str.strip, text.split(",")):
        name, equals, split = (part.strip() for part in pair.partition("="))
        if not (name and equals and split):
            raise ValueError(f"must be {NOT_SPLITS}, or name=split pairs, as in train=training,dev=validation")
        if split != OUT:
            split = known_split(split) or split
            if not is_folder_name(split):
                raise ValueError(f"must name splits that can be folders, and {split!r} can't")
        if given.setdefault(_key(name), split) != split:
            raise ValueError(f"must name {name!r} once")
    return SplitNames(given)


def is_folder_name(split: str) -> bool:
    """Whether a split can be the name of a folder of the tree."""
    return (
        not ("/" in split or split.startswith(".") or split == META)
        and split.isprintable()
        and len(split.encode()) <= _LONGEST_BYTES
    )


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


class Division(NamedTuple):
    """How a data set without splits is divided.

    A file's split follows from the seed and its content alone. So it stays when files are added, removed or renamed,
    and two copies of an image never come into two splits. Each class is divided in these shares, but for chance.
    """

    shares: tuple[float, ...]
    seed: int

    def split(self, sha256: str) -> str:
        """The split of a file with this digest."""
        digest = hashlib.blake2b(bytes.fromhex(sha256), digest_size=8, key=str(self.seed).encode()).digest()
        place, end = int.from_bytes(digest) / (1 << 64), 0.0
        for split, share in zip(SPLITS, self.shares, strict=False):
            end += share
            if place < end:
                return split
        return next(split for split, share in reversed(list(zip(SPLITS, self.shares, strict=False))) if share)


def parse_shares(text: str) -> tuple[float, ...]:
    """Parse LARDER_SPLIT: `0.8,0.1,0.1`, the shares of training, validation and evaluation.

    Raises ValueError for shares that aren't two or three numbers whose sum is 1.
    """
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) not in (2, 3) or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            "must be two or three shares whose sum is 1, as in 0.8,0.1,0.1: training, validation and so on"
        )
    return shares
