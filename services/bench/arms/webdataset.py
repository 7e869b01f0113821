"""WebDataset tar shards from the bucket, streamed through tar by an IterableDataset, or by the webdataset library.

LARDER_WEBDATASET_LOADER chooses: `larder` reads what fsspec opens with the standard library's tarfile; `webdataset` is
that library's own WebDataset and WebLoader, which reads the same streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.progress import Reporter, amount
from larder.volume import SHARDS
from services.bench.feed import Feed
from services.bench.packs import find_packs
from services.bench.settings import BenchSettings

MADE_BY = "make etl-wds"


@contextmanager
def open_feed(settings: BenchSettings, reporter: Reporter) -> Iterator[Feed]:
    """A feed over `s3://<bucket>/[<prefix>/]Food-11-webdataset/<split>/shard-*.tar`. Raises as `find_packs` does."""
    folder, manifest, packs = find_packs(settings, SHARDS, "webdataset", MADE_BY, reporter)
    if (idle := settings.workers - len(packs)) > 0:
        reporter.event(
            "idle",
            f"{amount(len(packs), 'shards')} for {settings.workers} workers: {idle} of them read nothing; "
            "smaller shards (LARDER_SHARD_BYTES, then make etl-wds) or fewer workers (LARDER_WORKERS) change that",
            workers=idle,
        )
    from services.bench.dataloader import explained
    from services.bench.shards import ShardsFeed

    with explained(MADE_BY):
        yield ShardsFeed(settings, manifest, [f"{folder.key}/{pack.path}" for pack in packs])
