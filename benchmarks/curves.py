"""Draw measured curves as an SVG of bars that is legible on light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_LEFT, _PANEL_WIDTH, _PANEL_HEIGHT, _BARS_HEIGHT = 10, 290, 150, 90
GRAY, BLUE, ORANGE = "#7d8590", "#3b82f6", "#d97706"
"""In the middle between black and white, so that each page's background contrasts with them."""


@dataclass(frozen=True)
class Curve:
    """Figures at some values of a setting.

    Attributes:
        title: The setting, with its unit.
        values: Its values.
        figures: The figures at each value, by name with unit.
        usual: Position of the usual value.
    """

    title: str
    values: Sequence[str]
    figures: Mapping[str, Sequence[float]]
    usual: int


def draw(curves: Sequence[Curve]) -> str:
    """Return an SVG with a row of panels for each curve, one panel for each figure."""
    columns = max(len(curve.figures) for curve in curves)
    tops = {
        name: max(max(curve.figures[name]) for curve in curves if name in curve.figures)
        for curve in curves
        for name in curve.figures
    }
    panels = [
        _panel(curve, name, _LEFT + column * _PANEL_WIDTH, row * _PANEL_HEIGHT, tops[name])
        for row, curve in enumerate(curves)
        for column, name in enumerate(curve.figures)
    ]
    width, height = _LEFT + columns * _PANEL_WIDTH, len(curves) * _PANEL_HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11" fill="{GRAY}">\n' + "\n".join(panels) + "\n</svg>\n"
    )


def _panel(curve: Curve, name: str, left: int, top: int, largest: float) -> str:
    step = (_PANEL_WIDTH - 20) / len(curve.values)
    base = top + 30 + _BARS_HEIGHT
    parts = [f'<text x="{left}" y="{top + 14}" font-weight="bold">{escape(name)}, by {escape(curve.title)}</text>']
    for at, (value, figure) in enumerate(zip(curve.values, curve.figures[name], strict=True)):
        x, height = left + at * step, max(1.0, (_BARS_HEIGHT - 14) * figure / largest)
        color, middle = ORANGE if at == curve.usual else BLUE, x + step / 2 - 4
        parts.append(
            f'<rect x="{x:.0f}" y="{base - height:.1f}" width="{step - 8:.0f}" height="{height:.1f}" fill="{color}"/>'
            f'<text x="{middle:.0f}" y="{base - height - 3:.1f}" text-anchor="middle">{_number(figure)}</text>'
            f'<text x="{middle:.0f}" y="{base + 13}" text-anchor="middle">{escape(value)}</text>'
        )
    return "\n".join(parts)


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 10 else f"{figure:.2f}"
