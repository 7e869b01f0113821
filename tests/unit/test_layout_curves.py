"""The figure and the table of docs/which-layout.md."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks import layout_curves
from benchmarks.layout_curves import LATENCIES_MS, LOCAL, NAMES, REMOTE, Place, Rates, with_table
from benchmarks.line_panels import Panel, draw_panels
from larder.bench.arms import ARMS

SVG = "{http://www.w3.org/2000/svg}"
ROOT = layout_curves.ROOT


def rates() -> dict[Place, Rates]:
    """Rates of two arms; one failed at the largest distance."""
    far = [[1000.0, 1200.0], [900.0], [800.0], []]
    return {Place("20 KB", 1): {LOCAL: [[400.0]], "stream": far}}


def test_the_table_replaces_what_is_between_the_marks() -> None:
    page = "# Title\n\n<!-- layout_curves: begin -->\nstale figures\n<!-- layout_curves: end -->\n\nrest\n"
    made = with_table(page, rates())
    assert "stale figures" not in made
    assert made.startswith("# Title\n\n<!-- layout_curves: begin -->\n![Images")
    assert "\n| images | cores | reads | 0 ms | 5 ms | 20 ms | 80 ms |\n" in made
    assert made.endswith("|\n<!-- layout_curves: end -->\n\nrest\n")
    assert "| 20 KB | 1 | ImageFolder on local disk | 400 |  |  |  |\n" in made
    assert "| 20 KB | 1 | shards, larder.stream | 1,100 | 900 | 800 | failed |\n" in made
    assert with_table(made, rates()) == made


def test_the_page_has_both_marks() -> None:
    page = (ROOT / layout_curves.PAGE).read_text()
    assert page.count("<!-- layout_curves: ") == 2


def test_lines_have_the_points_that_were_measured() -> None:
    drawn = layout_curves._draw(rates())
    root = ElementTree.fromstring(drawn)
    assert len(root.findall(f"{SVG}circle")) == 2 * len(LATENCIES_MS) - 1  # one arm failed once
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert {"20 KB, 1 core", "ImageFolder on local disk", "80 ms", "1,000"} <= {*words}


def test_a_faster_line_is_higher() -> None:
    drawn = draw_panels([Panel("<a & b>", {"slow": [10.0, 10.0], "fast": [100.0, 1000.0]})], 1, ["1", "2"], "about")
    heights = [float(circle.get("cy", "")) for circle in ElementTree.fromstring(drawn).findall(f"{SVG}circle")]
    assert heights[0] == heights[1] > heights[2] > heights[3]


@pytest.mark.parametrize("arm", [LOCAL, *REMOTE])
def test_every_arm_has_a_name(arm: str) -> None:
    assert arm in ARMS
    assert NAMES[arm]
