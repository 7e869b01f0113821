"""SPDL, as its documentation runs it: a pipeline of threads that decode, and that collate. PIL decodes."""

from __future__ import annotations

import random
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from spdl.pipeline import PipelineBuilder

from benchmarks.stream_peers.contestant import Given, run
from benchmarks.stream_peers.recipes import recipe


def batches(given: Given) -> Generator[int, None, None]:
    """Read an epoch. The first step opens the data."""
    how = recipe(given.recipe)
    paths = sorted(Path(given.uri).rglob("*.jpg"))
    random.Random(0).shuffle(paths)
    yield 0

    def load(path: Path) -> Any:
        return how.transform(path.read_bytes())

    builder: Any = PipelineBuilder()  # its types change with each step
    pipeline = (
        builder.add_source(paths)
        .pipe(load, concurrency=given.workers)
        .aggregate(given.batch_size)
        .pipe(torch.stack)
        .add_sink(2)
        .build(num_threads=given.workers)
    )
    with pipeline.auto_stop():
        for images in pipeline:
            yield len(images)


if __name__ == "__main__":
    run(batches)
