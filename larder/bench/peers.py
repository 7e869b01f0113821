"""What arms of other libraries share: objects and files of a split, keys in the environment, a DataLoader."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from larder.bench.arms import ARMS
from larder.bench.layout_locations import locate_in_bucket, locate_tree
from larder.bench.settings import LoaderSettings
from larder.contract import Manifest, find_manifest, read_index
from larder.loaders.dataloader import MapStyleLoader
from larder.loaders.image_table import ImageTable
from larder.loaders.loader import Loader, check_manifest
from larder.progress import Reporter
from larder.store import region_of

if TYPE_CHECKING:
    from larder.bucket import BucketPrefix
    from larder.loaders.loader import Batch


class ObjectImages(NamedTuple):
    """The objects of a split."""

    folder: BucketPrefix
    manifest: Manifest
    table: ImageTable
    """Path, length, label and digest of each image."""

    def uri(self, number: int) -> str:
        """Return the URI of an image."""
        return f"{self.folder.uri}/{self.table.path(number)}"


def find_objects(settings: LoaderSettings, reporter: Reporter) -> ObjectImages:
    """Return the objects of the split, from the index that the manifest names.

    Raises:
        ConfigurationError: If there is no such split, or the store refuses access.
        InputError: If there are no objects.
        ServiceError: If the store doesn't answer.
    """
    from larder.loaders.bucket_data import fetch_index, open_artifact_prefix

    folder = open_artifact_prefix(locate_in_bucket(settings, "tree", reporter), settings)
    manifest = check_manifest(folder.find_manifest(), "objects", settings.split, folder.uri)
    return ObjectImages(folder, manifest, ImageTable(fetch_index(folder, manifest), settings.split, lambda: None))


def find_files(settings: LoaderSettings, reporter: Reporter) -> tuple[Path, Manifest, ImageTable]:
    """Return the tree's folder, its manifest, and the files of the split.

    Raises:
        ConfigurationError: If there is no such split.
        InputError: If there is no tree.
    """
    folder = locate_tree(settings, reporter)
    manifest = check_manifest(find_manifest(folder), "tree", settings.split, str(folder))
    return folder, manifest, ImageTable(read_index(folder, manifest), settings.split, lambda: None)


def make_map_style_loader(
    arm: str, dataset: Any, manifest: Manifest, settings: LoaderSettings, reader: str
) -> MapStyleLoader:
    """Return torch's DataLoader with the arm's options, over a dataset of (float32 [3, 224, 224], label)."""
    loader = MapStyleLoader(
        dataset,
        manifest,
        settings.split,
        batch_size=settings.batch_size,
        workers=settings.workers,
        seed=settings.seed,
        transform=None,
        options=ARMS[arm].options,
    )
    loader.reader = reader
    return loader


class EpochLoader(Loader):
    """Loader for a library that starts a new iteration for each epoch.

    Args:
        manifest: The manifest of the data.
        settings: Its fields `split`, `batch_size` and `workers`.
        reader: Description of the library.
        open_epoch: Yields the batches of an epoch; when closed earlier, ends what it has started.
        preprocessing: Description of the preprocessing; empty for the reference.
    """

    def __init__(
        self,
        manifest: Manifest,
        settings: LoaderSettings,
        reader: str,
        open_epoch: Callable[[int], Generator[Batch, None, None]],
        preprocessing: str = "",
    ) -> None:
        super().__init__(
            manifest,
            settings.split,
            reader=reader,
            batch_size=settings.batch_size,
            workers=settings.workers,
            transform=None,
        )
        self.preprocessing = preprocessing or self.preprocessing
        self._open_epoch = open_epoch

    def _read(self, epoch: int, batches: int) -> Iterator[Batch]:
        opened = self._open_epoch(epoch)
        try:
            yield from itertools.islice(opened, batches if batches < len(self) else None)
        finally:
            opened.close()

    def close(self) -> None:
        """Do nothing: each epoch ends what it has started."""


def export_keys(settings: LoaderSettings) -> None:
    """Put the store's address and keys into the environment, where other libraries look for them."""
    values = {
        "AWS_ACCESS_KEY_ID": settings.aws_access_key_id,
        "AWS_SECRET_ACCESS_KEY": settings.aws_secret_access_key.get_secret_value(),
        "AWS_SESSION_TOKEN": settings.aws_session_token.get_secret_value(),
        "AWS_REGION": region_of(settings),
        "AWS_ENDPOINT_URL": settings.s3_endpoint_url,
        "S3_ENDPOINT_URL": settings.s3_endpoint_url,
    }
    os.environ.update({name: value for name, value in values.items() if value})
