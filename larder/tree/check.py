"""Validate one image file: format, completeness, and whether loaders decode it correctly."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib

from PIL import Image, UnidentifiedImageError
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from larder.images import UnsupportedImageError, open_image, require_supported
from larder.tree.file_names import EXTENSIONS
from larder.tree.recipes import RejectError
from larder.tree.settings import Verify

_PNG_DEPTH_AT = 24  # IHDR's bit depth: PNG (third edition), 11.2.1
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # the whole last chunk, with its checksum: PNG (third edition), 11.2.4
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_WITHOUT_END = ("BMP", "PPM", "TIFF")  # no end marker: completeness needs a full decode, which is fast

# What Pillow's decoders are known to raise on damaged data.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    struct.error,
    zlib.error,
)


def check_name(name: str) -> None:
    """Raise RejectError for a file name that a loader or a store can't handle."""
    if not name.lower().endswith(EXTENSIONS):
        raise RejectError(f"doesn't have an image's extension: ImageFolder reads {' '.join(EXTENSIONS)}")
    if not name.isprintable() and any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise RejectError("has a control character (such as a newline) in its name: rename it")


def check_image(data: bytes, verify: Verify) -> tuple[int, int] | None:
    """Return width and height in pixels as stored; None if `verify` is "none".

    Raises:
        RejectError: If `data` isn't an image, is incomplete, or would be decoded wrongly.
    """
    if not data:
        raise RejectError("is empty")
    if verify == "none":
        return None
    stream = _Stream(data)
    try:
        # Pillow's warnings about unusual metadata would mix with machine-readable output.
        with warnings.catch_warnings(action="ignore"), open_image(stream) as image:
            _check_end(data, str(image.format), max(stream.furthest, stream.tell()))
            _check_colours(data, image)
            require_supported(data, image)
            size = image.size
            if verify == "decode" or image.format in _WITHOUT_END:
                # For JPEG, request luma only: the decoder still decodes all coefficients of all channels, where damage
                # shows. It skips the inverse transform of chroma and the colour conversion, which accept any numbers
                # and take a third of the time.
                image.draft("L", None)
                image.load()
            return size
    except UnidentifiedImageError:
        raise RejectError(f"is not a readable image: it begins with {data[:12]!r}") from None
    except Image.DecompressionBombError:
        raise RejectError(f"states more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from None
    except UnsupportedImageError as fault:
        raise RejectError(str(fault)) from None
    except RejectError:
        raise
    except _DECODER_ERRORS as fault:
        raise RejectError(f"does not decode: {fault}") from None


class _Stream(io.BytesIO):
    """Stream that records the furthest position read: Pillow rewinds a JPEG that holds several pictures."""

    furthest = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self.furthest = max(self.furthest, self.tell())
        return super().seek(offset, whence)


def _check_end(data: bytes, kind: str, header_ends: int) -> None:
    """Raise RejectError for a truncated file. `header_ends` is where PIL stopped reading; for JPEG, at the scan."""
    if kind in ("JPEG", "MPO"):  # entropy-coded data never holds the end-of-image marker: ITU-T T.81, B.1.1.5
        is_complete = data.rfind(b"\xff\xd9", header_ends) >= 0
    elif kind == "PNG":
        is_complete = data.rfind(_PNG_END) >= 0
    elif kind == "WEBP":
        is_complete = int.from_bytes(data[4:8], "little") + 8 <= len(data)
    else:
        return
    if not is_complete:
        raise RejectError(f"is cut off: the {kind} file has no end")


def _check_colours(data: bytes, image: Image.Image) -> None:
    if image.mode == "CMYK":
        raise RejectError("is in CMYK, which loaders turn into different colours: convert it to RGB")
    if image.mode == "LAB":
        raise RejectError("is in CIELAB, which loaders can't turn into RGB: convert it")
    if image.mode in _DEEP_MODES or _is_deep(data, image):
        raise RejectError("has 16 bits or more per channel, which loaders clip: convert it to 8")


def _is_deep(data: bytes, image: Image.Image) -> bool:
    """Return whether an image has more than 8 bits per channel although Pillow reports an 8-bit mode."""
    if image.format == "PNG":
        return data[_PNG_DEPTH_AT] == 16
    if isinstance(image, TiffImageFile):
        return any(bits > 8 for bits in image.tag_v2.get(BITSPERSAMPLE, ()))
    if isinstance(image, PpmImageFile):
        arguments = image.tile[0].args  # a tuple with the maximum value unless that is 255
        return isinstance(arguments, tuple) and int(arguments[1]) > 255
    return False
