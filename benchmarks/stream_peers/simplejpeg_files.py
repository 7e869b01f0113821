"""simplejpeg and cykooz.resizer, as their documentation runs them, in the workers of PyTorch's DataLoader."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import cykooz_resizer as cykooz
import numpy as np
import simplejpeg
import torch
from torch.utils.data import DataLoader
from torchvision import transforms

from benchmarks.stream_peers.contestant import Given, run
from benchmarks.stream_peers.recipes import MEAN, STD

_SIDE = 224


class _Files(torch.utils.data.Dataset[Any]):
    def __init__(self, folder: str) -> None:
        self._paths = sorted(Path(folder).rglob("*.jpg"))
        self._normalize = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        pixels = simplejpeg.decode_jpeg(self._paths[number].read_bytes(), "RGB")
        height, width, _ = pixels.shape
        source = cykooz.ImageData(width, height, cykooz.PixelType.U8x3, pixels.tobytes())
        target = cykooz.ImageData(_SIDE, _SIDE, cykooz.PixelType.U8x3)
        side = min(width, height) * _SIDE / 256
        box = cykooz.CropBox((width - side) / 2, (height - side) / 2, side, side)
        bilinear = cykooz.ResizeAlg.convolution(cykooz.FilterType.bilinear)
        cykooz.Resizer().resize(source, target, cykooz.ResizeOptions(bilinear, crop_box=box))
        image = np.frombuffer(target.get_buffer(), np.uint8).reshape(_SIDE, _SIDE, 3)
        return self._normalize(image), 0


def batches(given: Given) -> Generator[int, None, None]:
    """Read an epoch. The first step opens the data."""
    loader: DataLoader[Any] = DataLoader(_Files(given.uri), given.batch_size, shuffle=True, num_workers=given.workers)
    yield 0
    for _, labels in loader:
        yield len(labels)


if __name__ == "__main__":
    run(batches)
