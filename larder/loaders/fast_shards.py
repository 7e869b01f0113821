"""Read WebDataset tar shards in a bucket with larder's fast reader, `larder.stream`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from larder.loaders.bucket_data import open_artifact_prefix
from larder.loaders.loader import Loader, check_manifest, requires_extras
from larder.loaders.traffic import NetworkTraffic
from larder.progress import Reporter

if TYPE_CHECKING:
    from larder.loaders.loader import Batch
    from larder.store import StoreSettings
    from larder.stream.transforms import Transform


class FastShardLoader(Loader):
    """Load the shards `<uri>/<split>/shard-*.tar` with `larder.stream.ShardStream`.

    Batches are normalized float32, as those of the other loaders; a training script that normalizes on its device uses
    ShardStream itself. The loader has threads in place of worker processes: `workers` is their number.

    Args:
        uri: The shards' folder in a bucket, `s3://bucket/[prefix/]name`.
        split: The split to read, such as "training".
        batch_size: Images per batch.
        workers: Threads that decode; None starts one per available core, 0 starts one.
        seed: Seed of the order.
        crop: What to crop, and how to resize it; None is the reference preprocessing.
        check_digests: Whether to check each image's sha256 against the index before decoding. See Loader.
        store: The store, from `larder.store.make_store`; None takes it from the environment (S3_ENDPOINT_URL,
            AWS_ACCESS_KEY_ID and so on).
        reporter: Receives progress while the index is read; None reports nothing.

    Raises:
        ConfigurationError: If there is no such split, or the store refuses access.
        InputError: If the shards have no manifest, or their index isn't the manifest's.
        ServiceError: If the store doesn't answer.

    Example:
        with FastShardLoader("s3://my-bucket/photos-webdataset", "training", batch_size=64) as loader:
            for images, labels in loader:  # float32 [64, 3, 224, 224], int64 [64]
                print(images.mean(), loader.classes[labels[0]])
    """

    @requires_extras("stream,torch")
    def __init__(
        self,
        uri: str,
        split: str,
        *,
        batch_size: int = 64,
        workers: int | None = None,
        seed: int = 0,
        crop: Transform | None = None,
        check_digests: bool = True,
        store: StoreSettings | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        folder = open_artifact_prefix(uri, store)
        manifest = check_manifest(folder.find_manifest(), "webdataset", split, folder.uri)
        super().__init__(
            manifest,
            split,
            reader="larder.stream's ShardStream",
            batch_size=batch_size,
            workers=workers,
            transform=None,
        )
        if crop is not None:
            self.preprocessing = f"{crop}, ImageNet normalization"
        from larder.stream import ShardStream, normalize

        self._normalize = normalize
        self._stream = ShardStream(
            f"{uri.rstrip('/')}/{split}",
            batch_size=batch_size,
            transform=crop,
            seed=seed,
            rank=0,
            world_size=1,
            check_digests=check_digests,
            mode="thread",  # a pass of a few batches would end a child process each time
            threads=max(self.workers, 1),
            store=store,
            reporter=reporter,
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
