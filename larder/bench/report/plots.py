"""Draw the plots of a comparison, each with the table behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from larder.bench.report import facts
from larder.bench.report.facts import Record, number, percent, significant, size
from larder.bench.report.figure import MAX_PLOTTED, Figure, workers_note
from larder.bench.report.network import plot_network
from larder.bench.report.svg import Row, Scale, bar, circle, draw_rows, hatch, line, scale_for, square, text
from larder.bench.report.tables import Table

_ACCELERATORS = Path(__file__).parents[1] / "accelerators.json"
_STEPS = {"decode": "decode", "batch": "make batches", "rest": "all else"}
_MAX_DOTS = 1200
_LISTED_ROUNDS = 25


def draw_all(record: Record) -> list[Figure]:
    """Return the plots for which the record has figures."""
    drawn = (plot_throughput, plot_waterfall, plot_epochs, plot_network, plot_utilization, plot_order)
    return [figure for figure in (draw(record) for draw in drawn) if figure is not None]


def plot_throughput(record: Record) -> Figure | None:
    """Plot the images per second of each arm: every round, the median and its interval; and upper bounds nearby."""
    arms = facts.summaries(record)
    if not arms:
        return None
    rates = {(one["arm"], one["workers"]): facts.rates_of(record, one) for one in arms}
    highest = max([one["imgs_per_s"]["high"] for one in arms] + [rate for each in rates.values() for rate in each])
    bounds = [one for one in record["rooflines"] if one["imgs_per_s"] <= 2 * highest]
    scale = scale_for([highest, *(rate for one in bounds for rate in (one["imgs_per_s"], *one["rounds"]))])
    rows = [
        Row(
            facts.label_of(record, one["arm"], one["workers"]),
            number(one["imgs_per_s"]["median"]),
            [
                bar("0", 21, scale.at(one["imgs_per_s"]["median"]), 18, "length"),
                *_dots(scale, _thinned(rates[one["arm"], one["workers"]], len(arms)), "dot"),
                *_interval_marks(scale, one["imgs_per_s"], 45),
            ],
        )
        for one in arms[:MAX_PLOTTED]
    ]
    rows += [
        Row(
            f"upper bound: {facts.shorten(one['name'], facts.MAX_LABEL - 10)}",
            number(one["imgs_per_s"]),
            [line(scale.at(one["imgs_per_s"]), 41, scale.at(one["imgs_per_s"]), 49, "median"),
             *_dots(scale, one["rounds"], "ring")],
        )
        for one in bounds[:MAX_PLOTTED]
    ]  # fmt: skip
    table_rows = [
        (
            one["arm"],
            facts.workers_of(record, one),
            number(one["imgs_per_s"]["median"], 1),
            facts.ends_of(one["imgs_per_s"], one["rounds"], 1),
            _list_rates(rates[one["arm"], one["workers"]]),
        )
        for one in arms
    ]
    table_rows += [
        (f"upper bound: {one['name']}", str(one["workers"]), number(one["imgs_per_s"], 1), facts.NO_FIGURE,
         _list_rates(one["rounds"]))
        for one in record["rooflines"]
    ]  # fmt: skip
    header = ("arm", "workers", "median", "95% interval", "each round")
    about = _describe_rates(record, arms)
    return Figure(
        "throughput",
        "Throughput",
        "Further right is better. Images per second of the first epoch, from request to batch.",
        (("dot", "one round"), ("interval", "median and its 95% interval"), ("ring", "one round of an upper bound")),
        draw_rows("throughput", "Images per second of each arm", about, rows, scale, "images/s", 60),
        Table("Images per second", header, table_rows, frozenset({0, 4})),
    )


def plot_waterfall(record: Record) -> Figure | None:
    """Plot where the time of 1,000 images goes, from store to batch."""
    times: dict[str, dict[str, float]] = {}
    for one in record["summary"]["waterfall"]:
        times.setdefault(one["arm"], {})[one["step"]] = one["s_per_1000_imgs"]
    if not times:
        return None
    scale = scale_for(sum(steps.values()) for steps in times.values())
    rows = [
        Row(facts.shorten(arm, facts.MAX_LABEL), f"{significant(sum(steps.values()))} s", list(_stack(scale, steps)))
        for arm, steps in list(times.items())[:MAX_PLOTTED]
    ]
    table_rows = [
        (arm, *(number(steps.get(step), 3) for step in _STEPS), number(sum(steps.values()), 3))
        for arm, steps in times.items()
    ]
    about = ". ".join(
        f"{arm}: " + ", ".join(f"{_STEPS[step]} {significant(seconds)} s" for step, seconds in steps.items())
        for arm, steps in times.items()
    )
    svg = draw_rows(
        "waterfall", "Seconds per 1,000 images, by step", about, rows, scale, "seconds per 1,000 images", 44
    )
    return Figure(
        "waterfall",
        "Where the time goes, from store to batch",
        "Shorter is better. Decoding and making batches are what the upper bounds of this machine take; all else is "
        "fetching, slower decoding, copies between processes, and waiting.",
        tuple((f"step-{step}", meaning) for step, meaning in _STEPS.items()),
        _with_definitions(svg, hatch("hatch-batch", "batch") + hatch("hatch-rest", "rest")),
        Table("Seconds per 1,000 images", ("arm", *_STEPS.values(), "total"), table_rows),
    )


def plot_epochs(record: Record) -> Figure | None:
    """Plot epoch 1 against epoch 2: cold against warm."""
    arms = [one for one in facts.best_of_each_arm(record) if one["second_epoch_imgs_per_s"]]
    if not arms:
        return None
    pairs = [(one, one["imgs_per_s"], one["second_epoch_imgs_per_s"]) for one in arms]
    scale = scale_for(ends["high"] for _, cold, warm in pairs for ends in (cold, warm))
    rows = [
        Row(
            facts.shorten(one["arm"], facts.MAX_LABEL),
            f"{number(cold['median'])} → {number(warm['median'])}",
            [
                line(scale.at(cold["median"]), 32, scale.at(warm["median"]), 32, "link"),
                circle(scale.at(cold["median"]), 32, 6, "ring"),
                square(scale.at(warm["median"]), 32, 4.5, "warm"),
            ],
        )
        for one, cold, warm in pairs[:MAX_PLOTTED]
    ]
    table_rows = [
        (
            one["arm"],
            facts.workers_of(record, one),
            f"{number(cold['median'])} ({facts.ends_of(cold, one['rounds'])})",
            f"{number(warm['median'])} ({facts.ends_of(warm, facts.warm_rounds(record, one))})",
            f"{warm['median'] / cold['median']:.2f}" if cold["median"] else facts.NO_FIGURE,
            *_cache_evidence(record, one),
        )
        for one, cold, warm in pairs
    ]
    header = ("arm", "workers", "epoch 1, imgs/s", "epoch 2, imgs/s", "ratio", "in page cache before", "read from disk")
    about = ". ".join(
        f"{one['arm']}: {number(cold['median'])}, then {number(warm['median'])}" for one, cold, warm in pairs
    )
    return Figure(
        "epochs",
        "Cold against warm",
        "The first epoch starts the workers and fills caches, the second one finds them. Arms without a cache measure "
        f"a second epoch in the last round only.{workers_note(record)}",
        (("ring", "epoch 1"), ("warm", "epoch 2")),
        draw_rows("epochs", "Images per second of the first and the second epoch", about, rows, scale, "images/s", 46),
        Table("First and second epoch", header, table_rows),
    )


def plot_utilization(record: Record) -> Figure | None:
    """Plot how busy each arm keeps accelerators."""
    arms = facts.best_of_each_arm(record)
    groups: dict[float, list[str]] = {}
    for one in arms:
        for each in one["utilization"]:
            names = groups.setdefault(each["needs_imgs_per_s"], [])
            names += [] if each["accelerator"] in names else [each["accelerator"]]
    if not groups:
        return None
    scale, known = Scale(100.0, 25.0), _known_accelerators()
    rows = []
    for needs, names in sorted(groups.items()):
        first, *others = (facts.shorten(known.get(name, {}).get("about", name), facts.MAX_LABEL - 4) for name in names)
        also = text("0", 30, f"and {', '.join(others)}", "tick") if others else ""
        rows.append(Row(first, f"{number(needs)} imgs/s", [line("0", -1, "100%", -1, "grid"), also]))
        rows += [
            _utilization_row(one, each, scale)
            for one in arms
            for each in one["utilization"]
            if each["accelerator"] == names[0]
        ]
    table_rows = [
        (
            one["arm"],
            facts.workers_of(record, one),
            each["accelerator"],
            number(each["needs_imgs_per_s"]),
            percent(each["utilization"]),
            _rule_of(each),
            facts.yes(each["passes"]),
            "none" if each["workers"] is None else str(each["workers"]),
        )
        for one in arms
        for each in one["utilization"]
    ]
    header = (
        "arm",
        "workers",
        "accelerator",
        "takes imgs/s",
        "utilization",
        "rule",
        "busy",
        "fewest workers that keep it busy",
    )
    about = ". ".join(f"{row[0]} keeps {row[2]} busy for {row[4]}" for row in table_rows)
    svg = draw_rows(
        "utilization", "Utilization by accelerator", about, rows[: 2 * MAX_PLOTTED], scale, "% of the time", 36
    )
    return Figure(
        "utilization",
        "Utilization by accelerator",
        "The share of the time that an accelerator would compute if this arm alone fed it, as MLPerf Storage defines "
        f"it, but with decoding, and with these images, of {_mean_length(record)} on average: its samples have other "
        "lengths, which the table names. Busy means the share that the benchmark's rules demand. No accelerator was "
        f"used.{workers_note(record)}",
        (("busy", "busy"), ("waits", "waits for data")),
        _with_definitions(svg, hatch("hatch-waits", "waits")),
        Table("Utilization", header, table_rows, frozenset({0, 2, 5})),
    )


def plot_order(record: Record) -> Figure | None:
    """Plot how well each arm shuffles."""
    arms = facts.best_of_each_arm(record)
    if all(one["order_entropy"] is None for one in arms):
        return None
    scale = Scale(1.0, 0.25)
    rows = [
        Row(
            facts.shorten(one["arm"], facts.MAX_LABEL),
            facts.UNKNOWN if one["order_entropy"] is None else f"{one['order_entropy']:.2f}",
            [] if one["order_entropy"] is None else [bar("0", 22, scale.at(one["order_entropy"]), 10, "busy")],
        )
        for one in arms[:MAX_PLOTTED]
    ]
    table_rows = [(one["arm"], facts.known(number(one["order_entropy"], 4)), facts.exactly_once(one)) for one in arms]
    about = ". ".join(f"{row[0]}: {row[1]}" for row in table_rows)
    return Figure(
        "order",
        "Order quality",
        "Entropy of the differences of successive samples, over that of a full shuffle: 1 is a full shuffle, 0 is the "
        f"order on disk.{workers_note(record)}",
        (),
        draw_rows("order", "Order entropy of each arm", about, rows, scale, "share of a full shuffle", 40),
        Table("Order of the samples", ("arm", "order entropy", "each sample once"), table_rows),
    )


def _describe_rates(record: Record, arms: Sequence[Record]) -> str:
    return ". ".join(
        f"{one['arm']} with {facts.ran_with(record, one['arm'], one['workers'])}: "
        f"{number(one['imgs_per_s']['median'])} ({facts.ends_of(one['imgs_per_s'], one['rounds'])})"
        for one in arms
    )


def _interval_marks(scale: Scale, ends: Record, y: int) -> Iterator[str]:
    low, median, high = (scale.at(ends[name]) for name in ("low", "median", "high"))
    yield line(low, y, high, y, "interval")
    yield from (line(x, y - 3, x, y + 3, "interval") for x in (low, high))
    yield line(median, y - 5, median, y + 5, "median")


def _dots(scale: Scale, rates: Sequence[float], kind: str) -> Iterator[str]:
    """Yield a mark for each round, the next ones a little lower, so that equal ones don't hide each other."""
    for at, rate in enumerate(rates):
        yield circle(scale.at(rate), 30 + 3 * (at % 5 - 2), 3.5, kind)


