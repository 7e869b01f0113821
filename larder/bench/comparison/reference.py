"""Make the reference: PIL's pixels of every sample, from which samples are recognized."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from larder.bench.comparison.identify import PIXELS, Samples, fingerprints_of

MAX_SAMPLES = 20_000
"""A split with more samples gets no reference, which would take minutes and be searched for seconds."""
_AT_ONCE = 256


def build_reference(images: Iterable[tuple[bytes, int]], threads: int) -> Samples:
    """Decode images with PIL, and return their fingerprints and labels.

    Args:
        images: Each image's bytes, and its label.
        threads: Threads that decode.
    """
    labels: list[int] = []
    parts = []
    with ThreadPoolExecutor(threads) as pool:
        for chunk in _chunks(images):
            labels += [label for _, label in chunk]
            pixels = pool.map(_decode, [content for content, _ in chunk])
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


def _decode(content: bytes) -> NDArray[np.float32]:
    from larder.loaders.preprocessing import decode, reference_transform

    image = reference_transform()(decode(content, "an image"))
    pixels: NDArray[np.float32] = image[PIXELS].clone().numpy()
    return pixels


def _chunks(images: Iterable[tuple[bytes, int]]) -> Iterator[list[tuple[bytes, int]]]:
    iterator = iter(images)
    while chunk := list(itertools.islice(iterator, _AT_ONCE)):
        yield chunk
