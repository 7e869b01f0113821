"""Read LitData chunks from a bucket with StreamingDataset and StreamingDataLoader, through a cache on disk."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from larder.chunks import INDEX, max_index_bytes, require_chunks
from larder.errors import InputError
from larder.loaders.cache import locked_folder, plan_budget
from larder.loaders.failures import make_worker_init
from larder.loaders.hints import CREATE_AGAIN
from larder.loaders.loader import Loader, end_workers, requires_extras
from larder.loaders.traffic import NetworkTraffic, TrafficCounter
from larder.progress import NullReporter, Reporter

if TYPE_CHECKING:
    from larder.loaders.bucket_data import PackedSplit
    from larder.loaders.loader import Batch, Transform
    from larder.store import StoreSettings


class ChunkLoader(Loader):
    """Load the chunks `<uri>/<split>/chunk-*.bin`, prefetched and cached on disk for later epochs.

    LitData runs unmodified except for these points:

    - Plain http, AWS_CA_BUNDLE and `max_pre_download` are respected.
    - A chunk whose length or digest differs from the index raises an error instead of blocking.
    - Errors in LitData's threads are raised with their cause.
    - The loader fetches LitData's index once, checks that larder wrote it, and passes it to LitData. The index
      determines how samples are decoded.

    LitData shuffles within and across chunks, and counts epochs itself. `network` counts only chunks that were fetched
    completely, and no requests.

    The cache is a locked folder in `cache_dir`, so each loader needs its own `cache_dir`. The loader empties it at the
    start, and `close` removes it. Several ChunkLoaders in one process can't count their traffic separately.

    Args:
        uri: The chunks' folder in a bucket, `s3://bucket/[prefix/]name`.
        split: The split to read, such as "training".
        cache_dir: Folder for the cache; created if missing.
        batch_size: Images per batch.
        workers: Processes that read and decode; 0 uses the calling process, None starts one per available core.
        seed: Seed of the shuffle.
        transform: Function from an RGB image to float32 [3, 224, 224]; None is the reference preprocessing.
        check_digests: Whether to check each chunk's sha256 against the index before LitData reads it. See Loader.
        store: The store, from `larder.store.make_store`; None takes it from the environment (S3_ENDPOINT_URL,
            AWS_ACCESS_KEY_ID and so on).
        max_cache_size: Maximum size of the cache, in bytes; None is three quarters of the free space.
        max_pre_download: Chunks that each worker prefetches, at least 2; None leaves it to LitData, or derives it from
            the size of a cache that can't hold the split.
        reporter: Receives progress while the split is listed; None reports nothing.

    Raises:
        ConfigurationError: If there is no such split, the store refuses access, or `max_cache_size` is so small that
            LitData's workers would deadlock.
        InputError: If the chunks don't match the manifest.
        ServiceError: If the store doesn't answer.
        StorageError: If the cache can't be created, is in use, or has too little space.

    Example:
        with ChunkLoader("s3://my-bucket/photos-litdata", "training", cache_dir="/tmp/photos", batch_size=64) as loader:
            for images, labels in loader:  # float32 [64, 3, 224, 224], int64 [64]
                print(images.mean(), loader.classes[labels[0]])
    """

    @requires_extras("litdata,s3fs,torch")
    def __init__(
        self,
        uri: str,
        split: str,
        *,
        cache_dir: Path | str,
        batch_size: int = 64,
        workers: int | None = None,
        seed: int = 0,
        transform: Transform | None = None,
        check_digests: bool = True,
        store: StoreSettings | None = None,
        max_cache_size: int | None = None,
        max_pre_download: int | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        from larder.loaders.bucket_data import find_packed_split

        packs = find_packed_split(uri, "litdata", split, store, reporter or NullReporter())
        super().__init__(
            packs.manifest,
            split,
            batch_size=batch_size,
            workers=workers,
            transform=transform,
            reader=f"StreamingDataset and StreamingDataLoader of litdata {version('litdata')}",
        )
        self._traffic = TrafficCounter()
        self._loader: Any = None
        with ExitStack() as opened:
            cache = opened.enter_context(locked_folder(Path(cache_dir), "litdata"))
            budget = plan_budget(
                [pack.bytes for pack in packs.files],
                cache,
                workers=self.workers,
                max_cache_size=max_cache_size,
                max_pre_download=max_pre_download,
            )
            fetch_litdata_index(packs, split, cache)
            from larder.loaders.litdata_images import LitDataImages, LitDataPatch, storage_options

            names = (pack.path.removeprefix(f"{split}/") for pack in packs.files)
            digests = dict(zip(names, (pack.sha256 for pack in packs.files), strict=True)) if check_digests else None
            settings = packs.folder.settings
            self.dataset = LitDataImages(
                f"{packs.folder.uri}/{split}",
                cache,
                len(packs.manifest.classes),
                transform,
                LitDataPatch(
                    settings.s3_endpoint_url, settings.stall_seconds, budget.prefetch_chunks, self._traffic, digests
                ),
                shuffle=True,
                seed=seed,
                drop_last=False,
                storage_options=storage_options(settings),
                max_cache_size=budget.bytes,
            )
            self._opened = opened.pop_all()

    def _read(self, epoch: int, batches: int) -> Iterator[Batch]:
        """End the workers after a partial pass: they would keep reading."""
        from litdata import StreamingDataLoader

        is_full_pass = batches >= len(self)
        if self._loader is None:
            self._loader = StreamingDataLoader(
                self.dataset,
                batch_size=self.batch_size,
                num_workers=self.workers,
                persistent_workers=self.workers > 0,
                worker_init_fn=make_worker_init(),
            )
        yield from map(tuple, self._loader if is_full_pass else itertools.islice(self._loader, batches))
        if not is_full_pass:
            self._end_workers()

    def network(self) -> NetworkTraffic:
        """Return the bytes of all chunks fetched completely; `requests` is None."""
        return self._traffic.read()._replace(requests=None)

    def close(self) -> None:
        """End the worker processes and remove the cache. The loader can't be used afterwards."""
        self._end_workers()
        self._opened.close()

    def _end_workers(self) -> None:
        end_workers(self._loader)
        self._loader = None


def fetch_litdata_index(packs: PackedSplit, split: str, folder: Path) -> None:
    """Fetch LitData's index of a split into a folder.

    Args:
        packs: The chunks of the split.
        split: The split, such as "training".
        folder: The folder that receives `index.json`.

    Raises:
        InputError: If the index doesn't match the manifest, or isn't in the form that larder writes: see
            `larder.chunks`.
    """
    from larder.loaders.bucket_data import download_object

    path = f"{split}/{INDEX}"
    lengths = {file.path.removeprefix(f"{split}/"): file.bytes for file in packs.files if file.path != path}
    index_entry = next((file for file in packs.files if file.path == path), None)
    where = f"{packs.folder.uri}/{path}"
    try:
        if index_entry is None or index_entry.bytes > max_index_bytes(len(lengths)):
            raise ValueError("file: it is missing, or too long for so many chunks")
        with (folder / INDEX).open("w+b") as index_file:
            download_object(packs.folder, path, index_entry.bytes, index_entry.sha256, index_file)
            require_chunks(index_file.read(), lengths, packs.manifest.splits[split].samples)
    except ValueError as fault:
        raise InputError(
            f"{where} isn't the index that larder writes, and LitData would trust it ({fault})",
            next_step=CREATE_AGAIN,
        ) from None
