"""Looking at one image file: is it one, is it whole, can a trainer read it?"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib

from PIL import Image, UnidentifiedImageError
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from larder.images import UnfitImageError, open_image, require_fit
from larder.tree.names import EXTENSIONS
from larder.tree.recipes import RejectError
from larder.tree.settings import Verify

_PNG_DEPTH_AT = 24  # IHDR's bit depth: PNG (third edition), 11.2.1
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # the whole last chunk, with its checksum: PNG (third edition), 11.2.4
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_WITHOUT_END = ("BMP", "PPM", "TIFF")  # only decoding tells whether they are whole; they decode fast

# What Pillow's decoders are known to raise on damaged data.
_DECODERS_RAISE = (
    OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, struct.error, zlib.error,
)  # fmt: skip


def check_name(name: str) -> None:
    """Raises RejectError for a file name that a loader or a store would stumble over."""
    if not name.lower().endswith(EXTENSIONS):
        raise RejectError(f"is no image by its name: ImageFolder reads {' '.join(EXTENSIONS)}")
    if not name.isprintable() and any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise RejectError("has a control character (such as a newline) in its name: rename it")


def check_image(data: bytes, verify: Verify) -> tuple[int, int] | None:
    """Width and height in pixels as stored, None when `verify` is none.

    Raises RejectError for what is no image, isn't whole, or would be read wrongly.
    """
    if not data:
        raise RejectError("is empty")
    if verify == "none":
        return None
    stream = _Stream(data)
    try:
        # Pillow's warnings of odd metadata would end up between the lines that machines read.
        with warnings.catch_warnings(action="ignore"), open_image(stream) as image:
            _check_end(data, str(image.format), max(stream.furthest, stream.tell()))
            _check_colours(data, image)
            require_fit(data, image)
            size = image.size
            if verify == "decode" or image.format in _WITHOUT_END:
                # For JPEG, ask for luma: all coefficients of all channels are decoded, where damage shows. What is
                # left out, the chroma's inverse transform and the colour matrix, takes any numbers, and a third of
                # the time.
                image.draft("L", None)
                image.load()
            return size
    except UnidentifiedImageError:
        raise RejectError(f"is no image that can be read: it begins with {data[:12]!r}") from None
    except Image.DecompressionBombError:
        raise RejectError(f"states more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels") from None
    except UnfitImageError as fault:
        raise RejectError(str(fault)) from None
    except RejectError:
        raise
    except _DECODERS_RAISE as fault:
        raise RejectError(f"does not decode: {fault}") from None


class _Stream(io.BytesIO):
    """Remembers how far it was read, since Pillow goes back to the start of a JPEG that holds several pictures."""

    furthest = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self.furthest = max(self.furthest, self.tell())
        return super().seek(offset, whence)


def _check_end(data: bytes, kind: str, header_ends: int) -> None:
    """A file that was cut off lacks its end mark. `header_ends` is where PIL stopped reading, for JPEG at the scan."""
    if kind in ("JPEG", "MPO"):  # entropy-coded data never holds the end-of-image marker: ITU-T T.81, B.1.1.5
        whole = data.rfind(b"\xff\xd9", header_ends) >= 0
    elif kind == "PNG":
        whole = data.rfind(_PNG_END) >= 0
    elif kind == "WEBP":
        whole = int.from_bytes(data[4:8], "little") + 8 <= len(data)
    else:
        return
    if not whole:
        raise RejectError(f"is cut off: the {kind} file has no end")


def _check_colours(data: bytes, image: Image.Image) -> None:
    if image.mode == "CMYK":
        raise RejectError("is in CMYK, which loaders turn into different colours: convert it to RGB")
    if image.mode == "LAB":
        raise RejectError("is in CIELAB, which loaders can't turn into RGB: convert it")
    if image.mode in _DEEP_MODES or _is_deep(data, image):
        raise RejectError("has 16 bits or more per channel, which loaders clip: convert it to 8")


def _is_deep(data: bytes, image: Image.Image) -> bool:
    """Whether more than 8 bits per channel hide behind an 8-bit mode of Pillow's."""
    if image.format == "PNG":
        return data[_PNG_DEPTH_AT] == 16
    if isinstance(image, TiffImageFile):
        return any(bits > 8 for bits in image.tag_v2.get(BITSPERSAMPLE, ()))
    if isinstance(image, PpmImageFile):
        arguments = image.tile[0].args  # with the largest value where that isn't 255
        return isinstance(arguments, tuple) and int(arguments[1]) > 255
    return False
