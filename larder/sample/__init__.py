"""A generated stand-in for Food-11: its splits, names and class shares, with pictures that need no network.

This module plans the data set; `picture` renders one file of it, from the scene that `scene` paints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

NAME: Final = "sample"  # as a source
GENERATOR_VERSION: Final = 1  # goes into the manifest; bump it whenever a rendered byte changes

SPLITS: Final = ("training", "validation", "evaluation")
CLASSES: Final = 11
# Images per split and class of the published Food-11 (16,643 in all).
COUNTS: Final = (
    (994, 429, 1500, 986, 848, 1325, 440, 280, 855, 1500, 709),
    (362, 144, 500, 327, 326, 449, 147, 96, 347, 500, 232),
    (368, 148, 500, 335, 287, 432, 147, 96, 303, 500, 231),
)
IMAGES: Final = sum(map(sum, COUNTS))

MEAN_BYTES: Final = 68_000  # of one file, measured over 2,000 images; a test keeps it honest


@dataclass(frozen=True, slots=True)
class SampleImage:
    """One picture's place: its split, its class 0..10 and its number, from 0 within split and class."""

    split: str
    label: int
    number: int

    @property
    def path(self) -> str:
        """Its name below the data set's root, spelt as in Food-11: `training/3_17.jpg`."""
        return f"{self.split}/{self.label}_{self.number}.jpg"


def plan(images: int) -> Iterator[SampleImage]:
    """Yield a data set of `images` pictures, by split, class and number; nothing is held in memory.

    Raises:
        ValueError: `images` is below 33, too few for one in each class of each split.
    """
    for split, counts in zip(SPLITS, apportion(images), strict=True):
        for label, count in enumerate(counts):
            for number in range(count):
                yield SampleImage(split, label, number)


def apportion(images: int) -> tuple[tuple[int, ...], ...]:
    """Divide `images` over splits (rows) and classes (columns) in Food-11's shares, at least one in each.

    Largest remainders (Hamilton's method); a cell left empty takes one from the largest. Food-11's own
    number, 16,643, gives Food-11's own counts.

    Raises:
        ValueError: `images` is below 33.
    """
    cells = [count for counts in COUNTS for count in counts]
    if images < len(cells):
        raise ValueError(f"{images} images can't fill {len(cells)} classes and splits: ask for {len(cells)} or more")
    shares = [images * cell // IMAGES for cell in cells]
    by_remainder = sorted(range(len(cells)), key=lambda i: (-(images * cells[i] % IMAGES), i))
    for i in by_remainder[: images - sum(shares)]:
        shares[i] += 1
    while 0 in shares:
        shares[shares.index(max(shares))] -= 1
        shares[shares.index(0)] += 1
    return tuple(tuple(shares[row : row + CLASSES]) for row in range(0, len(cells), CLASSES))


def expected_bytes(images: int) -> int:
    """Estimate the bytes of `images` rendered files, to check free space: the mean, times their number."""
    return images * MEAN_BYTES
