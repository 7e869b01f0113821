"""Is each arm as fast as its library's plain loop on the same data, and do its library's settings leave anything?

Each arm takes turns with the plain loop, as the library's documentation runs it; then with itself under other
documented settings, once. Clocks start when the data are open.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import data
from benchmarks.harness import WORK, BenchmarkReport, interleave
from benchmarks.stream_contestants import Contestant, programs
from benchmarks.stream_data import StreamData, stream_data

IMAGES, ROUNDS = 4000, 3
BATCH_SIZE = 64
"""The default of bench."""
GOAL = 0.9
_OPENED: Mapping[str, Any] = {"opened": 1}


class Peer(NamedTuple):
    """An arm, and what it is compared with."""

    layout: str
    """What the plain loop reads: a name in `StreamData.uris`."""
    module: str
    """The plain loop: a module in `benchmarks.stream_peers`."""
    variant: str = ""
    """Its variant."""
    sweep: Sequence[Mapping[str, Any]] = ()
    """Other settings of the arm: its options, the number of workers, and variables of its library in capitals."""


_WORKERS = {"workers": 3}
PEERS: Mapping[str, Peer] = {
    "imagefolder_local": Peer("tree", "imagefolder", sweep=[_WORKERS]),
    "litdata_streaming": Peer("litdata", "litdata", sweep=[_WORKERS, {"LITDATA_BATCH_DECODE": "auto"}]),
    "litdata_raw": Peer("objects", "litdata_raw", sweep=[_WORKERS, {"prefetch_factor": 4}]),
    "s3torchconnector": Peer("objects", "s3torchconnector", "objects", [{"workers": 4}, {"prefetch_factor": 4}]),
    "s3torchconnector_shards": Peer("shards", "s3torchconnector", sweep=[_WORKERS]),
    "simplejpeg_local": Peer("tree", "simplejpeg_files", sweep=[_WORKERS, {"prefetch_factor": 4}]),
    "webdataset": Peer("shards", "webdataset", sweep=[_WORKERS, {"LARDER_WEBDATASET_LOADER": "webdataset"}]),
    "mosaicml": Peer("mosaicml", "mosaicml", sweep=[_WORKERS, {"predownload": 512}, {"num_canonical_nodes": 2}]),
    "dali": Peer("tree", "dali", "files", [_WORKERS, {"prefetch_queue_depth": 4}, {"exec_dynamic": True}]),
    "turboloader": Peer("turboloader", "turboloader", "antialias", [{"prefetch_batches": 2}, {"prefetch_batches": 8}]),
    "spdl": Peer("tree", "spdl", sweep=[_WORKERS, {"buffered_batches": 4}]),
    "ray_data": Peer("objects", "ray_data", sweep=[_WORKERS, {"prefetch_batches": 4}]),
    "hf_datasets": Peer("hf_datasets", "hf_datasets", sweep=[_WORKERS, {"max_buffer_input_shards": 10}]),
}
"""Arms of other libraries, by name."""


def measure(images: int = IMAGES) -> BenchmarkReport:
    """Measure every arm whose library is installed."""
    report = BenchmarkReport(f"an epoch of {images:,} images' training split: arms, plain loops, and other settings")
    with tempfile.TemporaryDirectory(dir=WORK, prefix="arms-") as name:
        layouts = ("litdata", "objects", "mosaicml", "hf_datasets", "turboloader")
        with stream_data(Path(name), data.photos(images), layouts) as found:
            for arm in PEERS:
                _measure_arm(arm, found, report)
    report.notes = list(dict.fromkeys(report.notes))
    return report


def _measure_arm(arm: str, found: StreamData, report: BenchmarkReport) -> None:
    """Compare an arm with its plain loop, then with itself under other settings. One that fails misses the goal."""
    with_loop = programs({arm: _arm(arm, {}), plain(arm): loop(arm)}, found, report)
    if len(with_loop) < 2:
        return
    try:
        rounds = interleave(ROUNDS, with_loop)
        sweep = interleave(1, programs({arm: _arm(arm, {}), **settings(arm)}, found, report))
    except RuntimeError as error:
        report.notes.append(f"{arm} failed: {error}")
        report.add(f"{arm} / plain loop", [0.0], at_least=GOAL)
        return
    report.add(arm, [took[arm].rate for took in rounds], "images/s")
    report.add(f"{arm} / plain loop", [took[arm].rate / took[plain(arm)].rate for took in rounds], at_least=GOAL)
    report.add("the same, per CPU second", [took[arm].cpu_rate / took[plain(arm)].cpu_rate for took in rounds])
    for name in settings(arm):
        report.add(f"{name} / {arm}", [took[name].rate / took[arm].rate for took in sweep])
    report.rounds += [{name: asdict(one) for name, one in took.items()} for took in [*rounds, *sweep]]


def loop(arm: str) -> Contestant:
    """Return the plain loop of an arm's library."""
    peer = PEERS[arm]
    return Contestant(peer.module, peer.layout, variant=peer.variant, batch_size=BATCH_SIZE, options=_OPENED)


def settings(arm: str) -> dict[str, Contestant]:
    """Return an arm under other settings, by name."""
    return {_named(arm, options): _arm(arm, options) for options in PEERS[arm].sweep}


def _arm(name: str, options: Mapping[str, Any]) -> Contestant:
    return Contestant("arm", "tree", variant=name, batch_size=BATCH_SIZE, options=options)


def plain(arm: str) -> str:
    """Return the name of an arm's plain loop."""
    return f"{arm}, plain loop"


def _named(arm: str, options: Mapping[str, Any]) -> str:
    return f"{arm}, {', '.join(f'{key}={value}' for key, value in options.items())}"
