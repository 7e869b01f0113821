"""Does larder.stream reach the rate of decoding alone, from memory and from a store, and what do peers reach?"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import data
from benchmarks.harness import WORK, BenchmarkReport, interleave
from benchmarks.stream_contestants import CORES, Contestant, Epoch, programs
from benchmarks.stream_data import stream_data

ROUNDS = 5
_BLOCK_BYTES = 4 << 20
_OPENED = {"opened": True}
"""Start the clock when the data are open: else it tells how long boto3 takes to list the shards for ranged reads."""
_OURS = {
    "decode alone": Contestant("decode_alone", "tree"),
    "stream from memory": Contestant("larder_stream", "shards on disk"),
    "stream from the store": Contestant("larder_stream"),
    "stream, second epoch": Contestant("larder_stream", variant="second"),
    "stream, resumed": Contestant("larder_stream", variant="resumed"),
    "stream, undecoded": Contestant("larder_stream", variant="samples", options=_OPENED),
    "stream, undecoded, without digests": Contestant(
        "larder_stream", variant="samples", options={"check_digests": False, **_OPENED}
    ),
    "ranged reads alone": Contestant("raw_reads", options=_OPENED),
}
PEERS = {
    "webdataset": Contestant("webdataset"),
    "litdata": Contestant("litdata", "litdata"),
    "mosaicml": Contestant("mosaicml", "mosaicml"),
    "s3torchconnector": Contestant("s3torchconnector"),
}
_WITH_OUR_DECODER = {
    f"{name}, our decoder": Contestant(name, recipe="kernel") for name in ("webdataset", "s3torchconnector")
}
"""Those that read the same shards."""
LOCAL = {
    "DALI": Contestant("dali", "shards on disk"),
    "TurboLoader": Contestant("turboloader", "turboloader"),
    "TurboLoader, antialias": Contestant("turboloader", "turboloader", variant="antialias"),
}

Rounds = Sequence[Mapping[str, Epoch]]


def measure(images: int) -> BenchmarkReport:
    """An epoch of Resize(256) and CenterCrop(224) on two cores, of each contestant, in turns."""
    report = BenchmarkReport(f"an epoch of {images:,} images' training split on {CORES} cores, store included")
    with tempfile.TemporaryDirectory(dir=WORK, prefix="stream-") as name:
        layouts = ("litdata", "mosaicml", "turboloader")
        with stream_data(Path(name), data.photos(images), layouts) as found:
            rounds = interleave(ROUNDS, programs(_OURS | PEERS | _WITH_OUR_DECODER | LOCAL, found, report))
            stored_bytes = found.stored_bytes
    _compare_ours(report, rounds, stored_bytes)
    _compare_peers(report, rounds)
    report.rounds = [{name: asdict(one) for name, one in took.items()} for took in rounds]
    return report


def _compare_ours(report: BenchmarkReport, rounds: Rounds, stored_bytes: int) -> None:
    for name in rounds[0]:
        report.add(
            name, [took[name].rate for took in rounds], "images/s" if name != "ranged reads alone" else "blocks/s"
        )
    _compare(report, rounds, "stream from memory", "decode alone", 0.9)
    net = [took["stream from the store"].net_rate / took["stream from memory"].rate for took in rounds]
    report.add("stream from the store, net of the store / from memory", net, at_least=0.95)
    net = [took["stream from the store"].net_cpu_rate / took["stream from memory"].net_cpu_rate for took in rounds]
    report.add("the same, per CPU second", net)
    streamed = [took["stream from the store"] for took in rounds]
    report.add("CPU of the store, of both cores", [epoch.store_seconds / epoch.seconds / CORES for epoch in streamed])
    _compare(report, rounds, "stream from the store", "stream, second epoch", 0.97)
    report.add("first batch", [epoch.first_seconds for epoch in streamed], "s", at_most=1.0)
    resumed = [took["stream, resumed"].first_seconds / took["stream from the store"].first_seconds for took in rounds]
    report.add("first batch when resumed / first batch", resumed, at_most=1.2)
    report.add("bytes read / stored", [epoch.bytes / stored_bytes for epoch in streamed], at_most=1.02)
    requests = [epoch.requests / (epoch.bytes / _BLOCK_BYTES) for epoch in streamed]
    report.add("requests / blocks of 4 MiB", requests, at_most=1.1)
    report.add("bytes on disk", [epoch.written_bytes for epoch in streamed], "bytes", at_most=0)
    _compare_undecoded(report, rounds, "stream, undecoded", 0.9)
    _compare_undecoded(report, rounds, "stream, undecoded, without digests", None)


def _compare_undecoded(report: BenchmarkReport, rounds: Rounds, name: str, goal: float | None) -> None:
    """Report the ratio of a contestant's bytes per second, and per CPU second, to those of ranged reads alone."""
    pairs = [(took[name], took["ranged reads alone"]) for took in rounds]
    speeds = [(one.bytes / one.seconds) / (raw.bytes / raw.seconds) for one, raw in pairs]
    report.add(f"{name} / ranged reads alone (bytes/s)", speeds, at_least=goal)
    costs = [
        (one.bytes / (one.cpu_seconds + one.store_seconds)) / (raw.bytes / (raw.cpu_seconds + raw.store_seconds))
        for one, raw in pairs
    ]
    report.add("the same, per CPU second", costs)


def _compare_peers(report: BenchmarkReport, rounds: Rounds) -> None:
    goals = dict.fromkeys(PEERS, 5.0) | dict.fromkeys(_WITH_OUR_DECODER, 1.3)
    local_goals = {"DALI": 2.2, "TurboLoader, antialias": 2.0, "TurboLoader": 1.7}
    for name in (name for name in rounds[0] if name in goals):
        _compare(report, rounds, "stream from the store", name, goals[name])
    for name in (name for name in rounds[0] if name in local_goals):
        _compare(report, rounds, "stream from memory", name, local_goals[name])
    for name in ("litdata", "mosaicml"):
        if name in rounds[0]:
            later = [took[name].first_seconds / took["stream from the store"].first_seconds for took in rounds]
            report.add(f"first batch of {name} / first batch", later, at_least=10)


def _compare(report: BenchmarkReport, rounds: Rounds, name: str, other: str, goal: float | None) -> None:
    """Report the ratio of two rates, by the clock and by CPU time."""
    ratios = [took[name].rate / took[other].rate for took in rounds]
    report.add(f"{name} / {other}", ratios, at_least=goal)
    report.add("the same, per CPU second", [took[name].cpu_rate / took[other].cpu_rate for took in rounds])
