"""Import and open an arm by its name."""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, cast

from larder.bench import arms
from larder.bench.settings import LoaderSettings
from larder.errors import ConfigurationError
from larder.next_step import StageRun
from larder.progress import Reporter

if TYPE_CHECKING:
    from larder.bench.measured_loader import MeasuredLoader


class ArmOpener(Protocol):
    """An arm's `open_loader`: a context manager that yields a loader and releases its resources at the end."""

    def __call__(self, settings: LoaderSettings, reporter: Reporter) -> AbstractContextManager[MeasuredLoader]:
        """Open the loader. Raises ConfigurationError, InputError or ServiceError if this arm can't be measured."""


def import_arm(name: str) -> ArmOpener:
    """Import the arm `name`, one of `arms.arm_names()`."""
    return cast(ArmOpener, importlib.import_module(f"{arms.__name__}.{name}").open_loader)


def open_arm(name: str, settings: LoaderSettings, reporter: Reporter) -> AbstractContextManager[MeasuredLoader]:
    """Open the loader of an arm. See ArmOpener.

    Raises:
        ConfigurationError: If a package of an optional arm isn't installed, or only in an environment of its own.
    """
    if arms.is_optional(name) and (missing := arms.missing_packages(name)):
        raise ConfigurationError(
            f"{name} can't run: {arms.describe_missing(missing)}", next_step=arms.install_command(name)
        )
    if arms.is_elsewhere(name):
        raise ConfigurationError(
            f"{name} runs in an environment of its own, and only a comparison starts that",
            next_step=str(StageRun("bench", "compare").with_settings(LARDER_ARMS=name)),
        )
    return import_arm(name)(settings, reporter)
