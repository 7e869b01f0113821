"""Read images one by one from a bucket: one GET per image with s3fs, in a map-style dataset.

This is what a training script does after a move from local files to object storage, image by image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from larder.errors import InputError, LarderError
from larder.loaders.dataloader import MapStyleLoader
from larder.loaders.failures import WorkerError
from larder.loaders.hints import CREATE_AGAIN
from larder.loaders.image_table import ImageTable
from larder.loaders.loader import check_manifest, requires_extras
from larder.loaders.traffic import NetworkTraffic, TrafficCounter
from larder.progress import NullReporter, Reporter

if TYPE_CHECKING:
    from torch import Tensor

    from larder.loaders.loader import Transform
    from larder.store import BucketSettings, StoreSettings


class ObjectLoader(MapStyleLoader):
    """Load the objects `<uri>/<split>/<class>/*.jpg`, with one GET per image.

    The loader fetches the index that the manifest names, checks its digest, and lists the split once to verify that
    each image exists with its length. A transient failure (503, a connection reset, an interrupted body) is retried up
    to 5 times; the pause starts at 0.2 s and doubles. Refused requests and missing objects raise at once.

    Each epoch is a permutation of all images, determined by `seed`. `network` counts all response bodies and all
    requests, including retries.

    Args:
        uri: The dataset's folder in a bucket, `s3://bucket/[prefix/]name`.
        split: The split to read, such as "training".
        batch_size: Images per batch.
        workers: Processes that read and decode; 0 uses the calling process, None starts one per available core.
        seed: Seed of the shuffle.
        transform: Function from an RGB image to float32 [3, 224, 224]; None is the reference preprocessing.
        check_digests: Whether to check each image's sha256 against the index before decoding. See Loader.
        store: The store, from `larder.store.make_store`; None takes it from the environment (S3_ENDPOINT_URL,
            AWS_ACCESS_KEY_ID and so on).
        reporter: Receives progress while the index and the listing are read; None reports nothing.

    Raises:
        ConfigurationError: If there is no such split, or the store refuses access.
        InputError: If the objects don't match the manifest.
        ServiceError: If the store doesn't answer.

    Example:
        with ObjectLoader("s3://my-bucket/photos", "training", batch_size=64) as loader:
            for images, labels in loader:  # float32 [64, 3, 224, 224], int64 [64]
                print(images.mean(), loader.classes[labels[0]])
    """

    @requires_extras("s3fs,torch")
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
        reporter: Reporter | None = None,
    ) -> None:
        from larder.loaders.bucket_data import fetch_index, open_artifact_prefix, require_none_missing

        reporter = reporter or NullReporter()
        folder = open_artifact_prefix(uri, store)
        manifest = check_manifest(folder.find_manifest(), "objects", split, folder.uri)
        samples = manifest.splits[split].samples
        with reporter.task("reading the index", samples, "images") as task:
            table = ImageTable(fetch_index(folder, manifest), split, task.advance)
        if len(table) != samples:
            raise InputError(
                f"the index of {folder.uri} names {len(table):,} images in {split!r}, its manifest {samples:,}",
                next_step=CREATE_AGAIN,
            )
        with reporter.task(f"listing {split}", samples, "images") as task:
            require_none_missing(folder, table.first_missing(folder.list(split), task.advance))
        self._traffic = TrafficCounter()
        super().__init__(
            RemoteImages(folder.settings, folder.key, table, self._traffic, transform, check_digests),
            manifest,
            split,
            batch_size=batch_size,
            workers=workers,
            seed=seed,
            transform=transform,
        )

    def network(self) -> NetworkTraffic:
        """Return the bytes of all response bodies and the number of requests, including retries."""
        return self._traffic.read()


class RemoteImages:
    """Map-style dataset of a table's images below the key `folder`. Each process opens its reader on first use."""

    def __init__(
        self,
        settings: BucketSettings,
        folder: str,
        table: ImageTable,
        traffic: TrafficCounter,
        transform: Transform | None,
        check_digests: bool,
    ) -> None:
        from larder.loaders.preprocessing import decode, reference_transform
        from larder.loaders.s3_reader import ProcessReaders

        self._folder, self._table, self._readers = folder, table, ProcessReaders(settings, traffic)
        self._transform, self._decode = transform or reference_transform(), decode
        self._check_digests = check_digests

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        key = f"{self._folder}/{self._table.path(number)}"
        try:
            content = self._readers.get().read(key, self._table.length(number))
        except LarderError as error:
            raise WorkerError.from_error(error) from error
        sha256 = self._table.sha256(number) if self._check_digests else None
        return self._transform(self._decode(content, key, sha256)), self._table.label(number)
