"""Looking at one image file: is it one, is it whole, can a trainer read it?"""

from __future__ import annotations

import io
from typing import Literal

from PIL import Image, UnidentifiedImageError

from services.transform.recipes import RejectError

Verify = Literal["header", "decode", "none"]

# What torchvision's ImageFolder looks for (datasets/folder.py, IMG_EXTENSIONS), and PIL's names for what is inside.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")

_PNG_DEPTH_AT = 24  # IHDR's bit depth: PNG (third edition), 11.2.1
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def check_name(name: str) -> None:
    """Raises RejectError for a file name that a loader or a store would stumble over."""
    if not name.lower().endswith(EXTENSIONS):
        raise RejectError(f"is no image by its name: ImageFolder reads {' '.join(EXTENSIONS)}")
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise RejectError("has a control character (such as a newline) in its name: rename it")


def check_image(data: bytes, verify: Verify) -> tuple[int, int] | None:
    """Width and height in pixels as stored, None when `verify` is none.

    Raises RejectError for what is no image, isn't whole, or would be read wrongly.
    """
    if not data:
        raise RejectError("is empty")
    if verify == "none":
        return None
    stream = io.BytesIO(data)
    try:
        with Image.open(stream, formats=_FORMATS) as image:
            _check_end(data, str(image.format), stream.tell())
            _check_colours(data, image)
            if verify == "decode":
                image.load()
            return image.size
    except UnidentifiedImageError:
        raise RejectError(f"is no image that can be read: it begins with {data[:12]!r}") from None
    except Image.DecompressionBombError:
        raise RejectError(f"states more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from None
    except (OSError, SyntaxError, ValueError, EOFError) as fault:
        if isinstance(fault, RejectError):
            raise
        raise RejectError(f"does not decode: {fault}") from None


def _check_end(data: bytes, kind: str, header_ends: int) -> None:
    """A file that was cut off lacks its end mark. `header_ends` is where PIL stopped reading, for JPEG at the scan."""
    if kind == "JPEG":  # entropy-coded data never holds the end-of-image marker: ITU-T T.81, B.1.1.5
        whole = data.rfind(b"\xff\xd9", header_ends) >= 0
    elif kind == "PNG":
        whole = data.rfind(b"IEND") >= 0
    elif kind == "WEBP":
        whole = int.from_bytes(data[4:8], "little") + 8 <= len(data)
    else:
        return
    if not whole:
        raise RejectError(f"is cut off: the {kind} file has no end")


def _check_colours(data: bytes, image: Image.Image) -> None:
    if image.mode == "CMYK":
        raise RejectError("is in CMYK, which loaders turn into different colours: convert it to RGB")
    if image.mode in _DEEP_MODES or (image.format == "PNG" and data[_PNG_DEPTH_AT] == 16):
        raise RejectError("has 16 bits or more per channel, which loaders clip: convert it to 8")
