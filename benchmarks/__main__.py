"""`python -m benchmarks [NAME ...]`: run all benchmarks, or those that are named."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable, Iterator

from benchmarks.data import FEW_IMAGES, FOOD11_IMAGES
from benchmarks.harness import WORK, CannotRunError
from benchmarks.names import NAMES

SIZES = (FEW_IMAGES, FOOD11_IMAGES)
SIZED = ("extract_speed", "transform_speed", "shard_speed", "optimize_speed", "stream_speed")
"""Those that also measure few images, where starting takes a large part of the time."""
MEMORY = ("memory", "load_memory", "shard_memory", "index_memory", "stream_memory", "stream_scale")
"""Those that measure the memory that many images take; each has a default number."""
OTHERS = ("arms_at_their_best",)
"""Others with a default number of images."""
_MIN_IMAGES = 1000


def main() -> int:
    """Run, print and save. Return 1 if a goal was missed or a benchmark couldn't run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the stages.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; default: all")
    parser.add_argument(
        "--images",
        type=int,
        help=f"the size for {', '.join(SIZED + MEMORY + OTHERS)}; default: {' and '.join(map(str, SIZES))}, or its own",
    )
    given = parser.parse_args()
    names = given.names or NAMES
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    if given.images is not None and given.images < _MIN_IMAGES:
        parser.error(f"--images must be at least {_MIN_IMAGES}")
    WORK.mkdir(parents=True, exist_ok=True)
    missed = 0
    for name, *arguments in _runs(names, given.images):
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
        for note in report.notes:
            print(f"  {note}")
        print(f"  record: {path}\n", flush=True)
    return 1 if missed else 0


def _runs(names: Iterable[str], images: int | None) -> Iterator[tuple[str, *tuple[int, ...]]]:
    """Yield the name of each benchmark, once or with each size."""
    for name in names:
        sizes: tuple[int, ...] = SIZES if name in SIZED else ()
        if images and name in SIZED + MEMORY + OTHERS:
            sizes = (images,)
        yield from ((name, size) for size in sizes) if sizes else [(name,)]


if __name__ == "__main__":
    sys.exit(main())
