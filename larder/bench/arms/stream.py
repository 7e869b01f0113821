"""WebDataset tar shards from the bucket by larder.stream: blocks by ranged GET, decoded in threads of one process.

LARDER_WORKERS is the number of threads that decode. Unlike the other arms, it has no worker processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.bench.arm_errors import map_arm_errors, require_bucket
from larder.bench.layout_locations import locate_in_bucket
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.settings import LoaderSettings
from larder.loaders.fast_shards import FastShardLoader
from larder.next_step import CREATED_BY
from larder.progress import Reporter


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `s3://<bucket>/[<prefix>/]<dataset>-webdataset/<split>/shard-*.tar`.

    Raises what FastShardLoader raises.
    """
    if settings.shards:
        from larder.bench.plain_shards import PlainStreamLoader

        plain = PlainStreamLoader(settings)
        yield MeasuredLoader(plain, plain.network)
        return
    require_bucket(settings, "stream")
    with map_arm_errors(type(settings), CREATED_BY["webdataset"]):
        loader = FastShardLoader(
            locate_in_bucket(settings, "webdataset", reporter),
            settings.split,
            batch_size=settings.batch_size,
            workers=settings.workers,
            seed=settings.seed,
            store=settings,
            reporter=reporter,
        )
        yield MeasuredLoader(loader, loader.network)
