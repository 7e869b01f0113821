"""Does larder.stream keep an emulated accelerator busy?"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks import data
from benchmarks.harness import WORK, BenchmarkReport, interleave
from benchmarks.stream_contestants import CORES, Contestant, programs
from benchmarks.stream_data import stream_data

ROUNDS = 5
H100_IMAGES_PER_SECOND = 1786
"""ResNet-50 on an H100: 400 images in 0.224 s, as MLPerf Storage emulates it."""


def measure(images: int = data.FOOD11_IMAGES) -> BenchmarkReport:
    """An epoch of photographs of 41 KB, taken at the rate of an accelerator, from a store on the same two cores."""
    report = BenchmarkReport(
        f"an epoch of {images:,} photographs' training split for an emulated H100 on ResNet-50 "
        f"({H100_IMAGES_PER_SECOND:,} images/s), decoded on {CORES} cores, store included"
    )
    contestants = {
        "larder.stream": Contestant("larder_stream", batch_size=400, images_per_second=H100_IMAGES_PER_SECOND),
        "webdataset": Contestant("webdataset", batch_size=400, images_per_second=H100_IMAGES_PER_SECOND),
    }
    with (
        tempfile.TemporaryDirectory(dir=WORK, prefix="feeding-") as name,
        stream_data(Path(name), data.square_photos(images)) as found,
    ):
        rounds = interleave(ROUNDS, programs(contestants, found, report))
    for name in contestants:
        goal = 90 if name == "larder.stream" else None
        report.add(f"{name}: busy", [100 * took[name].busy for took in rounds], "%", at_least=goal)
        report.add(f"{name}: images", [took[name].rate for took in rounds], "images/s")
    report.rounds = [{name: asdict(one) for name, one in took.items()} for took in rounds]
    return report
