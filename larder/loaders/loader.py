"""What every loader gives, whatever layout is behind it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import wraps
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from larder.contract import META, Artifact, Manifest
from larder.errors import ConfigurationError, InputError
from larder.loaders.failures import explained
from larder.loaders.remedies import ABSENT, OTHER_KIND
from larder.machine import available_cpus

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from larder.loaders.traffic import Network

    Batch = tuple[Tensor, Tensor]
    """Images, float32 [B, 3, 224, 224], normalized; their classes, int64 [B]."""
    Transform = Callable[[Image.Image], Tensor]
    """From an RGB image of any size to what a batch is made of: by default float32 [3, 224, 224]."""

Init = TypeVar("Init", bound=Callable[..., None])
_SPLITS_SHOWN = 10
REFERENCE = "PIL decode, Resize(256), CenterCrop(224), ImageNet normalization"
"""`preprocessing.reference_transform`, in words."""


class Loader(ABC):
    """Batches of one split, epoch by epoch, each in an order of its own.

    Iterating gives one epoch; the next iteration gives the next. A batch is a pair: images, float32 [B, 3, 224, 224]
    with the reference preprocessing, and their classes, int64 [B], which count from 0 as in `classes`. B is
    `batch_size`, and less where an epoch or a worker comes to its end.

    Attributes:
        manifest: What the data set is, as the stage that made it has recorded it.
        split: The split that is read.
        images: How many images an epoch has.
        batch_size: How many images a batch has.
        workers: How many processes make batches; 0 makes them in this one.
        reader: What reads, in words, with the release of a library of others.
        preprocessing: What is done to each image, in words.

    With `check_digests`, the default, nothing parses an image, or a chunk, unless it has the sha256 of the index that
    the manifest names; one that hasn't raises InputError. Without it, an image that was replaced or damaged after the
    data were made is trained with as long as it can be decoded.

    An image that can't be read raises InputError while a batch is waited for, a worker process that is lost
    ResourceError, and a store that doesn't answer ServiceError.

    Example:
        for epoch in range(3):
            for images, labels in loader:
                train(images, labels)
    """

    def __init__(
        self, manifest: Manifest, split: str, *, reader: str, batch_size: int, workers: int | None,
        transform: Transform | None,
    ) -> None:  # fmt: skip
        self.manifest, self.split, self.batch_size, self.reader = manifest, split, batch_size, reader
        self.images = manifest.splits[split].samples
        self.workers = available_cpus() if workers is None else workers
        self.preprocessing = REFERENCE if transform is None else "the caller's own transform"
        self._next_epoch = 0

    @property
    def classes(self) -> list[str]:
        """The names of the classes, by their numbers."""
        return self.manifest.classes

    def __len__(self) -> int:
        """How many batches an epoch has, all of them full but the last."""
        return math.ceil(self.images / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch."""
        epoch, self._next_epoch = self._next_epoch, self._next_epoch + 1
        return self.read(epoch)

    def read(self, epoch: int, batches: int | None = None) -> Iterator[Batch]:
        """Give the first batches of one epoch.

        Nothing is under way before the first is asked for, nor after the last is given, so that what a pass costs is
        what lies between. Worker processes outlive it.

        Args:
            epoch: Its number, which gives the order of the images.
            batches: How many. Loaders whose workers make batches by themselves leave up to one short batch for each;
                a whole epoch, which it is when `batches` of full size hold it, has then some more. None is a whole
                epoch.

        Yields:
            Images, float32 [B, 3, 224, 224], and classes, int64 [B].

        Raises:
            InputError: If an image can't be read.
            ResourceError: If a worker process is lost.
            ServiceError: If the store doesn't answer.
        """
        with explained():
            yield from self._read(epoch, len(self) if batches is None else batches)

    @abstractmethod
    def _read(self, epoch: int, batches: int) -> Iterator[Batch]:
        """See `read`; failures may come as DataLoader raises them."""

    def network(self) -> Network | None:
        """What has come over the network so far; None for a loader that uses none, or that can't tell.

        Ask while nothing is under way.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """End the worker processes. Iterating once more starts others."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def needs(extras: str) -> Callable[[Init], Init]:
    """Let a loader's `__init__` raise ConfigurationError for a missing package, with the extras that bring it."""

    def decorate(init: Init) -> Init:
        @wraps(init)
        def explain_what_is_missing(self: Loader, *args: Any, **kwargs: Any) -> None:
            try:
                init(self, *args, **kwargs)
            except ModuleNotFoundError as error:
                raise ConfigurationError(
                    f"{type(self).__name__} needs {error.name}, which is not installed",
                    next_step=f"install larder-data with its extras: `pip install 'larder-data[{extras}]'`",
                ) from error

        return cast(Init, explain_what_is_missing)

    return decorate


def check_manifest(manifest: Manifest | None, artifact: Artifact, split: str, where: str) -> Manifest:
    """The manifest found at `where`, which must be finished data of a kind and have the split.

    Raises InputError, or ConfigurationError when there is no such split.
    """
    if manifest is None:
        raise InputError(f"{where} holds no finished data: no {META}/manifest.json", next_step=ABSENT)
    if manifest.artifact != artifact:
        raise InputError(
            f"{where} holds {manifest.artifact!r} data; this loader reads {artifact!r}", next_step=OTHER_KIND
        )
    if split not in manifest.splits:
        raise ConfigurationError(
            f"split={split!r}: {where} has no such split",
            next_step=f"set it to one of: {', '.join(sorted(manifest.splits)[:_SPLITS_SHOWN])}",
        )
    return manifest


def end_workers(dataloader: Any) -> None:
    """End the worker processes of a DataLoader now, and not when the last reference to it goes."""
    iterator = getattr(dataloader, "_iterator", None)
    if iterator is not None:
        if hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
        dataloader._iterator = None
