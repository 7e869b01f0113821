"""Import and open the arm that the settings name."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, cast

from larder.progress import Reporter
from services.bench import arms
from services.bench.settings import BenchSettings

if TYPE_CHECKING:
    from larder.bench.measured_loader import MeasuredLoader


class ArmOpener(Protocol):
    """An arm's `open_loader`: a context manager that yields a loader and releases its resources at the end."""

    def __call__(self, settings: BenchSettings, reporter: Reporter) -> AbstractContextManager[MeasuredLoader]:
        """Open the loader. Raises ConfigurationError, InputError or ServiceError if this arm can't be measured."""


def import_arm(name: str) -> ArmOpener:
    """Import the arm `name`, one of `arms.arm_names()`."""
    return cast(ArmOpener, importlib.import_module(f"{arms.__name__}.{name}").open_loader)


def open_arm(settings: BenchSettings, reporter: Reporter) -> AbstractContextManager[MeasuredLoader]:
    """Open the loader of `settings.arm`. See ArmOpener."""
    return import_arm(settings.arm)(settings, reporter)
