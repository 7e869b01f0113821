"""Which shard size, window, number of threads and batch size suit larder.stream? Draws docs/stream-tuning.svg."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.curves import Curve, draw
from benchmarks.harness import ROOT, WORK, BenchmarkReport, interleave
from benchmarks.stream_contestants import CORES, Contestant, Epoch, run_contestant
from benchmarks.stream_data import StreamData, stream_data

ROUNDS = 3
_MB = 1 << 20
SHARD_MB = (2, 8, 16, 64, 256)
WINDOW_MB = (0, 16, 64, 256, 1024)
THREADS = (1, 2, 4, 8)
BATCH_SIZES = (32, 64, 256, 1024)
_USUAL: dict[str, int] = {"shard": 16, "window": 256, "threads": CORES, "batch": 256}
_TITLES = {
    "shard": "shard size, MiB",
    "window": "window_bytes, MiB",
    "threads": f"threads, on {CORES} cores",
    "batch": "batch_size, images",
}
_VALUES = {"shard": SHARD_MB, "window": WINDOW_MB, "threads": THREADS, "batch": BATCH_SIZES}

Point = tuple[str, int]
"""Which setting differs from the usual ones, and its value."""


def measure(images: int = data.FEW_IMAGES) -> BenchmarkReport:
    """An epoch from a store on the same two cores, with each setting in turn; the others keep their usual values."""
    report = BenchmarkReport(f"an epoch of {images:,} images' training split on {CORES} cores, store included")
    points: list[Point] = [(setting, value) for setting, values in _VALUES.items() for value in values]
    with ExitStack() as opened:
        stores: dict[int, StreamData] = {}
        for size in SHARD_MB:
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(dir=WORK, prefix="curves-")))
            stores[size] = opened.enter_context(stream_data(folder, data.photos(images), pack_bytes=size * _MB))
        runs = {f"{setting} {value}": partial(_run, (setting, value), stores) for setting, value in points}
        rounds = interleave(ROUNDS, runs)
    for name in runs:
        report.add(f"{name}: rate", [took[name].rate for took in rounds], "images/s")
        report.add(f"{name}: first batch", [took[name].first_seconds for took in rounds], "s")
        report.add(f"{name}: peak memory", [took[name].resident_bytes / 1e6 for took in rounds], "MB")
    report.rounds = [{name: asdict(one) for name, one in took.items()} for took in rounds]
    drawing = ROOT / "docs" / "stream-tuning.svg"
    drawing.write_text(draw([_curve(setting, rounds) for setting in _VALUES]))
    return report


def _run(point: Point, stores: Mapping[int, StreamData], _: int) -> Epoch:
    chosen = _USUAL | dict([point])
    options: dict[str, Any] = {"window_bytes": chosen["window"] * _MB, "threads": chosen["threads"]}
    contestant = Contestant("larder_stream", batch_size=chosen["batch"], options=options)
    return run_contestant(contestant, Path(sys.executable), stores[chosen["shard"]])


def _curve(setting: str, rounds: Sequence[Mapping[str, Epoch]]) -> Curve:
    def medians(figure: str, scale: float) -> list[float]:
        names = (f"{setting} {value}" for value in _VALUES[setting])
        return [statistics.median(getattr(took[name], figure) for took in rounds) / scale for name in names]

    return Curve(
        _TITLES[setting],
        [str(value) for value in _VALUES[setting]],
        {
            "images/s": medians("rate", 1),
            "first batch, s": medians("first_seconds", 1),
            "peak memory, MB": medians("resident_bytes", 1e6),
        },
        usual=_VALUES[setting].index(_USUAL[setting]),
    )
