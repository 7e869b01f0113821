"""What every arm gives, whatever is behind it: batches, pass by pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from larder.contract import Manifest

if TYPE_CHECKING:
    from torch import Tensor

    Batch = tuple[Tensor, Tensor]
    """Images, float32 [B, 3, 224, 224], normalized; their classes, int64 [B]."""


class Network(NamedTuple):
    """What came over the network since the feed was opened. README.md says what each arm counts."""

    bytes: int
    requests: int | None
    """None where the arm's library doesn't tell."""


class Feed(Protocol):
    """An arm that is ready to be measured."""

    manifest: Manifest
    """Of the data that is read."""
    recipe: str
    """What is done to each image, in words."""
    loader: str
    """What reads, in words, with the release of a library of others."""
    images: int
    """How many one epoch has."""
    passes: tuple[str, ...]
    """What is measured, by names for the record: one epoch after another. More than one, where they differ in more than
    their order; then there is no warm-up, which would be the first of them.
    """

    def read(self, epoch: int, batches: int) -> Iterator[Batch]:
        """The first `batches` batches of an epoch, each epoch in an order of its own.

        Arms whose workers make batches by themselves leave up to one short batch for each; a whole epoch, which it is
        when `batches` of full size hold it, has then some more.

        Nothing is under way before the first is asked for, nor after the last is given, so that what the pass costs
        is what lies between. Worker processes outlive the pass.

        The block that the feed was opened in raises InputError for an image that can't be read, and ResourceError when
        a worker process is lost.
        """

    def network(self) -> Network | None:
        """What has come over the network so far, warm-up included; None for an arm that uses none.

        It is asked while nothing is under way. Raises ServiceError when it can't be had.
        """

    def received(self) -> int:
        """The counter of received bytes that is sampled while a pass is measured: that of whoever fetches for this arm.

        Raises ServiceError when it can't be had.
        """
