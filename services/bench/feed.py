"""What every arm gives, whatever is behind it: batches, pass by pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from larder.contract import Manifest

if TYPE_CHECKING:
    from torch import Tensor

    Batch = tuple[Tensor, Tensor]
    """Images, float32 [B, 3, 224, 224], normalized; their classes, int64 [B]."""


class Feed(Protocol):
    """An arm that is ready to be measured.

    What only some arms can tell, as bytes over the network or requests made, is a further member here.
    """

    manifest: Manifest
    """Of the data that is read."""
    recipe: str
    """What is done to each image, in words."""
    images: int
    """How many one epoch has."""

    def read(self, epoch: int, batches: int) -> Iterator[Batch]:
        """The first `batches` batches of an epoch, each epoch in an order of its own.

        Nothing is under way before the first is asked for, nor after the last is given, so that what the pass costs
        is what lies between. Worker processes outlive the pass.

        The block that the feed was opened in raises InputError for an image that can't be read, and ResourceError when
        a worker process is lost.
        """
