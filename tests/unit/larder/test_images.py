"""Images that cost far more than their size suggests, and unsupported formats: in transform and in every loader."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from larder import images
from larder.tree.check import check_image
from larder.tree.recipes import RejectError
from tests import hostile


def loaders(data: bytes) -> None:
    from larder.loaders.failures import UnreadableImageError
    from larder.loaders.preprocessing import decode

    try:
        decode(data, "a.jpg")
    except UnreadableImageError as error:
        raise RejectError(str(error)) from None


def a_file(data: bytes) -> None:
    from tempfile import TemporaryDirectory

    from larder.loaders.failures import UnreadableImageError
    from larder.loaders.preprocessing import decode

    with TemporaryDirectory() as folder:
        place = Path(folder) / "a.jpg"
        place.write_bytes(data)
        try:
            decode(str(place))
        except UnreadableImageError as error:
            raise RejectError(str(error)) from None


READERS = {
    "header": lambda data: check_image(data, "header"),
    "decode": lambda data: check_image(data, "decode"),
    "loaders": loaders,
    "loaders, of a file": a_file,
}
readers = pytest.mark.parametrize("read", READERS.values(), ids=READERS)
Read = Callable[[bytes], object]


@readers
@pytest.mark.parametrize(
    ("width", "height", "kind"),
    [
        (60_000, 1, "JPEG"),
        (1, 60_000, "JPEG"),
        (10_000, 10, "PNG"),
        (9, 9_000, "TIFF"),
        (201, 1, "BMP"),
        (4, 16_000, "WEBP"),
        (1_000, 4, "PPM"),
    ],
)
def test_thin_images(read: Read, width: int, height: int, kind: str) -> None:
    with pytest.raises(RejectError, match=f"has {width:,} x {height:,} pixels: the longer side may be at most 200 "):
        read(hostile.thin(width, height, kind))


@readers
@pytest.mark.parametrize(("width", "height"), [(200, 1), (3, 600), (2000, 10), (1, 1)])
def test_narrow_images_that_are_read(read: Read, width: int, height: int) -> None:
    read(hostile.thin(width, height))


@readers
@pytest.mark.parametrize("scans", [51, 1500])
def test_jpeg_of_many_scans(read: Read, scans: int) -> None:
    with pytest.raises(RejectError, match="is a JPEG file of more than 50 scans"):
        read(hostile.jpeg_of_scans(scans))


@readers
def test_jpeg_of_some_scans(read: Read) -> None:
    read(hostile.jpeg_of_scans(40))


@readers
@pytest.mark.parametrize(("width", "height"), [(6_700, 6_700), (9_000, 9_000)])
def test_webp_that_takes_gigabytes(read: Read, width: int, height: int) -> None:
    with pytest.raises(RejectError, match="is a WebP file of more than 44,739,242 pixels"):
        read(hostile.webp(width, height))


def test_the_limit_of_webp_is_its_own() -> None:
    with images.open_image(io.BytesIO(hostile.webp(6_600, 6_600))) as image:
        images.require_supported(b"", image)
    assert 2 * (Image.MAX_IMAGE_PIXELS or 0) // 4 == images.MAX_WEBP_PIXELS


def with_a_segment(data: bytes, content: bytes) -> bytes:
    """A JPEG file with an application's segment behind its first marker."""
    return data[:2] + b"\xff\xed" + (len(content) + 2).to_bytes(2) + content + data[2:]


@readers
def test_bytes_in_a_header_that_look_like_scans_are_not_counted(read: Read) -> None:
    data = hostile.thin(64, 64)
    for _ in range(5):
        data = with_a_segment(data, b"\xff\xda\0\x08" * 1000)
    read(data)
    read(data + hostile.jpeg_of_scans(100))  # behind its end, where nobody reads
    data = hostile.jpeg_of_scans(51)
    with pytest.raises(RejectError, match="of more than 50 scans"):
        read(with_a_segment(data, b"\xff\xda\xff\xd9" * 1000))  # an end of image in a header is none, either


def test_scans_are_counted_as_a_decoder_finds_them() -> None:
    for scans in (1, 49, 50, 51, 52, 200):
        data = hostile.jpeg_of_scans(scans)
        known = data.count(b"\xff\xda")
        for most in (known - 1, known, known + 1):
            assert images.has_more_scans(data, most) == (known > most)
    assert not images.has_more_scans(b"\xff\xda" * 100, 100)
    assert images.has_more_scans(b"\xff\xd8" + b"\xff\xda\0\2" * 60, 50)
    assert not images.has_more_scans(b"\xff\xd8" + b"\xff\xda" * 60 + b"\xff", 100)


@readers
@pytest.mark.parametrize("kind", ["GIF", "ICO", "TGA", "PCX", "SGI", "JPEG2000", "EPS", "PDF", "DDS", "ICNS"])
def test_formats_that_nobody_reads(read: Read, kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, kind)
    with pytest.raises(RejectError, match=r"is not a readable image|cannot identify image file"):
        read(file.getvalue())


def tiff(tile: int) -> bytes:
    """Return a TIFF file of 64 x 64 pixels whose only tile states another size."""
    content = b"\x80\x00\x10\x10"  # LZW's clear code and its end
    tags = [
        (256, 64),
        (257, 64),
        (258, 8),
        (259, 5),
        (262, 1),
        (277, 1),
        (322, tile),
        (323, tile),
        (324, 8),
        (325, len(content)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 12) + content + struct.pack("<H", len(tags)) + entries + bytes(4)


@readers
def test_tiles_larger_than_any_picture(read: Read) -> None:
    with pytest.raises(RejectError, match="is a TIFF file whose tiles have more than"):
        read(tiff(1 << 20))
    with pytest.raises(RejectError, match=r"does not decode|can't be read: OSError"):
        read(tiff(64))


@readers
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_scans_of_a_sequential_file_are_counted_too(read: Read, mode: str) -> None:
    """A decoder reads all scans of one component; a scan of all components is the last that it reads."""
    file = io.BytesIO()
    Image.new(mode, (64, 64), 90 if mode == "L" else "red").save(file, "JPEG")
    data = file.getvalue()
    read(data)
    begin, end = data.index(b"\xff\xda"), data.rindex(b"\xff\xd9")
    if mode == "RGB":
        scan = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + data[begin + 14 : end]
        with pytest.raises(RejectError, match="of more than 50 scans"):
            read(data[:begin] + scan * 51 + data[end:])
