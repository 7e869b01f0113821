"""What an image may be: the formats that are read, and how much work its file may ask for.

`transform` rejects all else, and every reader refuses to decode it: files may have come from elsewhere, or be replaced.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TILELENGTH, TILEWIDTH, TiffImageFile

if TYPE_CHECKING:
    from typing import IO

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF")
"""PIL's names of those that torchvision's ImageFolder looks for (datasets/folder.py, IMG_EXTENSIONS)."""
MOST_BYTES = 1 << 30
"""Of a file: as many pixels as PIL opens take less, in any of the formats."""
MOST_ASPECT = 200
"""How many times the short side the long one may be: Resize(256) makes 256 x 51,200 pixels of this, and of 60,000 x 1
256 x 15,360,000."""
MOST_SCANS = 50
"""Of a JPEG file. Encoders write about 10 progressive ones; each goes through all pixels, and may have no bytes."""

_SCAN = b"\xff\xda"  # a start of scan: ITU-T T.81, B.1.1.3
_MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # one with a segment, or the end of the image
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


class UnfitImageError(ValueError):
    """An image that isn't to be decoded; the message goes on from its name."""


def open_image(file: IO[bytes]) -> Image.Image:
    """Open an image in one of FORMATS, which doesn't decode it. Raises what PIL does."""
    return Image.open(file, formats=FORMATS)


def require_fit(data: bytes, image: Image.Image) -> None:
    """Raise UnfitImageError if to decode or resize an image takes far more than others take; `data` is its file."""
    short, long = sorted(image.size)
    if long > MOST_ASPECT * max(short, 1):
        _refuse(
            f"has {image.width:,} x {image.height:,} pixels: one side may be {MOST_ASPECT} times the other, or loaders "
            "would make a huge picture of it"
        )
    if isinstance(image, JpegImageFile) and not _is_one_scan(data, image) and has_more_scans(data, MOST_SCANS):
        _refuse(
            f"is a JPEG file of more than {MOST_SCANS} scans, which takes minutes to decode: save it as a baseline JPEG"
        )
    if isinstance(image, TiffImageFile):
        sides = [image.tag_v2.get(tag, 0) for tag in (TILEWIDTH, TILELENGTH)]
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        if most and all(isinstance(side, int) for side in sides) and sides[0] * sides[1] > most:
            _refuse(f"is a TIFF file whose tiles have more than {most:,} pixels")


def _refuse(reason: str) -> NoReturn:
    raise UnfitImageError(reason)


def _is_one_scan(data: bytes, image: JpegImageFile) -> bool:
    """Whether the first scan of a JPEG file, before which PIL has stopped, is all that decoders read, as in most files:

    sequential, with all components. To look for others takes as long as all else that is done to an image's header.
    """
    length = 6 + 2 * image.layers  # ITU-T T.81, B.2.3
    begin = (image.fp.tell() if image.fp else 0) - length - len(_SCAN)
    head = _SCAN + length.to_bytes(2) + bytes([image.layers])
    return image.format == "JPEG" and "progressive" not in image.info and data[begin : begin + len(head)] == head


def has_more_scans(data: bytes, most: int) -> bool:
    """Whether a JPEG file has more than `most` scans. Nothing is decoded.

    The marker of a scan can't stand in coded data, but in the thumbnail or the profile of a header it can: where it is
    found so often, the file is followed from marker to marker up to its end of image.
    """
    if data.count(_SCAN) <= most:
        return False
    scans, place = 0, 2
    while scans <= most and (found := _MARKER.search(data, place)) is not None:
        marker, place = found[1][0], found.end()
        if marker == _END_OF_IMAGE:
            return False
        scans += marker == _START_OF_SCAN
        place += max(2, int.from_bytes(data[place : place + 2]))
    return scans > most
