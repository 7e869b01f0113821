"""Check the arguments of a stream."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Sequence
from typing import Any

from larder.errors import ConfigurationError
from larder.stream.samples import Skipped
from larder.stream.transforms import Transform
from larder.suggest import did_you_mean


def require_choices(*arguments: tuple[str, Any, Iterable[str]]) -> None:
    """Raise ConfigurationError if an argument, given as name, value and choices, isn't one of its choices."""
    for name, value, choices in arguments:
        if value not in choices:
            meant = did_you_mean(str(value), choices)
            raise ConfigurationError(
                f"{name}={value!r}: unknown{meant}", next_step=f"choose one of: {', '.join(choices)}"
            )


def as_integers(**arguments: Any) -> list[int]:
    """Return arguments as Python's integers, which JSON can store. Raise ConfigurationError if one isn't one."""
    integers = []
    for name, value in arguments.items():
        try:
            integers.append(operator.index(value))
        except TypeError:
            raise ConfigurationError(f"{name}={value!r}: not an integer", next_step=f"correct {name}") from None
    return integers


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


def parse_rank(rank: Any, world_size: Any) -> tuple[int, int] | None:
    """Return rank and number of ranks; None if both are None. Raise ConfigurationError unless they fit each other."""
    if rank is None and world_size is None:
        return None
    if rank is None or world_size is None:
        raise ConfigurationError("rank and world_size belong together", next_step="give both of them, or none")
    rank, world_size = as_integers(rank=rank, world_size=world_size)
    if not 0 <= rank < world_size:
        raise ConfigurationError(
            f"rank={rank}, world_size={world_size}: ranks are 0 to {world_size - 1}", next_step="correct them"
        )
    return rank, world_size


def rank_of_torchrun() -> tuple[int, int]:
    """Return rank and number of ranks, from the variables that torchrun sets; 0 and 1 without them.

    Raises:
        ConfigurationError: If they are invalid.
    """
    given = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE")]
    if not any(given):
        return 0, 1
    if not all(text.isdigit() for text in given) or int(given[0]) >= int(given[1]):
        raise ConfigurationError(
            f"RANK={given[0]!r} and WORLD_SIZE={given[1]!r}: they must be a rank and the number of ranks",
            next_step="start the script with torchrun, or give `rank` and `world_size`",
        )
    return int(given[0]), int(given[1])


def require_samples(uri: str, samples: int, ranks: int, workers: int, skipped: Sequence[Skipped]) -> None:
    """Raise ConfigurationError if there are fewer samples than processes that share them out.

    Args:
        uri: Name of the shards in messages.
        samples: Number of samples.
        ranks: Number of ranks.
        workers: Number of workers of each rank's DataLoader; 1 without one.
        skipped: Samples that were left out.
    """
    if samples >= ranks * workers:
        return
    readers = f"{ranks:,} ranks" + (f" with {workers:,} workers each" if workers > 1 else "")
    why = f"; the first one that was left out: {skipped[0].shard}, {skipped[0].reason}" if skipped else ""
    raise ConfigurationError(
        f"{uri} has {samples:,} samples for {readers}{why}",
        next_step="train with at most as many ranks" + (", times workers," if workers > 1 else "") + " as samples",
    )
