"""AWS's s3torchconnector over WebDataset tar shards in the bucket: S3IterableDataset under PyTorch's DataLoader."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from larder.bench.arm_errors import map_arm_errors, require_bucket
from larder.bench.layout_locations import locate_in_bucket
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.peers import export_keys
from larder.bench.plain_shards import BucketShards, find_plain_shards, require_in_bucket
from larder.bench.settings import LoaderSettings
from larder.errors import LarderError, ServiceError
from larder.loaders.failures import WorkerError, make_worker_init
from larder.loaders.loader import Loader, end_workers
from larder.loaders.traffic import TrafficCounter
from larder.next_step import CREATED_BY
from larder.progress import Reporter
from larder.store import region_of

if TYPE_CHECKING:
    from larder.loaders.loader import Batch

_ARM = "s3torchconnector_shards"


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `s3://<bucket>/[<prefix>/]<dataset>-webdataset/<split>/shard-*.tar`.

    Raises:
        ConfigurationError: If there is no such split, or the store refuses access.
        InputError: If the shards don't match the manifest.
        ServiceError: If the store doesn't answer.
    """
    if settings.shards:
        require_in_bucket(settings, _ARM)
        found = find_plain_shards(settings)
    else:
        require_bucket(settings, _ARM)
        with map_arm_errors(type(settings), CREATED_BY["webdataset"]):
            found = _find_shards(settings, reporter)
    export_keys(settings)
    yield MeasuredLoader(ConnectorShardLoader(found, settings), lambda: None)


def _find_shards(settings: LoaderSettings, reporter: Reporter) -> BucketShards:
    from larder.loaders.bucket_data import find_packed_split

    uri = locate_in_bucket(settings, "webdataset", reporter)
    packs = find_packed_split(uri, "webdataset", settings.split, settings, reporter)
    keys = [f"{packs.folder.key}/{pack.path}" for pack in packs.files]
    return BucketShards(packs.manifest, packs.folder.settings, keys)


class ConnectorShardLoader(Loader):
    """Load shards in a bucket with S3IterableDataset and its sharding; Python's tarfile takes the samples out.

    As in larder's own reader, each epoch shuffles the shards, and samples keep their order within a shard.

    Args:
        found: The shards.
        settings: Its fields `split`, `batch_size`, `workers` and `seed`, and the store.
    """

    def __init__(self, found: BucketShards, settings: LoaderSettings) -> None:
        from torch.utils.data import DataLoader

        super().__init__(
            found.manifest,
            settings.split,
            reader=f"S3IterableDataset of s3torchconnector {version('s3torchconnector')}, by torch's DataLoader",
            batch_size=settings.batch_size,
            workers=settings.workers,
            transform=None,
        )
        self.dataset = _make_dataset(found, settings)
        self._loader: DataLoader[Any] = DataLoader(
            self.dataset,
            batch_size=settings.batch_size,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=make_worker_init(),
        )

    def _read(self, epoch: int, batches: int) -> Iterator[Batch]:
        self.dataset.set_epoch(epoch, batches if batches < len(self) else sys.maxsize)
        yield from map(tuple, self._loader)

    def close(self) -> None:
        """End the worker processes. The next iteration starts new ones."""
        end_workers(self._loader)


def _make_dataset(found: BucketShards, settings: LoaderSettings) -> Any:
    from s3torchconnector import S3ClientConfig, S3Exception, S3IterableDataset

    from larder.loaders.shard_dataset import ShardDataset, damaged, read_shard_samples
    from larder.loaders.shard_table import ShardSample
    from larder.shards import LABEL
    from larder.stream.shard_scan import IMAGE_EXTENSIONS

    class ConnectorShards(ShardDataset):
        """The samples of shards that s3torchconnector reads. It gives each worker its shards."""

        def _samples(self, worker: int, workers: int) -> Generator[ShardSample, None, None]:
            uris = [f"s3://{self._bucket}/{key}" for key in self._shuffled_keys()]
            shards = S3IterableDataset.from_objects(
                uris,
                region=region_of(settings),
                endpoint=settings.s3_endpoint_url or None,
                enable_sharding=True,
                s3client_config=S3ClientConfig(
                    force_path_style=bool(settings.s3_endpoint_url), unsigned=settings.unsigned
                ),
            )
            for shard in shards:
                uri = f"s3://{shard.bucket}/{shard.key}"
                try:
                    # Its length isn't asked for, which would take a request: a cut shard lacks samples.
                    yield from read_shard_samples(shard, 0, uri, self._classes, {LABEL, *IMAGE_EXTENSIONS})
                except (tarfile.TarError, ValueError) as fault:
                    raise WorkerError.from_error(damaged(uri, str(fault))) from fault
                except S3Exception as fault:
                    error = ServiceError(f"reading {uri} failed: {fault}", next_step="check the store, and try again")
                    raise WorkerError.from_error(error) from fault
                except LarderError as fault:
                    raise WorkerError.from_error(fault) from fault

    return ConnectorShards(
        found.bucket, found.keys, TrafficCounter(), settings.batch_size, settings.seed, None,
        len(found.manifest.classes), None,
    )  # fmt: skip
