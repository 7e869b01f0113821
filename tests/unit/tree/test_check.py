"""Which images are accepted, and why others are rejected."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from larder.tree.check import EXTENSIONS, check_image, check_name
from larder.tree.recipes import RejectError

Encode = Callable[..., bytes]


def exif_with_thumbnail(thumbnail: bytes) -> bytes:
    """An EXIF block whose second directory names an embedded JPEG: JEITA CP-3451, 4.5.8."""
    offset = 8 + 2 + 4 + 2 + 2 * 12 + 4
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<HI", 0, 14)
    tiff += struct.pack("<H", 2) + struct.pack("<HHII", 0x0201, 4, 1, offset)
    tiff += struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail)) + struct.pack("<I", 0)
    return b"Exif\0\0" + tiff + thumbnail


def tiff_rgb_16() -> bytes:
    """A TIFF of 2 x 2 pixels with 16 bits per channel, which Pillow opens as plain RGB: TIFF 6.0, section 6."""
    pixels = b"\1\2" * 12
    fields = [
        (256, 3, 1, 2),
        (257, 3, 1, 2),
        (258, 3, 3, 8 + 24),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, 3),
        (278, 3, 1, 2),
        (279, 4, 1, len(pixels)),
    ]
    bits = struct.pack("<3H", 16, 16, 16)
    directory = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", *field) for field in fields)
    return b"II*\0" + struct.pack("<I", 8 + 24 + 6) + pixels + bits + directory + struct.pack("<I", 0)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG with only a header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


GOOD: list[tuple[str, str, str, dict[str, Any]]] = [
    ("jpeg", "JPEG", "RGB", {}),
    ("jpeg-progressive", "JPEG", "RGB", {"progressive": True}),
    ("jpeg-444", "JPEG", "RGB", {"subsampling": 0}),
    ("jpeg-gray", "JPEG", "L", {}),
    ("jpeg-exif-thumbnail", "JPEG", "RGB", {"exif": exif_with_thumbnail(b"\xff\xd8\xff\xd9")}),
    ("jpeg-of-several-pictures", "MPO", "RGB", {"save_all": True, "append_images": [Image.new("RGB", (48, 32))]}),
    ("png", "PNG", "RGB", {}),
    ("png-rgba", "PNG", "RGBA", {}),
    ("png-palette", "PNG", "P", {}),
    ("png-gray-alpha", "PNG", "LA", {}),
    ("png-1-bit", "PNG", "1", {}),
    ("webp", "WEBP", "RGB", {}),
    ("webp-lossless", "WEBP", "RGBA", {"lossless": True}),
    ("bmp", "BMP", "RGB", {}),
    ("ppm", "PPM", "RGB", {}),
    ("pgm", "PPM", "L", {}),
    ("tiff", "TIFF", "RGB", {}),
    ("tiff-lzw", "TIFF", "RGB", {"compression": "tiff_lzw"}),
]


@pytest.mark.parametrize("verify", ["header", "decode"])
@pytest.mark.parametrize(("kind", "mode", "options"), [item[1:] for item in GOOD], ids=[item[0] for item in GOOD])
def test_accepts(encode: Encode, kind: str, mode: str, options: dict[str, Any], verify: Any) -> None:
    assert check_image(encode(kind, mode, **options), verify) == (48, 32)


def test_size_is_as_stored_whatever_exif_says_of_the_orientation(encode: Encode) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert check_image(encode("JPEG", exif=exif), "header") == (48, 32)


@pytest.mark.parametrize(("kind", "mode", "options"), [item[1:] for item in GOOD], ids=[item[0] for item in GOOD])
def test_every_cut_is_found_in_header_mode(encode: Encode, kind: str, mode: str, options: dict[str, Any]) -> None:
    whole = encode(kind, mode, **options)
    end = whole.rindex(b"\xff\xd9") + 2 if kind == "JPEG" else len(whole)
    if kind == "MPO":  # the first picture is the one that counts
        end = whole.index(b"\xff\xd8\xff", 2)
        end = whole.rindex(b"\xff\xd9", 0, end) + 2
    cuts = range(1, end) if end < 2000 else random.Random(1).sample(range(1, end), 400)
    for length in cuts:
        try:
            check_image(whole[:length], "header")
        except RejectError:
            continue
        # What is missing of a TIFF may be unused; then all pixels are there.
        assert kind == "TIFF" and check_image(whole[:length], "decode") == (48, 32), f"{length} of {len(whole)} bytes"


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_end_mark_of_a_thumbnail_is_not_the_end(encode: Encode, kind: str) -> None:
    exif = exif_with_thumbnail(encode("JPEG", size=(16, 16)))
    more = {"save_all": True, "append_images": [Image.new("RGB", (48, 32))]} if kind == "MPO" else {}
    whole = encode(kind, exif=exif, quality=95, **more)
    assert check_image(whole, "header") == (48, 32)
    scan = whole.index(b"\xff\xda", whole.index(exif) + len(exif))
    for length in (scan + 4, scan + 20, scan + 60):
        with pytest.raises(RejectError, match=r"is cut off|does not decode"):
            check_image(whole[:length], "header")


@hypothesis_settings(max_examples=150, deadline=None)
@given(data=st.data(), item=st.sampled_from(GOOD))
def test_damage_raises_nothing_but_a_reject(encode: Encode, data: st.DataObject, item: Any) -> None:
    damaged = bytearray(encode(item[1], item[2], **item[3]))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for verify in ("header", "decode"):
        try:
            with warnings.catch_warnings(action="error"):
                check_image(bytes(damaged), verify)  # type: ignore[arg-type]
        except RejectError as fault:
            assert str(fault)


@given(st.binary(max_size=64))
def test_noise_is_no_image(noise: bytes) -> None:
    with pytest.raises(RejectError):
        check_image(noise, "header")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_damage_in_the_middle_is_found_by_decoding_alone(encode: Encode, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    whole = encode(kind, size=(200, 200), **options)
    middle = len(whole) // 2
    damaged = whole[:middle] + bytes(byte ^ 0x5A for byte in whole[middle : middle + 40]) + whole[middle + 40 :]
    with pytest.raises(RejectError, match="does not decode"):
        check_image(damaged, "decode")


def test_missing_middle_of_a_jpeg_is_found_by_decoding(encode: Encode) -> None:
    whole = encode("JPEG", size=(200, 200), quality=95)
    scan = whole.rindex(b"\xff\xda") + 14
    hollow = whole[: scan + 50] + whole[-2:]
    assert check_image(hollow, "header") == (200, 200)
    with pytest.raises(RejectError):
        check_image(whole[: scan + 50], "decode")


BAD = [
    ("empty", b"", "is empty"),
    ("text", b"This is no picture at all.\n", "not a readable image: it begins with b'This is no p"),
    ("html", b"<!DOCTYPE html><html>", "not a readable image"),
    ("gif", b"GIF89a" + bytes(40), "not a readable image"),
    ("png-bomb", png_header(60_000, 60_000), "states more than"),
    ("tiff-rgb-16", tiff_rgb_16(), "16 bits or more per channel"),
    ("ppm-16", b"P6 2 2 65535\n" + b"\1\2" * 12, "16 bits or more per channel"),
    ("pgm-16", b"P5 2 2 65535\n" + b"\1\2" * 4, "16 bits or more per channel"),
]


@pytest.mark.parametrize(("data", "reason"), [item[1:] for item in BAD], ids=[item[0] for item in BAD])
def test_rejects_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(RejectError, match=reason):
        check_image(data, "header")


@pytest.mark.parametrize(
    ("kind", "mode", "reason"),
    [
        ("JPEG", "CMYK", "CMYK"),
        ("TIFF", "CMYK", "CMYK"),
        ("PNG", "I;16", "16 bits"),
        ("TIFF", "I;16", "16 bits"),
        ("TIFF", "F", "16 bits"),
        ("TIFF", "LAB", "CIELAB"),
    ],
)
def test_rejects_colours_that_loaders_get_wrong(encode: Encode, kind: str, mode: str, reason: str) -> None:
    stream = io.BytesIO()
    Image.new(mode, (8, 8)).save(stream, kind)
    with pytest.raises(RejectError, match=reason):
        check_image(stream.getvalue(), "header")


def test_without_verification_only_emptiness_is_seen() -> None:
    assert check_image(b"text", "none") is None
    with pytest.raises(RejectError, match="is empty"):
        check_image(b"", "none")


@pytest.mark.parametrize(
    "name", ["a b.jpg", "naïve 拉面 🍜.JPG", "-rf.jpg", "--.jpeg", *(f"x{end}" for end in EXTENSIONS)]
)
def test_accepts_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a\nb.jpg", "control character"),
        ("\t.png", "control character"),
        ("a\x7f.jpg", "control character"),
        ("notes.txt", "an image's extension"),
        ("jpg", "an image's extension"),
        ("a.jpg.part", "an image's extension"),
    ],
)
def test_rejects_names(name: str, reason: str) -> None:
    with pytest.raises(RejectError, match=reason):
        check_name(name)


def decodes(data: bytes) -> bool:
    """Decode every pixel to RGB, like a loader."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except Exception:
        return False
    return True


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"keep_rgb": True}], ids=["baseline", "progressive", "RGB"]
)
def test_decoding_luma_finds_the_damage_that_decoding_to_rgb_finds(options: dict[str, Any]) -> None:
    chance = random.Random(7)
    stream = io.BytesIO()
    Image.frombytes("RGB", (96, 80), chance.randbytes(96 * 80 * 3)).save(stream, "JPEG", quality=80, **options)
    whole, found = stream.getvalue(), {True: 0, False: 0}
    for _ in range(300):
        data = bytearray(whole)
        at = chance.randrange(2, len(data) - 2)
        length = chance.randrange(1, 400)
        data[at : at + length] = b"" if chance.random() < 0.3 else chance.randbytes(min(length, len(data) - at - 2))
        if not data.endswith(b"\xff\xd9"):
            data += b"\xff\xd9"  # else the missing end alone would be found
        try:
            check_image(bytes(data), "decode")
            passes = True
        except RejectError:
            passes = False
        assert passes == decodes(bytes(data))
        found[passes] += 1
    assert min(found.values()) > 10
