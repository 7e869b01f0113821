"""The reference preprocessing, from a file's bytes to a tensor: the same for every loader.

It is what torchvision evaluates its ImageNet models with (`torchvision.models.ResNet50_Weights.IMAGENET1K_V1
.transforms()`), after PyTorch's ImageNet example (github.com/pytorch/examples, imagenet/main.py). It has no random
part, so each run does the same work.
"""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import Image
from torchvision import transforms

from larder.images import MOST_BYTES, UnfitImageError, open_image, require_fit
from larder.loaders.failures import UnreadableFileError, UnreadableImageError

if TYPE_CHECKING:
    from torch import Tensor

RESIZE_PIXELS = 256
CROP_PIXELS = 224
# Mean and standard deviation of ImageNet's red, green and blue, of 0..1, as in the sources above.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def reference_transform() -> Callable[[Image.Image], Tensor]:
    """Make the transform that loaders apply unless given another.

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
    """Decode an image with PIL, in torchvision's way (`torchvision.datasets.folder.pil_loader`).

    Only the formats that `transform` accepts are opened, and what it rejects for its shape or its scans isn't decoded.

    Args:
        source: A file's path, or its bytes.
        name: What an error calls it; by default its path.
        sha256: The digest that its bytes must have, 32 bytes; None doesn't look. Nothing parses others.

    Returns:
        The image as RGB.

    Raises:
        UnreadableImageError: If it can't be decoded, or has another digest.
        UnreadableFileError: If the file system doesn't give it.

    Example:
        >>> from io import BytesIO
        >>> from PIL import Image
        >>> Image.new("L", (300, 400)).save(file := BytesIO(), "JPEG")
        >>> decode(file.getvalue()).mode
        'RGB'
    """
    shown = name or str(source)
    if not shown.isprintable():
        shown = ascii(shown)[1:-1]  # one line, whatever a tar member is called
    try:
        data = _read(source) if isinstance(source, str) else source
        if len(data) > MOST_BYTES:
            raise UnfitImageError(f"has more than {MOST_BYTES:,} bytes")
        if sha256 is not None and hashlib.sha256(data).digest() != sha256:
            raise UnfitImageError("has other bytes than the data set's index says")
        with io.BytesIO(data) as file, open_image(file) as image:
            require_fit(data, image)
            return image.convert("RGB")
    except UnfitImageError as error:
        raise UnreadableImageError(f"{shown} can't be read: it {error}") from None
    except Exception as error:  # PIL raises nearly anything on damaged bytes
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        # PIL's own OSErrors have no number, the system's have.
        of_the_system = isinstance(error, OSError) and error.errno not in (None, errno.ENOENT)
        kind = UnreadableFileError if of_the_system else UnreadableImageError
        raise kind(f"{shown} can't be read: {reason}") from None


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(MOST_BYTES + 1)
