"""`python -m benchmarks [NAME ...]`: run all benchmarks, or those that are named."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.data import FEW_IMAGES, FOOD11_IMAGES
from benchmarks.harness import WORK, CannotRunError
from benchmarks.names import NAMES

SIZES = (FEW_IMAGES, FOOD11_IMAGES)
SIZED = ("extract_speed", "transform_speed", "shard_speed", "optimize_speed", "stream_speed")
"""Those that also measure few images, where starting takes a large part of the time."""


def main() -> int:
    """Run, print and save. Return 1 if a goal was missed or a benchmark couldn't run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the stages.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; default: all")
    parser.add_argument(
        "--images", type=int, choices=SIZES, help=f"the size for {', '.join(SIZED)}; default: one after the other"
    )
    given = parser.parse_args()
    names = given.names or NAMES
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    WORK.mkdir(parents=True, exist_ok=True)
    missed = 0
    for name, *arguments in _runs(names, [given.images] if given.images else SIZES):
        try:
            report = importlib.import_module(f"benchmarks.{name}").measure(*arguments)
        except CannotRunError as fault:
            print(f"{name} can't run: {fault}\n", file=sys.stderr)
            missed += 1
            continue
        path = report.save("-".join([name, *map(str, arguments)]))
        print(f"\n{report.question}")
        for figure in report.figures:
            print("  " + figure.row())
            missed += figure.reached is False
        print(f"  record: {path}\n", flush=True)
    return 1 if missed else 0


def _runs(names: Iterable[str], sizes: Sequence[int]) -> Iterator[tuple[str, *tuple[int, ...]]]:
    """Yield the name of each benchmark, once or with each size."""
    for name in names:
        yield from ((name, size) for size in sizes) if name in SIZED else [(name,)]


if __name__ == "__main__":
    sys.exit(main())
