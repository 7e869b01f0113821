"""How much time does a loader take to compare each image's digest before decoding it?"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import WORK, BenchmarkReport, ResourceUsage, interleave, run_stage, run_stage_on_volume
from benchmarks.store import loopback_store
from larder.loaders.image_folder import ImageFolderLoader
from larder.loaders.loader import Loader
from larder.loaders.objects import ObjectLoader
from larder.loaders.shards import ShardLoader
from larder.store import StoreSettings

ROUNDS = 7
IMAGES = 1000
MOST = 1.03


def measure() -> BenchmarkReport:
    """Measure an epoch of the training split with `check_digests` and without, in this process."""
    report = BenchmarkReport(f"loaders that check the digest of each of {IMAGES:,} images against the same without")
    with tempfile.TemporaryDirectory(dir=WORK, prefix="digests-") as folder:
        volume = Path(folder) / "volume"
        volume.mkdir()
        run_stage_on_volume("extract", volume, "--source", "sample", "--sample-images", str(IMAGES))
        run_stage_on_volume("transform", volume)
        run_stage_on_volume("shard", volume)
        with loopback_store(Path(folder) / "store") as store:
            for kind in ("tree", "webdataset"):
                run_stage("load", store | {"LARDER_VOLUME_DIR": str(volume), "LARDER_LOAD": kind})
            for name, opened in _loaders(volume, store).items():
                _compare(report, name, opened)
    return report


def _loaders(volume: Path, store: dict[str, str]) -> dict[str, Callable[[bool], Loader]]:
    """Return a function for each loader, by name. It opens the loader, with `check_digests` or without."""
    settings, bucket = StoreSettings.load("store", [], store), f"s3://{store['S3_BUCKET']}"
    split, size = "training", 64
    return {
        "image folder": lambda check: ImageFolderLoader(
            volume / "Food-11", split, batch_size=size, workers=0, check_digests=check
        ),
        "objects": lambda check: ObjectLoader(
            f"{bucket}/Food-11", split, batch_size=size, workers=0, check_digests=check, store=settings
        ),
        "shards": lambda check: ShardLoader(
            f"{bucket}/Food-11-webdataset", split, batch_size=size, workers=0, check_digests=check, store=settings
        ),
    }


def _compare(report: BenchmarkReport, name: str, opened: Callable[[bool], Loader]) -> None:
    with opened(True) as with_digests, opened(False) as without:
        programs = {"checked": lambda _: _epoch(with_digests), "unchecked": lambda _: _epoch(without)}
        rounds = interleave(ROUNDS, programs)
    ratios = [usage["checked"].seconds / usage["unchecked"].seconds for usage in rounds]
    report.add(f"{name}: an epoch with digests / without (time)", ratios, "", at_most=MOST)
    report.rounds += [{"loader": name} | {who: one.seconds for who, one in usage.items()} for usage in rounds]


def _epoch(loader: Loader) -> ResourceUsage:
    start = time.perf_counter()
    for _ in loader:
        pass
    return ResourceUsage(time.perf_counter() - start, 0)
