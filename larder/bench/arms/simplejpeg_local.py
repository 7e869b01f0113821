"""simplejpeg and cykooz.resizer over the tree on local disk, by PyTorch's DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from larder.bench.arm_errors import map_arm_errors
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.peers import find_files, make_map_style_loader
from larder.bench.settings import LoaderSettings
from larder.loaders.image_table import ImageTable
from larder.next_step import CREATED_BY
from larder.progress import Reporter

_RESIZED, _CROP = 256, 224


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `<data_dir>/<split>/class_XX/*.jpg`. Raises what `find_files` raises."""
    with map_arm_errors(type(settings), CREATED_BY["tree"]):
        folder, manifest, table = find_files(settings, reporter)
        reader = (
            f"simplejpeg {version('simplejpeg')} and cykooz.resizer {version('cykooz.resizer')}, torch's DataLoader"
        )
        loader = make_map_style_loader("simplejpeg_local", FastFiles(folder, table), manifest, settings, reader)
        yield MeasuredLoader(loader, lambda: None)


class FastFiles:
    """Map-style dataset of a tree's images, decoded by simplejpeg, cropped and resized by cykooz.resizer."""

    def __init__(self, folder: Path, table: ImageTable) -> None:
        from torchvision import transforms

        from larder.imagenet import IMAGENET_MEAN, IMAGENET_STD

        self._folder, self._table = folder, table
        self._normalize = transforms.Compose([transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        content = (self._folder / self._table.path(number)).read_bytes()
        return self._normalize(decode_and_crop(content)), self._table.label(number)


def decode_and_crop(content: bytes) -> Any:
    """Return uint8 [224, 224, 3]: what Resize(256) and CenterCrop(224) give, with at most a level of difference."""
    import cykooz_resizer as cykooz
    import numpy as np
    import simplejpeg

    pixels = simplejpeg.decode_jpeg(content, "RGB")
    height, width, _ = pixels.shape
    box = cykooz.CropBox(*_crop_box(width, height))
    options = cykooz.ResizeOptions(cykooz.ResizeAlg.convolution(cykooz.FilterType.bilinear), crop_box=box)
    source = cykooz.ImageData(width, height, cykooz.PixelType.U8x3, pixels.tobytes())
    target = cykooz.ImageData(_CROP, _CROP, cykooz.PixelType.U8x3)
    cykooz.Resizer().resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(_CROP, _CROP, 3)


def _crop_box(width: int, height: int) -> tuple[float, float, float, float]:
    """Return what Resize(256) and CenterCrop(224) leave of an image: left, top, width and height, in its own pixels.

    torchvision rounds the longer side down, and the crop's corner to whole pixels of the resized image.
    """
    short = min(width, height)
    resized = [int(_RESIZED * side / short) for side in (width, height)]
    corner = [round((side - _CROP) / 2) for side in resized]
    scale = [side / new for side, new in zip((width, height), resized, strict=True)]
    return corner[0] * scale[0], corner[1] * scale[1], _CROP * scale[0], _CROP * scale[1]
