"""Streams of small shards, and what is in their batches."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from larder.stream import CenterCrop
from larder.stream.array_stream import ArrayStream
from larder.stream.decode import apply_crop
from tests.unit.stream.conftest import Packed

ROOT = Path(__file__).resolve().parents[3]
CROP = CenterCrop(32, 28)


def stream_of(packed: Packed, **options: Any) -> ArrayStream:
    usual: dict[str, Any] = {"batch_size": 4, "transform": CROP, "threads": 2, "mode": "thread"}
    return ArrayStream(str(packed.folder), **(usual | options))


def pixels_of(image: bytes) -> np.ndarray:
    rgb = Image.open(io.BytesIO(image)).convert("RGB")
    return np.asarray(apply_crop(rgb, CROP.crop(*rgb.size, np.empty(0)), 28))


def numbers_of(batches, packed: Packed) -> list[int]:
    """Which images are in the batches, after a check of their labels."""
    known = {pixels_of(image).tobytes(): number for number, image in enumerate(packed.images)}
    numbers = []
    for images, labels in batches:
        found = [known[image.tobytes()] for image in images]
        assert labels.tolist() == [packed.labels[number] for number in found]
        numbers += found
    return numbers
