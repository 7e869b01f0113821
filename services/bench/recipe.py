"""The reference recipe, from a file's bytes to a tensor: the same for every arm.

It is what torchvision evaluates its ImageNet models with (`torchvision.models.ResNet50_Weights.IMAGENET1K_V1
.transforms()`), after PyTorch's ImageNet example (github.com/pytorch/examples, imagenet/main.py). It has no random
part, so each run does the same work.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import Image
from torchvision import transforms

if TYPE_CHECKING:
    from torch import Tensor

NAME = "PIL decode, Resize(256), CenterCrop(224), ImageNet normalization"
RESIZE_PIXELS = 256
CROP_PIXELS = 224
# Mean and standard deviation of ImageNet's red, green and blue, of 0..1, as in the sources above.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class UnreadableImageError(Exception):
    """An image that can't be decoded. It has one argument, so that DataLoader can carry it out of a worker."""


class UnreadableFileError(UnreadableImageError):
    """An image's file that is there, and that the file system doesn't give."""


def transform() -> Callable[[Image.Image], Tensor]:
    """From an RGB image of any size to float32 [3, 224, 224], normalized."""
    steps = [
        transforms.Resize(RESIZE_PIXELS),
        transforms.CenterCrop(CROP_PIXELS),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    composed: Callable[[Image.Image], Tensor] = transforms.Compose(steps)
    return composed


def decode(source: str | bytes, name: str = "") -> Image.Image:
    """Decode a file's path or its bytes with PIL, as RGB, in torchvision's way (`torchvision.datasets.folder
    .pil_loader`). Raises UnreadableImageError that names it: by `name`, or by its path.
    """
    try:
        with open(source, "rb") if isinstance(source, str) else io.BytesIO(source) as file:
            return Image.open(file).convert("RGB")
    except Exception as error:  # PIL raises nearly anything on damaged bytes
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        # PIL's own OSErrors have no number, the system's have.
        of_the_system = isinstance(error, OSError) and error.errno not in (None, errno.ENOENT)
        kind = UnreadableFileError if of_the_system else UnreadableImageError
        raise kind(f"{name or source!s} can't be read: {reason}") from None
