"""LitData chunks from the bucket, by that library's StreamingDataset and StreamingDataLoader: cold, then from its cache.

Two epochs are measured: `cold` begins with an empty cache and starts the workers, `warm` finds there what was kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.contract import IndexEntry
from larder.errors import ConfigurationError
from larder.progress import Reporter, amount
from larder.volume import CHUNKS
from services.bench.feed import Feed
from services.bench.packs import find_packs
from services.bench.settings import BenchSettings

MADE_BY = "make etl-lit"


@contextmanager
def open_feed(settings: BenchSettings, reporter: Reporter) -> Iterator[Feed]:
    """A feed over `s3://<bucket>/[<prefix>/]Food-11-litdata/<split>/`.

    Raises as `find_packs` does, ConfigurationError for a cache that is too small, StorageError for one in use.
    """
    folder, manifest, packs = find_packs(settings, CHUNKS, "litdata", MADE_BY, reporter)
    _require_room(settings, packs)
    from services.bench.cache import own_folder
    from services.bench.chunks import ChunksFeed
    from services.bench.dataloader import explained

    with explained(MADE_BY), own_folder(settings.cache_dir, "litdata") as cache:
        feed = ChunksFeed(settings, f"{folder.uri}/{settings.split}", manifest, cache)
        try:
            yield feed
        finally:
            feed.close()  # before the cache goes


def _require_room(settings: BenchSettings, packs: list[IndexEntry]) -> None:
    """With less, LitData deletes chunks that its workers are about to read, and they wait for good."""
    largest = max(pack.bytes for pack in packs)
    least = settings.workers * (settings.max_pre_download + 2) * largest
    if settings.max_cache_size is not None and settings.max_cache_size < least:
        raise ConfigurationError.of_faults(
            [
                f"LARDER_MAX_CACHE_SIZE={settings.max_cache_size}: {settings.workers} workers that read a chunk, delete "
                f"one and fetch {settings.max_pre_download} ahead, of {amount(largest, 'B')} each, need {least:,} bytes"
            ],
            next_step="set it higher, or LARDER_MAX_PRE_DOWNLOAD or LARDER_WORKERS lower",
        )
