"""SPDL over the tree on local disk: its pipeline of threads, in which PIL decodes.

Its own decoder needs FFmpeg's libraries, which no wheel brings.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from larder.bench.arm_errors import map_arm_errors
from larder.bench.arms import ARMS
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.peers import EpochLoader, find_files
from larder.bench.settings import LoaderSettings
from larder.loaders.dataloader import EpochSampler
from larder.loaders.image_table import ImageTable
from larder.next_step import CREATED_BY
from larder.progress import Reporter

if TYPE_CHECKING:
    from larder.loaders.loader import Batch


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `<data_dir>/<split>/class_XX/*.jpg`. Raises what `find_files` raises."""
    import spdl.pipeline  # noqa: F401  # imported before the first epoch, as in a training script

    with map_arm_errors(type(settings), CREATED_BY["tree"]):
        folder, manifest, table = find_files(settings, reporter)
        reader = f"SPDL's pipeline {version('spdl')}, with threads in place of workers"

        def open_epoch(epoch: int) -> Generator[Batch, None, None]:
            return _read_epoch(folder, table, settings, epoch)

        yield MeasuredLoader(EpochLoader(manifest, settings, reader, open_epoch), lambda: None)


def _read_epoch(folder: Path, table: ImageTable, settings: LoaderSettings, epoch: int) -> Generator[Batch, None, None]:
    import torch
    from spdl.pipeline import PipelineBuilder

    from larder.loaders.preprocessing import decode, reference_transform

    transform, options = reference_transform(), ARMS["spdl"].options
    sampler = EpochSampler(len(table), settings.seed)
    sampler.epoch = epoch

    def load(number: int) -> tuple[Any, int]:
        return transform(decode(str(folder / table.path(number)))), table.label(number)

    def collate(samples: list[tuple[Any, int]]) -> Batch:
        return torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])

    threads = max(settings.workers, 1)
    builder: Any = PipelineBuilder()  # its types change with each step
    pipeline = (
        builder.add_source(sampler)
        .pipe(load, concurrency=threads)
        .aggregate(settings.batch_size)
        .pipe(collate)
        .add_sink(options["buffered_batches"])
        .build(num_threads=threads, max_failures=0)  # by default, failures are skipped
    )
    with pipeline.auto_stop():
        yield from pipeline
