"""one GET per image from the bucket by s3fs, in a map-style dataset under PyTorch's DataLoader.

What a training script does that was moved from local files to object storage image by image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.bench.feed import Feed
from larder.loaders.objects import ObjectLoader
from larder.progress import Reporter
from larder.volume import TREE
from services.bench.settings import BenchSettings
from services.bench.steps import ETL_LOAD, bucket_uri, helpful


@contextmanager
def open_feed(settings: BenchSettings, reporter: Reporter) -> Iterator[Feed]:
    """A feed over `s3://<bucket>/[<prefix>/]Food-11/<split>/class_XX/*.jpg`. Raises what ObjectLoader does."""
    uri = bucket_uri(settings, TREE)
    with helpful(ETL_LOAD):
        loader = ObjectLoader(
            uri, settings.split, batch_size=settings.batch_size, workers=settings.workers, seed=settings.seed,
            store=settings, reporter=reporter,
        )  # fmt: skip
        yield Feed(loader, loader.network)
