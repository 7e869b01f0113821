"""What does an image cost in each stage: CPU time, requests, and bytes on the way to the store?

`docs/scale.py` computes the cost of large datasets from these figures. They include the start of each stage, half a
second of CPU time. `stream_speed` measures what an image costs in an epoch.
"""

from __future__ import annotations

import itertools
import resource
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import data
from benchmarks.harness import WORK, BenchmarkReport, ResourceUsage, interleave, run_stage, run_stage_on_volume
from benchmarks.store import loopback_store
from larder.distant.link import Link
from larder.distant.process import DistantStore, open_distant_store

ROUNDS = 3
IMAGES = 4000
_DIRECTLY = Link(0.0, None)


@dataclass(frozen=True)
class Costs(ResourceUsage):
    """What a stage took."""

    cpu_seconds: float
    requests: int
    stored_bytes: int
    fetched_bytes: int


def measure() -> BenchmarkReport:
    """Measure each stage in turns; a proxy that adds nothing counts what goes to the store and back."""
    report = BenchmarkReport(f"what an image costs in each stage, of {IMAGES:,} images of 68 KB")
    with tempfile.TemporaryDirectory(dir=WORK, prefix="stage-costs-") as name:
        folder = Path(name)
        with (
            loopback_store(folder / "store") as store,
            open_distant_store(store["S3_ENDPOINT_URL"], _DIRECTLY, folder) as distant,
        ):
            programs = _programs(folder, store | {"S3_ENDPOINT_URL": distant.endpoint}, distant)
            rounds = interleave(ROUNDS, programs)
    for stage in programs:
        seen = [usage[stage] for usage in rounds]
        report.add(f"{stage}: CPU", [one.cpu_seconds / IMAGES * 1e3 for one in seen], "ms/image")
        report.add(f"{stage}: time on two cores", [one.seconds / IMAGES * 1e3 for one in seen], "ms/image")
        report.add(f"{stage}: requests", [one.requests / IMAGES for one in seen], "/image")
        report.add(f"{stage}: sent to the store", [one.stored_bytes / IMAGES / 1e3 for one in seen], "kB/image")
        report.add(f"{stage}: fetched from it", [one.fetched_bytes / IMAGES / 1e3 for one in seen], "kB/image")
    report.rounds = [{who: vars(one) for who, one in usage.items()} for usage in rounds]
    return report


def _programs(folder: Path, store: Mapping[str, str], distant: DistantStore) -> dict[str, Callable[[int], Costs]]:
    """Return the stages, from the archive to shards in the store."""
    places, archive = itertools.count(), data.photos(IMAGES)

    def volume() -> Path:
        made = folder / f"volume-{next(places)}"
        made.mkdir()
        return made

    ready = volume()
    run_stage_on_volume("extract", ready, "--source", str(archive))
    settings = {"LARDER_VOLUME_DIR": str(ready), **store}
    unpacked = [volume() for _ in range(ROUNDS + 1)]
    for one in unpacked:
        run_stage_on_volume("extract", one, "--source", str(archive))
    run_stage_on_volume("transform", ready)
    stages: dict[str, Callable[[int], ResourceUsage]] = {
        "extract": lambda _: run_stage_on_volume("extract", volume(), "--source", str(archive)),
        "transform": lambda number: run_stage_on_volume("transform", unpacked[number]),
        "load of single images": lambda number: run_stage("load", settings | {"S3_PREFIX": f"load-{number}"}),
        "shard into the store": lambda number: run_stage(
            "shard", settings | {"LARDER_DEST": f"s3://{store['S3_BUCKET']}/shard-{number}/Food-11-webdataset"}
        ),
    }
    return {name: partial(_counted, stage, distant) for name, stage in stages.items()}


def _counted(stage: Callable[[int], ResourceUsage], distant: DistantStore, number: int) -> Costs:
    before, cpu = distant.traffic(), _cpu_seconds()
    usage = stage(number)
    after = distant.traffic()
    return Costs(
        usage.seconds,
        usage.peak_bytes,
        _cpu_seconds() - cpu,
        after.turns - before.turns,
        after.sent_bytes - before.sent_bytes,
        after.received_bytes - before.received_bytes,
    )


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
