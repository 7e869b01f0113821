"""one GET per image from the bucket by s3fs, in a map-style dataset under PyTorch's DataLoader.

What a training script does that was moved from local files to object storage image by image.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.errors import InputError
from larder.progress import Reporter
from larder.volume import TREE
from services.bench.feed import Feed
from services.bench.inputs import bucket_of, check_manifest
from services.bench.settings import BenchSettings

MADE_BY = "make etl-load"


@contextmanager
def open_feed(settings: BenchSettings, reporter: Reporter) -> Iterator[Feed]:
    """A feed over `s3://<bucket>/[<prefix>/]Food-11/<split>/class_XX/*.jpg`.

    Raises ConfigurationError without a bucket or when the store refuses, InputError when the objects aren't what the
    manifest says, ServiceError when the store doesn't answer.
    """
    bucket_of(settings)
    from larder.bucket import Folder
    from services.bench.objects import Objects, read_index

    folder = Folder(settings, TREE)
    manifest = check_manifest(folder.find_manifest(), "objects", settings, folder.uri, MADE_BY)
    samples = manifest.splits[settings.split].samples
    with reporter.task("reading the index", samples, "images") as task:
        objects = Objects(read_index(folder, manifest, MADE_BY), settings.split, task.advance)
    with reporter.task(f"listing {settings.split}", samples, "images") as task:
        missing = objects.first_missing(folder.list(settings.split), task.advance)
    if missing is not None:
        raise InputError(
            f"{folder.uri}/{missing} is missing or has another length than its manifest says",
            next_step=f"run `{MADE_BY}`, which puts it back",
        )

    from services.bench.dataloader import open_dataloader
    from services.bench.remote_images import RemoteImages
    from services.bench.s3_reader import Traffic

    traffic = Traffic()
    dataset = RemoteImages(settings, folder.key, objects, traffic)
    with open_dataloader(manifest, dataset, len(objects), settings, MADE_BY, traffic.read) as feed:
        yield feed
