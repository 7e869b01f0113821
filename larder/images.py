"""Limit which images are decoded: by format, and by the work that decoding takes.

`transform` rejects other images. Readers check again before decoding, since files may be replaced or come from other
tools.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

if TYPE_CHECKING:
    from typing import IO

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
"""PIL's names of the formats that torchvision's ImageFolder reads (datasets/folder.py, IMG_EXTENSIONS)."""
MAX_IMAGE_BYTES = 1 << 30
"""Maximum size of a file. The largest image that PIL opens is smaller in each of the formats."""
MAX_ASPECT_RATIO = 200
"""Maximum ratio of the long side to the short one. With this ratio, Resize(256) makes 256 x 51,200 pixels; an image of
60,000 x 1 pixels would become 256 x 15,360,000."""
MAX_SCANS = 50
"""Maximum number of scans in a JPEG file. Progressive encoders write about 10. Decoding each scan passes over all
pixels, even if the scan is empty."""

_SCAN = b"\xff\xda"  # a start of scan: ITU-T T.81, B.1.1.3
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # a marker with a segment, or the end of the image
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


class UnsupportedImageError(ValueError):
    """An image must not be decoded. The message continues a sentence that begins with the image's name."""


def open_image(file: IO[bytes]) -> Image.Image:
    """Open an image in one of IMAGE_FORMATS without decoding it. Raises PIL's errors."""
    return Image.open(file, formats=IMAGE_FORMATS)


def require_supported(data: bytes, image: Image.Image) -> None:
    """Check that decoding and resizing an image takes no excessive time or memory.

    Args:
        data: Content of the image file.
        image: The same image, opened by `open_image`.

    Raises:
        UnsupportedImageError: If the image is too elongated, has too many JPEG scans, or too large TIFF tiles.
    """
    short, long = sorted(image.size)
    if long > MAX_ASPECT_RATIO * max(short, 1):
        _refuse(
            f"has {image.width:,} x {image.height:,} pixels: the longer side may be at most {MAX_ASPECT_RATIO} times "
            "the shorter one, since loaders would enlarge the image until the shorter side fits"
        )
    if isinstance(image, JpegImageFile) and not _is_one_scan(data, image) and has_more_scans(data, MAX_SCANS):
        _refuse(
            f"is a JPEG file of more than {MAX_SCANS} scans, which takes minutes to decode: save it as a baseline JPEG"
        )
    if isinstance(image, TiffImageFile):
        sides = [image.tag_v2.get(tag, 0) for tag in (TILEWIDTH, TILELENGTH)]
        max_pixels = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        if max_pixels and all(isinstance(side, int) for side in sides) and sides[0] * sides[1] > max_pixels:
            _refuse(f"is a TIFF file whose tiles have more than {max_pixels:,} pixels")


def _refuse(reason: str) -> NoReturn:
    raise UnsupportedImageError(reason)


def _is_one_scan(data: bytes, image: JpegImageFile) -> bool:
    """Return whether decoders read only the first scan of a JPEG file: sequential, with all components, as usual.

    PIL has stopped in front of that scan. Searching for further scans would double the time for an image's header.
    """
    length = 6 + 2 * image.layers  # ITU-T T.81, B.2.3
    begin = (image.fp.tell() if image.fp else 0) - length - len(_SCAN)
    head = _SCAN + length.to_bytes(2) + bytes([image.layers])
    return image.format == "JPEG" and "progressive" not in image.info and data[begin : begin + len(head)] == head


def has_more_scans(data: bytes, max_scans: int) -> bool:
    """Return whether a JPEG file has more than `max_scans` scans, without decoding it.

    Scan markers can't occur in coded data, but they can in a header's thumbnail or profile. So if the plain count is
    too high, follow the file from marker to marker up to the end of the image.
    """
    if data.count(_SCAN) <= max_scans:
        return False
    scans, offset = 0, 2
    while scans <= max_scans and (match := _MARKER.search(data, offset)) is not None:
        marker, offset = match[1][0], match.end()
        if marker == _END_OF_IMAGE:
            return False
        scans += marker == _START_OF_SCAN
        offset += max(2, int.from_bytes(data[offset : offset + 2]))
    return scans > max_scans
