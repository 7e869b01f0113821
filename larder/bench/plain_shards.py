"""Load any tar shards, without a manifest, with larder.stream or the webdataset library."""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from larder.bench.settings import LoaderSettings
from larder.contract import IndexSummary, Manifest, SplitSummary
from larder.errors import ConfigurationError, InputError
from larder.loaders.failures import make_worker_init
from larder.loaders.loader import Loader, end_workers, requires_extras
from larder.loaders.traffic import NetworkTraffic, TrafficCounter
from larder.progress import NullReporter
from larder.shards import LABEL
from larder.store import BucketSettings, StoreSettings
from larder.stream.open_shards import open_shards
from larder.stream.samples import SampleTable
from larder.stream.shard_scan import IMAGE_EXTENSIONS, Wanted

if TYPE_CHECKING:
    from larder.loaders.loader import Batch
    from larder.loaders.shard_table import ShardSample

_MAX_CLASSES = 1_000_000


class BucketShards(NamedTuple):
    """Shards in a bucket."""

    manifest: Manifest
    """What is known of them."""
    bucket: BucketSettings
    """The bucket, with the store's settings."""
    keys: list[str]
    """The keys of the shards."""


def describe_shards(settings: LoaderSettings) -> Manifest:
    """Read the shards that `settings.shards` names, and return a manifest with what is known of them.

    Raises:
        ConfigurationError: If there is no such folder, or the store refuses access.
        InputError: If there are no shards, or a sample has no image or label.
        ServiceError: If the store doesn't answer.
    """
    return _read_shards(settings)[0]


def find_plain_shards(settings: LoaderSettings) -> BucketShards:
    """Return the shards in a bucket that `settings.shards` names. Raises what `describe_shards` raises."""
    manifest, table, uri = _read_shards(settings)
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return BucketShards(
        manifest, bucket_of(settings, bucket), [f"{key}/{path}" if key else path for path in table.shards]
    )


def _read_shards(settings: LoaderSettings) -> tuple[Manifest, SampleTable, str]:
    """Return a manifest, the table of samples, and the URI of the folder that its paths are relative to."""
    folder, found, table, _ = open_shards(settings.shards, settings, Wanted(None, LABEL, "raise"), NullReporter())
    if not len(table):
        raise InputError(f"{settings.shards} holds no samples", next_step="name a folder of tar shards")
    largest = int(table.label.max())
    if int(table.label.min()) < 0 or (table.offset < 0).any() or largest >= _MAX_CLASSES:
        raise InputError(
            f"{settings.shards} holds samples without an image or without a label (.{LABEL}, a number)",
            next_step="name shards whose samples have both",
        )
    classes = found.classes if found else [str(label) for label in range(largest + 1)]
    summary = SplitSummary(
        samples=len(table),
        bytes=int(table.length.sum()),
        samples_per_class=np.bincount(table.label, minlength=len(classes)).tolist(),
    )
    manifest = Manifest(
        artifact="webdataset",
        dataset=settings.shards.rpartition("/")[2] or "shards",
        classes=list(classes),
        splits={settings.split: summary},
        input={},
        settings={},
        files=len(table.shards),
        bytes=int((table.end - table.begin).sum()),
        index=IndexSummary(bytes=0, sha256=hashlib.sha256(table.digest().encode()).hexdigest()),
    )
    return manifest, table, folder.uri


class PlainStreamLoader(Loader):
    """Load the shards with `larder.stream.ShardStream`, as FastShardLoader does. `workers` threads decode.

    Args:
        settings: Its fields `shards`, `split`, `batch_size`, `workers` and `seed`, and the store.

    Raises what `describe_shards` raises.
    """

    @requires_extras("stream,torch")
    def __init__(self, settings: LoaderSettings) -> None:
        from larder.stream import ShardStream, normalize

        super().__init__(
            describe_shards(settings),
            settings.split,
            reader="larder.stream's ShardStream",
            batch_size=settings.batch_size,
            workers=settings.workers,
            transform=None,
        )
        self._normalize = normalize
        self._stream = ShardStream(
            settings.shards,
            batch_size=settings.batch_size,
            seed=settings.seed,
            rank=0,
            world_size=1,
            threads=settings.workers,
            store=settings,
        )

    def _read(self, epoch: int, batches: int) -> Iterator[Batch]:
        self._stream.restart(epoch)
        for images, labels in itertools.islice(self._stream, batches):
            yield self._normalize(images), labels

    def network(self) -> NetworkTraffic:
        """Return the bytes of shards that were read, and the number of requests, without retries."""
        return NetworkTraffic(self._stream.bytes_read, self._stream.requests)

    def close(self) -> None:
        """Do nothing: threads end with each epoch."""


class PlainWebDatasetLoader(Loader):
    """Load the shards with webdataset's WebDataset and WebLoader, over fsspec's streams.

    Args:
        settings: As for PlainStreamLoader; `shards` must be in a bucket.

    Raises what `describe_shards` raises.
    """

    @requires_extras("s3fs,torch,webdataset")
    def __init__(self, settings: LoaderSettings) -> None:
        from webdataset import WebLoader

        from larder.loaders.shard_dataset import WebDatasetDataset

        class AnyShards(WebDatasetDataset):
            """Samples that may have further fields."""

            def _make_sample(self, key: str, fields: Mapping[str, bytes], uri: str) -> ShardSample:
                kept = {name: value for name, value in fields.items() if name.lower() in {LABEL, *IMAGE_EXTENSIONS}}
                return super()._make_sample(key, kept, uri)

        manifest, bucket, keys = find_plain_shards(settings)
        super().__init__(
            manifest,
            settings.split,
            reader=f"WebDataset and WebLoader of webdataset {version('webdataset')}",
            batch_size=settings.batch_size,
            workers=settings.workers,
            transform=None,
        )
        self._traffic = TrafficCounter()
        self.dataset = AnyShards(
            bucket,
            keys,
            self._traffic,
            settings.batch_size,
            settings.seed,
            None,
            len(manifest.classes),
            None,
        )
        self._loader = WebLoader(
            self.dataset,
            batch_size=settings.batch_size,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=make_worker_init(),
        )

    def _read(self, epoch: int, batches: int) -> Iterator[Batch]:
        self.dataset.set_epoch(epoch, batches if batches < len(self) else sys.maxsize)
        yield from map(tuple, self._loader)

    def network(self) -> NetworkTraffic:
        """Return the bytes of all response bodies and the number of requests, including retries."""
        return self._traffic.read()

    def close(self) -> None:
        """End the worker processes. The next iteration starts new ones."""
        end_workers(self._loader.pipeline[0])


def bucket_of(settings: StoreSettings, bucket: str) -> BucketSettings:
    """Return the settings of a bucket in the same store."""
    shared = {name: getattr(settings, name) for name in StoreSettings.model_fields}
    return BucketSettings.model_validate(shared | {"bucket": bucket}, by_name=True)


def require_in_bucket(settings: LoaderSettings, arm: str) -> None:
    """Raise ConfigurationError if the shards are in a folder, for an arm that reads from buckets only."""
    if not settings.shards.startswith("s3://"):
        raise ConfigurationError(
            f"{settings.shards} is a folder, and {arm} reads from a bucket",
            next_step="put the shards into a bucket, and name them as s3://bucket/prefix",
        )
