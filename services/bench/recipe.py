"""The reference recipe, from a file's bytes to a tensor: the same for every arm.

It is what torchvision evaluates its ImageNet models with (`torchvision.models.ResNet50_Weights.IMAGENET1K_V1
.transforms()`), after PyTorch's ImageNet example (github.com/pytorch/examples, imagenet/main.py). It has no random
part, so each run does the same work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torchvision import transforms
from torchvision.datasets.folder import pil_loader

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

NAME = "PIL decode, Resize(256), CenterCrop(224), ImageNet normalization"
RESIZE_PIXELS = 256
CROP_PIXELS = 224
# Mean and standard deviation of ImageNet's red, green and blue, of 0..1, as in the sources above.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class UnreadableImageError(Exception):
    """An image that can't be decoded. It has one argument, so that DataLoader can carry it out of a worker."""


def transform() -> Callable[[Image], Tensor]:
    """From an RGB image of any size to float32 [3, 224, 224], normalized."""
    steps = [
        transforms.Resize(RESIZE_PIXELS),
        transforms.CenterCrop(CROP_PIXELS),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    composed: Callable[[Image], Tensor] = transforms.Compose(steps)
    return composed


def decode(path: str) -> Image:
    """Decode a file with PIL, as RGB. Raises UnreadableImageError that names it."""
    try:
        image: Image = pil_loader(path)
    except Exception as error:  # PIL raises nearly anything on damaged bytes
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UnreadableImageError(f"{path} can't be read: {reason}") from None
    return image