def _thinned(rates: Sequence[float], rows: int) -> Sequence[float]:
    """Return the rates, or if there are too many for a page, some of them from the lowest to the highest."""
    most = max(_MAX_DOTS // rows, 5)
    if len(rates) <= most:
        return rates
    ordered = sorted(rates)
    return [ordered[at * (len(rates) - 1) // (most - 1)] for at in range(most)]


def _list_rates(rates: Sequence[float]) -> str:
    shown = ", ".join(number(rate, 1) for rate in rates[:_LISTED_ROUNDS])
    return f"{shown} and {len(rates) - _LISTED_ROUNDS} more" if len(rates) > _LISTED_ROUNDS else shown


def _stack(scale: Scale, steps: dict[str, float]) -> Iterator[str]:
    start = 0.0
    for step in _STEPS:
        if seconds := steps.get(step, 0.0):
            yield bar(scale.at(start), 22, scale.at(seconds), 14, f"step-{step}")
            start += seconds


def _cache_evidence(record: Record, summary: Record) -> tuple[str, str]:
    caches = [one["epochs"][0]["page_cache"] for one in facts.measured_rounds(record, summary)]
    resident = facts.median_or_none(cache["resident_before"] for cache in caches)
    is_local = not facts.uses_network(record, summary["arm"])
    disk = size(facts.median_or_none(cache["disk_read_bytes"] for cache in caches))
    return facts.known(percent(resident), applies=is_local), facts.known(disk)


def _rule_of(each: Record) -> str:
    """Return the rule by which an accelerator counts as kept busy. Records of earlier versions don't have it."""
    if each.get("threshold") is None:
        return facts.UNKNOWN
    length = f" of {size(each['sample_bytes'])}" if each.get("sample_bytes") else ""
    step = f"{number(each.get('batch_size'))} images{length} in {each.get('step_s') or 0:g} s"
    return f"{percent(each['threshold'])} of the time, at {step} ({each.get('rule', '')})"


def _mean_length(record: Record) -> str:
    return size(record["data"]["image_bytes"] / max(record["data"]["samples"], 1))


def _utilization_row(one: Record, each: Record, scale: Scale) -> Row:
    share, kind = each["utilization"], "busy" if each["passes"] else "waits"
    return Row(
        facts.shorten(one["arm"], facts.MAX_LABEL),
        f"{percent(share)}, {kind}",
        [bar("0", 20, scale.at(100 * share), 9, kind)],
        "value",
    )


def _known_accelerators() -> dict[str, Any]:
    rows = json.loads(_ACCELERATORS.read_text(encoding="utf-8"))["accelerators"]
    return {row["name"]: row for row in rows}


def _with_definitions(svg: str, patterns: str) -> str:
    return svg.replace("</desc>", f"</desc><defs>{patterns}</defs>", 1)
