"""A generated stand-in for Food-11: its splits, names and class shares, with pictures that need no network.

The same seed gives the same bytes on every machine that has the pinned numpy and Pillow. Results of floating
point (FFT, BLAS, sin, exp) depend in their last bits on the CPU's vector width and on the C library, and one
such bit, rounded the other way, changes a file's digest. So pixels are computed with integers only: numpy's
integer types, Pillow's fixed-point resize and blur (whose weights are polynomials rounded to 22 bits),
libjpeg's integer DCT. Random numbers are integers from Philox, a counter-based generator, keyed by (seed,
split, label, number): a picture depends on its own key alone, never on the order or the process that renders
it.

A picture is a small scene, painted as labels and heights at a fraction of the size (table, plate, pieces of
food), lit, enlarged, and covered with cuts from cached textures whose octaves have equal variance. Equal
variance per octave is an amplitude spectrum of 1/f, that of natural images (D. J. Field, J. Opt. Soc. Am. A
4, 2379, 1987).
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

GENERATOR_VERSION: Final = 1  # goes into the manifest; bump it whenever a rendered byte changes

SPLITS: Final = ("training", "validation", "evaluation")
CLASSES: Final = 11
# Images per split and class of the published Food-11 (16,643 in all).
COUNTS: Final = (
    (994, 429, 1500, 986, 848, 1325, 440, 280, 855, 1500, 709),
    (362, 144, 500, 327, 326, 449, 147, 96, 347, 500, 232),
    (368, 148, 500, 335, 287, 432, 147, 96, 303, 500, 231),
)
IMAGES: Final = sum(map(sum, COUNTS))

# Shares, in percent, of the kinds of JPEG that readers must cope with, drawn independently for each picture.
PROGRESSIVE_PERCENT: Final = 4
GRAYSCALE_PERCENT: Final = 1
ROTATED_PERCENT: Final = 2  # stored turned, with the EXIF orientation that turns it back
FULL_CHROMA_PERCENT: Final = 6  # 4:4:4; the others are 4:2:0
SHORT_SIDE_PIXELS: Final = (256, 640)
LONG_SIDE_PIXELS: Final = 1024
MEAN_BYTES: Final = 68_000  # of one file, measured over 2,000 images; a test keeps it honest

_TEXTURE_PIXELS: Final = 1280
_ASPECTS: Final = ((4, 3), (4, 3), (4, 3), (3, 4), (3, 4), (1, 1), (1, 1), (3, 2), (2, 3), (16, 9))
_EXIF_ORIENTATION: Final = 0x0112
# EXIF orientation -> how the upright picture is turned before it is stored; a viewer turns it back.
_TURNS: Final = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
# Directions as integer vectors of length 65 (Pythagorean triples), so that a rotation needs no sine.
_DIRECTIONS: Final = (
    (65, 0),
    (63, 16),
    (60, 25),
    (56, 33),
    (52, 39),
    (39, 52),
    (33, 56),
    (25, 60),
    (16, 63),
    (0, 65),
)

Field: TypeAlias = npt.NDArray[np.int32]
Texture: TypeAlias = npt.NDArray[np.int16]
Images: TypeAlias = tuple[Image.Image, ...]


@dataclass(frozen=True, slots=True)
class SampleImage:
    """One picture's place: its split, its class 0..10 and its number, from 0 within split and class."""

    split: str
    label: int
    number: int

    @property
    def path(self) -> str:
        """Its name below the data set's root, spelt as in Food-11: `training/3_17.jpg`."""
        return f"{self.split}/{self.label}_{self.number}.jpg"


