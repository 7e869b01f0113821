"""How the contestants that let users decode do it: Resize(256) and CenterCrop(224).

- `float32`: PIL, ToTensor and Normalize, the reference recipe of PyTorch's ImageNet example, which the documentation of
  these loaders uses, too.
- `uint8`: the same pixels without conversion to floats. `larder.stream` gives these, and normalizes on the GPU.
- `kernel`: larder's own decoder, a whole batch in one call: what a loader would reach if only decoding were slow.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CROP = [transforms.Resize(256), transforms.CenterCrop(224)]


class Recipe(NamedTuple):
    """What workers do."""

    transform: Callable[[bytes], Any]
    """From the bytes of an image."""
    collate: Callable[[Sequence[tuple[Any, int]]], Any] | None
    """From what `transform` made, with labels, to a batch; None leaves it to the loader."""


def recipe(name: str) -> Recipe:
    """Return a recipe by its name."""
    if name == "kernel":
        return Recipe(bytes, decode_together)
    last = {"float32": [transforms.ToTensor(), transforms.Normalize(MEAN, STD)], "uint8": [transforms.PILToTensor()]}
    return Recipe(_ByPil(transforms.Compose(_CROP + last[name])), None)


class _ByPil:
    def __init__(self, transform: Callable[[Image.Image], Any]) -> None:
        self._transform = transform

    def __call__(self, content: bytes) -> Any:
        return self._transform(Image.open(io.BytesIO(content)).convert("RGB"))


def decode_together(samples: Sequence[tuple[bytes, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode a batch with larder's kernel: uint8 [N, 3, 224, 224] and int64 [N]."""
    from larder.stream.kernel import CROP, JpegKernel
    from larder.stream.transforms import CenterCrop

    kernel, transform = JpegKernel.load(), CenterCrop(256, 224)
    if kernel is None:
        raise RuntimeError("the kernel isn't compiled: run python3 larder/stream/build.py")
    images = [image for image, _ in samples]
    no_draws = np.empty(0)
    sizes = [(int(width), int(height)) for width, height, *_ in kernel.headers(images).tolist()]
    crops = np.array([transform.crop(*size, no_draws) for size in sizes], CROP)
    out = torch.empty((len(images), 224, 224, 3), dtype=torch.uint8)
    if any(fault is not None for fault in kernel.decode(images, crops, out.numpy())):
        raise RuntimeError("an image is damaged")
    return out.permute(0, 3, 1, 2), torch.tensor([label for _, label in samples])
