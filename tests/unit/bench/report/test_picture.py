"""The throughput as a picture of its own."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from larder.bench.report.picture import draw_picture

SVG = "{http://www.w3.org/2000/svg}"


def test_it_is_a_file_of_its_own(content: dict[str, Any]) -> None:
    content["data"]["dataset"] = "</style><script>alert(1)</script> & \u202e"
    picture = ElementTree.fromstring(draw_picture(content))
    assert picture.tag == f"{SVG}svg"
    assert {one.tag.removeprefix(SVG) for one in picture.iter()} >= {"style", "title", "desc", "circle", "text"}
    assert picture.find(f".//{SVG}script") is None
    assert len(picture.findall(f".//{SVG}circle[@class='dot']")) == 29
    [plot] = picture.findall(f"{SVG}svg")
    assert float(plot.get("y", 0)) + float(plot.get("height", 0)) < float(picture.get("height", 0))


def test_without_figures_there_is_none(content: dict[str, Any]) -> None:
    content["summary"]["arms"] = []
    assert draw_picture(content) == ""
