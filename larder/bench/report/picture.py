"""Draw the throughput as a picture of its own, for a README or a slide."""

from __future__ import annotations

import re
from pathlib import Path

from larder.bench.report.facts import Record, shorten, title_of
from larder.bench.report.plots import plot_throughput
from larder.bench.report.svg import text

STYLE_FILE = Path(__file__).with_name("plot.css")
_WIDTH, _MARGIN, _HEAD = 720, 24, 56
_MAX_TITLE = 80


def draw_picture(record: Record) -> str:
    """Return an SVG file that follows the reader's colour scheme; empty without figures."""
    figure = plot_throughput(record)
    if figure is None:
        return ""
    [height] = re.findall(r'^<svg class="plot" width="100%" height="(\d+)"', figure.svg)
    whole = int(height) + _HEAD + _MARGIN
    plot = figure.svg.replace('width="100%"', f'x="{_MARGIN}" y="{_HEAD}" width="{_WIDTH - 2 * _MARGIN}"', 1)
    heads = text(str(_MARGIN), 24, shorten(title_of(record), _MAX_TITLE), "label") + text(
        str(_MARGIN), 42, "images/s of each round (dots), medians with 95% intervals, upper bounds (rings)", "tick"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{whole}" viewBox="0 0 {_WIDTH} {whole}">\n'
        f"<style>{STYLE_FILE.read_text(encoding='utf-8')}</style>\n"
        f'<rect width="100%" height="100%" rx="10" class="sheet"/><g class="plot">{heads}</g>\n{plot}\n</svg>\n'
    )
