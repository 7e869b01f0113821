"""Draw SVG: rows of marks on a common horizontal scale that starts at zero.

Horizontal positions are percentages of the drawing's width, and vertical ones pixels. So text keeps its size whatever
the width of the page. Colours and fonts come from the page's style, by class.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from larder.bench.report.html import escape_html, long_text

AXIS_HEIGHT = 34
_MAX_STEPS = 4


class Scale(NamedTuple):
    """A linear scale from zero."""

    top: float
    """Value at the right end."""
    step: float
    """Distance of the ticks."""

    def at(self, value: float) -> str:
        """Return the position of a value, as a percentage."""
        return f"{_short(100 * min(max(value / self.top, 0.0), 1.0))}%"

    def ticks(self) -> list[float]:
        """Return the values of the ticks, from zero to the top."""
        return [self.step * at for at in range(round(self.top / self.step) + 1)]


class Row(NamedTuple):
    """A row of a plot: a line of text, and marks below it."""

    label: str
    value: str
    """Text at the right end of the line."""
    marks: Sequence[str]
    """Elements, with vertical positions from the row's top."""
    kind: str = "label"
    """Class of the line of text."""


def scale_for(values: Iterable[float]) -> Scale:
    """Return a scale from zero to a round number that no value exceeds.

    Example:
        >>> scale_for([12.0, 1470.0])
        Scale(top=1500.0, step=500.0)
    """
    largest = max((value for value in values if value > 0), default=1.0)
    power = 10.0 ** math.floor(math.log10(largest / _MAX_STEPS))
    step = next(
        factor * power for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if largest <= factor * power * _MAX_STEPS * 1.000001
    )
    return Scale(step * math.ceil(largest / step - 1e-6), step)


def draw_rows(
    name: str, title: str, description: str, rows: Sequence[Row], scale: Scale, unit: str, row_height: int
) -> str:
    """Return a plot with an axis below.

    Args:
        name: Identifies the drawing in the page.
        title: Accessible title.
        description: Accessible description: what the plot shows.
        rows: The rows, from the top.
        scale: The horizontal scale.
        unit: What the axis counts.
        row_height: Height of a row, in pixels.
    """
    bottom = row_height * len(rows)
    parts = [line(scale.at(tick), 0, scale.at(tick), bottom + 4, "grid") for tick in scale.ticks()]
    for at, row in enumerate(rows):
        texts = text("0", 14, row.label, row.kind) + text("100%", 14, row.value, "value end")
        parts.append(f'<g transform="translate(0 {at * row_height})">{texts}{"".join(row.marks)}</g>')
    for tick in scale.ticks():
        anchor = "" if tick == 0 else " end" if tick == scale.ticks()[-1] else " middle"
        parts.append(text(scale.at(tick), bottom + 18, f"{tick:,.10g}", f"tick{anchor}"))
    parts.append(text("100%", bottom + AXIS_HEIGHT - 1, unit, "tick end"))
    return drawing(name, title, description, bottom + AXIS_HEIGHT, parts)


def drawing(name: str, title: str, description: str, height: int, parts: Iterable[str], definitions: str = "") -> str:
    """Return an SVG element with an accessible title and description."""
    return (
        f'<svg class="plot" width="100%" height="{height}" role="img" aria-labelledby="{name}-title {name}-about">'
        f'<title id="{name}-title">{escape_html(title)}</title>'
        f'<desc id="{name}-about">{long_text(description)}</desc>'
        f"{definitions}{''.join(parts)}</svg>"
    )


def text(x: str, y: float, content: str, kind: str) -> str:
    """Return a text."""
    return f'<text x="{x}" y="{_short(y)}" class="{kind}">{escape_html(content)}</text>'


def line(x1: str, y1: float, x2: str, y2: float, kind: str) -> str:
    """Return a line."""
    return f'<line x1="{x1}" y1="{_short(y1)}" x2="{x2}" y2="{_short(y2)}" class="{kind}"/>'


def circle(x: str, y: float, radius: float, kind: str) -> str:
    """Return a circle."""
    return f'<circle cx="{x}" cy="{_short(y)}" r="{_short(radius)}" class="{kind}"/>'


def square(x: str, y: float, half: float, kind: str) -> str:
    """Return a square around a point."""
    return (
        f'<svg x="{x}" y="{_short(y)}" class="mark"><rect x="{-half:g}" y="{-half:g}" width="{2 * half:g}" '
        f'height="{2 * half:g}" class="{kind}"/></svg>'
    )


def bar(x: str, y: float, width: str, height: float, kind: str) -> str:
    """Return a rectangle."""
    return f'<rect x="{x}" y="{_short(y)}" width="{width}" height="{_short(height)}" class="{kind}"/>'


def area(points: Sequence[tuple[float, float]], y: float, height: float) -> str:
    """Return a filled line over the whole width.

    Args:
        points: Horizontal and vertical positions from 0 to 1, vertically from the bottom.
        y: Upper edge, in pixels.
        height: Height, in pixels.
    """
    path = " ".join(f"{_short(1000 * across)},{_short(100 * (1 - up))}" for across, up in points)
    return (
        f'<svg x="0" y="{_short(y)}" width="100%" height="{_short(height)}" viewBox="0 0 1000 100" '
        f'preserveAspectRatio="none"><polygon points="0,100 {path} 1000,100" class="fill"/>'
        f'<polyline points="{path}" class="stroke"/></svg>'
    )


def hatch(name: str, kind: str) -> str:
    """Return the definition of a pattern, so that an area differs from others not only by its colour."""
    return (
        f'<pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        f'<rect width="6" height="6" class="{kind}-back"/><rect width="3" height="6" class="{kind}-fore"/></pattern>'
    )


def _short(value: float) -> str:
    """Format a coordinate in few characters."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
