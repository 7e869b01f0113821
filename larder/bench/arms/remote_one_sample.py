"""one GET per image from the bucket by s3fs, in a map-style dataset under PyTorch's DataLoader.

A training script reads like this if only its paths were changed, from local files to objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.bench.arm_errors import map_arm_errors, require_bucket
from larder.bench.layout_locations import locate_in_bucket
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.settings import LoaderSettings
from larder.loaders.objects import ObjectLoader
from larder.next_step import CREATED_BY
from larder.progress import Reporter


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `s3://<bucket>/[<prefix>/]<dataset>/<split>/class_XX/*.jpg`.

    Raises what ObjectLoader raises.
    """
    require_bucket(settings, "remote_one_sample")
    with map_arm_errors(type(settings), CREATED_BY["objects"]):
        loader = ObjectLoader(
            locate_in_bucket(settings, "tree", reporter),
            settings.split,
            batch_size=settings.batch_size,
            workers=settings.workers,
            seed=settings.seed,
            store=settings,
            reporter=reporter,
        )
        yield MeasuredLoader(loader, loader.network)
