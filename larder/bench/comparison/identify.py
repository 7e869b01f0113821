"""Find out from its pixels which sample an image is: loaders yield no ids.

A fingerprint is 8 x 16 pixels of an image, as levels of 0 to 255: 16 neighbours in the middle of every 28th row. They
share a cache line in each channel, since touching more lines would cost more than measuring may. Images of a loader
with PIL's pixels have exactly the fingerprints of the reference; for other pixels, the nearest fingerprint counts.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict, deque
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from larder.bench.comparison_parts import PixelError

if TYPE_CHECKING:
    from torch import Tensor

PIXELS = (..., slice(14, None, 28), slice(96, 112))
"""Index of a fingerprint's pixels in [3, 224, 224]: whole lines of 64 bytes, as float32."""
SIZE = 8 * 16 * 3
MAX_MEAN_ERROR = 16.0
"""Levels. The mean difference of two photographs is several times as large."""
UNKNOWN_ID = -1
_CHUNK, _FEW = 1024, 8
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

Fingerprints = NDArray[np.uint8]
Ids = NDArray[np.int64]


class Samples(NamedTuple):
    """Fingerprints, uint8 [N, SIZE], and labels, int64 [N]."""

    fingerprints: Fingerprints
    labels: NDArray[np.int64]

    def digest(self) -> str:
        """Return the digest of all ids and labels: what each epoch must have."""
        return digest_of(np.arange(len(self.labels)), self.labels)


class Identified(NamedTuple):
    """What an epoch has yielded."""

    ids: Ids
    """Number of each sample in the reference, in the order of arrival; UNKNOWN_ID for none."""
    digest: str
    """Digest of ids and labels."""
    pixel_error: PixelError | None
    """Difference from the reference; None if no image was found in it."""


class Collector:
    """Collect fingerprints of batches."""

    def __init__(self) -> None:
        self._images: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, images: Tensor, labels: Tensor) -> None:
        """Copy some pixels of a batch, float32 [B, 3, 224, 224], and its labels."""
        self._images.append(images[PIXELS].clone())
        self._labels.append(labels.clone())

    def samples(self) -> Samples:
        """Return what was collected."""
        if not self._images:
            return Samples(np.zeros((0, SIZE), np.uint8), np.zeros(0, np.int64))
        images = np.concatenate([fingerprints_of(part.numpy()) for part in self._images])
        return Samples(images, np.concatenate([part.numpy() for part in self._labels]))


def fingerprints_of(pixels: NDArray[np.float32]) -> Fingerprints:
    """Return fingerprints, uint8 [N, SIZE], of normalized pixels, float32 [N, 3, 8, 16]."""
    mean, std = (np.array(values, np.float32)[None, :, None, None] for values in (_MEAN, _STD))
    levels = np.rint((pixels * std + mean) * 255).clip(0, 255)
    return np.ascontiguousarray(levels.astype(np.uint8).reshape(len(pixels), -1))


def identify(epoch: Samples, reference: Samples) -> Identified:
    """Return which samples of the reference an epoch has yielded. A sample that comes twice is unknown the second time.

    Images with equal fingerprints and labels, as of files that are in a dataset twice, count as one another.
    """
    free: dict[bytes, deque[int]] = defaultdict(deque)
    for number, key in enumerate(_keys(reference)):
        free[key].append(number)
    keys = _keys(epoch)
    ids = np.array([free[key].popleft() if free.get(key) else UNKNOWN_ID for key in keys], np.int64)
    nearest = ids.copy()
    known = {key for key in keys if key in free}
    others = np.flatnonzero([number == UNKNOWN_ID and key not in known for number, key in zip(ids, keys, strict=True)])
    if len(others):
        nearest[others] = _nearest(epoch.fingerprints[others], reference.fingerprints)
        left = {number for numbers in free.values() for number in numbers}
        for at in others:
            found = int(nearest[at])
            if found in left:
                left.remove(found)
                ids[at] = found
    return Identified(ids, digest_of(ids, epoch.labels), _pixel_error(epoch, reference, nearest))


def order_entropy(ids: Ids) -> float | None:
    """Return the entropy of the differences of successive ids, over that of a full shuffle of as many samples.

    0 is the stored order, 1 a full shuffle. None for fewer than 8 samples, or if one is unknown.
    """
    if len(ids) < _FEW or (ids == UNKNOWN_ID).any():
        return None
    shuffled = np.random.default_rng(0).permutation(len(ids))
    return round(min(_entropy(np.diff(ids)) / _entropy(np.diff(shuffled)), 1.0), 4)


def digest_of(ids: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
    """Return the digest of pairs of ids and labels, independent of their order."""
    order = np.lexsort((labels, ids))
    pairs = np.stack([ids[order], labels[order]], axis=1).astype("<i8")
    return hashlib.sha256(pairs.tobytes()).hexdigest()


def _entropy(differences: NDArray[np.int64]) -> float:
    counts = np.unique(differences, return_counts=True)[1]
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) if len(counts) > 1 else 0.0


def _keys(samples: Samples) -> list[bytes]:
    labels = samples.labels.astype("<i8")
    return [
        fingerprint.tobytes() + label.tobytes() for fingerprint, label in zip(samples.fingerprints, labels, strict=True)
    ]


def _nearest(fingerprints: Fingerprints, reference: Fingerprints) -> Ids:
    """Return the reference's nearest fingerprint of each, or UNKNOWN_ID if none is near."""
    if not len(reference):
        return np.full(len(fingerprints), UNKNOWN_ID)
    known = reference.astype(np.float32)
    squares = (known**2).sum(axis=1)
    found = []
    for begin in range(0, len(fingerprints), _CHUNK):
        part = fingerprints[begin : begin + _CHUNK].astype(np.float32)
        best = (squares[None] - 2 * part @ known.T).argmin(axis=1)
        error = np.abs(part - known[best]).mean(axis=1)
        found.append(np.where(error <= MAX_MEAN_ERROR, best, UNKNOWN_ID))
    return np.concatenate(found).astype(np.int64)


def _pixel_error(epoch: Samples, reference: Samples, nearest: Ids) -> PixelError | None:
    is_known = nearest != UNKNOWN_ID
    if not is_known.any():
        return None
    ours = epoch.fingerprints[is_known].astype(np.int16)
    error = np.abs(ours - reference.fingerprints[nearest[is_known]])
    return PixelError(mean=round(float(error.mean()), 4), max=float(error.max()), pixels=math.prod(error.shape))
