"""The interface of all loaders, and what they share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from larder.contract import META, Artifact, Manifest
from larder.errors import ConfigurationError, InputError, without_causes
from larder.loaders.failures import map_worker_errors
from larder.loaders.hints import CREATE_FIRST, NAME_OTHER_PLACE
from larder.machine import available_cpus

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from larder.loaders.traffic import NetworkTraffic

    Batch = tuple[Tensor, Tensor]
    """Normalized images, float32 [B, 3, 224, 224], and their labels, int64 [B]."""
    Transform = Callable[[Image.Image], Tensor]
    """Convert an RGB image of any size to a tensor; by default float32 [3, 224, 224]."""

Init = TypeVar("Init", bound=Callable[..., None])
_SPLITS_SHOWN = 10
REFERENCE = "PIL decode, Resize(256), CenterCrop(224), ImageNet normalization"
"""Description of `preprocessing.reference_transform`."""


class Loader(ABC):
    """Base class of all loaders: batches of one split, epoch by epoch.

    Each iteration yields the next epoch, in another order. A batch is a pair: images, float32 [B, 3, 224, 224],
    and labels, int64 [B], which index `classes`. B is `batch_size`; the last batch of an epoch or of a worker may be
    smaller.

    With `check_digests` (the default), an image or chunk is parsed only if its sha256 matches the index that the
    manifest names; a mismatch raises InputError. Without it, an image that was replaced or damaged later is used as
    long as it decodes.

    Attributes:
        manifest: The manifest of the data.
        split: The split that is read.
        images: Images per epoch.
        batch_size: Images per batch.
        workers: Worker processes; 0 loads in the calling process.
        reader: Description of the reading library, with its version.
        preprocessing: Description of the preprocessing.

    Raises:
        InputError: While iterating, if an image can't be read.
        ResourceError: While iterating, if a worker process is lost.
        ServiceError: While iterating, if the store doesn't answer.

    Example:
        for epoch in range(3):
            for images, labels in loader:
                train(images, labels)
    """

    def __init__(
        self,
        manifest: Manifest,
        split: str,
        *,
        reader: str,
        batch_size: int,
        workers: int | None,
        transform: Transform | None,
    ) -> None:
        self.manifest, self.split, self.batch_size, self.reader = manifest, split, batch_size, reader
        self.images = manifest.splits[split].samples
        self.workers = available_cpus() if workers is None else workers
        self.preprocessing = REFERENCE if transform is None else "the caller's own transform"
        self._next_epoch = 0

    @property
    def classes(self) -> list[str]:
        """Names of the classes; a label is an index into this list."""
        return self.manifest.classes

    def __len__(self) -> int:
        """Return the number of batches per epoch if all but the last are full."""
        return math.ceil(self.images / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of the next epoch."""
        epoch, self._next_epoch = self._next_epoch, self._next_epoch + 1
        return self.read(epoch)

    def read(self, epoch: int, batches: int | None = None) -> Iterator[Batch]:
        """Yield the first batches of one epoch.

        Reading starts when the first batch is requested and stops after the last one, so that timing the iteration
        measures the whole cost. Worker processes stay alive.

        Args:
            epoch: Number of the epoch; it determines the order of the images.
            batches: Number of batches to yield; None, or at least `len(self)`, reads the whole epoch. Where workers
                build their own batches (shards, chunks), each worker's last batch may be smaller, so that a whole epoch
                may have more than `len(self)` batches.

        Yields:
            Images, float32 [B, 3, 224, 224], and labels, int64 [B].

        Raises:
            InputError: If an image can't be read.
            ResourceError: If a worker process is lost.
            ServiceError: If the store doesn't answer.
        """
        with without_causes(), map_worker_errors():
            yield from self._read(epoch, len(self) if batches is None else batches)

    @abstractmethod
    def _read(self, epoch: int, batches: int) -> Iterator[Batch]:
        """Implement `read`; may raise errors as DataLoader raises them."""

    def network(self) -> NetworkTraffic | None:
        """Return the network traffic so far, or None if the loader uses no network or can't count it.

        Call it only while no epoch is being read.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """End the worker processes. The next iteration starts new ones."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def requires_extras(extras: str) -> Callable[[Init], Init]:
    """Decorate `__init__` of a loader: for a missing package, raise ConfigurationError with the `extras` to install."""

    def decorate(init: Init) -> Init:
        @wraps(init)
        def explain_what_is_missing(self: Loader, *args: Any, **kwargs: Any) -> None:
            try:
                with without_causes():
                    init(self, *args, **kwargs)
            except ModuleNotFoundError as error:
                raise ConfigurationError(
                    f"{type(self).__name__} needs {error.name}, which is not installed",
                    next_step=f"install larder-data with its extras: `pip install 'larder-data[{extras}]'`",
                ) from None

        return cast(Init, explain_what_is_missing)

    return decorate


def check_manifest(manifest: Manifest | None, artifact: Artifact, split: str, where: str) -> Manifest:
    """Return a manifest if it has the right artifact and the split.

    Args:
        manifest: The manifest that was found; None if there is none.
        artifact: The artifact that the loader reads.
        split: The split that the loader reads.
        where: Location of the data, for messages.

    Raises:
        InputError: If there is no manifest, or it describes another artifact.
        ConfigurationError: If the manifest has no such split.
    """
    if manifest is None:
        raise InputError(f"{where} holds no finished data: no {META}/manifest.json", next_step=CREATE_FIRST)
    if manifest.artifact != artifact:
        raise InputError(
            f"{where} holds {manifest.artifact!r} data; this loader reads {artifact!r}", next_step=NAME_OTHER_PLACE
        )
    if split not in manifest.splits:
        raise ConfigurationError(
            f"split={split!r}: {where} has no such split",
            next_step=f"set it to one of: {', '.join(sorted(manifest.splits)[:_SPLITS_SHOWN])}",
        )
    return manifest


def end_workers(dataloader: Any) -> None:
    """End the worker processes of a DataLoader now, not when it is garbage-collected."""
    iterator = getattr(dataloader, "_iterator", None)
    if iterator is not None:
        if hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
        dataloader._iterator = None
