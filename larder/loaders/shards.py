"""Read WebDataset tar shards from a bucket, with larder's IterableDataset or with the webdataset library.

The format: https://github.com/webdataset/webdataset#the-webdataset-format
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from larder.loaders.failures import make_worker_init
from larder.loaders.loader import Loader, end_workers, requires_extras
from larder.loaders.traffic import NetworkTraffic, TrafficCounter
from larder.progress import NullReporter, Reporter

if TYPE_CHECKING:
    from larder.loaders.loader import Batch, Transform
    from larder.store import StoreSettings


class ShardLoader(Loader):
    """Load the shards `<uri>/<split>/shard-*.tar`, each read sequentially.

    The index that the manifest names lists the shards; one listing of the bucket verifies that each exists with its
    length. With `check_digests`, the loader also fetches the index of samples, which lists each shard's samples.

    Each epoch shuffles the shards and deals them to the workers in turn. Within a shard, images keep the order in which
    they were packed. Each worker builds its own batches, so its last batch may be smaller. With fewer shards than
    workers, some workers are idle: see `idle_workers`.

    A worker requests a shard's length (HEAD) and reads it in blocks of 50 MiB; while it fetches a block, it decodes
    nothing. Transient failures are retried. `network` counts all response bodies and all requests, including retries.

    Args:
        uri: The shards' folder in a bucket, `s3://bucket/[prefix/]name`.
        split: The split to read, such as "training".
        batch_size: Images per batch.
        workers: Processes that read and decode; 0 uses the calling process, None starts one per available core.
        seed: Seed of the shuffle of shards.
        transform: Function from an RGB image to float32 [3, 224, 224]; None is the reference preprocessing.
        check_digests: Whether to check each image's sha256 against the index before decoding. See Loader.
        store: The store, from `larder.store.make_store`; None takes it from the environment (S3_ENDPOINT_URL,
            AWS_ACCESS_KEY_ID and so on).
        library: What assigns shards, reads tar and builds batches: "larder", or "webdataset" (its WebDataset and
            WebLoader, over the same streams).
        reporter: Receives progress while the split is listed; None reports nothing.

    Raises:
        ConfigurationError: If there is no such split, or the store refuses access.
        InputError: If the shards don't match the manifest.
        ServiceError: If the store doesn't answer.

    Example:
        with ShardLoader("s3://my-bucket/photos-webdataset", "training", batch_size=64) as loader:
            for images, labels in loader:  # float32 [64, 3, 224, 224], int64 [64]
                print(images.mean(), loader.classes[labels[0]])
    """

    @requires_extras("s3fs,torch,webdataset")
    def __init__(
        self,
        uri: str,
        split: str,
        *,
        batch_size: int = 64,
        workers: int | None = None,
        seed: int = 0,
        transform: Transform | None = None,
        check_digests: bool = True,
        store: StoreSettings | None = None,
        library: Literal["larder", "webdataset"] = "larder",
        reporter: Reporter | None = None,
    ) -> None:
        from larder.loaders.bucket_data import fetch_shard_table, find_packed_split

        reporter = reporter or NullReporter()
        packs = find_packed_split(uri, "webdataset", split, store, reporter)
        table = fetch_shard_table(packs, split, reporter) if check_digests else None
        from larder.loaders.shard_dataset import ShardDataset, WebDatasetDataset

        by_library = library == "webdataset"
        library_reader = f"WebDataset and WebLoader of webdataset {version('webdataset')}" if by_library else ""
        super().__init__(
            packs.manifest,
            split,
            reader=library_reader or "larder's own IterableDataset, by torch's DataLoader",
            batch_size=batch_size,
            workers=workers,
            transform=transform,
        )
        self.shards = len(packs.files)
        self._traffic = TrafficCounter()
        self.dataset = (WebDatasetDataset if by_library else ShardDataset)(
            packs.folder.settings,
            [f"{packs.folder.key}/{pack.path}" for pack in packs.files],
            self._traffic,
            batch_size,
            seed,
            transform,
            len(packs.manifest.classes),
            table,
        )
        self._loader = _loader_class(by_library)(
            self.dataset,
            batch_size=batch_size,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=make_worker_init(),
        )

    @property
    def idle_workers(self) -> int:
        """Number of workers without a shard."""
        return max(self.workers - self.shards, 0)

    def _read(self, epoch: int, batches: int) -> Iterator[Batch]:
        self.dataset.set_epoch(epoch, batches if batches < len(self) else sys.maxsize)
        yield from map(tuple, self._loader)

    def network(self) -> NetworkTraffic:
        """Return the bytes of all response bodies and the number of requests, including retries."""
        return self._traffic.read()

    def close(self) -> None:
        """End the worker processes. The next iteration starts new ones."""
        end_workers(getattr(self._loader, "pipeline", [self._loader])[0])  # a WebLoader wraps a DataLoader


def _loader_class(by_library: bool) -> Any:
    if by_library:
        from webdataset import WebLoader

        return WebLoader
    from torch.utils.data import DataLoader

    return DataLoader
