"""Decode, crop and resize images into a batch, to the pixels that PIL makes.

The kernel (`larder.stream.kernel`) decodes only the part of a JPEG that is needed. PIL does the rest: other formats,
CMYK, and all images where the kernel isn't built.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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


class Decoder:
    """Decode images with one transform. Its methods may be called in several threads.

    Args:
        transform: What to crop, and how to resize it.
        kernel: Decodes JPEG; None leaves it to PIL.
    """

    def __init__(self, transform: Transform, kernel: JpegKernel | None) -> None:
        self._transform, self._kernel = transform, kernel

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
        headers = kernel.headers(images)
        crops = np.zeros(len(images), CROP)
        others = []
        for at, (width, height, _, is_supported, is_progressive) in enumerate(headers.tolist()):
            # PIL decides about images with unusual dimensions, and words the error.
            is_usual = 0 < max(width, height) <= MAX_ASPECT_RATIO * min(width, height)
            is_usual = is_usual and width * height <= (Image.MAX_IMAGE_PIXELS or width * height)
            has_many_scans = is_progressive and has_more_scans(bytes(images[at]), MAX_SCANS)
            if is_supported and is_usual and not has_many_scans:
                crops[at] = self._transform.crop(width, height, draws[at])
            else:
                others.append(at)
        for begin, end in _runs(len(images), others):
            for at, fault in enumerate(kernel.decode(images[begin:end], crops[begin:end], out[begin:end]), begin):
                if fault is not None:
                    others.append(at)
        return others

    def _by_pil(self, data: memoryview, draws: Draws) -> Pixels:
        with io.BytesIO(data) as file, open_image(file) as image:
            require_supported(bytes(data), image)
            rgb = image.convert("RGB")
        return np.asarray(apply_crop(rgb, self._transform.crop(*rgb.size, draws), self._transform.size))


def _runs(length: int, gaps: Sequence[int]) -> list[tuple[int, int]]:
    """Return the ranges of positions below `length` between `gaps`, which are sorted."""
    ends = [*gaps, length]
    begins = [0, *(gap + 1 for gap in gaps)]
    return [(begin, end) for begin, end in zip(begins, ends, strict=True) if begin < end]


def apply_crop(image: Image.Image, crop: Crop, size: int) -> Image.Image:
    """Crop and resize an image with PIL.

    Args:
        image: The image.
        crop: What to crop, and how to resize it.
        size: Width and height of the result.

    Example:
        >>> apply_crop(Image.new("RGB", (300, 400)), Crop(0, 0, 300, 400, 256, 341, 16, 58), 224).size
        (224, 224)
    """
    if (crop.x, crop.y, crop.width, crop.height) != (0, 0, *image.size):
        image = image.crop((crop.x, crop.y, crop.x + crop.width, crop.y + crop.height))
    resized = (crop.resized_width, crop.resized_height)
    if image.size != resized:
        image = image.resize(resized, Image.Resampling.BILINEAR)
    if image.size != (size, size):
        image = image.crop((crop.window_x, crop.window_y, crop.window_x + size, crop.window_y + size))
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop.flip else image


def has_digest(content: memoryview, digest: NDArray[np.uint8]) -> bool:
    """Return whether bytes have a sha256, uint8 [32]."""
    return hashlib.sha256(content).digest() == digest.tobytes()
