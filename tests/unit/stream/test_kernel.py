"""The JPEG kernel against Pillow: the same pixels, and no harm from damaged files."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from larder.stream import build
from larder.stream import kernel as kernel_module
from larder.stream.kernel import CROP, JpegKernel

SUBSAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}
REARRANGED = {"4:4:0": ("4:2:2", 0x12), "4:1:1": ("4:2:0", 0x41), "1x4": ("4:2:0", 0x14)}
"""Samplings that Pillow doesn't write: another one, and the sampling of luma to claim in place of its own. The blocks
are the same number, so the file is valid, and shows a puzzle."""


@pytest.fixture(autouse=True)
def _room_for_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow fails to write an image of noise that is larger than its buffer."""
    monkeypatch.setattr(ImageFile, "MAXBLOCK", 1 << 22)


@pytest.fixture(params=["fastest", "portable"])
def kernel(library: Path, request: pytest.FixtureRequest) -> JpegKernel:
    loaded = JpegKernel(library, portable=request.param == "portable")
    if request.param == "fastest" and "avx2" in Path("/proc/cpuinfo").read_text().split():
        assert not loaded.is_portable
    return loaded


def picture(chance: np.random.Generator, width: int, height: int) -> Image.Image:
    """Edges and noise on some scale."""
    coarse = [max(1, side // int(chance.integers(1, 9))) for side in (height, width)]
    noise = chance.integers(0, 256, (*coarse, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, subsampling: str = "4:2:0", **options: object) -> bytes:
    stream = io.BytesIO()
    if subsampling in SUBSAMPLINGS:
        options["subsampling"] = SUBSAMPLINGS[subsampling]
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def rearranged(image: Image.Image, sampling: str, **options: object) -> bytes:
    """A file with a sampling that Pillow doesn't write; its sides must be multiples of 32."""
    written, luma = REARRANGED[sampling]
    data = bytearray(jpeg(image, written, **options))
    frame = next(at for at in range(len(data)) if data[at] == 0xFF and data[at + 1] in (0xC0, 0xC2))
    data[frame + 11] = luma  # marker, length, precision, two sides, number of components, identifier: T.81, B.2.2
    return bytes(data)


def crop(
    region: tuple[int, int, int, int],
    size: tuple[int, int],
    window: tuple[int, int] = (0, 0),
    *,
    flip: bool = False,
    eighths: int = 8,
) -> np.ndarray:
    return np.array([(*region, *size, *window, flip, eighths)], CROP)


def decoded(kernel: JpegKernel, data: bytes, crops: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    out = np.empty((1, window[1], window[0], 3), np.uint8)
    assert kernel.decode([data], crops, out) == [None]
    return out[0]


def expected(data: bytes, crops: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """The same made by Pillow."""
    x, y, width, height, resized_width, resized_height, window_x, window_y, flip, _ = crops[0].tolist()
    with Image.open(io.BytesIO(data)) as opened:
        region = opened.convert("RGB").crop((x, y, x + width, y + height))
    resized = region.resize((resized_width, resized_height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized.crop((window_x, window_y, window_x + window[0], window_y + window[1])))
    return pixels[:, ::-1] if flip else pixels


def expected_of_a_draft(data: bytes, crops: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """The same made by Pillow's draft and its resize with a box, whose edges may lie within pixels."""
    x, y, width, height, resized_width, resized_height, window_x, window_y, flip, eighths = crops[0].tolist()
    left, top, right, bottom = (edge * eighths / 8 for edge in (x, y, x + width, y + height))
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.draft(None, tuple(side * eighths // 8 or 1 for side in opened.size))
        rows = opened.convert("RGB").crop((int(left), int(top), math.ceil(right), math.ceil(bottom)))
    box = (left - int(left), top - int(top), right - int(left), bottom - int(top))
    resized = rows.resize((resized_width, resized_height), Image.Resampling.BILINEAR, box)
    pixels = np.asarray(resized.crop((window_x, window_y, window_x + window[0], window_y + window[1])))
    return pixels[:, ::-1] if flip else pixels


def is_exact(kernel: JpegKernel, data: bytes, crops: np.ndarray, window: tuple[int, int]) -> bool:
    return bool((decoded(kernel, data, crops, window) == expected(data, crops, window)).all())


def random_file(chance: np.random.Generator) -> tuple[bytes, int, int]:
    largest = int(chance.choice([20, 80, 300, 700]))
    width, height = (int(side) for side in chance.integers(1, largest, 2, endpoint=True))
    options: dict[str, object] = {"quality": int(chance.integers(5, 100))}
    if chance.random() < 0.2:
        options["progressive"] = True
    if chance.random() < 0.3:
        options["restart_marker_blocks"] = int(chance.integers(1, 20))
    sampling = str(chance.choice([*SUBSAMPLINGS, *SUBSAMPLINGS, "gray", *REARRANGED]))
    if sampling in REARRANGED:
        width, height = (max(1, side // 32) * 32 for side in (width, height))
        return rearranged(picture(chance, width, height), sampling, **options), width, height
    image = picture(chance, width, height)
    return jpeg(image.convert("L") if sampling == "gray" else image, sampling, **options), width, height


def random_crop(chance: np.random.Generator, width: int, height: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Any window of any size of any region, which is the whole image at times."""
    (left, right), (top, bottom) = (sorted(chance.integers(0, side, 2).tolist()) for side in (width, height))
    region = (left, top, right - left + 1, bottom - top + 1) if chance.random() < 0.7 else (0, 0, width, height)
    resized = [int(side) for side in chance.integers(1, chance.choice([5, 60, 300]), 2, endpoint=True)]
    x, y = (int(chance.integers(0, side)) for side in resized)
    window = (
        int(chance.integers(1, resized[0] - x, endpoint=True)),
        int(chance.integers(1, resized[1] - y, endpoint=True)),
    )
    return crop(region, (resized[0], resized[1]), (x, y), flip=bool(chance.integers(0, 2))), window


@pytest.mark.parametrize("seed", range(20))
def test_pixels_are_those_of_pillow(library: Path, seed: int) -> None:
    fastest, portable = JpegKernel(library), JpegKernel(library, portable=True)
    for number in range(20):
        chance = np.random.default_rng([seed, number])
        data, width, height = random_file(chance)
        crops, window = random_crop(chance, width, height)
        wanted = expected(data, crops, window)
        for name, kernel in (("fastest", fastest), ("portable", portable)):
            found = decoded(kernel, data, crops, window)
            assert (found == wanted).all(), f"{name}, {number}: {width} x {height}, {crops[0]}"


@pytest.mark.parametrize("eighths", [1, 2, 4])
@pytest.mark.parametrize("seed", range(10))
def test_scaled_pixels_are_those_of_pillows_draft(library: Path, seed: int, eighths: int) -> None:
    fastest, portable = JpegKernel(library), JpegKernel(library, portable=True)
    compared = 0
    for number in range(20):
        chance = np.random.default_rng([seed, number])
        data, width, height = random_file(chance)
        crops, window = random_crop(chance, width, height)
        if min(width, height) * eighths < 8:
            continue  # Pillow's draft would be of another scale
        crops["eighths"] = eighths
        wanted = expected_of_a_draft(data, crops, window)
        for name, kernel in (("fastest", fastest), ("portable", portable)):
            found = np.empty((1, window[1], window[0], 3), np.uint8)
            if kernel.decode([data], crops, found) == [""]:
                continue
            assert (found[0] == wanted).all(), f"{name}, {number}: {width} x {height}, {crops[0]}"
            compared += 1
    assert compared > 20


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(1000, 1100))
def test_pixels_are_those_of_pillow_in_many_more_cases(library: Path, seed: int) -> None:
    test_pixels_are_those_of_pillow(library, seed)
    test_scaled_pixels_are_those_of_pillows_draft(library, seed, 2 ** (seed % 3))


@pytest.mark.parametrize("progressive", [False, True], ids=["baseline", "progressive"])
@pytest.mark.parametrize("sampling", [*SUBSAMPLINGS, *REARRANGED])
def test_every_edge_of_a_crop_is_exact(kernel: JpegKernel, sampling: str, progressive: bool) -> None:
    """libjpeg's upsampling looks at neighbours, also across blocks of 8, 16 and 32 pixels."""
    chance = np.random.default_rng(1)
    image = picture(chance, 256, 192)
    write = rearranged if sampling in REARRANGED else jpeg
    data = write(image, sampling, progressive=progressive)
    for edge in range(60, 97):
        assert is_exact(kernel, data, crop((edge, edge, 65, 33), (65, 33)), (65, 33))


@pytest.mark.parametrize("width, height", [(1, 1), (1, 300), (300, 1), (2, 2), (3, 5), (17, 33)])
def test_tiny_images(kernel: JpegKernel, width: int, height: int) -> None:
    data = jpeg(picture(np.random.default_rng(width), width, height))
    for size in ((1, 1), (7, 5), (64, 64)):
        assert is_exact(kernel, data, crop((0, 0, width, height), size), size)


def test_a_long_image_to_few_pixels(kernel: JpegKernel) -> None:
    """Of thousands of weights, most are rounded to almost nothing."""
    data = jpeg(picture(np.random.default_rng(2), 9, 20_000))
    for size in ((1, 1), (9, 2), (100, 3)):
        assert is_exact(kernel, data, crop((0, 0, 9, 20_000), size), size)


@pytest.mark.parametrize(
    "width, height, size", [(341, 512, (224, 224)), (300, 500, (200, 299)), (300, 500, (200, 300))]
)
def test_the_order_of_passes_is_pillows(kernel: JpegKernel, width: int, height: int, size: tuple[int, int]) -> None:
    """Whether Pillow begins with the height, or the width, changes some pixels by one level."""
    data = jpeg(picture(np.random.default_rng(5), width, height))
    assert is_exact(kernel, data, crop((0, 0, width, height), size), size)


def test_a_flip_mirrors_the_window(kernel: JpegKernel) -> None:
    data = jpeg(picture(np.random.default_rng(7), 100, 80))
    plain, mirrored = (
        decoded(kernel, data, crop((0, 0, 100, 80), (50, 40), (3, 4), flip=flip), (21, 20)) for flip in (False, True)
    )
    assert (plain == mirrored[:, ::-1]).all()


def test_contents_may_be_any_buffer(kernel: JpegKernel) -> None:
    data = jpeg(picture(np.random.default_rng(8), 60, 40))
    crops = np.repeat(crop((0, 0, 60, 40), (30, 20)), 4)
    out = np.empty((4, 20, 30, 3), np.uint8)
    padded = b"--" + data + b"--"
    given = [data, bytearray(data), memoryview(padded)[2:-2], np.frombuffer(data, np.uint8)]
    assert kernel.decode(given, crops, out) == [None] * 4
    assert (out == out[0]).all()


def test_nothing_is_written_outside_of_the_output(kernel: JpegKernel) -> None:
    chance = np.random.default_rng(9)
    for width, height in ((1, 1), (5, 3), (11, 7), (31, 9), (33, 2), (224, 3)):
        data = jpeg(picture(chance, 300, 200))
        for cut_off in (0, len(data) // 2):
            around = np.full((3, height, width, 3), 0xA5, np.uint8)
            kernel.decode([data[: len(data) - cut_off]], crop((10, 10, 280, 180), (width, height)), around[1:2])
            assert (around[0] == 0xA5).all()
            assert (around[2] == 0xA5).all()


def test_a_failing_image_leaves_the_others_alone(kernel: JpegKernel) -> None:
    data = jpeg(picture(np.random.default_rng(10), 90, 90))
    crops = np.repeat(crop((0, 0, 90, 90), (40, 40)), 4)
    out = np.zeros((4, 40, 40, 3), np.uint8)
    first, cut_off, no_image, last = kernel.decode([data, data[:-400], b"no image", data], crops, out)
    assert first is last is None
    assert cut_off == "it has no end of image"
    assert no_image is not None
    assert "Not a JPEG file" in no_image
    assert (out[[0, 3]] == expected(data, crops, (40, 40))).all()


def without_huffman_tables(data: bytes) -> bytes:
    """A file as a camera's Motion JPEG has it: decoders know the usual tables."""
    while (at := data.find(b"\xff\xc4")) >= 0:
        data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4]) :]
    return data


def test_an_image_does_not_get_the_tables_of_the_one_before(kernel: JpegKernel) -> None:
    chance = np.random.default_rng(15)
    before, usual = jpeg(picture(chance, 90, 90), optimize=True), jpeg(picture(chance, 90, 90))
    bare = without_huffman_tables(usual)
    no_quantization = usual.replace(b"\xff\xdb", b"\xff\xfe")
    crops, out = np.repeat(crop((0, 0, 90, 90), (40, 40)), 4), np.zeros((4, 40, 40, 3), np.uint8)
    *good, reason = kernel.decode([before, bare, before, no_quantization], crops, out)
    assert good == [None] * 3
    assert (out[1] == expected(bare, crops, (40, 40))).all()
    assert reason == "Quantization table 0x00 was not defined"


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:0", "gray"])
@pytest.mark.parametrize("quality", [1, 60, 100])
def test_codes_of_all_lengths(kernel: JpegKernel, quality: int, sampling: str) -> None:
    """Noise has coefficients of all sizes, and optimized tables have codes of up to 16 bits."""
    chance = np.random.default_rng(quality)
    noise = chance.integers(0, 256, (200, 200, 3), dtype=np.uint8)
    noise[:, 100:] //= 64
    image = Image.fromarray(noise).convert("L" if sampling == "gray" else "RGB")
    for optimize in (False, True):
        data = jpeg(image, sampling, quality=quality, optimize=optimize)
        assert is_exact(kernel, data, crop((0, 0, 200, 200), (200, 200)), (200, 200))


def test_a_scan_may_end_with_fill_bytes(kernel: JpegKernel) -> None:
    """Any number of 0xFF may come before a marker: T.81, B.1.1.2."""
    data = jpeg(picture(np.random.default_rng(16), 64, 48))
    filled = data[:-2] + b"\xff\xff\xff" + data[-2:]
    assert is_exact(kernel, filled, crop((0, 0, 64, 48), (64, 48)), (64, 48))


def opens(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}], ids=str)
def test_a_truncated_file_is_damaged(kernel: JpegKernel, options: dict[str, object]) -> None:
    data = jpeg(picture(np.random.default_rng(11), 64, 48), **options)
    top = crop((0, 0, 64, 8), (32, 4))  # of which all is there for a while
    out = np.empty((1, 4, 32, 3), np.uint8)
    for length in range(len(data)):
        [reason] = kernel.decode([data[:length]], top, out)
        assert reason, length
    assert not opens(data[: len(data) // 2])


def test_what_is_decoded_of_spoilt_files_is_what_pillow_decodes(kernel: JpegKernel) -> None:
    whole = jpeg(picture(np.random.default_rng(12), 64, 64), quality=30)
    crops = crop((8, 8, 32, 32), (20, 20))
    out = np.empty((1, 20, 20, 3), np.uint8)
    accepted = 0
    for seed in range(1500):
        chance = np.random.default_rng(seed)
        spoilt = bytearray(whole)
        for at in chance.integers(0, len(spoilt), 2):
            spoilt[at] ^= 1 << int(chance.integers(0, 8))
        data = bytes(spoilt)
        if kernel.decode([data], crops, out) == [None] and opens(data):
            assert (out[0] == expected(data, crops, (20, 20))).all(), seed
            accepted += 1
    assert 100 < accepted < 1400


def test_what_libjpeg_guesses_is_left_to_pillow(kernel: JpegKernel) -> None:
    """A progressive file that ends early, but properly, is smoothed by each version of libjpeg in another way."""
    data = jpeg(picture(np.random.default_rng(13), 64, 64), progressive=True)
    last_scan = data.rindex(b"\xff\xda")
    out = np.empty((1, 64, 64, 3), np.uint8)
    assert kernel.decode([data[:last_scan] + b"\xff\xd9"], crop((0, 0, 64, 64), (64, 64)), out) == [""]


def one_block_scan(component: int) -> bytes:
    """A scan of one component's only block, which is zero: T.81, B.2.3, with the usual Huffman tables."""
    tables, coded = (0x00, 0b00101011) if component == 1 else (0x11, 0b00001111)
    return bytes([0xFF, 0xDA, 0, 8, 1, component, tables, 0, 63, 0, coded])


@pytest.mark.parametrize("rounds, refused", [(1, False), (16, False), (17, True), (5000, True)])
def test_the_number_of_scans_is_limited(kernel: JpegKernel, rounds: int, refused: bool) -> None:
    """Each scan of a large image takes time, even if it is empty."""
    written = jpeg(Image.new("RGB", (8, 8)), "4:4:4")
    scans = b"".join(map(one_block_scan, (1, 2, 3))) * rounds
    data = written[: written.index(b"\xff\xda")] + scans + b"\xff\xd9"
    crops = crop((0, 0, 8, 8), (8, 8))
    if refused:
        assert kernel.decode([data], crops, np.empty((1, 8, 8, 3), np.uint8)) == [""]
    else:
        assert is_exact(kernel, data, crops, (8, 8))


def test_cmyk_is_left_to_pillow(kernel: JpegKernel) -> None:
    data = jpeg(Image.new("CMYK", (64, 64)), "none")
    assert kernel.decode([data], crop((0, 0, 64, 64), (8, 8)), np.empty((1, 8, 8, 3), np.uint8)) == [""]


@pytest.mark.parametrize("eighths", [1, 2, 4])
def test_scaling_unusual_subsampling_is_left_to_pillow(kernel: JpegKernel, eighths: int) -> None:
    """libjpeg-turbo 2.1 crops such images with the wrong width of chroma."""
    data = bytearray(jpeg(Image.new("RGB", (64, 64))))
    data[data.index(b"\xff\xc0") + 11] = 0x42
    crops = crop((0, 0, 64, 64), (8, 8), eighths=eighths)
    assert kernel.decode([bytes(data)], crops, np.empty((1, 8, 8, 3), np.uint8)) == [""]


@pytest.mark.parametrize("eighths", [-1, 0, 3, 9, 16, 2**31 - 1])
def test_scales_that_pillow_lacks_are_an_error(kernel: JpegKernel, eighths: int) -> None:
    crops = crop((0, 0, 64, 64), (8, 8), eighths=eighths)
    with pytest.raises(ValueError, match="image 0: it is not 1, 2, 4 or 8 eighths"):
        kernel.decode([jpeg(Image.new("RGB", (64, 64)))], crops, np.empty((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("kind", [0xC3, 0xC9, 0xCA], ids=["lossless", "arithmetic", "progressive arithmetic"])
def test_other_kinds_of_jpeg_are_left_to_pillow(kernel: JpegKernel, kind: int) -> None:
    data = jpeg(Image.new("RGB", (64, 64))).replace(b"\xff\xc0", bytes([0xFF, kind]))
    assert kernel.decode([data], crop((0, 0, 64, 64), (8, 8)), np.empty((1, 8, 8, 3), np.uint8)) == [""]


def test_too_large_a_size_is_left_to_pillow(kernel: JpegKernel) -> None:
    data = jpeg(Image.new("RGB", (64, 8)))
    assert kernel.decode([data], crop((0, 0, 64, 8), (8, 65_501)), np.empty((1, 8, 8, 3), np.uint8)) == [""]


@pytest.mark.parametrize(
    "crops",
    [
        crop((-1, 0, 10, 10), (8, 8)),
        crop((31, 0, 10, 10), (8, 8)),
        crop((40, 0, 1, 1), (8, 8)),
        crop((2**31 - 1, 0, 2**31 - 1, 1), (8, 8)),
        crop((0, 5, 10, 0), (8, 8)),
        crop((0, 5, 10, -1), (8, 8)),
        crop((0, 0, 10, 10), (7, 8)),
        crop((0, 0, 10, 10), (-1, 8)),
        crop((0, 0, 10, 10), (8, 8), (1, 0)),
        crop((0, 0, 10, 10), (8, 8), (-1, 0)),
        crop((0, 0, 10, 10), (2**31 - 1, 8), (2**31 - 8, 0)),
        crop((0, 0, 10, 10), (8, 8), (0, 2**31 - 1)),
    ],
    ids=str,
)
def test_a_region_or_window_outside_of_the_image_is_an_error(kernel: JpegKernel, crops: np.ndarray) -> None:
    data = jpeg(Image.new("RGB", (40, 30)))
    with pytest.raises(ValueError, match=r"image 0: the (region|window) is not inside"):
        kernel.decode([data], crops, np.empty((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    "crops, out",
    [
        (np.zeros(2, CROP), np.empty((1, 8, 8, 3), np.uint8)),
        (np.zeros(1, CROP.descr[:-1]), np.empty((1, 8, 8, 3), np.uint8)),
        (crop((0, 0, 9, 9), (8, 8)), np.empty((1, 8, 8, 3), np.float32)),
        (crop((0, 0, 9, 9), (8, 8)), np.empty((1, 8, 8, 4), np.uint8)),
        (crop((0, 0, 9, 9), (8, 8)), np.empty((1, 8, 16, 3), np.uint8)[:, :, ::2]),
        (crop((0, 0, 9, 9), (8, 8)), np.broadcast_to(np.uint8(0), (1, 8, 8, 3))),
    ],
    ids=["too many crops", "other type", "floats", "four channels", "not contiguous", "read-only"],
)
def test_arrays_that_do_not_fit_are_refused(kernel: JpegKernel, crops: np.ndarray, out: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be"):
        kernel.decode([b""], crops, out)


def test_an_empty_batch(kernel: JpegKernel) -> None:
    assert kernel.decode([], np.zeros(0, CROP), np.empty((0, 8, 8, 3), np.uint8)) == []
    assert len(kernel.headers([])) == 0


def test_headers(kernel: JpegKernel) -> None:
    color, gray, cmyk = Image.new("RGB", (40, 30)), Image.new("L", (1, 2)), Image.new("CMYK", (5, 6))
    files = [
        jpeg(color),
        jpeg(gray, "none", progressive=True),
        jpeg(cmyk, "none"),
        jpeg(color, "4:4:4", keep_rgb=True),
        b"\xff\xd8 none",
        b"",
    ]
    found = kernel.headers(files)
    assert found.dtype.names == ("width", "height", "components", "supported", "progressive", "rgb")
    read = [(40, 30, 3, 1, 0, 0), (1, 2, 1, 1, 1, 0), (5, 6, 4, 0, 0, 0), (40, 30, 3, 1, 0, 1)]
    assert found.tolist() == [*read, (0,) * 6, (0,) * 6]


def test_threads_share_a_kernel(kernel: JpegKernel) -> None:
    chance = np.random.default_rng(14)
    files = [jpeg(picture(chance, 200, 150)) for _ in range(4)]
    crops = np.repeat(crop((5, 5, 185, 135), (64, 64)), 4)
    outs = np.zeros((4, 4, 64, 64, 3), np.uint8)

    def work(out: np.ndarray) -> None:
        for _ in range(20):
            assert kernel.decode(files, crops, out) == [None] * 4

    threads = [threading.Thread(target=work, args=[out]) for out in outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, data in enumerate(files):
        assert (outs[:, number] == expected(data, crops, (64, 64))).all()


def test_a_library_of_another_source_is_not_loaded(library: Path, tmp_path: Path) -> None:
    assert JpegKernel.load([tmp_path]) is None
    (tmp_path / library.name).write_bytes(b"\x7fELF but no more")
    assert JpegKernel.load([tmp_path]) is None
    (tmp_path / "libjpeg_crop-000000000000.so").write_bytes(library.read_bytes())
    assert JpegKernel.load([tmp_path]) is None
    assert JpegKernel.load([tmp_path, library.parent]) is not None


def test_building_replaces_older_libraries(library: Path, tmp_path: Path) -> None:
    old = tmp_path / "libjpeg_crop-000000000000.so"
    old.touch()
    assert build.build(tmp_path).name == library.name
    assert [path.name for path in tmp_path.iterdir()] == [library.name]


def test_the_script_needs_nothing_installed(library: Path, tmp_path: Path) -> None:
    """Images and wheels are built with it before there are packages."""
    script = [sys.executable, "-I", "-S", build.__file__, tmp_path / "new"]
    printed = subprocess.check_output(script, text=True)
    assert Path(printed.strip()) == tmp_path / "new" / library.name
    failed = subprocess.run(script, env={"CC": "no-such-compiler"}, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("The JPEG kernel can't be compiled: no-such-compiler")


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(build.BuildError, match="no-such-compiler"):
        build.build(tmp_path)


def test_what_the_compiler_says_is_told(tmp_path: Path) -> None:
    with pytest.raises(build.BuildError, match=r"jpeg_crop\.c.*error"):
        build.build(tmp_path, ["-Dlarder_kernel_abi="])
    assert list(tmp_path.iterdir()) == []


def test_the_library_exports_larders_functions_alone(library: Path) -> None:
    listed = subprocess.check_output(["nm", "--dynamic", "--defined-only", "--format=posix", library], text=True)
    names = {line.split()[0] for line in listed.splitlines()}
    assert names == {
        "larder_jpeg_crop_batch",
        "larder_jpeg_headers",
        "larder_kernel_abi",
        "larder_scratch_free",
        "larder_scratch_is_portable",
        "larder_scratch_new",
    }


def test_in_a_checkout_that_hides_the_installed_package_its_kernel_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a script imports the checkout's `larder`, which isn't compiled."""
    installed = tmp_path / "site-packages" / "larder" / "stream"
    installed.mkdir(parents=True)
    metadata = tmp_path / "site-packages" / "larder_data-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: larder-data\nVersion: 0.1.0\n")
    monkeypatch.setattr("sys.path", [str(tmp_path / "site-packages")])
    folders = kernel_module._default_folders()
    assert folders[:2] == [Path(kernel_module.__file__).parent, installed]


def test_without_an_installed_package_there_is_no_such_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_module, "_DISTRIBUTION", "a-package-that-nobody-has")
    assert kernel_module._installed_folders() == []


def test_a_missing_kernel_is_explained_in_a_checkout_and_outside(tmp_path: Path) -> None:
    folder = tmp_path / "a checkout" / "larder" / "stream"
    folder.mkdir(parents=True)
    outside = kernel_module.explain_missing_kernel(folder)
    assert "installed where a C compiler or libjpeg-turbo was missing" in outside.cause
    assert outside.next_step.endswith(f"{folder}/build.py' ~/.cache/larder`")
    (tmp_path / "a checkout" / "pyproject.toml").touch()
    inside = kernel_module.explain_missing_kernel(folder)
    assert f"isn't compiled in the checkout {tmp_path}/a checkout, from which `larder` was imported" in inside.cause
    assert inside.next_step.endswith(f"then run `{sys.executable} '{folder}/build.py'`")
