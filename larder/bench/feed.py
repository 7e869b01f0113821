"""A loader that is ready to be measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from larder.bench.received import interface_bytes
from larder.loaders.loader import Loader
from larder.loaders.traffic import Network


class Feed(NamedTuple):
    """A loader to measure, with its network counters and passes."""

    loader: Loader
    network: Callable[[], Network | None]
    """What has come over the network so far, warm-up included; None for a loader that uses none.

    It is asked while nothing is under way. Raises ServiceError when it can't be had.
    """
    received: Callable[[], int] = interface_bytes
    """The counter of received bytes, sampled during a pass, of the process that fetches for this loader.

    Raises ServiceError when it can't be had.
    """
    passes: tuple[str, ...] = ("epoch",)
    """What is measured, by names for the record: one epoch after another. More than one, where they differ in more than
    their order; then there is no warm-up, which would be the first of them.
    """
