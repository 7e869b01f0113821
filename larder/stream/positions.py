"""Keep the position of a stream in its epochs, and store and restore it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from larder.errors import ConfigurationError
from larder.stream.order import Batching, Segment

NOT_SHUFFLED = -1
"""The window of a stream that isn't shuffled."""
_STATE_VERSION = 2
"""It changes with the order of samples (`larder.stream.order`)."""


class Position:
    """Which batches of an epoch were read, with which ranks and batch sizes.

    Attributes:
        epoch: The epoch that the next batch belongs to.
        segments: What was read of it before the current loop.
        batches: Batches that the current loop has read.
        within: Samples of the next batch that were yielded one by one.
        loop: A number that changes with each loop over the stream, and with each move.
    """

    def __init__(self) -> None:
        self.epoch, self.segments, self.batches, self.within, self.loop = 0, list[Segment](), 0, 0, 0

    def move(self, epoch: int, segments: list[Segment]) -> None:
        """Go to an epoch, after what was read of it."""
        self.epoch, self.segments, self.batches, self.within = epoch, segments, 0, 0
        self.loop += 1

    def count_batch(self) -> None:
        """Count a batch."""
        self.batches += 1
        self.within = 0

    def segments_with(self, batching: Batching) -> list[Segment]:
        """Return what was read of the epoch, if the current loop reads it with this batching."""
        segments, batches = [*self.segments], self.batches
        if segments and segments[-1].batching == batching:
            batches += segments.pop().batches
        if self.within:
            read = batches * batching.batch_size + self.within
            return [*segments, Segment(Batching(batching.world_size, 1, "keep"), read)]
        return [*segments, Segment(batching, batches)] if batches else segments

    def pack(self, batching: Batching, order: Mapping[str, Any]) -> dict[str, Any]:
        """Return the state that `unpack` takes.

        Args:
            batching: How the current loop reads.
            order: What the order of samples depends on.
        """
        segments = [[*batching, batches] for batching, batches in self.segments_with(batching)]
        return {"version": _STATE_VERSION, **order, "epoch": self.epoch, "segments": segments}

    def unpack(self, state: Mapping[str, Any], order: Mapping[str, Any]) -> None:
        """Go to the position of a state.

        Args:
            state: What `pack` returned.
            order: What the order of samples depends on, here.

        Raises:
            ConfigurationError: If the state is of another order or version, or isn't a state.
        """
        _require_version(state)
        try:
            segments = [
                Segment(Batching(int(world), int(size), last), int(batches))
                for world, size, last, batches in state["segments"]
            ]
            epoch = int(state["epoch"])
            given = {name: state[name] for name in order}
            if epoch < 0 or any(not _is_sane(segment, given["samples"]) for segment in segments):
                raise ValueError
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ConfigurationError(
                "this isn't the state of a stream", next_step="give what `state_dict()` returned"
            ) from None
        if given != order:
            raise ConfigurationError(
                f"the state is of a stream with another order: {'; '.join(_differences(given, order))}",
                next_step="use the same shards, `seed`, `shuffle` and `window_bytes`, or start from the beginning",
            )
        self.move(epoch, segments)


def _differences(given: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[str]:
    """Yield how a state's order differs from that of the stream, by the arguments that users pass."""
    has_others = (given["shards"], given["samples"]) != (own["shards"], own["samples"])
    if has_others:
        counts = f", with {given['samples']} samples, and these have {own['samples']}"
        yield f"its shards were others{counts if given['samples'] != own['samples'] else ''}"
    if given["seed"] != own["seed"]:
        yield f"it has seed={given['seed']}, and this stream seed={own['seed']}"
    was_shuffled, is_shuffled = given["window"] != NOT_SHUFFLED, own["window"] != NOT_SHUFFLED
    if was_shuffled != is_shuffled:
        yield f"it has shuffle={was_shuffled}, and this stream shuffle={is_shuffled}"
    elif given["window"] != own["window"] and not has_others:
        yield (
            f"its window_bytes made a window of {given['window']} samples, and those of this stream make one of "
            f"{own['window']}"
        )


def _require_version(state: Any) -> None:
    """Raise ConfigurationError if a state is of another version of the order."""
    version = state.get("version") if isinstance(state, Mapping) else None
    if isinstance(version, int) and version != _STATE_VERSION:
        raise ConfigurationError(
            f"the state has version {version}, and this larder reads version {_STATE_VERSION}, of another order",
            next_step="resume with the version of larder that saved it, or begin its epoch again with `set_epoch`",
        )


def _is_sane(segment: Segment, samples: int) -> bool:
    (world_size, batch_size, last), batches = segment
    return 0 < world_size <= samples and batch_size > 0 and last in ("drop", "pad", "keep") and batches >= 0