@dataclass(frozen=True, slots=True)
class Traits:
    """What is decided before a pixel is drawn. `width` and `height` are pixels of the upright picture."""

    width: int
    height: int
    quality: int
    progressive: bool
    grayscale: bool
    orientation: int  # EXIF: 1 upright, else 3, 6 or 8
    full_chroma: bool


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How a class looks. Ranges are half-open; sizes are percent of the short side."""

    count: tuple[int, int]
    size: tuple[int, int]
    stretch: tuple[int, int]  # long to short axis, percent
    spread: int  # how far from the plate's centre pieces lie, percent of the short side
    grain: int = 70  # strength of the undirected texture, of 128
    wobble: int = 20  # irregularity of outlines
    square: bool = False  # slabs instead of ovals
    core: int = 0  # a yolk, a stone: part of the piece's radius squared, of 256
    ribs: int = 0  # layers, strands: periods per short side
    warp: int = 0  # how far the ribs wander
    streak: int = 0  # strength of the directed texture, of 128


# By class; so are the palettes, of 0xRRGGBB.
_RECIPES: Final = (
    _Recipe((1, 5), (22, 42), (110, 190), 22, grain=90, square=True),
    _Recipe((1, 5), (18, 44), (100, 150), 20, grain=30, wobble=40),
    _Recipe((1, 3), (26, 40), (110, 170), 12, 70, 20, True, ribs=9, warp=2),
    _Recipe((2, 5), (16, 34), (100, 140), 24, 35, wobble=35, core=80),
    _Recipe((7, 22), (8, 18), (100, 220), 26, grain=120, wobble=60),
    _Recipe((1, 4), (24, 44), (120, 210), 16, wobble=50, streak=100),
    _Recipe((1, 3), (34, 48), (100, 130), 6, grain=45, ribs=22, warp=26),
    _Recipe((60, 130), (3, 6), (160, 300), 36, grain=60),
    _Recipe((4, 11), (12, 26), (160, 300), 26, ribs=14, warp=5, streak=50),
    _Recipe((5, 16), (5, 14), (100, 180), 26, grain=35, wobble=30),
    _Recipe((8, 26), (8, 20), (100, 240), 28, grain=60, streak=25),
)
_PALETTES: Final = (
    (0xC08A4E, 0xD9B27C, 0x9A6232, 0xE6CFA4),
    (0xF2EBDA, 0xE8D9B0, 0xF4E6C2, 0xDCC7A0),
    (0x5A3420, 0xE9D3B4, 0xC4788A, 0x8A5030),
    (0xF3E9D5, 0xE8DCC0, 0xF0B030, 0xE0952A),
    (0xC98A2E, 0xB5701F, 0xDDA94B, 0x94581C),
    (0x7A3E26, 0x96543A, 0x5A2E1E, 0xA86A50),
    (0xE3BE6A, 0xD6A648, 0xECD08C, 0xC27A3A),
    (0xEFE6D2, 0xE2D0A8, 0xD8BC86, 0xC89A58),
    (0xE0825A, 0xE9A890, 0xC9603C, 0xEBC8B4),
    (0xC0702C, 0xB4502A, 0xD2A04A, 0x8C7A34),
    (0x5E8A32, 0xB8342A, 0x8FB04A, 0xE0A030),
)
_SOUP: Final = 9  # the one class whose plate is filled: its liquid takes a colour of the palette
_TABLES: Final = (0x6B4A30, 0x8C6845, 0xB79A78, 0xD8CFC2, 0x4A4644, 0x77706A, 0x9AA3A8, 0x5A463A, 0xA8694A)
_PLATES: Final = (0xEDE9E2, 0xE2DDD4, 0xF2F0EC, 0xD5CCBC, 0xB9C2C8, 0x5C5450, 0xA9794E, 0xC9B79A)


def plan(images: int) -> Iterator[SampleImage]:
    """Yield a data set of `images` pictures, by split, class and number; nothing is held in memory.

    Raises:
        ValueError: `images` is below 33, too few for one in each class of each split.
    """
    for split, counts in zip(SPLITS, apportion(images), strict=True):
        for label, count in enumerate(counts):
            for number in range(count):
                yield SampleImage(split, label, number)


def apportion(images: int) -> tuple[tuple[int, ...], ...]:
    """Divide `images` over splits (rows) and classes (columns) in Food-11's shares, at least one in each.

    Largest remainders (Hamilton's method); a cell left empty takes one from the largest. Food-11's own
    number, 16,643, gives Food-11's own counts.

    Raises:
        ValueError: `images` is below 33.
    """
    cells = [count for counts in COUNTS for count in counts]
    if images < len(cells):
        raise ValueError(f"{images} images can't fill {len(cells)} classes and splits: ask for {len(cells)} or more")
    shares = [images * cell // IMAGES for cell in cells]
    by_remainder = sorted(range(len(cells)), key=lambda i: (-(images * cells[i] % IMAGES), i))
    for i in by_remainder[: images - sum(shares)]:
        shares[i] += 1
    while 0 in shares:
        shares[shares.index(max(shares))] -= 1
        shares[shares.index(0)] += 1
    return tuple(tuple(shares[row : row + CLASSES]) for row in range(0, len(cells), CLASSES))


def expected_bytes(images: int) -> int:
    """Estimate the bytes of `images` rendered files, to check free space: the mean, times their number."""
    return images * MEAN_BYTES


def traits(seed: int, image: SampleImage) -> Traits:
    """Decide size and kind of a picture without rendering it; `render` follows this."""
    rng = _random(seed, image, 0)
    across, down = _ASPECTS[rng.integers(len(_ASPECTS))]
    # The smaller of two draws: small pictures are commoner, as in Food-11.
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
        image: which picture; `number` may be any from 0 to 2**32 - 1.

    Raises:
        ValueError: the split isn't one of `SPLITS`.
    """
    look = traits(seed, image)
    picture = _scene(_random(seed, image, 1), image.label, look.width, look.height, _textures(seed))
    if look.grayscale:
        picture = picture.getchannel(0)
    exif = Image.Exif()
    if look.orientation != 1:
        picture = picture.transpose(_TURNS[look.orientation])
        exif[_EXIF_ORIENTATION] = look.orientation
    buffer = io.BytesIO()
    picture.save(
        buffer,
        "JPEG",
        quality=look.quality,
        progressive=look.progressive,
        subsampling="4:4:4" if look.full_chroma else "4:2:0",
        exif=exif.tobytes() if look.orientation != 1 else b"",
    )
    return buffer.getvalue()


def _random(seed: int, image: SampleImage, stream: int) -> np.random.Generator:
    place = SPLITS.index(image.split) << 48 | image.label << 40 | stream << 32 | image.number
    return np.random.Generator(np.random.Philox(key=np.array([seed, place], np.uint64)))


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
        # The two finest octaves are stronger by a quarter: enlarging and JPEG take about as much away.
        gain = np.int16(20 if level < 2 else 16)
        total = _image(coarse + ((noise - np.int16(128)) * gain >> 6))
    return total


def _image(values: Field | Texture) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _cut(rng: np.random.Generator, texture: Image.Image, width: int, height: int, percent: int) -> Texture:
    """Cut a random window of a texture, enlarged from `percent` of the size; (height, width), mean 0."""
    w, h = max(width * percent // 100, 1), max(height * percent // 100, 1)
    x, y = int(rng.integers(texture.width - w + 1)), int(rng.integers(texture.height - h + 1))
    box = (x, y, x + w, y + h)
    if percent == 100:
        return np.asarray(texture.crop(box), np.int16) - np.int16(128)
    return np.asarray(texture.resize((width, height), Image.Resampling.BICUBIC, box), np.int16) - np.int16(128)


def _scene(
    rng: np.random.Generator, label: int, width: int, height: int, textures: tuple[Images, Images]
) -> Image.Image:
    """Compose a picture of a class and return it as `YCbCr`, upright."""
    plain, directed = textures
    recipe = _RECIPES[label]
    focus = (2, 2, 3, 3, 4)[rng.integers(5)]  # the scene's scale: the larger, the softer the edges
    w, h = -(-width // focus), -(-height // focus)
    labels, heights = np.zeros((h, w), np.int32), np.zeros((h, w), np.int32)
    wander = _cut(rng, plain[1], w, h, 9).astype(np.int32)
    centre = _lay_plate(rng, label == _SOUP, labels, heights)
    _lay_food(rng, recipe, centre, labels, heights, wander, _cut(rng, plain[2], w, h, 50) >> 4)
    if recipe.ribs:
        _draw_ribs(rng, recipe, labels, heights, wander)
    lit = _light(rng, labels, heights, _colours(rng, label), _cut(rng, plain[0], w, h, 25))
    # Four bands enlarge faster together; CMYK is the mode whose four bands Pillow leaves alone.
    small = Image.merge("CMYK", [_image(lit[..., band]) for band in range(4)])
    luma, blue, red, rough = small.resize((width, height), Image.Resampling.BILINEAR).split()
    strength = np.asarray(rough, np.int16)
    sharpness = (60, 80, 100, 100, 100)[rng.integers(5)]
    grain = _cut(rng, plain[rng.integers(len(plain))], width, height, sharpness)
    if recipe.streak:
        streak = _cut(rng, directed[rng.integers(len(directed))], width, height, 100)
        grain = (grain * np.int16(128 - recipe.streak) + streak * np.int16(recipe.streak)) >> 7
    detailed = np.asarray(luma, np.int16) + (grain * strength >> 7)
    return Image.merge("YCbCr", (_image(detailed), blue, red))


def _grid(shape: tuple[int, ...]) -> tuple[Field, Field]:
    return np.arange(shape[1], dtype=np.int32)[None, :], np.arange(shape[0], dtype=np.int32)[:, None]


def _lay_plate(rng: np.random.Generator, filled: bool, labels: Field, heights: Field) -> tuple[int, int, int]:
    """Lay a plate in most pictures. Return the dish's centre and its height in percent of its width."""
    x, y = _grid(labels.shape)
    short = min(labels.shape)
    cx = labels.shape[1] // 2 + int(rng.integers(-short // 6, short // 6 + 1))
    cy = labels.shape[0] // 2 + int(rng.integers(-short // 6, short // 6 + 1))
    squash = int(rng.integers(60, 101))  # a round plate seen from the side
    radius = short * int(rng.integers(50, 90)) // 100
    if rng.integers(100) < 85:
        d = ((x - cx) ** 2 + ((y - cy) * 100 // squash) ** 2) * 256 // radius**2
        labels[d < 256] = 1
        heights += np.where(d < 256, 20 + np.abs(d - 150) // 6, 0)
        if filled:
            labels[d < 180] = 2
            heights[d < 180] = 24
    return cx, cy, squash


def _lay_food(
    rng: np.random.Generator,
    recipe: _Recipe,
    centre: tuple[int, int, int],
    labels: Field,
    heights: Field,
    wander: Field,
    bumps: Texture,
) -> None:
    """Paint the pieces, later ones over earlier ones: labels 2 to 5 and rounded heights."""
    x, y = _grid(labels.shape)
    cx, cy, squash = centre
    short, count, zoom = min(labels.shape), int(rng.integers(*recipe.count)), int(rng.integers(140, 240))
    sizes = rng.integers(*recipe.size, count) * zoom * short // 10_000
    stretches = rng.integers(*recipe.stretch, count)
    ways, tones = rng.integers(0, len(_DIRECTIONS) * 2, count), rng.integers(2, 5, count)
    # The sum of two draws: pieces gather in the middle.
    places = rng.integers(-recipe.spread, recipe.spread + 1, (2, count, 2)).sum(2) * short * zoom // 18_000
    for size, stretch, way, tone, px, py in np.stack((sizes, stretches, ways, tones, *places), 1).tolist():
        long, narrow = max(size * stretch // 140, 2), max(size * 90 // stretch, 2)
        px, py, reach = cx + px, cy + py * squash // 100, long * 5 // 4
        if px + reach < 0 or py + reach < 0:
            continue
        window = slice(max(py - reach, 0), py + reach + 1), slice(max(px - reach, 0), px + reach + 1)
        dx, dy = x[:, window[1]] - px, y[window[0]] - py
        c, s = _DIRECTIONS[way // 2]
        s = s if way % 2 else -s
        u, v = (dx * c + dy * s) >> 6, (dy * c - dx * s) >> 6
        # Squared distances in units of the half axes, 256 on the outline; 22 bits don't overflow int32.
        du, dv = u * u * ((1 << 22) // long**2) >> 14, v * v * ((1 << 22) // narrow**2) >> 14
        d = np.minimum(du, 2048) ** 2 + np.minimum(dv, 2048) ** 2 >> 8 if recipe.square else du + dv
        d = d + (wander[window] * recipe.wobble >> 5)
        rise = np.minimum(256 - d, 200) * min(narrow, 40) >> 6
        np.copyto(heights[window], 36 + rise + bumps[window], where=d < 256)
        np.copyto(labels[window], tone, where=d < 256)
        if recipe.core:
            np.copyto(labels[window], 5, where=d < recipe.core)


def _draw_ribs(rng: np.random.Generator, recipe: _Recipe, labels: Field, heights: Field, wander: Field) -> None:
    """Run a triangle wave over the food, warped by `wander`: layers, shells or strands; labels 6 to 9."""
    x, y = _grid(labels.shape)
    c, s = _DIRECTIONS[rng.integers(len(_DIRECTIONS))]
    cycles = recipe.ribs * int(rng.integers(70, 131)) * 256 // 100  # over the short side, in 1/256
    phase = (x * c + y * s) * cycles // (min(labels.shape) * 65) + wander * recipe.warp // 2
    wave = np.abs((phase & 255) - 128) - 64
    food = labels >= 2
    heights += np.where(food, wave >> 2, 0)
    labels += np.where(food & (wave > 20), 4, 0)


def _colours(rng: np.random.Generator, label: int) -> Field:
    """Draw the colours and roughness per label: rows (Y, Cb - 128, Cr - 128, roughness)."""
    rgb = [_TABLES[rng.integers(len(_TABLES))], _PLATES[rng.integers(len(_PLATES))]]
    # One dish in six has the colours of another class, so that colour alone doesn't tell the classes apart.
    palette = _PALETTES[rng.integers(CLASSES) if rng.integers(6) == 0 else label]
    rgb += [palette[i] for i in rng.permutation(len(palette)).tolist()]
    if _RECIPES[label].core:
        rgb[2:6] = [palette[0], palette[1], palette[0], palette[2 + rng.integers(2)]]
    rgb += [rgb[3], rgb[4], rgb[5], rgb[2]]
    table = np.empty((len(rgb), 4), np.int32)
    for row, code in enumerate(rgb):
        jitter = int(rng.integers(-16, 17)) + rng.integers(-7, 8, 3)
        r, g, b = np.clip(np.array([code >> 16, code >> 8 & 255, code & 255]) + jitter, 0, 255)
        # JFIF's matrix (ITU-T T.871) in 1/256.
        table[row, 0] = (77 * r + 150 * g + 29 * b) >> 8
        table[row, 1] = (-43 * r - 85 * g + 128 * b) >> 8
        table[row, 2] = (128 * r - 107 * g - 21 * b) >> 8
    bounced = table[2:, :3].sum(0) // (len(rgb) - 2)  # food's light tints what it stands on
    table[0, :3] = (table[0, :3] * 2 + bounced) // 3
    table[:, 3] = _RECIPES[label].grain + 16
    table[0, 3], table[1, 3] = rng.integers(40, 110), rng.integers(20, 60)
    table[:, 1] += rng.integers(-10, 4)  # white balance, the room's light
    table[:, 2] += rng.integers(-3, 8)
    table[:, 1:3] = table[:, 1:3] * rng.integers(70, 125) // 100
    return table


def _light(rng: np.random.Generator, labels: Field, heights: Field, colours: Field, mottle: Texture) -> Field:
    """Shade the scene. Return (h, w, 4): Y, Cb, Cr and roughness, about 0..255, not yet clipped."""
    h, w = labels.shape
    x, y = _grid(labels.shape)
    gx, gy = rng.integers(-50, 51, 2).tolist()
    far = ((2 * x - w) ** 2 + (2 * y - h) ** 2) * 256 // (w * w + h * h)
    light = int(rng.integers(215, 285)) + (x * 2 - w) * gx // w + (y * 2 - h) * gy // h
    light = light - (far * int(rng.integers(10, 70)) >> 8)
    solid = _image(heights)
    # Edges of labels are stairs of one pixel; a light blur keeps their slopes from showing as teeth.
    heights = np.asarray(solid.filter(ImageFilter.BoxBlur(1)), np.int32)
    around = np.asarray(solid.filter(ImageFilter.BoxBlur(max(min(h, w) // 24, 1))), np.int32)
    hollow = np.clip(around - heights, 0, 60)  # what lies lower than its surroundings gets less light
    slope = np.zeros((h, w), np.int32)
    side = 1 if gx > 0 else -1
    slope[1:-1] += heights[2:] - heights[:-2]
    slope[:, 1:-1] += side * (heights[:, 2:] - heights[:, :-2])
    light = np.clip(light + np.clip(slope, -16, 16) * 4 - hollow * 2, 20, 400)
    lit = colours[labels]
    lit[..., 0] = (lit[..., 0] + (mottle * 12 >> 6)) * light >> 8
    lit[..., 1] = 128 + ((lit[..., 1] + (mottle >> 4)) * light >> 8)
    lit[..., 2] = 128 + ((lit[..., 2] - (mottle >> 4)) * light >> 8)
    return lit
