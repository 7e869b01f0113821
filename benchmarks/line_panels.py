"""Draw lines over a setting, a panel each for other settings, as an SVG that is legible on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.curves import BLUE, GRAY, ORANGE

_MARGIN, _WIDTH, _HEIGHT, _GAP = 48, 250, 170, 30
_TOP, _LINE = 24, 18
_COLORS = (BLUE, ORANGE, "#16a34a", "#dc2626", "#9333ea", "#0891b2")
_DASHES = ("", "6 3", "2 3", "8 3 2 3", "10 4", "4 2")
"""So that lines can be told apart without colours."""


@dataclass(frozen=True)
class Panel:
    """Lines over the same values.

    Attributes:
        title: The other settings.
        lines: The figures at each value, by name; None where there is none.
    """

    title: str
    lines: Mapping[str, Sequence[float | None]]


def draw_panels(panels: Sequence[Panel], columns: int, values: Sequence[str], about: str) -> str:
    """Return an SVG with the panels in rows, with the same logarithmic scale.

    Args:
        panels: The panels, row by row.
        columns: Number of panels in a row.
        values: What the figures are at, at equal distances.
        about: What is drawn, with units.
    """
    figures = [figure for panel in panels for line in panel.lines.values() for figure in line if figure]
    low, high = 10 ** math.floor(math.log10(min(figures))), 10 ** math.ceil(math.log10(max(figures)))
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    column, row = _MARGIN + _WIDTH + _GAP, _TOP + _HEIGHT + _GAP
    begin = _LINE * (2 + len(names) // columns)
    width, height = columns * column, begin + -(-len(panels) // columns) * row
    parts = [_entry(at, name, column, columns) for at, name in enumerate(names)]
    parts.append(f'<text x="0" y="{begin - 4}">{escape(about)}</text>')
    for at, panel in enumerate(panels):
        left, top = _MARGIN + (at % columns) * column, begin + (at // columns) * row + _TOP
        parts += _panel(panel, names, values, (left, top), (low, high))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11" fill="{GRAY}">\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _entry(at: int, name: str, width: int, columns: int) -> str:
    """Return an entry of the legend."""
    x, y = (at % columns) * width, _LINE * (at // columns) + 10
    return f'<path d="M{x} {y}h26" {_stroke(at)}/><text x="{x + 31}" y="{y + 4}">{escape(name)}</text>'


def _stroke(at: int) -> str:
    dash = f' stroke-dasharray="{_DASHES[at % len(_DASHES)]}"' if _DASHES[at % len(_DASHES)] else ""
    return f'fill="none" stroke="{_COLORS[at % len(_COLORS)]}" stroke-width="2"{dash}'


def _panel(
    panel: Panel, names: Sequence[str], values: Sequence[str], corner: tuple[int, int], limits: tuple[float, float]
) -> list[str]:
    left, top = corner
    low, high = (math.log10(limit) for limit in limits)

    def height_of(figure: float) -> float:
        return top + _HEIGHT * (high - math.log10(figure)) / (high - low)

    def place_of(number: int) -> float:
        return left + 15 + (_WIDTH - 30) * number / max(len(values) - 1, 1)

    parts = [f'<text x="{left}" y="{top - 8}" font-weight="bold">{escape(panel.title)}</text>']
    for power in range(round(low), round(high) + 1):
        y = height_of(10.0**power)
        parts.append(f'<path d="M{left} {y:.1f}h{_WIDTH}" stroke="{GRAY}" stroke-opacity="0.3"/>')
        parts.append(f'<text x="{left - 4}" y="{y + 4:.1f}" text-anchor="end">{10**power:,}</text>')
    for number, value in enumerate(values):
        parts.append(
            f'<text x="{place_of(number):.1f}" y="{top + _HEIGHT + 14}" text-anchor="middle">{escape(value)}</text>'
        )
    for name, line in panel.lines.items():
        points = [(place_of(number), height_of(figure)) for number, figure in enumerate(line) if figure]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(f'<path d="M{path}" {_stroke(names.index(name))}/>')
        color = _COLORS[names.index(name) % len(_COLORS)]
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in points]
    return parts
