"""Time a contestant's loop, and print what it took as JSON. Contestants run elsewhere, so this needs only Python."""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Given:
    """What a contestant is given, and what it reports besides time.

    Attributes:
        uri: Where its data are: `s3://bucket/prefix`, or a path.
        folder: An empty folder, for a cache.
        batch_size: Images per batch.
        workers: Worker processes or threads.
        recipe: How to decode: a name in `recipes.py`.
        variant: Which of the module's variants to run.
        options: Numbers for one module.
        extra: What the contestant reports.
    """

    uri: str
    folder: Path
    batch_size: int
    workers: int
    recipe: str
    variant: str
    options: dict[str, Any]
    extra: dict[str, float] = field(default_factory=dict)


def run(batches: Callable[[Given], Generator[int, None, None]], split_start: bool = False) -> None:
    """Read one epoch, and print what it took.

    Args:
        batches: Opens the data, yields 0 if the module tells when they are open, and then the number of images of each
            batch; 0 ends the epoch.
        split_start: Whether the clock starts only when the data are open; so it does with the option `opened`, too.
    """
    given, pace = _parse()
    opened = batches(given)
    if split_start or given.options.get("opened"):
        next(opened)
    before, cpu_before = resource.getrusage(resource.RUSAGE_SELF), _cpu_seconds()
    begin = time.perf_counter()
    number = images = next(opened) or next(opened)
    first = time.perf_counter()
    computed = 0.0
    while number:
        if pace:  # an accelerator works on the batch; busy times are compared with the time of the epoch from here on
            time.sleep(number / pace)
            computed += number / pace
        number = next(opened, 0)
        images += number
    end = time.perf_counter()
    opened.close()
    own = resource.getrusage(resource.RUSAGE_SELF)
    cached_bytes = sum(path.stat().st_size for path in given.folder.rglob("*") if path.is_file())
    found = {
        "images": images,
        "seconds": end - begin,
        "first_seconds": first - begin,
        "busy": computed / (end - first),
        "cpu_seconds": _cpu_seconds() - cpu_before,
        "resident_bytes": own.ru_maxrss * 1024,
        "written_bytes": max(cached_bytes, (own.ru_oublock - before.ru_oublock) * 512),
    }
    print(json.dumps(found | given.extra), flush=True)


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of those of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _parse() -> tuple[Given, float]:
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--recipe", default="float32")
    parser.add_argument("--variant", default="")
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--images-per-second", type=float, default=0, help="rate of an emulated accelerator")
    words = vars(parser.parse_args())
    pace = words.pop("images_per_second")
    return Given(**words), pace
