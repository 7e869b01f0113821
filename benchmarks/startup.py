"""How long does a stage take to start, and worker processes?"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from benchmarks.harness import BenchmarkReport, ResourceUsage, interleave, run

ROUNDS = 9
STAGES = ("extract", "transform", "load", "index", "shard", "optimize", "verify", "s3", "mount", "bench", "jupyter")


def measure() -> BenchmarkReport:
    """Seconds of `python -m services.<stage> --check`, which ends where the work would begin; and of two workers."""
    report = BenchmarkReport("start of each stage, until its settings are known to be right")

    def check(stage: str, _: int) -> ResourceUsage:
        return run([sys.executable, "-m", f"services.{stage}", "--check"], environ={"S3_BUCKET": "bucket"})

    contestants: dict[str, Callable[[int], ResourceUsage]] = {stage: partial(check, stage) for stage in STAGES}
    contestants["Python alone"] = lambda _: run([sys.executable, "-c", "pass"])
    contestants["two workers, one task"] = lambda _: run([sys.executable, "-m", "benchmarks.workers"])
    rounds = interleave(ROUNDS, contestants)
    for name in contestants:
        report.add(name, [took[name].seconds for took in rounds], "s", at_most=0.25 if name in STAGES else None)
    report.rounds = [{name: one.seconds for name, one in took.items()} for took in rounds]
    return report
