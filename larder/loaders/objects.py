"""Reads image by image from a bucket: one GET for each, by s3fs, in a map-style dataset under PyTorch's DataLoader.

What a training script does that was moved from local files to object storage image by image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from larder.errors import InputError, LarderError
from larder.loaders.dataloader import MapStyleLoader
from larder.loaders.failures import CarriedError
from larder.loaders.image_table import ImageTable
from larder.loaders.loader import check_manifest, needs
from larder.loaders.remedies import RENEW
from larder.loaders.traffic import Network, Traffic
from larder.progress import Reporter, Silent

if TYPE_CHECKING:
    from torch import Tensor

    from larder.loaders.loader import Transform
    from larder.store import BucketSettings, StoreSettings


class ObjectLoader(MapStyleLoader):
    """Reads the objects `<uri>/<split>/<class>/*.jpg`, with one GET per image.

    It follows the manifest: it fetches the index that this names, checks its digest, and lists the split once to see
    that each image is there with its length. A GET that fails in passing (503, a reset, a body that breaks off) is
    tried up to 6 times, with pauses from 0.2 s that double; refusals and missing objects are raised at once.

    Each epoch is a permutation of all images, the same for the same seed. `network` counts the bodies of all answers,
    and all requests, repeats included.

    Args:
        uri: The data set's folder in a bucket, `s3://bucket/[prefix/]name`.
        split: The split to read, such as "training".
        batch_size: Images per batch.
        workers: Processes that read and decode; 0 does both in this one, None takes one per available core.
        seed: Seed of the shuffle.
        transform: From an RGB image to float32 [3, 224, 224]; None is the reference preprocessing.
        check_digests: Whether an image must have the sha256 of the index before it is decoded. See Loader.
        store: The store, from `larder.store.make_store`; None takes it from the environment (S3_ENDPOINT_URL,
            AWS_ACCESS_KEY_ID and so on).
        reporter: What is told of the index and the listing as they are read; by default nobody.

    Raises:
        ConfigurationError: If there is no such split, or if the store refuses.
        InputError: If the objects aren't what the manifest says.
        ServiceError: If the store doesn't answer.

    Example:
        with ObjectLoader("s3://my-bucket/photos", "training", batch_size=64) as loader:
            for images, labels in loader:  # float32 [64, 3, 224, 224], int64 [64]
                print(images.mean(), loader.classes[labels[0]])
    """

    @needs("s3fs,torch")
    def __init__(
        self, uri: str, split: str, *, batch_size: int = 64, workers: int | None = None, seed: int = 0,
        transform: Transform | None = None, check_digests: bool = True, store: StoreSettings | None = None,
        reporter: Reporter | None = None,
    ) -> None:  # fmt: skip
        from larder.loaders.source import open_folder, read_index, require_none_missing

        reporter = reporter or Silent()
        folder = open_folder(uri, store)
        manifest = check_manifest(folder.find_manifest(), "objects", split, folder.uri)
        samples = manifest.splits[split].samples
        with reporter.task("reading the index", samples, "images") as task:
            table = ImageTable(read_index(folder, manifest), split, task.advance)
        if len(table) != samples:
            raise InputError(
                f"the index of {folder.uri} names {len(table):,} images in {split!r}, its manifest {samples:,}",
                next_step=RENEW,
            )
        with reporter.task(f"listing {split}", samples, "images") as task:
            require_none_missing(folder, table.first_missing(folder.list(split), task.advance))
        self._traffic = Traffic()
        super().__init__(
            RemoteImages(folder.settings, folder.key, table, self._traffic, transform, check_digests), manifest, split,
            batch_size=batch_size, workers=workers, seed=seed, transform=transform,
        )  # fmt: skip

    def network(self) -> Network:
        """See Loader."""
        return self._traffic.read()


class RemoteImages:
    """The images of a table below the key `folder`. Opens a reader in each process that reads, and none before."""

    def __init__(
        self, settings: BucketSettings, folder: str, table: ImageTable, traffic: Traffic, transform: Transform | None,
        check_digests: bool,
    ) -> None:  # fmt: skip
        from larder.loaders.preprocessing import decode, reference_transform
        from larder.loaders.s3_reader import Readers

        self._folder, self._table, self._readers = folder, table, Readers(settings, traffic)
        self._transform, self._decode = transform or reference_transform(), decode
        self._check_digests = check_digests

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        key = f"{self._folder}/{self._table.path(number)}"
        try:
            content = self._readers.own().read(key, self._table.length(number))
        except LarderError as error:
            raise CarriedError.of(error) from error
        sha256 = self._table.sha256(number) if self._check_digests else None
        return self._transform(self._decode(content, key, sha256)), self._table.label(number)
