"""Does load keep up with rclone alone, verification included, and end at once when nothing has changed?"""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

from benchmarks.harness import WORK, BenchmarkReport, ResourceUsage, interleave, run, run_stage, run_stage_on_volume
from benchmarks.store import bucket_settings, loopback_store
from larder import rclone

ROUNDS = 7
IMAGES = 4000
TRANSFERS = "32"


def measure() -> BenchmarkReport:
    """Measure load of the tree into new prefixes of a store, in turns with `rclone copy`, and load of a loaded tree."""
    report = BenchmarkReport(
        f"load of {IMAGES:,} images into a loopback store against rclone copy --transfers {TRANSFERS}"
    )
    with tempfile.TemporaryDirectory(dir=WORK, prefix="load-") as folder:
        volume = Path(folder) / "volume"
        volume.mkdir()
        run_stage_on_volume("extract", volume, "--source", "sample", "--sample-images", str(IMAGES))
        run_stage_on_volume("transform", volume)
        tree, places = volume / "Food-11", itertools.count()
        with loopback_store(Path(folder) / "store") as store:
            keys = rclone.rclone_environment(bucket_settings(store))
            settings = {"LARDER_VOLUME_DIR": str(volume)} | store

            def load(_: int) -> ResourceUsage:
                return run_stage("load", settings | {"S3_PREFIX": f"load/{next(places)}"}, "--transfers", TRANSFERS)

            def alone(_: int) -> ResourceUsage:
                place = f"{rclone.REMOTE}:{store['S3_BUCKET']}/rclone/{next(places)}/Food-11"
                command = [rclone.binary(), "copy", "--config=", "--transfers", TRANSFERS, str(tree), place]
                return run(command, environ={name: keys[name] for name in keys.keys() - os.environ.keys()})

            def unchanged(_: int) -> ResourceUsage:
                return run_stage("load", settings | {"S3_PREFIX": "unchanged"})

            run_stage("load", settings | {"S3_PREFIX": "unchanged"})
            rounds = interleave(ROUNDS, {"rclone copy": alone, "load": load, "load again": unchanged})
    ratios = [usage["rclone copy"].seconds / usage["load"].seconds for usage in rounds]
    report.add("load / rclone copy (speed)", ratios, "", at_least=0.95)
    report.add("load", [IMAGES / usage["load"].seconds for usage in rounds], "images/s")
    report.add("load of an unchanged tree", [usage["load again"].seconds for usage in rounds], "s", at_most=3.0)
    report.rounds = [{name: one.seconds for name, one in usage.items()} for usage in rounds]
    return report
