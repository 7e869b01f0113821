"""Check the arguments of a stream."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from larder.errors import ConfigurationError
from larder.stream.transforms import Transform


def require_choices(*arguments: tuple[str, Any, Iterable[str]]) -> None:
    """Raise ConfigurationError if an argument, given as name, value and choices, isn't one of its choices."""
    for name, value, choices in arguments:
        if value not in choices:
            raise ConfigurationError(f"{name}={value!r}: unknown", next_step=f"choose one of: {', '.join(choices)}")


def require_integers(**arguments: Any) -> None:
    """Raise ConfigurationError if an argument is no integer."""
    for name, value in arguments.items():
        try:
            operator.index(value)
        except TypeError:
            raise ConfigurationError(f"{name}={value!r}: not an integer", next_step=f"correct {name}") from None


def require_at_least(*arguments: tuple[str, int, int]) -> None:
    """Raise ConfigurationError if an argument, given as name, number and minimum, is below its minimum."""
    for name, number, least in arguments:
        if number < least:
            raise ConfigurationError(f"{name}={number:,}: must be at least {least:,}", next_step=f"raise {name}")


def require_transform(transform: Any) -> None:
    """Raise ConfigurationError unless this is a transform or None."""
    if transform is not None and not isinstance(transform, Transform):
        raise ConfigurationError(
            f"transform={transform!r}: not a transform of larder.stream",
            next_step="give CenterCrop or RandomResizedCrop; for anything else, decode what `samples()` yields",
        )


def require_rank(rank: int | None, world_size: int | None) -> None:
    """Raise ConfigurationError unless rank and number of ranks fit each other, or both are None."""
    if (rank is None) != (world_size is None):
        raise ConfigurationError("rank and world_size belong together", next_step="give both of them, or none")
    if world_size is not None and rank is not None and not 0 <= rank < world_size:
        raise ConfigurationError(
            f"rank={rank}, world_size={world_size}: ranks are 0 to {world_size - 1}", next_step="correct them"
        )
