"""WebDataset tar shards from the bucket, streamed through tar by an IterableDataset, or by the webdataset library.

LARDER_WEBDATASET_LOADER chooses: `larder` reads what fsspec opens with the standard library's tarfile; `webdataset` is
that library's own WebDataset and WebLoader, which reads the same streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.bench.feed import Feed
from larder.bench.places import uri_of
from larder.loaders.shards import ShardLoader
from larder.next_step import MAKES
from larder.progress import Reporter, amount
from services.bench.settings import BenchSettings
from services.bench.steps import helpful, require_bucket


@contextmanager
def open_feed(settings: BenchSettings, reporter: Reporter) -> Iterator[Feed]:
    """A feed over `s3://<bucket>/[<prefix>/]<data set>-webdataset/<split>/shard-*.tar`.

    Raises what ShardLoader does.
    """
    require_bucket(settings)
    with helpful(MAKES["webdataset"]):
        loader = ShardLoader(
            uri_of(settings, "webdataset", reporter), settings.split, batch_size=settings.batch_size,
            workers=settings.workers, seed=settings.seed, store=settings, library=settings.webdataset_loader,
            reporter=reporter,
        )  # fmt: skip
        if loader.idle_workers:
            reporter.event(
                "idle",
                f"{amount(loader.shards, 'shards')} for {loader.workers} workers: {loader.idle_workers} of them read "
                "nothing; smaller shards (LARDER_SHARD_BYTES of shard) or fewer workers (LARDER_WORKERS) "
                "change that",
                workers=loader.idle_workers,
            )
        yield Feed(loader, loader.network)
