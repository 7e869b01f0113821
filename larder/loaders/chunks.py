"""Reads LitData chunks from a bucket by its StreamingDataset and StreamingDataLoader, through a cache on disk."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from larder.chunks import INDEX, most_bytes, require_chunks
from larder.errors import InputError
from larder.loaders.cache import own_folder, plan_budget
from larder.loaders.failures import worker_start
from larder.loaders.loader import Loader, end_workers, needs
from larder.loaders.remedies import RENEW
from larder.loaders.traffic import Network, Traffic
from larder.progress import Reporter, Silent

if TYPE_CHECKING:
    from larder.loaders.loader import Batch, Transform
    from larder.loaders.source import Packs
    from larder.store import StoreSettings


class ChunkLoader(Loader):
    """Reads the chunks `<uri>/<split>/chunk-*.bin`, which are fetched ahead and kept in a cache for later epochs.

    It runs LitData as it comes, but for these: plain http and AWS_CA_BUNDLE are obeyed, `max_pre_download` too, a chunk
    of a wrong length or with other bytes than the index says is an error and not waited for, and what fails in
    LitData's threads is raised with that cause. LitData's index, which says how samples are decoded, is fetched once,
    must be of larder's own form, and is what LitData is given. LitData shuffles within and across chunks, and counts
    epochs itself. `network` counts chunks that came whole; requests it can't tell.

    The cache is a folder of its own in `cache_dir`: emptied at first, removed by `close`, and locked, so that each
    loader needs a `cache_dir` of its own. One loader at a time counts what comes over the network.

    Args:
        uri: The chunks' folder in a bucket, `s3://bucket/[prefix/]name`.
        split: The split to read, such as "training".
        cache_dir: Where chunks are kept; made if need be.
        batch_size: Images per batch.
        workers: Processes that read and decode; 0 does both in this one, None takes one per available core.
        seed: Seed of the shuffle.
        transform: From an RGB image to float32 [3, 224, 224]; None is the reference preprocessing.
        check_digests: Whether a chunk must have the sha256 of the index before LitData reads it. See Loader.
        store: The store, from `larder.store.make_store`; None takes it from the environment (S3_ENDPOINT_URL,
            AWS_ACCESS_KEY_ID and so on).
        max_cache_size: The most that may be kept, in bytes; None is three quarters of the free space.
        max_pre_download: How many chunks each worker fetches ahead, 2 at least; None leaves it to LitData, or to the
            size of the cache where that can't hold the split.
        reporter: What is told of the listing as it goes on; by default nobody.

    Raises:
        ConfigurationError: If there is no such split, if the store refuses, or if `max_cache_size` is so small that
            LitData's workers would wait for one another for good.
        InputError: If the chunks aren't what the manifest says.
        ServiceError: If the store doesn't answer.
        StorageError: If the cache can't be made, is in use, or has too little room.

    Example:
        with ChunkLoader("s3://my-bucket/photos-litdata", "training", cache_dir="/tmp/photos", batch_size=64) as loader:
            for images, labels in loader:  # float32 [64, 3, 224, 224], int64 [64]
                print(images.mean(), loader.classes[labels[0]])
    """

    @needs("litdata,s3fs,torch")
    def __init__(
        self, uri: str, split: str, *, cache_dir: Path | str, batch_size: int = 64, workers: int | None = None,
        seed: int = 0, transform: Transform | None = None, check_digests: bool = True,
        store: StoreSettings | None = None,
        max_cache_size: int | None = None, max_pre_download: int | None = None, reporter: Reporter | None = None,
    ) -> None:  # fmt: skip
        from larder.loaders.source import find_packs

        packs = find_packs(uri, "litdata", split, store, reporter or Silent())
        super().__init__(
            packs.manifest, split, batch_size=batch_size, workers=workers, transform=transform,
            reader=f"StreamingDataset and StreamingDataLoader of litdata {version('litdata')}",
        )  # fmt: skip
        self._traffic = Traffic()
        self._loader: Any = None
        with ExitStack() as opened:
            cache = opened.enter_context(own_folder(Path(cache_dir), "litdata"))
            budget = plan_budget(
                [pack.bytes for pack in packs.files], cache, workers=self.workers, max_cache_size=max_cache_size,
                max_pre_download=max_pre_download,
            )  # fmt: skip
            place_index(packs, split, cache)
            from larder.loaders.litdata_images import Adjustment, Images, storage_options

            names = (pack.path.removeprefix(f"{split}/") for pack in packs.files)
            digests = dict(zip(names, (pack.sha256 for pack in packs.files), strict=True)) if check_digests else None
            settings = packs.folder.settings
            self.dataset = Images(
                f"{packs.folder.uri}/{split}", cache, len(packs.manifest.classes), transform,
                Adjustment(settings.s3_endpoint_url, settings.stall_seconds, budget.ahead, self._traffic, digests),
                shuffle=True, seed=seed, drop_last=False, storage_options=storage_options(settings),
                max_cache_size=budget.bytes,
            )  # fmt: skip
            self._opened = opened.pop_all()

    def _read(self, epoch: int, batches: int) -> Iterator[Batch]:
        """See Loader. A pass that is cut short ends its workers, which would read on."""
        from litdata import StreamingDataLoader

        whole = batches >= len(self)
        if self._loader is None:
            self._loader = StreamingDataLoader(
                self.dataset, batch_size=self.batch_size, num_workers=self.workers,
                persistent_workers=self.workers > 0, worker_init_fn=worker_start(),
            )  # fmt: skip
        yield from map(tuple, self._loader if whole else itertools.islice(self._loader, batches))
        if not whole:
            self._end_workers()

    def network(self) -> Network:
        """See Loader."""
        return self._traffic.read()._replace(requests=None)

    def close(self) -> None:
        """End the worker processes, which write to the cache, and remove that: no epoch can be read after it."""
        self._end_workers()
        self._opened.close()

    def _end_workers(self) -> None:
        end_workers(self._loader)
        self._loader = None


def place_index(packs: Packs, split: str, folder: Path) -> None:
    """Fetch LitData's index of a split, and put it into a folder for LitData.

    Raises InputError unless it is what the manifest says, and of the one form that larder writes: see larder.chunks.
    """
    from larder.loaders.source import fetch

    path = f"{split}/{INDEX}"
    lengths = {file.path.removeprefix(f"{split}/"): file.bytes for file in packs.files if file.path != path}
    own = next((file for file in packs.files if file.path == path), None)
    where = f"{packs.folder.uri}/{path}"
    try:
        if own is None or own.bytes > most_bytes(len(lengths)):
            raise ValueError("file: it is missing, or too long for so many chunks")
        with (folder / INDEX).open("w+b") as place:
            fetch(packs.folder, path, own.bytes, own.sha256, place)
            require_chunks(place.read(), lengths, packs.manifest.splits[split].samples)
    except ValueError as fault:
        raise InputError(
            f"{where} isn't the index that larder writes, and LitData would take it at its word ({fault})",
            next_step=RENEW,
        ) from None
