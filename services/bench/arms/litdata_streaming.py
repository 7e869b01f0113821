"""LitData chunks from the bucket by its StreamingDataset and StreamingDataLoader: cold, then from its cache on disk.

Two epochs are measured: `cold` begins with an empty cache and starts the workers, `warm` finds there what was kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.bench.feed import Feed
from larder.bench.places import uri_of
from larder.loaders.chunks import ChunkLoader
from larder.next_step import MAKES
from larder.progress import Reporter
from services.bench.settings import BenchSettings
from services.bench.steps import helpful, require_bucket


@contextmanager
def open_feed(settings: BenchSettings, reporter: Reporter) -> Iterator[Feed]:
    """A feed over `s3://<bucket>/[<prefix>/]<data set>-litdata/<split>/`. Raises what ChunkLoader does."""
    require_bucket(settings)
    with (
        helpful(MAKES["litdata"]),
        ChunkLoader(
            uri_of(settings, "litdata", reporter), settings.split, cache_dir=settings.cache_dir,
            batch_size=settings.batch_size, workers=settings.workers, seed=settings.seed, store=settings,
            max_cache_size=settings.max_cache_size, max_pre_download=settings.max_pre_download, reporter=reporter,
        ) as loader,
    ):  # fmt: skip
        yield Feed(loader, loader.network, passes=("cold", "warm"))
