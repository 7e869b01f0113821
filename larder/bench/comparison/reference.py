"""Make the reference: PIL's pixels of every sample, from which samples are recognized."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from larder.bench.comparison.identify import PIXELS, Samples, fingerprints_of

if TYPE_CHECKING:
    from larder.bench.arms import View
    from larder.loaders.loader import Transform

MAX_SAMPLES = 20_000
"""A split with more samples gets no reference, which would take minutes and be searched for seconds."""
_AT_ONCE = 256


def build_reference(images: Iterable[tuple[bytes, int]], threads: int, view: View = "crop") -> Samples:
    """Decode images with PIL, and return their fingerprints and labels.

    Args:
        images: Each image's bytes, and its label.
        threads: Threads that decode.
        view: What is seen of an image.
    """
    labels: list[int] = []
    parts = []
    transform = _transform_of(view)

    def decode_one(content: bytes) -> NDArray[np.float32]:
        from larder.loaders.preprocessing import decode

        pixels: NDArray[np.float32] = transform(decode(content, "an image"))[PIXELS].clone().numpy()
        return pixels

    with ThreadPoolExecutor(threads) as pool:
        for chunk in _chunks(images):
            labels += [label for _, label in chunk]
            pixels = pool.map(decode_one, [content for content, _ in chunk])
            parts.append(fingerprints_of(np.stack(list(pixels))))
    return Samples(np.concatenate(parts), np.array(labels, np.int64))


def write_reference(path: Path, samples: Samples) -> None:
    """Write a reference; a reader never sees a part of it."""
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        np.savez(file, fingerprints=samples.fingerprints, labels=samples.labels)
    temporary.rename(path)


def read_reference(path: Path) -> Samples | None:
    """Read a reference, or return None if there is none."""
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return Samples(arrays["fingerprints"], arrays["labels"])


def _transform_of(view: View) -> Transform:
    from torchvision import transforms

    from larder.imagenet import IMAGENET_MEAN, IMAGENET_STD
    from larder.loaders.preprocessing import CROP_PIXELS, reference_transform

    if view == "crop":
        return reference_transform()
    squash = transforms.Resize((CROP_PIXELS, CROP_PIXELS))
    composed: Transform = transforms.Compose(
        [squash, transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    )
    return composed


def _chunks(images: Iterable[tuple[bytes, int]]) -> Iterator[list[tuple[bytes, int]]]:
    iterator = iter(images)
    while chunk := list(itertools.islice(iterator, _AT_ONCE)):
        yield chunk
