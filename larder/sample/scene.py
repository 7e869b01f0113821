"""Paint the scene in a generated picture: table, plate and food, in integers (see `picture` for why).

The scene is painted as labels and heights at a fraction of the size, lit, enlarged, and covered with cuts from
textures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from larder.sample import CLASSES

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

IntGrid: TypeAlias = npt.NDArray[np.int32]
Texture: TypeAlias = npt.NDArray[np.int16]
Images: TypeAlias = tuple[Image.Image, ...]


@dataclass(frozen=True, slots=True)
class _FoodStyle:
    """Look of a class. Ranges are half-open; sizes are percent of the short side."""

    count: tuple[int, int]
    size: tuple[int, int]
    stretch: tuple[int, int]  # long to short axis, percent
    spread: int  # distance of pieces from the plate's centre, percent of the short side
    grain: int = 70  # strength of the undirected texture, of 128
    wobble: int = 20  # irregularity of outlines
    square: bool = False  # slabs instead of ovals
    core: int = 0  # a yolk or stone: share of the piece's squared radius, of 256
    ribs: int = 0  # layers, strands: periods per short side
    warp: int = 0  # distortion of the ribs
    streak: int = 0  # strength of the directed texture, of 128


# By class, as are the palettes (0xRRGGBB).
_FOOD_STYLES: Final = (
    _FoodStyle((1, 5), (22, 42), (110, 190), 22, grain=90, square=True),
    _FoodStyle((1, 5), (18, 44), (100, 150), 20, grain=30, wobble=40),
    _FoodStyle((1, 3), (26, 40), (110, 170), 12, 70, 20, True, ribs=9, warp=2),
    _FoodStyle((2, 5), (16, 34), (100, 140), 24, 35, wobble=35, core=80),
    _FoodStyle((7, 22), (8, 18), (100, 220), 26, grain=120, wobble=60),
    _FoodStyle((1, 4), (24, 44), (120, 210), 16, wobble=50, streak=100),
    _FoodStyle((1, 3), (34, 48), (100, 130), 6, grain=45, ribs=22, warp=26),
    _FoodStyle((60, 130), (3, 6), (160, 300), 36, grain=60),
    _FoodStyle((4, 11), (12, 26), (160, 300), 26, ribs=14, warp=5, streak=50),
    _FoodStyle((5, 16), (5, 14), (100, 180), 26, grain=35, wobble=30),
    _FoodStyle((8, 26), (8, 20), (100, 240), 28, grain=60, streak=25),
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
_SOUP: Final = 9  # the only class with a filled plate: its liquid has a colour of the palette
_TABLES: Final = (0x6B4A30, 0x8C6845, 0xB79A78, 0xD8CFC2, 0x4A4644, 0x77706A, 0x9AA3A8, 0x5A463A, 0xA8694A)
_PLATES: Final = (0xEDE9E2, 0xE2DDD4, 0xF2F0EC, 0xD5CCBC, 0xB9C2C8, 0x5C5450, 0xA9794E, 0xC9B79A)


def paint(
    rng: np.random.Generator, label: int, width: int, height: int, textures: tuple[Images, Images]
) -> Image.Image:
    """Compose a picture of a class and return it as `YCbCr`, upright."""
    plain, directed = textures
    style = _FOOD_STYLES[label]
    focus = (2, 2, 3, 3, 4)[rng.integers(5)]  # scale of the scene: larger values give softer edges
    w, h = -(-width // focus), -(-height // focus)
    labels, heights = np.zeros((h, w), np.int32), np.zeros((h, w), np.int32)
    wander = _cut_texture(rng, plain[1], w, h, 9).astype(np.int32)
    centre = _lay_plate(rng, label == _SOUP, labels, heights)
    _lay_food(rng, style, centre, labels, heights, wander, _cut_texture(rng, plain[2], w, h, 50) >> 4)
    if style.ribs:
        _draw_ribs(rng, style, labels, heights, wander)
    lit = _light(rng, labels, heights, _colours(rng, label), _cut_texture(rng, plain[0], w, h, 25))
    # Four bands are resized faster together; CMYK is the mode whose four bands Pillow doesn't interpret.
    small = Image.merge("CMYK", [as_image(lit[..., band]) for band in range(4)])
    luma, blue, red, rough = small.resize((width, height), Image.Resampling.BILINEAR).split()
    strength = np.asarray(rough, np.int16)
    sharpness = (60, 80, 100, 100, 100)[rng.integers(5)]
    grain = _cut_texture(rng, plain[rng.integers(len(plain))], width, height, sharpness)
    if style.streak:
        streak = _cut_texture(rng, directed[rng.integers(len(directed))], width, height, 100)
        grain = (grain * np.int16(128 - style.streak) + streak * np.int16(style.streak)) >> 7
    detailed = np.asarray(luma, np.int16) + (grain * strength >> 7)
    return Image.merge("YCbCr", (as_image(detailed), blue, red))


def _grid(shape: tuple[int, ...]) -> tuple[IntGrid, IntGrid]:
    return np.arange(shape[1], dtype=np.int32)[None, :], np.arange(shape[0], dtype=np.int32)[:, None]


def _lay_plate(rng: np.random.Generator, filled: bool, labels: IntGrid, heights: IntGrid) -> tuple[int, int, int]:
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
    style: _FoodStyle,
    centre: tuple[int, int, int],
    labels: IntGrid,
    heights: IntGrid,
    wander: IntGrid,
    bumps: Texture,
) -> None:
    """Paint the pieces, later ones over earlier ones: labels 2 to 5 and rounded heights."""
    x, y = _grid(labels.shape)
    cx, cy, squash = centre
    short, count, zoom = min(labels.shape), int(rng.integers(*style.count)), int(rng.integers(140, 240))
    sizes = rng.integers(*style.size, count) * zoom * short // 10_000
    stretches = rng.integers(*style.stretch, count)
    directions, tones = rng.integers(0, len(_DIRECTIONS) * 2, count), rng.integers(2, 5, count)
    # The sum of two draws concentrates pieces in the middle.
    offsets = rng.integers(-style.spread, style.spread + 1, (2, count, 2)).sum(2) * short * zoom // 18_000
    for size, stretch, direction, tone, px, py in np.stack((sizes, stretches, directions, tones, *offsets), 1).tolist():
        long, narrow = max(size * stretch // 140, 2), max(size * 90 // stretch, 2)
        px, py, reach = cx + px, cy + py * squash // 100, long * 5 // 4
        if px + reach < 0 or py + reach < 0:
            continue
        window = slice(max(py - reach, 0), py + reach + 1), slice(max(px - reach, 0), px + reach + 1)
        dx, dy = x[:, window[1]] - px, y[window[0]] - py
        c, s = _DIRECTIONS[direction // 2]
        s = s if direction % 2 else -s
        u, v = (dx * c + dy * s) >> 6, (dy * c - dx * s) >> 6
        # Squared distances in units of the half axes, 256 on the outline; 22 bits don't overflow int32.
        du, dv = u * u * ((1 << 22) // long**2) >> 14, v * v * ((1 << 22) // narrow**2) >> 14
        d = np.minimum(du, 2048) ** 2 + np.minimum(dv, 2048) ** 2 >> 8 if style.square else du + dv
        d = d + (wander[window] * style.wobble >> 5)
        rise = np.minimum(256 - d, 200) * min(narrow, 40) >> 6
        np.copyto(heights[window], 36 + rise + bumps[window], where=d < 256)
        np.copyto(labels[window], tone, where=d < 256)
        if style.core:
            np.copyto(labels[window], 5, where=d < style.core)


def _draw_ribs(rng: np.random.Generator, style: _FoodStyle, labels: IntGrid, heights: IntGrid, wander: IntGrid) -> None:
    """Run a triangle wave over the food, warped by `wander`: layers, shells or strands; labels 6 to 9."""
    x, y = _grid(labels.shape)
    c, s = _DIRECTIONS[rng.integers(len(_DIRECTIONS))]
    cycles = style.ribs * int(rng.integers(70, 131)) * 256 // 100  # over the short side, in 1/256
    phase = (x * c + y * s) * cycles // (min(labels.shape) * 65) + wander * style.warp // 2
    wave = np.abs((phase & 255) - 128) - 64
    food = labels >= 2
    heights += np.where(food, wave >> 2, 0)
    labels += np.where(food & (wave > 20), 4, 0)


def _colours(rng: np.random.Generator, label: int) -> IntGrid:
    """Draw the colours and roughness per label: rows (Y, Cb - 128, Cr - 128, roughness)."""
    rgb = [_TABLES[rng.integers(len(_TABLES))], _PLATES[rng.integers(len(_PLATES))]]
    # One dish in six has the colours of another class, so that colour alone doesn't separate the classes.
    palette = _PALETTES[rng.integers(CLASSES) if rng.integers(6) == 0 else label]
    rgb += [palette[i] for i in rng.permutation(len(palette)).tolist()]
    if _FOOD_STYLES[label].core:
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
    bounced = table[2:, :3].sum(0) // (len(rgb) - 2)  # light reflected by food tints the table
    table[0, :3] = (table[0, :3] * 2 + bounced) // 3
    table[:, 3] = _FOOD_STYLES[label].grain + 16
    table[0, 3], table[1, 3] = rng.integers(40, 110), rng.integers(20, 60)
    table[:, 1] += rng.integers(-10, 4)  # white balance, the room's light
    table[:, 2] += rng.integers(-3, 8)
    table[:, 1:3] = table[:, 1:3] * rng.integers(70, 125) // 100
    return table


def _light(rng: np.random.Generator, labels: IntGrid, heights: IntGrid, colours: IntGrid, mottle: Texture) -> IntGrid:
    """Shade the scene. Return (h, w, 4): Y, Cb, Cr and roughness, about 0..255, not yet clipped."""
    h, w = labels.shape
    x, y = _grid(labels.shape)
    gx, gy = rng.integers(-50, 51, 2).tolist()
    far = ((2 * x - w) ** 2 + (2 * y - h) ** 2) * 256 // (w * w + h * h)
    light = int(rng.integers(215, 285)) + (x * 2 - w) * gx // w + (y * 2 - h) * gy // h
    light = light - (far * int(rng.integers(10, 70)) >> 8)
    solid = as_image(heights)
    # Edges of labels are one-pixel steps; a light blur keeps their slopes from looking jagged.
    heights = np.asarray(solid.filter(ImageFilter.BoxBlur(1)), np.int32)
    around = np.asarray(solid.filter(ImageFilter.BoxBlur(max(min(h, w) // 24, 1))), np.int32)
    hollow = np.clip(around - heights, 0, 60)  # points below their surroundings get less light
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


def as_image(values: IntGrid | Texture) -> Image.Image:
    """Clip values to 0..255 and convert them to a picture."""
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _cut_texture(rng: np.random.Generator, texture: Image.Image, width: int, height: int, percent: int) -> Texture:
    """Cut a random window of a texture, enlarged from `percent` of the size; (height, width), mean 0."""
    w, h = max(width * percent // 100, 1), max(height * percent // 100, 1)
    x, y = int(rng.integers(texture.width - w + 1)), int(rng.integers(texture.height - h + 1))
    box = (x, y, x + w, y + h)
    if percent == 100:
        return np.asarray(texture.crop(box), np.int16) - np.int16(128)
    return np.asarray(texture.resize((width, height), Image.Resampling.BICUBIC, box), np.int16) - np.int16(128)
