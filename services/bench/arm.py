"""Opens the arm that the settings name. No arm is imported before."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, cast

from larder.progress import Reporter
from services.bench import arms
from services.bench.settings import BenchSettings

if TYPE_CHECKING:
    from larder.bench.feed import Feed


class OpenFeed(Protocol):
    """What an arm's `open_feed` is: gives a feed, and releases what that holds when the block ends."""

    def __call__(self, settings: BenchSettings, reporter: Reporter) -> AbstractContextManager[Feed]:
        """Raises ConfigurationError, InputError or ServiceError when this arm can't be measured."""


def load(name: str) -> OpenFeed:
    """Import the arm `name`, one of `arms.names()`."""
    return cast(OpenFeed, importlib.import_module(f"{arms.__name__}.{name}").open_feed)


def open_arm(settings: BenchSettings, reporter: Reporter) -> AbstractContextManager[Feed]:
    """A feed by `settings.arm`. See OpenFeed."""
    return load(settings.arm)(settings, reporter)
