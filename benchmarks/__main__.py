"""`python -m benchmarks [NAME ...]`: run all benchmarks, or those that are named."""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks.harness import WORK, CannotRunError

NAMES = (
    "second_run", "extract_speed", "transform_speed", "memory", "load_speed", "load_memory", "shard_speed",
    "shard_store_speed", "shard_memory", "optimize_speed", "jupyter_speed",
)  # fmt: skip


def main() -> int:
    """Run, print, save; 1 when a goal was missed or a benchmark could not run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the stages.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; default: all")
    names = parser.parse_args().names or NAMES
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    WORK.mkdir(parents=True, exist_ok=True)
    missed = 0
    for name in names:
        try:
            report = importlib.import_module(f"benchmarks.{name}").measure()
        except CannotRunError as fault:
            print(f"{name} can't run: {fault}\n", file=sys.stderr)
            missed += 1
            continue
        path = report.save(name)
        print(f"\n{report.question}")
        for figure in report.figures:
            print("  " + figure.row())
            missed += figure.reached is False
        print(f"  record: {path}\n", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
