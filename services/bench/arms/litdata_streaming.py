"""LitData chunks from the bucket by its StreamingDataset and StreamingDataLoader: cold, then from its cache on disk.

Two epochs are measured: `cold` begins with an empty cache and starts the workers, `warm` finds there what was kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.progress import Reporter
from larder.volume import CHUNKS
from services.bench.cache import own_folder, plan_budget
from services.bench.feed import Feed
from services.bench.packs import find_packs
from services.bench.settings import BenchSettings

MADE_BY = "make etl-lit"


@contextmanager
def open_feed(settings: BenchSettings, reporter: Reporter) -> Iterator[Feed]:
    """A feed over `s3://<bucket>/[<prefix>/]Food-11-litdata/<split>/`.

    Raises as `find_packs`, `own_folder` and `plan_budget` do.
    """
    folder, manifest, packs = find_packs(settings, CHUNKS, "litdata", MADE_BY, reporter)
    with own_folder(settings.cache_dir, "litdata") as cache:
        budget = plan_budget(settings, [pack.bytes for pack in packs], cache)
        from services.bench.chunks import ChunksFeed
        from services.bench.dataloader import explained

        with explained(MADE_BY):
            feed = ChunksFeed(settings, f"{folder.uri}/{settings.split}", manifest, cache, budget)
            try:
                yield feed
            finally:
                feed.close()  # before the cache goes
