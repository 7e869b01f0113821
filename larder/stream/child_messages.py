"""Define the messages between a stream and the child process that reads for it.

To the child, the stream sends pickles: `PillowSettings` and a `ReadSetup` first, then a `Command` for each epoch and
each batch. The child answers with JSON, so the parent never unpickles what comes from a process that decodes strangers'
images.
"""

from __future__ import annotations

import builtins
import json
import traceback
from typing import Any, NamedTuple

from larder import errors
from larder.errors import LarderError
from larder.stream.samples import Skipped
from larder.stream.thread_reader import Epoch
from larder.terminal import Lines

SENT_AHEAD = 2
"""Batches that the child sends before they are requested."""


class Command(NamedTuple):
    """Read an epoch, or send one more batch."""

    epoch: Epoch | None
    free: list[int]
    """Slots that nobody refers to any more."""


class Batch(NamedTuple):
    """A batch that the child has written."""

    slot: int
    skipped: dict[int, Skipped]
    """The samples that can't be used, by their places in the batch."""


def pack_batch(batch: Batch) -> bytes:
    """Return the message that `unpack` makes a Batch of."""
    return json.dumps({"slot": batch.slot, "skipped": list(batch.skipped.items())}).encode()


def pack_error(error: BaseException) -> bytes:
    """Return the message that `unpack` makes an error of."""
    fields: dict[str, Any] = {"error": type(error).__name__, "text": str(error)}
    if isinstance(error, LarderError):
        kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        fields |= {"error": kind.__name__, "what": error.what, "next_step": error.next_step}
    else:
        arguments = [value if isinstance(value, int | str) else str(value) for value in error.args]
        fields |= {"arguments": arguments, "trace": "".join(traceback.format_exception(error))}
    return json.dumps(fields).encode()


def unpack(message: bytes) -> Batch | BaseException:
    """Return a batch, or the error that ended the reading."""
    fields = json.loads(message)
    if "error" not in fields:
        skipped = {place: Skipped(*fault) for place, fault in fields["skipped"]}
        return Batch(fields["slot"], skipped)
    kind = getattr(errors, fields["error"], None)
    if isinstance(kind, type) and issubclass(kind, LarderError):
        return kind(Lines(fields["what"]), next_step=Lines(fields["next_step"]))
    error = _builtin_error(fields["error"], fields["arguments"], fields["text"])
    error.add_note(f"in the stream's child process:\n{fields['trace']}")
    return error


def _builtin_error(name: str, arguments: list[int | str], text: str) -> BaseException:
    kind = getattr(builtins, name, None)
    try:
        if isinstance(kind, type) and issubclass(kind, Exception):
            return kind(*arguments)
    except TypeError:
        pass  # it takes other arguments than it keeps
    return RuntimeError(f"{name}: {text}")
