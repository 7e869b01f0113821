"""one GET per image from the bucket by s3fs, in a map-style dataset under PyTorch's DataLoader.

What a training script does that was moved from local files to object storage image by image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.bench.feed import Feed
from larder.bench.places import uri_of
from larder.loaders.objects import ObjectLoader
from larder.next_step import MAKES
from larder.progress import Reporter
from services.bench.settings import BenchSettings
from services.bench.steps import helpful, require_bucket


@contextmanager
def open_feed(settings: BenchSettings, reporter: Reporter) -> Iterator[Feed]:
    """A feed over `s3://<bucket>/[<prefix>/]<data set>/<split>/class_XX/*.jpg`. Raises what ObjectLoader does."""
    require_bucket(settings)
    with helpful(MAKES["objects"]):
        loader = ObjectLoader(
            uri_of(settings, "tree", reporter), settings.split, batch_size=settings.batch_size,
            workers=settings.workers, seed=settings.seed, store=settings, reporter=reporter,
        )  # fmt: skip
        yield Feed(loader, loader.network)
