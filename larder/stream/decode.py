"""Decode, crop and resize images into a batch, to the pixels that PIL makes.

The kernel (`larder.stream.kernel`) decodes only the part of a JPEG that is needed. PIL does the rest: other formats,
CMYK, and all images where the kernel isn't built.

Fast decoding makes a smaller image of a JPEG by leaving out the higher frequencies of each block, as PIL's `draft`
does. Kernel and PIL then have equal pixels, too, but not those of exact decoding.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from larder.images import (
    MAX_ASPECT_RATIO,
    MAX_SCANS,
    UnsupportedImageError,
    has_more_scans,
    open_image,
    require_supported,
)
from larder.stream.kernel import CROP, JpegKernel
from larder.stream.transforms import Crop, Transform

Pixels = NDArray[np.uint8]
Draws = NDArray[np.float64]


class PillowSettings(NamedTuple):
    """What a program may change in Pillow, and must be the same in a child process that decodes for it."""

    max_pixels: int | None
    """Image.MAX_IMAGE_PIXELS"""
    accepts_truncated: bool
    """ImageFile.LOAD_TRUNCATED_IMAGES"""

    @classmethod
    def of_this_process(cls) -> PillowSettings:
        """Return the settings."""
        return cls(Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)

    def apply(self) -> None:
        """Change the settings of this process."""
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = self


class ImageDecoder(Protocol):
    """What decodes images into a batch: Decoder, or its like for a device."""

    def decode(self, images: Sequence[memoryview], draws: Draws, out: Any) -> list[str]:
        """See `Decoder.decode`."""


class Decoder:
    """Decode images with one transform. Its methods may be called in several threads.

    Args:
        transform: What to crop, and how to resize it.
        kernel: Decodes JPEG; None leaves it to PIL.
        fast: Whether to decode JPEG at a smaller size, for speed, where the crop is resized to less than half.
    """

    def __init__(self, transform: Transform, kernel: JpegKernel | None, *, fast: bool = False) -> None:
        self._transform, self._kernel, self._fast = transform, kernel, fast

    def decode(self, images: Sequence[memoryview], draws: Draws, out: Pixels) -> list[str]:
        """Decode images into a batch.

        Args:
            images: Contents of the image files.
            draws: Random numbers of each image, float64 [N, transform.draws].
            out: The images' places in the batch, uint8 [N, size, size, 3], C-contiguous.

        Returns:
            For each image, why it can't be decoded; empty if it was.
        """
        faults = [""] * len(images)
        by_pil = range(len(images)) if self._kernel is None else self._by_kernel(self._kernel, images, draws, out)
        for at in by_pil:
            try:
                out[at] = self._by_pil(images[at], draws[at])
            except MemoryError:
                raise
            except UnsupportedImageError as error:
                faults[at] = f"it {error}"
            except Exception as error:  # PIL raises all kinds of exceptions on damaged bytes
                faults[at] = " ".join(f"{type(error).__name__}: {error}".split())
        return faults

    def _by_kernel(self, kernel: JpegKernel, images: Sequence[memoryview], draws: Draws, out: Pixels) -> list[int]:
        """Decode what the kernel takes, and return the positions of the other images.

        PIL has the last word on images that look damaged: it ignores some of libjpeg's warnings.
        """
        crops = np.zeros(len(images), CROP)
        others = []
        for at, crop in enumerate(self.plan(kernel.headers(images), images, draws)):
            if crop is None:
                others.append(at)
            else:
                crops[at] = crop
        for begin, end in _runs(len(images), others):
            for at, fault in enumerate(kernel.decode(images[begin:end], crops[begin:end], out[begin:end]), begin):
                if fault is not None:
                    others.append(at)
        return others

    def plan(self, headers: NDArray[np.void], images: Sequence[memoryview], draws: Draws) -> list[Crop | None]:
        """Say how to crop images.

        Args:
            headers: The images' headers, as `JpegKernel.headers` returns them.
            images: Contents of the image files.
            draws: Random numbers of each image.

        Returns:
            The crop of each JPEG image. None for other images, and those that PIL must decide about, since they have an
            unusual format, unusual dimensions or many scans.
        """
        crops: list[Crop | None] = []
        for at, (width, height, _, is_supported, is_progressive, _) in enumerate(headers.tolist()):
            is_usual = 0 < max(width, height) <= MAX_ASPECT_RATIO * min(width, height)
            is_usual = is_usual and width * height <= (Image.MAX_IMAGE_PIXELS or width * height)
            has_many_scans = is_progressive and has_more_scans(bytes(images[at]), MAX_SCANS)
            is_planned = is_supported and is_usual and not has_many_scans
            crops.append(self._crop(width, height, draws[at]) if is_planned else None)
        return crops

    def _by_pil(self, data: memoryview, draws: Draws) -> Pixels:
        if self._fast:
            with suppress(OSError):  # libjpeg doesn't scale lossless files, which PIL takes for a fault
                return self._by_pil_at(data, draws, fast=True)
        return self._by_pil_at(data, draws, fast=False)

    def _by_pil_at(self, data: memoryview, draws: Draws, *, fast: bool) -> Pixels:
        with io.BytesIO(data) as file, open_image(file) as image:
            require_supported(bytes(data), image)
            crop = self._draft(image, draws) if fast and isinstance(image, JpegImageFile) else None
            rgb = image.convert("RGB")
        return np.asarray(apply_crop(rgb, crop or self._transform.crop(*rgb.size, draws), self._transform.size))

    def _crop(self, width: int, height: int, draws: Draws) -> Crop:
        """Return the crop of a JPEG image of this size."""
        crop = self._transform.crop(width, height, draws)
        return crop.scaled() if self._fast else crop

    def _draft(self, image: JpegImageFile, draws: Draws) -> Crop | None:
        """Have PIL decode an image at the size that its crop needs. Return the crop, or None if PIL can't do that."""
        crop = self._crop(*image.size, draws)
        divisor = 8 // crop.eighths
        scaled = image.draft(None, (image.width // divisor, image.height // divisor))
        return None if scaled is None else crop


def _runs(length: int, gaps: Sequence[int]) -> list[tuple[int, int]]:
    """Return the ranges of positions below `length` between `gaps`, which are sorted."""
    ends = [*gaps, length]
    begins = [0, *(gap + 1 for gap in gaps)]
    return [(begin, end) for begin, end in zip(begins, ends, strict=True) if begin < end]


def apply_crop(image: Image.Image, crop: Crop, size: int) -> Image.Image:
    """Crop and resize an image with PIL.

    Args:
        image: The image, of `crop.eighths` of its size.
        crop: What to crop, and how to resize it.
        size: Width and height of the result.

    Example:
        >>> apply_crop(Image.new("RGB", (300, 400)), Crop(0, 0, 300, 400, 256, 341, 16, 58), 224).size
        (224, 224)
    """
    region = (crop.x, crop.y, crop.x + crop.width, crop.y + crop.height)
    left, top, right, bottom = (edge * crop.eighths / 8 for edge in region)
    x, y = int(left), int(top)
    if (x, y, math.ceil(right), math.ceil(bottom)) != (0, 0, *image.size):
        image = image.crop((x, y, math.ceil(right), math.ceil(bottom)))
    resized, box = (crop.resized_width, crop.resized_height), (left - x, top - y, right - x, bottom - y)
    if box != (0, 0, *resized):
        image = image.resize(resized, Image.Resampling.BILINEAR, box)
    if image.size != (size, size):
        image = image.crop((crop.window_x, crop.window_y, crop.window_x + size, crop.window_y + size))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop.flip else image


def has_digest(content: memoryview, digest: NDArray[np.uint8]) -> bool:
    """Return whether bytes have a sha256, uint8 [32]."""
    return hashlib.sha256(content).digest() == digest.tobytes()
