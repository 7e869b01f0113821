"""Reads WebDataset tar shards from a bucket, streamed through tar by an IterableDataset, or by the webdataset library.

The format: https://github.com/webdataset/webdataset#the-webdataset-format
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

from larder.loaders.failures import worker_start
from larder.loaders.loader import Loader, end_workers, needs
from larder.loaders.traffic import Network, Traffic
from larder.progress import Reporter, Silent

if TYPE_CHECKING:
    from larder.loaders.loader import Batch, Transform
    from larder.store import StoreSettings


class ShardLoader(Loader):
    """Reads the shards `<uri>/<split>/shard-*.tar`, each from its beginning to its end.

    It follows the manifest: its index names the shards, and one listing shows that each is there with its length; its
    index of samples, which is fetched with `check_digests`, says what lies in them. Each
    epoch shuffles the shards and deals them to the workers in turns; within a shard, images come in the order in which
    they were packed. Workers make batches by themselves, so that each one's last batch may be short, and with fewer
    shards than workers some have nothing to do: see `idle_workers`.

    A worker asks for a shard's length (HEAD) and reads it in blocks of 50 MiB; while it fetches one, it decodes
    nothing. Faults that pass are got over. `network` counts the bodies of all answers, and all
    requests, repeats included.

    Args:
        uri: The shards' folder in a bucket, `s3://bucket/[prefix/]name`.
        split: The split to read, such as "training".
        batch_size: Images per batch.
        workers: Processes that read and decode; 0 does both in this one, None takes one per available core.
        seed: Seed of the shuffle of shards.
        transform: From an RGB image to float32 [3, 224, 224]; None is the reference preprocessing.
        check_digests: Whether an image must have the sha256 of the index before it is decoded. See Loader.
        store: The store, from `larder.store.make_store`; None takes it from the environment (S3_ENDPOINT_URL,
            AWS_ACCESS_KEY_ID and so on).
        library: Who deals shards, reads tar and makes batches: "larder", or "webdataset" with its WebDataset and
            WebLoader, which read the same streams.
        reporter: What is told of the listing as it goes on; by default nobody.

    Raises:
        ConfigurationError: If there is no such split, or if the store refuses.
        InputError: If the shards aren't what the manifest says.
        ServiceError: If the store doesn't answer.

    Example:
        with ShardLoader("s3://my-bucket/photos-webdataset", "training", batch_size=64) as loader:
            for images, labels in loader:  # float32 [64, 3, 224, 224], int64 [64]
                print(images.mean(), loader.classes[labels[0]])
    """

    @needs("s3fs,torch,webdataset")
    def __init__(
        self, uri: str, split: str, *, batch_size: int = 64, workers: int | None = None, seed: int = 0,
        transform: Transform | None = None, check_digests: bool = True, store: StoreSettings | None = None,
        library: Literal["larder", "webdataset"] = "larder", reporter: Reporter | None = None,
    ) -> None:  # fmt: skip
        from larder.loaders.source import find_packs, read_shard_table

        reporter = reporter or Silent()
        packs = find_packs(uri, "webdataset", split, store, reporter)
        table = read_shard_table(packs, split, reporter) if check_digests else None
        from larder.loaders.shard_stream import LibraryShardStream, ShardStream

        by_library = library == "webdataset"
        others = f"WebDataset and WebLoader of webdataset {version('webdataset')}" if by_library else ""
        super().__init__(
            packs.manifest, split, reader=others or "larder's own IterableDataset, by torch's DataLoader",
            batch_size=batch_size, workers=workers, transform=transform,
        )  # fmt: skip
        self.shards = len(packs.files)
        self._traffic = Traffic()
        self.dataset = (LibraryShardStream if by_library else ShardStream)(
            packs.folder.settings, [f"{packs.folder.key}/{pack.path}" for pack in packs.files], self._traffic,
            batch_size, seed, transform, len(packs.manifest.classes), table,
        )  # fmt: skip
        self._loader = _loader_class(by_library)(
            self.dataset, batch_size=batch_size, num_workers=self.workers, persistent_workers=self.workers > 0,
            worker_init_fn=worker_start(),
        )  # fmt: skip

    @property
    def idle_workers(self) -> int:
        """How many workers get no shard."""
        return max(self.workers - self.shards, 0)

    def _read(self, epoch: int, batches: int) -> Iterator[Batch]:
        self.dataset.ask(epoch, batches if batches < len(self) else sys.maxsize)
        yield from map(tuple, self._loader)

    def network(self) -> Network:
        """See Loader."""
        return self._traffic.read()

    def close(self) -> None:
        """See Loader."""
        end_workers(getattr(self._loader, "pipeline", [self._loader])[0])  # a WebLoader has a DataLoader inside


def _loader_class(by_library: bool) -> Any:
    if by_library:
        from webdataset import WebLoader

        return WebLoader
    from torch.utils.data import DataLoader

    return DataLoader
