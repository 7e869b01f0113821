"""WebDataset tar shards from the bucket, streamed through tar by an IterableDataset, or by the webdataset library.

LARDER_WEBDATASET_LOADER chooses. `larder` opens shards with fsspec and reads them with the standard library's tarfile.
`webdataset` reads the same streams with that library's WebDataset and WebLoader.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.bench.arm_errors import map_arm_errors, require_bucket
from larder.bench.layout_locations import locate_in_bucket
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.settings import LoaderSettings
from larder.loaders.shards import ShardLoader
from larder.next_step import CREATED_BY
from larder.progress import Reporter, format_amount


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `s3://<bucket>/[<prefix>/]<dataset>-webdataset/<split>/shard-*.tar`.

    Raises what ShardLoader raises.
    """
    if settings.shards:
        from larder.bench.plain_shards import PlainWebDatasetLoader, require_in_bucket

        require_in_bucket(settings, "webdataset")
        plain = PlainWebDatasetLoader(settings)
        yield MeasuredLoader(plain, plain.network)
        return
    require_bucket(settings, "webdataset")
    with map_arm_errors(type(settings), CREATED_BY["webdataset"]):
        loader = ShardLoader(
            locate_in_bucket(settings, "webdataset", reporter),
            settings.split,
            batch_size=settings.batch_size,
            workers=settings.workers,
            seed=settings.seed,
            store=settings,
            library=settings.webdataset_loader,
            reporter=reporter,
        )
        if loader.idle_workers:
            reporter.event(
                "idle",
                f"{format_amount(loader.shards, 'shards')} for {loader.workers} workers: {loader.idle_workers} of them "
                "read nothing; smaller shards (LARDER_SHARD_BYTES of shard) or fewer workers (LARDER_WORKERS) "
                "are better",
                workers=loader.idle_workers,
            )
        yield MeasuredLoader(loader, loader.network)
