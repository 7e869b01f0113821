"""Plot the bytes that arms received over time, in place of watching the network's load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from larder.bench.report import facts
from larder.bench.report.facts import Record, number, significant, size
from larder.bench.report.figure import MAX_PLOTTED, Figure, workers_note
from larder.bench.report.svg import Scale, area, drawing, line, scale_for, text
from larder.bench.report.tables import Table

_PANEL_HEIGHT, _PANEL_POINTS = 56, 150
_TENTHS = 10


def plot_network(record: Record) -> Figure | None:
    """Plot the received bytes over time, of the round with the median rate of each arm that uses the network."""
    panels = []
    for one in facts.best_of_each_arm(record):
        median = facts.median_round(record, one)
        epoch = median["epochs"][0] if median else None
        if median and epoch and epoch["network_bytes"] is not None and epoch["timeline"]["bytes_per_s"]:
            panels.append((one, median, epoch))
    if not panels:
        return None
    scale = scale_for(rate / 1e6 for _, _, epoch in panels for rate in epoch["timeline"]["bytes_per_s"])
    height = _PANEL_HEIGHT + 50
    parts = [
        f'<g transform="translate(0 {at * height})">{"".join(_panel(one, epoch, scale))}</g>'
        for at, (one, _, epoch) in enumerate(panels[:MAX_PLOTTED])
    ]
    table_rows = [
        (
            one["arm"],
            str(median["round"]),
            number(epoch["seconds"], 1),
            size(epoch["network_bytes"]),
            facts.known(number(epoch["network_requests"])),
            *(number(rate, 1) for rate in _tenths(epoch["timeline"])),
        )
        for one, median, epoch in panels
    ]
    header = ("arm", "round", "seconds", "fetched", "requests", *(f"tenth {at}, MB/s" for at in range(1, _TENTHS + 1)))
    about = ". ".join(
        f"{one['arm']}: {significant(epoch['network_bytes'] / 1e6)} MB in {number(epoch['seconds'], 1)} s"
        for one, _, epoch in panels
    )
    return Figure(
        "network",
        "Network over time",
        f"Received bytes per second in the round with the median rate. All panels have the same height, 0 to "
        f"{scale.top:,.10g} MB/s, and span their whole epoch. The machine's interfaces are counted, with headers "
        f"and other programs.{workers_note(record)}",
        (),
        drawing("network", "Received bytes per second over an epoch", about, height * len(parts), parts),
        Table("Received, in each tenth of the epoch", header, table_rows),
    )


def _panel(one: Record, epoch: Record, scale: Scale) -> Iterator[str]:
    rates = epoch["timeline"]["bytes_per_s"]
    mean = epoch["network_bytes"] / 1e6 / epoch["seconds"] if epoch["seconds"] else 0.0
    yield text("0", 14, facts.shorten(one["arm"], facts.MAX_LABEL), "label")
    yield text("100%", 14, f"peak {significant(max(rates) / 1e6)} MB/s", "value end")
    yield from (line("0", y, "100%", y, "grid") for y in (20, 20 + _PANEL_HEIGHT))
    yield area(list(_curve(epoch["timeline"], scale)), 20, _PANEL_HEIGHT)
    yield text("0", _PANEL_HEIGHT + 34, "0 s", "tick")
    yield text("50%", _PANEL_HEIGHT + 34, f"mean {significant(mean)} MB/s", "tick middle")
    yield text("100%", _PANEL_HEIGHT + 34, f"{number(epoch['seconds'], 1)} s", "tick end")


def _curve(timeline: Record, scale: Scale) -> Iterator[tuple[float, float]]:
    """Yield the corners of a step line, with at most `_PANEL_POINTS` steps, each the mean of its samples."""
    spans = list(zip(timeline["t_s"], timeline["t_s"][1:], timeline["bytes_per_s"]))
    if not spans:
        return
    group = -(-len(spans) // _PANEL_POINTS)
    start, length = spans[0][0], (spans[-1][1] - spans[0][0]) or 1.0
    for at in range(0, len(spans), group):
        part = spans[at : at + group]
        rate = sum(each[2] for each in part) / len(part) / 1e6
        up = min(max(rate / scale.top, 0.0), 1.0)
        yield (part[0][0] - start) / length, up
        yield (part[-1][1] - start) / length, up


def _tenths(timeline: Record) -> list[float]:
    """Return the mean rate of each tenth of the epoch, in MB/s."""
    times, rates = timeline["t_s"], timeline["bytes_per_s"]
    spans = list(zip(times, times[1:], rates))
    if not spans:
        return [0.0] * _TENTHS
    start, length = spans[0][0], spans[-1][1] - spans[0][0]
    edges = [start + length * at / _TENTHS for at in range(_TENTHS + 1)]
    return [_mean_between(spans, low, high) / 1e6 for low, high in zip(edges, edges[1:])]


def _mean_between(spans: Sequence[tuple[float, float, float]], low: float, high: float) -> float:
    received = sum(max(min(end, high) - max(begin, low), 0.0) * rate for begin, end, rate in spans)
    return received / (high - low) if high > low else 0.0
