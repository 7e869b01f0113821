"""Plot batches, datasets, rates and network traffic for the notebooks, in one style that prints in black and white."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import fill
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt

from larder.bench.own_loaders import Sweep, received_bytes
from larder.bench.run_rates import ArmRates, ComparableArms
from larder.bench.run_record import passes_of
from larder.contract import IndexEntry, Manifest
from larder.progress import format_amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

COLUMNS = 6
WIDTH = 9.0
"""Width of a figure, in inches."""
FILLS = (("#4d4d4d", ""), ("#d9d9d9", "////"), ("#f7f7f7", "...."), ("#9a9a9a", ""))
"""Grey and hatching of each series: without colours, and different in a photocopy, too."""
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "patch.edgecolor": "black",
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
}
_MIB = 1 << 20


@contextmanager
def _style() -> Iterator[None]:
    """Apply the style while a figure is made.

    matplotlib's rc_context would also undo what a notebook's backend sets when it is loaded, with the first figure:
    further figures wouldn't be shown.
    """
    kept = {name: plt.rcParams[name] for name in _STYLE}
    plt.rcParams.update(_STYLE)
    try:
        yield
    finally:
        plt.rcParams.update(kept)


def rates(sweep: Sweep) -> Figure:
    """Plot the median images/s of each value of a setting, with its lowest and highest run."""
    return _rates(sweep.rates(), "")


def throughput(comparison: ComparableArms) -> Figure:
    """Plot the median images/s of each arm, with its lowest and highest run."""
    named = [arm._replace(name=f"{arm.name}, {format_amount(len(arm.rates), 'runs')}") for arm in comparison.arms]
    return _rates(named, comparison.circumstances)


def values(numbers: Mapping[str, float], label: str) -> Figure:
    """Plot one number for each name, such as the medians of a figure."""
    return _bars(list(numbers), list(numbers.values()), [(number, number) for number in numbers.values()], label, "")


def _rates(arms: Sequence[ArmRates], title: str) -> Figure:
    several = any(len(arm.rates) > 1 for arm in arms)
    label = "images/s: median, with lowest and highest run" if several else "images/s"
    ranges = [(arm.rates[0], arm.rates[-1]) for arm in arms]
    return _bars([arm.name for arm in arms], [arm.median for arm in arms], ranges, label, title)


def _bars(
    names: Sequence[str], lengths: Sequence[float], ranges: Sequence[tuple[float, float]], label: str, title: str
) -> Figure:
    """Plot a bar for each name, downwards, with its value behind its range."""
    with _style():
        height = 0.9 + 0.42 * len(names) + (0.25 if title else 0)
        figure, axis = plt.subplots(figsize=(WIDTH, height), layout="constrained")
        rows = range(len(names))[::-1]
        spread = [
            [length - low for length, (low, _) in zip(lengths, ranges, strict=True)],
            [high - length for length, (_, high) in zip(lengths, ranges, strict=True)],
        ]
        has_range = any(map(any, spread))
        colour, hatch = FILLS[1]
        axis.barh(rows, lengths, height=0.62, color=colour, hatch=hatch)
        if has_range:
            axis.errorbar(lengths, rows, xerr=spread, fmt="none", ecolor="black", capsize=4)
        for row, length, (_, high) in zip(rows, lengths, ranges, strict=True):
            axis.annotate(_amount(length), (high, row), (6, 0), textcoords="offset points", va="center")
        axis.set_yticks(list(rows), [fill(name, 40) for name in names])
        axis.tick_params(axis="y", length=0)
        axis.set_xlim(0, 1.12 * max((high for _, high in ranges), default=1.0) or 1.0)
        axis.set_xlabel(label)
        if title:
            figure.suptitle(fill(title, 100), x=0.01, ha="left", fontsize=10)
    return figure


def _amount_of(figures: dict[str, Any]) -> str:
    """Return the bytes that a loader counted, or those that the machine received."""
    counted = "received" if figures["network_bytes"] is None else "of data"
    return f"{format_amount(received_bytes(figures), 'B')} {counted}"


def _amount(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def batch(images: Tensor, labels: Tensor, classes: Sequence[str]) -> Figure:
    """Plot the images of a batch with their labels, after undoing the reference preprocessing's normalization.

    Args:
        images: float32 [B, 3, H, W], as a loader yields them.
        labels: int64 [B].
        classes: The class names, by label.
    """
    from larder.imagenet import IMAGENET_MEAN, IMAGENET_STD

    shown = -(-len(images) // COLUMNS)
    with _style():
        size = (1.5 * COLUMNS, 1.75 * shown)
        figure, axes = plt.subplots(shown, COLUMNS, figsize=size, squeeze=False, layout="constrained")
        for axis in axes.flat:
            axis.axis("off")
        for axis, image, label in zip(axes.flat, images, labels, strict=False):
            pixels = image.permute(1, 2, 0) * image.new_tensor(IMAGENET_STD) + image.new_tensor(IMAGENET_MEAN)
            axis.imshow(pixels.clamp(0, 1).numpy())
            axis.set_title(fill(f"{classes[int(label)]} ({int(label)})", 20), fontsize=9, loc="center")
    return figure


def class_counts(manifest: Manifest) -> Figure:
    """Plot the number of images per class, with a bar for each split."""
    with _style():
        classes, splits = manifest.classes, manifest.splits
        height = 0.9 + (0.2 * len(splits) + 0.12) * len(classes)
        figure, axis = plt.subplots(figsize=(WIDTH, height), layout="constrained")
        width = 0.86 / len(splits)
        for number, (name, split) in enumerate(splits.items()):
            rows = [label + number * width for label in range(len(classes))]
            colour, hatch = FILLS[number % len(FILLS)]
            counts = split.samples_per_class
            bars = axis.barh(rows, counts, width, color=colour, hatch=hatch, label=f"{name}: {split.samples:,}")
            axis.bar_label(bars, [f"{count:,}" for count in counts], padding=3, fontsize=8)
        middle = (len(splits) - 1) * width / 2
        axis.set_yticks([label + middle for label in range(len(classes))], classes)
        axis.tick_params(axis="y", length=0)
        axis.invert_yaxis()
        axis.margins(x=0.08, y=0.01)
        axis.set_xlabel("images")
        axis.legend(loc="best")
    return figure


def file_sizes(entries: Sequence[IndexEntry]) -> Figure:
    """Plot a histogram of the images' sizes, with their median."""
    sizes = sorted(entry.bytes / 1024 for entry in entries)
    with _style():
        figure, axis = plt.subplots(figsize=(WIDTH, 2.6), layout="constrained")
        axis.hist(sizes, bins=40, color=FILLS[1][0])
        _mark(axis, sizes[len(sizes) // 2])
        axis.set_xlim(left=0)
        axis.set_xlabel("KiB per image")
        axis.set_ylabel("images")
    return figure


def _mark(axis: Axes, median: float) -> None:
    """Draw a line at the median, with its value above the axes."""
    axis.axvline(median, color="black", linestyle="--", linewidth=1)
    axis.annotate(
        f"median: {median:,.1f} KiB",
        (median, 1),
        (0, 3),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
    )


def network(record: dict[str, Any], name: str = "") -> Figure:
    """Plot the bytes received per second in each pass of a record, as nload would show them.

    Args:
        record: A record of bench, or the figures of a loader's pass.
        name: What was measured; by default the record's arm.
    """
    name = name or str(record.get("arm", ""))
    passes = passes_of({"then": []} | record)
    series = [[rate / _MIB for rate in figures["received"]["bytes_per_s"]] for figures in passes]
    highest = max((rate for pass_rates in series for rate in pass_rates), default=0.0)
    with _style():
        size = (WIDTH, 2.6)
        figure, axes = plt.subplots(1, len(passes), figsize=size, squeeze=False, sharey=True, layout="constrained")
        for axis, figures, pass_rates in zip(axes.flat, passes, series, strict=True):
            if pass_rates:
                times, grey = figures["received"]["t_s"], FILLS[3][0]
                axis.stairs(pass_rates, times, fill=True, facecolor=grey, edgecolor="black", linewidth=0.8)
            title = (name, "" if figures["pass"] == "epoch" else figures["pass"])
            axis.set_title(f"{', '.join(filter(None, title))}: {_amount_of(figures)} in {figures['seconds']:.1f} s")
            axis.set_xlabel("seconds")
            axis.set_xlim(0, figures["seconds"])
            axis.set_ylim(0, max(1.0, 1.1 * highest))  # a rate near zero must look like one
        axes[0][0].set_ylabel("MiB/s received")
    return figure
