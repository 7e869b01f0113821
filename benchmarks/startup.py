"""How long does a stage take to start, and worker processes?"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from benchmarks.harness import BenchmarkReport, ResourceUsage, interleave, run

ROUNDS = 9
STAGES = ("extract", "transform", "load", "index", "shard", "optimize", "verify", "s3", "mount", "bench", "jupyter")


def measure() -> BenchmarkReport:
    """Measure `python -m services.<stage> --check`, which ends before the work begins, and the start of two workers."""
    report = BenchmarkReport("start of each stage, until its settings are known to be right")

    def check(stage: str, _: int) -> ResourceUsage:
        return run([sys.executable, "-m", f"services.{stage}", "--check"], environ={"S3_BUCKET": "bucket"})

    programs: dict[str, Callable[[int], ResourceUsage]] = {stage: partial(check, stage) for stage in STAGES}
    programs["Python alone"] = lambda _: run([sys.executable, "-c", "pass"])
    programs["two workers, one task"] = lambda _: run([sys.executable, "-m", "benchmarks.workers"])
    rounds = interleave(ROUNDS, programs)
    for name in programs:
        report.add(name, [usage[name].seconds for usage in rounds], "s", at_most=0.25 if name in STAGES else None)
    report.rounds = [{name: one.seconds for name, one in usage.items()} for usage in rounds]
    return report
