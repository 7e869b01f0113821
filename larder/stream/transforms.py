"""Say which part of an image is cropped, and how it is resized. The pixels are made by `larder.stream.decode`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_TRIES = 10
MAX_SIDE = 16_384
"""Maximum side of a batch's images."""


class Crop(NamedTuple):
    """How to get from an image to its place in a batch, in pixels.

    The image is cropped to the region, as by PIL's `crop`; the result is resized, as by PIL's `resize` with BILINEAR;
    and of that, only the window is kept.
    """

    x: int
    y: int
    width: int
    height: int
    resized_width: int
    resized_height: int
    window_x: int = 0
    window_y: int = 0
    flip: bool = False
    """Whether the window is mirrored, left to right."""
    eighths: int = 8
    """Eighths of its size at which a JPEG image is decoded. The other fields refer to the whole image."""

    def scaled(self) -> Crop:
        """Return the same crop of the smallest decoded image that needn't be enlarged: of 1, 2, 4 or 8 eighths.

        Example:
            >>> Crop(0, 0, 1024, 768, 341, 256).scaled().eighths
            4
        """
        for eighths in (1, 2, 4):
            if self.width * eighths >= 8 * self.resized_width and self.height * eighths >= 8 * self.resized_height:
                return self._replace(eighths=eighths)
        return self


class Transform(ABC):
    """Base class of transforms.

    Attributes:
        size: Width and height of a batch's images, in pixels.
        draws: Random numbers that each image needs.
    """

    size: int
    draws: int = 0

    @abstractmethod
    def crop(self, width: int, height: int, draws: NDArray[np.float64]) -> Crop:
        """Return how to crop and resize an image.

        Args:
            width: Width of the image in pixels.
            height: Its height.
            draws: Uniform random numbers in [0, 1), float64 [self.draws].
        """


@dataclass(frozen=True)
class CenterCrop(Transform):
    """Resize the shorter side, then crop the center, as torchvision's Resize and CenterCrop do with PIL.

    Args:
        resize: The shorter side after resizing, in pixels.
        crop: Width and height of the crop, in pixels; at most `resize`.

    Raises:
        ValueError: If a size is out of range.

    Example:
        >>> CenterCrop(resize=256, crop=224).size
        224
    """

    resize: int = 256
    crop_size: int = 224

    def __init__(self, resize: int = 256, crop: int = 224) -> None:
        if not 1 <= crop <= resize <= MAX_SIDE:
            raise ValueError(f"crop={crop}, resize={resize}: must be 1 <= crop <= resize <= {MAX_SIDE:,}")
        object.__setattr__(self, "resize", resize)
        object.__setattr__(self, "crop_size", crop)

    @property
    def size(self) -> int:  # type: ignore[override]
        """Width and height of a batch's images, in pixels."""
        return self.crop_size

    def crop(self, width: int, height: int, draws: NDArray[np.float64]) -> Crop:
        """Return the crop of an image of `width` x `height` pixels. `draws` isn't used."""
        short, long = min(width, height), max(width, height)
        resized_long = int(self.resize * long / short)
        resized = (self.resize, resized_long) if width <= height else (resized_long, self.resize)
        left, top = (round((side - self.crop_size) / 2.0) for side in resized)
        return Crop(0, 0, width, height, *resized, left, top)


@dataclass(frozen=True)
class RandomResizedCrop(Transform):
    """Crop a random part, resize it, and mirror it at random.

    It does what torchvision's RandomResizedCrop and RandomHorizontalFlip do with PIL, with other random numbers.
    The same sample, epoch and seed give the same crop, whatever the number of ranks and threads.

    Args:
        size: Width and height of the result, in pixels.
        scale: Smallest and largest part of the image's area.
        ratio: Smallest and largest ratio of width to height.
        flip: Probability of mirroring, left to right.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> RandomResizedCrop(176, scale=(0.25, 1.0)).size
        176
    """

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    draws = 4 * _TRIES + 1

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_SIDE:
            raise ValueError(f"size={self.size}: must be 1 to {MAX_SIDE:,}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(
                f"scale={self.scale}, ratio={self.ratio}: must be positive, in ascending order, scale at most 1"
            )
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip={self.flip}: must be a probability")

    def crop(self, width: int, height: int, draws: NDArray[np.float64]) -> Crop:
        """Return the crop of an image of `width` x `height` pixels, from the random numbers `draws`."""
        flip = bool(draws[-1] < self.flip)
        log_ratio = math.log(self.ratio[0]), math.log(self.ratio[1])
        for area_draw, ratio_draw, x_draw, y_draw in draws[:-1].reshape(_TRIES, 4):
            area = width * height * (self.scale[0] + area_draw * (self.scale[1] - self.scale[0]))
            aspect = math.exp(log_ratio[0] + ratio_draw * (log_ratio[1] - log_ratio[0]))
            crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                x, y = int(x_draw * (width - crop_width + 1)), int(y_draw * (height - crop_height + 1))
                return Crop(x, y, crop_width, crop_height, self.size, self.size, flip=flip)
        return self._center(width, height, flip)

    def _center(self, width: int, height: int, flip: bool) -> Crop:
        """Return the largest crop in the center whose ratio is allowed."""
        crop_width, crop_height = width, height
        if width < self.ratio[0] * height:
            crop_height = max(1, round(width / self.ratio[0]))
        elif width > self.ratio[1] * height:
            crop_width = max(1, round(height * self.ratio[1]))
        x, y = (width - crop_width) // 2, (height - crop_height) // 2
        return Crop(x, y, crop_width, crop_height, self.size, self.size, flip=flip)
