"""Do shards stream from the tree into a store as fast as ready shards are copied, and faster than single images?"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import data
from benchmarks.harness import WORK, BenchmarkReport, ResourceUsage, interleave, run, run_stage, run_stage_on_volume
from benchmarks.store import bucket_settings, stores
from larder import rclone

ROUNDS = 3


def measure() -> BenchmarkReport:
    """Measure shard with LARDER_DEST, verified, in turns with `rclone copy` of ready shards and load of the tree."""
    report = BenchmarkReport("shards of Food-11's size from the tree into a store on this machine")
    with tempfile.TemporaryDirectory(dir=WORK, prefix="shard-store-") as folder:
        volume = Path(folder) / "volume"
        volume.mkdir()
        run_stage_on_volume("extract", volume, "--source", str(data.photos()))
        run_stage_on_volume("transform", volume)
        run_stage_on_volume("shard", volume)
        for name, opened in stores().items():
            with opened(Path(folder) / name) as store:
                rounds = _rounds(volume, store)
            for baseline, goal in (("rclone copy of shards", 0.9), ("load of images", 3.0)):
                ratios = [usage[baseline].seconds / usage["shard"].seconds for usage in rounds]
                report.add(f"{name}: shard / {baseline} (speed)", ratios, "", at_least=goal)
            report.rounds += [{"store": name} | {who: one.seconds for who, one in usage.items()} for usage in rounds]
    return report


def _rounds(volume: Path, store: dict[str, str]) -> list[dict[str, ResourceUsage]]:
    keys, settings = rclone.rclone_environment(bucket_settings(store)), {"LARDER_VOLUME_DIR": str(volume)} | store
    keys = {name: keys[name] for name in keys.keys() - os.environ.keys()}
    places = itertools.count()

    def timed(send: Callable[[str], ResourceUsage], _: int) -> ResourceUsage:
        """Send to a new folder of the bucket; then delete it, untimed, since the store refuses a nearly full disk."""
        place = f"round-{next(places)}"
        usage = send(place)
        run([rclone.binary(), "purge", "--config=", f"{rclone.REMOTE}:{store['S3_BUCKET']}/{place}"], environ=keys)
        return usage

    def shard(place: str) -> ResourceUsage:
        dest = f"s3://{store['S3_BUCKET']}/{place}/Food-11-webdataset"
        return run_stage("shard", settings | {"LARDER_DEST": dest})

    def copy(place: str) -> ResourceUsage:
        to = f"{rclone.REMOTE}:{store['S3_BUCKET']}/{place}"
        return run([rclone.binary(), "copy", "--config=", str(volume / "Food-11-webdataset"), to], environ=keys)

    def load(place: str) -> ResourceUsage:
        return run_stage("load", settings | {"S3_PREFIX": place})

    programs = {"rclone copy of shards": copy, "shard": shard, "load of images": load}
    return interleave(ROUNDS, {name: partial(timed, send) for name, send in programs.items()})
