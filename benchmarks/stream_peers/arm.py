"""An arm of bench, as `compare` runs it: `--variant` names it, and `--options` replaces some of its options.

An option in capitals is an environment variable of its library.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Generator
from contextlib import suppress

from benchmarks.stream_peers.contestant import Given, run
from larder.bench import arms
from larder.bench.comparison.work import PRELOADED
from larder.bench.open_arm import open_arm
from larder.bench.settings import LoaderSettings
from larder.progress import NullReporter


def batches(given: Given) -> Generator[int, None, None]:
    """Read an epoch. The first step opens the data."""
    for module in PRELOADED:  # as compare does
        with suppress(ImportError):
            importlib.import_module(module)
    name, options = given.variant, dict(given.options)
    workers = options.pop("workers", given.workers)
    variables = {key: str(options.pop(key)) for key in list(options) if key.isupper()}
    entry = arms.ARMS[name]
    os.environ.update({**entry.environ, **variables})
    arms.ARMS[name] = entry._replace(options={**entry.options, **options})
    flags = [f"--batch-size={given.batch_size}", f"--workers={workers}"]
    settings = LoaderSettings.load("bench", flags, os.environ)
    with open_arm(name, settings, NullReporter()) as measured, measured.loader as loader:
        yield 0
        for images, _ in loader.read(0):
            yield len(images)
        yield 0  # the clock stops before the arm is closed


if __name__ == "__main__":
    run(batches, split_start=True)
