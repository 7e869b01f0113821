"""Generate sample data in place of Food-11: the same splits, names and class shares, without any download.

This module plans the dataset; `picture` renders one file, from the scene that `scene` paints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

NAME: Final = "sample"  # the value of LARDER_SOURCE
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

MEAN_BYTES: Final = 68_000  # per file, measured over 2,000 images; a test checks it


@dataclass(frozen=True, slots=True)
class SampleImage:
    """Identity of one picture: its split, its class (0 to 10), and its number within split and class, from 0."""

    split: str
    label: int
    number: int

    @property
    def path(self) -> str:
        """Path below the dataset's root, named as in Food-11: `training/3_17.jpg`."""
        return f"{self.split}/{self.label}_{self.number}.jpg"


def plan_images(images: int) -> Iterator[SampleImage]:
    """Yield a dataset of `images` pictures, by split, class and number, with constant memory.

    Raises:
        ValueError: If `images` is below 33, too few for one in each class of each split.
    """
    for split, counts in zip(SPLITS, apportion(images), strict=True):
        for label, count in enumerate(counts):
            for number in range(count):
                yield SampleImage(split, label, number)


def apportion(images: int) -> tuple[tuple[int, ...], ...]:
    """Divide `images` over splits (rows) and classes (columns) in Food-11's shares, with at least one in each.

    Uses largest remainders (Hamilton's method); an empty cell takes one from the largest. 16,643 images, the number of
    Food-11, give the exact counts of Food-11.

    Raises:
        ValueError: If `images` is below 33.
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
    """Estimate the total length in bytes of `images` rendered files, to check free space."""
    return images * MEAN_BYTES
