"""Render one picture of the generated dataset as a JPEG file.

The same seed gives the same bytes on every machine with the pinned numpy and Pillow. Floating-point results (FFT, BLAS,
sin, exp) depend in their last bits on the CPU's vector width and on the C library, and one such bit, rounded the other
way, changes a file's digest. So pixels are computed with integers only: numpy's integer types, Pillow's fixed-point
resize and blur (whose weights are polynomials rounded to 22 bits), libjpeg's integer DCT. Random numbers are integers
from Philox, a counter-based generator, keyed by (seed, split, label, number). So a picture depends only on its key, not
on the order or the process that renders it.

A picture is a small scene, painted as labels and heights at a fraction of the size (table, plate, pieces of food), lit,
enlarged, and covered with cuts from cached textures whose octaves have equal variance. Equal variance per octave means
an amplitude spectrum of 1/f, as in natural images (D. J. Field, J. Opt. Soc. Am. A 4, 2379, 1987).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image

from larder.sample import SPLITS, SampleImage
from larder.sample.scene import Images, as_image, paint

# Shares, in percent, of the kinds of JPEG that readers must support, drawn independently for each picture.
PROGRESSIVE_PERCENT: Final = 4
GRAYSCALE_PERCENT: Final = 1
ROTATED_PERCENT: Final = 2  # stored rotated, with the EXIF orientation that restores it
FULL_CHROMA_PERCENT: Final = 6  # 4:4:4; the others are 4:2:0
SHORT_SIDE_PIXELS: Final = (256, 640)
LONG_SIDE_PIXELS: Final = 1024

_TEXTURE_PIXELS: Final = 1280
_ASPECTS: Final = ((4, 3), (4, 3), (4, 3), (3, 4), (3, 4), (1, 1), (1, 1), (3, 2), (2, 3), (16, 9))
_EXIF_ORIENTATION: Final = 0x0112
# EXIF orientation -> rotation of the upright picture before it is stored; a viewer reverses it.
_TURNS: Final = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True, slots=True)
class Traits:
    """Random traits of a picture. `width` and `height` are pixels of the upright picture."""

    width: int
    height: int
    quality: int
    progressive: bool
    grayscale: bool
    orientation: int  # EXIF: 1 upright, else 3, 6 or 8
    full_chroma: bool


def traits(seed: int, image: SampleImage) -> Traits:
    """Choose size and kind of a picture without rendering it, as `render` does."""
    rng = _random(seed, image, 0)
    across, down = _ASPECTS[rng.integers(len(_ASPECTS))]
    # The smaller of two draws, since small pictures are more common in Food-11, too.
    short = int(rng.integers(SHORT_SIDE_PIXELS[0], SHORT_SIDE_PIXELS[1] + 1, 2).min())
    aspect_percent = max(across, down) * int(rng.integers(94, 107)) // min(across, down)
    long = max(min(short * aspect_percent // 100, LONG_SIDE_PIXELS), short)
    percent = rng.integers(0, 100, 4).tolist()
    return Traits(
        width=long if across >= down else short,
        height=short if across >= down else long,
        quality=int(rng.integers(73, 92)),
        progressive=percent[0] < PROGRESSIVE_PERCENT,
        grayscale=percent[1] < GRAYSCALE_PERCENT,
        orientation=(3, 6, 8)[rng.integers(3)] if percent[2] < ROTATED_PERCENT else 1,
        full_chroma=percent[3] < FULL_CHROMA_PERCENT,
    )


def render(seed: int, image: SampleImage) -> bytes:
    """Draw one picture and return its complete JPEG file, the same bytes for the same arguments.

    Args:
        seed: 0 to 2**64 - 1. A process keeps the last seed's textures (16 MB, made in 0.2 s).
        image: Which picture; its `number` may be any from 0 to 2**32 - 1.

    Raises:
        ValueError: If the split isn't one of `SPLITS`.
    """
    picture_traits = traits(seed, image)
    picture = paint(_random(seed, image, 1), image.label, picture_traits.width, picture_traits.height, _textures(seed))
    if picture_traits.grayscale:
        picture = picture.getchannel(0)
    exif = Image.Exif()
    if picture_traits.orientation != 1:
        picture = picture.transpose(_TURNS[picture_traits.orientation])
        exif[_EXIF_ORIENTATION] = picture_traits.orientation
    buffer = io.BytesIO()
    picture.save(
        buffer,
        "JPEG",
        quality=picture_traits.quality,
        progressive=picture_traits.progressive,
        subsampling="4:4:4" if picture_traits.full_chroma else "4:2:0",
        exif=exif.tobytes() if picture_traits.orientation != 1 else b"",
    )
    return buffer.getvalue()


def _random(seed: int, image: SampleImage, stream: int) -> np.random.Generator:
    stream_key = SPLITS.index(image.split) << 48 | image.label << 40 | stream << 32 | image.number
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream_key], np.uint64)))


@lru_cache(maxsize=1)
def _textures(seed: int) -> tuple[Images, Images]:
    """Build the undirected and the directed textures, `L` of 1280 x 1280 pixels with mean 128."""
    side = _TEXTURE_PIXELS
    rng = np.random.Generator(np.random.Philox(key=np.array([seed, 1 << 63], np.uint64)))
    plain = tuple(_octaves(rng, side, side) for _ in range(6))
    # Streaks: octaves stretched eight-fold along x; shifting row i by i pixels lays them diagonally.
    wide = _octaves(rng, side // 4, side).resize((side * 2, side), Image.Resampling.BICUBIC)
    rows = np.asarray(wide)
    slant = Image.fromarray(np.stack([row[i : i + side] for i, row in enumerate(rows)]))
    level = wide.crop((0, 0, side, side))
    flip, turn = Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.TRANSPOSE
    return plain, (level, level.transpose(turn), slant, slant.transpose(flip))


def _octaves(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Sum white noise of equal variance on grids that double, up to `width` x `height` pixels."""
    levels = 8
    total = Image.new("L", (width >> levels, height >> levels), 128)
    for level in range(levels, -1, -1):
        size = (width >> level, height >> level)
        noise = np.frombuffer(rng.bytes(size[0] * size[1]), np.uint8).reshape(size[1], size[0])
        coarse = np.asarray(total.resize(size, Image.Resampling.BICUBIC), np.int16)
        # The two finest octaves are stronger by a quarter: enlarging and JPEG weaken them by about as much.
        gain = np.int16(20 if level < 2 else 16)
        total = as_image(coarse + ((noise - np.int16(128)) * gain >> 6))
    return total
