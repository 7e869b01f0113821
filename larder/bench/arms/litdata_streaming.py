"""LitData chunks from the bucket by its StreamingDataset and StreamingDataLoader: cold, then from its cache on disk.

Two epochs are measured: `cold` begins with an empty cache and starts the workers; `warm` begins with a filled cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.bench.arm_errors import map_arm_errors, require_bucket
from larder.bench.layout_locations import locate_in_bucket
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.settings import LoaderSettings
from larder.loaders.chunks import ChunkLoader
from larder.next_step import CREATED_BY
from larder.progress import Reporter


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `s3://<bucket>/[<prefix>/]<dataset>-litdata/<split>/`. Raises what ChunkLoader raises."""
    require_bucket(settings, "litdata_streaming")
    with (
        map_arm_errors(type(settings), CREATED_BY["litdata"]),
        ChunkLoader(
            locate_in_bucket(settings, "litdata", reporter),
            settings.split,
            cache_dir=settings.cache_dir,
            batch_size=settings.batch_size,
            workers=settings.workers,
            seed=settings.seed,
            store=settings,
            max_cache_size=settings.max_cache_size,
            max_pre_download=settings.max_pre_download,
            reporter=reporter,
        ) as loader,
    ):
        yield MeasuredLoader(loader, loader.network, passes=("cold", "warm"))
