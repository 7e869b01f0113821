"""The reference preprocessing of all loaders, from a file's bytes to a tensor.

It is the transform with which torchvision evaluates its ImageNet models
(`torchvision.models.ResNet50_Weights.IMAGENET1K_V1.transforms()`), after PyTorch's ImageNet example
(github.com/pytorch/examples, imagenet/main.py). It has no random part, so each run does the same work.
"""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import Image
from torchvision import transforms

from larder.imagenet import IMAGENET_MEAN, IMAGENET_STD
from larder.images import MAX_IMAGE_BYTES, UnsupportedImageError, open_image, require_supported
from larder.loaders.failures import UnreadableFileError, UnreadableImageError

if TYPE_CHECKING:
    from torch import Tensor

RESIZE_PIXELS = 256
CROP_PIXELS = 224


def reference_transform() -> Callable[[Image.Image], Tensor]:
    """Return the transform that loaders apply by default.

    Returns:
        A function from an RGB image of any size to float32 [3, 224, 224], normalized.

    Example:
        >>> from PIL import Image
        >>> reference_transform()(Image.new("RGB", (300, 400))).shape
        torch.Size([3, 224, 224])
    """
    steps = [
        transforms.Resize(RESIZE_PIXELS),
        transforms.CenterCrop(CROP_PIXELS),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    composed: Callable[[Image.Image], Tensor] = transforms.Compose(steps)
    return composed


def decode(source: str | bytes, name: str = "", sha256: bytes | None = None) -> Image.Image:
    """Decode an image with PIL, as `torchvision.datasets.folder.pil_loader` does.

    Accepts only images that the stage `transform` accepts: its formats, and its limits on dimensions and scans.

    Args:
        source: Path or content of the file.
        name: Name for error messages; by default the path.
        sha256: Expected digest, 32 bytes; None skips the check. Bytes with another digest are never parsed.

    Returns:
        The image as RGB.

    Raises:
        UnreadableImageError: If it can't be decoded, or has another digest.
        UnreadableFileError: If the file system can't read it.

    Example:
        >>> from io import BytesIO
        >>> from PIL import Image
        >>> Image.new("L", (300, 400)).save(file := BytesIO(), "JPEG")
        >>> decode(file.getvalue()).mode
        'RGB'
    """
    shown = name or str(source)
    if not shown.isprintable():
        shown = ascii(shown)[1:-1]  # one printable line: names of tar members are untrusted
    try:
        data = _read(source) if isinstance(source, str) else source
        if len(data) > MAX_IMAGE_BYTES:
            raise UnsupportedImageError(f"has more than {MAX_IMAGE_BYTES:,} bytes")
        if sha256 is not None and hashlib.sha256(data).digest() != sha256:
            raise UnsupportedImageError("has other bytes than the dataset's index says")
        with io.BytesIO(data) as file, open_image(file) as image:
            require_supported(data, image)
            return image.convert("RGB")
    except UnsupportedImageError as error:
        raise UnreadableImageError(f"{shown} can't be read: it {error}") from None
    except Exception as error:  # PIL raises all kinds of exceptions on damaged bytes
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        # PIL's own OSErrors have no errno; the system's have one.
        is_system_error = isinstance(error, OSError) and error.errno not in (None, errno.ENOENT)
        kind = UnreadableFileError if is_system_error else UnreadableImageError
        raise kind(f"{shown} can't be read: {reason}") from None


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(MAX_IMAGE_BYTES + 1)
