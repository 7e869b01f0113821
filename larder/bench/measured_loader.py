"""A loader that is ready to be measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from larder.bench.received import interface_bytes
from larder.loaders.loader import Loader
from larder.loaders.traffic import NetworkTraffic


class MeasuredLoader(NamedTuple):
    """A loader to measure, with its network counters and passes."""

    loader: Loader
    network: Callable[[], NetworkTraffic | None]
    """Returns the network traffic so far, including the warm-up; None for a loader that uses no network.

    Called only while no batches are being read. Raises ServiceError if the traffic can't be determined.
    """
    received: Callable[[], int] = interface_bytes
    """Returns the received bytes so far of the process that fetches for this loader; sampled during a pass.

    Raises ServiceError if the counter can't be read.
    """
    passes: tuple[str, ...] = ("epoch",)
    """Names of the measured epochs, in order. There are several if epochs differ in more than their order, such as cold
    and warm. Then there is no warm-up, since it would be the first of these epochs.
    """
