"""The plots: common scales from zero, every round, and a table behind each."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from larder.bench.report import plots
from larder.bench.report.figure import Figure
from larder.bench.report.network import plot_network
from larder.bench.report.svg import scale_for

NAMES = ["throughput", "waterfall", "epochs", "network", "utilization", "order"]


def elements(figure: Figure, tag: str, kind: str) -> list[ElementTree.Element]:
    return [one for one in ElementTree.fromstring(figure.svg).iter(tag) if one.get("class") == kind]


def at(element: ElementTree.Element, name: str) -> float:
    return float(element.get(name, "").removesuffix("%"))


def test_the_rule_by_which_an_accelerator_is_busy_is_shown(content: dict[str, Any]) -> None:
    for arm in content["summary"]["arms"]:
        for each in arm["utilization"]:
            each.update(threshold=0.9, batch_size=400, step_s=0.224, rule="MLPerf Storage v1.0")
    figure = plots.plot_utilization(content)
    assert figure is not None
    assert figure.table.rows[0][5] == "90% of the time, at 400 images in 0.224 s (MLPerf Storage v1.0)"


def test_each_plot_has_title_description_and_table(content: dict[str, Any]) -> None:
    figures = plots.draw_all(content)
    assert [figure.name for figure in figures] == NAMES
    for figure in figures:
        drawing = ElementTree.fromstring(figure.svg)
        title, description = drawing.find("title"), drawing.find("desc")
        assert title is not None
        assert description is not None
        assert drawing.get("role") == "img"
        assert drawing.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        assert "stream" in (description.text or "")
        assert figure.table.rows
        assert figure.lead


@pytest.mark.parametrize(
    ("values", "top", "step"),
    [([1470.0], 1500, 500), ([0.68, 9.58], 10, 2.5), ([100.0], 100, 25), ([0.003], 0.003, 0.001), ([], 1, 0.25)],
)
def test_scales_start_at_zero_and_end_at_a_round_number(values: list[float], top: float, step: float) -> None:
    scale = scale_for(values)
    assert (scale.top, scale.step) == (pytest.approx(top), pytest.approx(step))
    assert scale.ticks()[0] == 0
    assert scale.ticks()[-1] == pytest.approx(top)
    assert (scale.at(0), scale.at(scale.top), scale.at(2 * scale.top)) == ("0%", "100%", "100%")


def test_every_round_is_a_dot_on_a_scale_from_zero(content: dict[str, Any]) -> None:
    figure = plots.plot_throughput(content)
    assert figure is not None
    measured = [one for one in content["rounds"] if one["round"] > 0]
    shown = [one for one in measured if one["arm"] != "nothing" and not one["arm"].endswith("(again)")]
    rates = sorted(one["epochs"][0]["imgs_per_s"] for one in shown)
    dots = sorted(at(dot, "cx") for dot in elements(figure, "circle", "dot"))
    assert dots == pytest.approx([rate / 2000 * 100 for rate in rates], abs=0.01)
    assert len(elements(figure, "circle", "ring")) == 9, "rounds of the three upper bounds that fit"
    assert {row[0] for row in figure.table.rows} >= {"stream", "upper bound: store_read"}


def test_intervals_are_drawn_to_scale(content: dict[str, Any]) -> None:
    figure = plots.plot_throughput(content)
    assert figure is not None
    [stream, *_] = [one for one in elements(figure, "line", "interval") if one.get("x1") != one.get("x2")]
    ends = content["summary"]["arms"][0]["imgs_per_s"]
    assert (at(stream, "x1"), at(stream, "x2")) == pytest.approx((ends["low"] / 20, ends["high"] / 20), abs=0.01)


def test_the_steps_of_the_waterfall_add_up(content: dict[str, Any]) -> None:
    figure = plots.plot_waterfall(content)
    assert figure is not None
    bars = {kind: elements(figure, "rect", f"step-{kind}") for kind in ("decode", "batch", "rest")}
    for decode, batch, rest in zip(*bars.values(), strict=True):
        assert at(batch, "x") == pytest.approx(at(decode, "width"), abs=0.02)
        assert at(rest, "x") == pytest.approx(at(batch, "x") + at(batch, "width"), abs=0.02)
    for row, arm in zip(figure.table.rows, content["summary"]["arms"], strict=True):
        assert float(row[-1]) == pytest.approx(1000 / arm["imgs_per_s"]["median"], rel=0.01)


def test_cold_and_warm_have_different_shapes(content: dict[str, Any]) -> None:
    figure = plots.plot_epochs(content)
    assert figure is not None
    assert len(elements(figure, "circle", "ring")) == len(elements(figure, "rect", "warm")) == 6
    assert figure.table.rows[3][2:5] == ("353 (349 to 356)", "433 (422 to 440)", "1.23")


def test_the_network_is_that_of_the_median_round(content: dict[str, Any]) -> None:
    figure = plot_network(content)
    assert figure is not None
    arms = [row[0] for row in figure.table.rows]
    assert arms == ["stream", "webdataset", "litdata_streaming", "imagefolder_rclone_mount", "remote_one_sample"]
    mean = sum(float(rate) for rate in figure.table.rows[0][5:]) / 10
    assert mean == pytest.approx(147, rel=0.05)
    assert len(elements(figure, "polyline", "stroke")) == 5


def test_long_timelines_are_thinned(content: dict[str, Any]) -> None:
    for one in content["rounds"]:
        for epoch in one["epochs"]:
            epoch["timeline"] = {
                "t_s": [0.25 * at for at in range(2001)],
                "bytes_per_s": [1e6] * 2000,
                "images_per_s": [9.0] * 2000,
            }
    figure = plot_network(content)
    assert figure is not None
    [curve, *_] = elements(figure, "polyline", "stroke")
    assert len(curve.get("points", "").split()) <= 300
    assert figure.table.rows[0][5:] == ("1.0",) * 10


def test_busy_differs_from_waiting_not_only_in_colour(content: dict[str, Any]) -> None:
    figure = plots.plot_utilization(content)
    assert figure is not None
    busy, waits = elements(figure, "rect", "busy"), elements(figure, "rect", "waits")
    rule = figure.table.header.index("rule")
    assert {row[rule] for row in figure.table.rows} == {"unknown"}, "a record of an earlier version"
    shares = [each for arm in content["summary"]["arms"] for each in arm["utilization"]]
    equal = [each for each in shares if each["accelerator"] != "mi355-retinanet"]  # takes as much as b200-retinanet
    assert (len(busy), len(waits)) == (sum(each["passes"] for each in equal), sum(not each["passes"] for each in equal))
    assert "hatch-waits" in figure.svg
    assert len(re.findall(r"\d%, busy<", figure.svg)) == len(busy)
    assert len(figure.table.rows) == len(shares)


def test_an_unknown_order_has_no_bar(content: dict[str, Any]) -> None:
    content["summary"]["arms"][0]["order_entropy"] = None
    figure = plots.plot_order(content)
    assert figure is not None
    assert len(elements(figure, "rect", "busy")) == 5
    assert figure.table.rows[0] == ("stream", "unknown", "yes")


def test_what_was_not_measured_is_not_plotted(content: dict[str, Any]) -> None:
    content.update(rounds=[], rooflines=[])
    content["summary"].update(waterfall=[])
    for arm in content["summary"]["arms"]:
        arm.update(second_epoch_imgs_per_s=None, order_entropy=None, utilization=[])
    assert [figure.name for figure in plots.draw_all(content)] == ["throughput"]
    content["summary"]["arms"] = []
    assert plots.draw_all(content) == []


def test_zeros_are_plotted(content: dict[str, Any]) -> None:
    for one in content["rounds"]:
        for epoch in one["epochs"]:
            epoch.update(imgs_per_s=0.0, seconds=0.0, network_bytes=0)
            epoch["timeline"].update(t_s=[0.0, 0.0], bytes_per_s=[0.0])
    for arm in content["summary"]["arms"]:
        arm["imgs_per_s"] = arm["second_epoch_imgs_per_s"] = {"median": 0.0, "low": 0.0, "high": 0.0}
    for step in content["summary"]["waterfall"]:
        step["s_per_1000_imgs"] = 0.0
    assert len(plots.draw_all(content)) == len(NAMES)


def test_numbers_of_workers_are_rows_of_their_own(content: dict[str, Any]) -> None:
    more = [{**arm, "workers": 4} for arm in content["summary"]["arms"]]
    content["summary"]["arms"] = [*more, *content["summary"]["arms"]]
    figures = {figure.name: figure for figure in plots.draw_all(content)}
    assert "stream, 4 workers" in figures["throughput"].svg
    assert len(figures["order"].table.rows) == 6, "with the number of workers at which the arm is fastest"
