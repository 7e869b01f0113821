"""What goes wrong in worker processes, and how it comes out of them as errors of ours."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType

from larder.errors import ConfigurationError, InputError, LarderError, ResourceError, ServiceError, StorageError
from larder.loaders.remedies import MEMORY, RENEW, SHARED_MEMORY
from larder.progress import amount
from larder.terminal import Lines
from larder.third_party import Told, told

SHARED_MEMORY_FOLDER = Path("/dev/shm")
_CARRIED = {kind.__name__: kind for kind in (ConfigurationError, InputError, ServiceError, StorageError)}


class UnreadableImageError(Exception):
    """An image that can't be decoded. It has one argument, so that DataLoader can carry it out of a worker."""


class UnreadableFileError(UnreadableImageError):
    """An image's file that is there, and that the file system doesn't give."""


class CarriedError(Exception):
    """An error of ours on its way out of a worker; its one argument, for DataLoader's sake, is a line of JSON."""

    @classmethod
    def of(cls, error: LarderError) -> CarriedError:
        """Pack one of those in `_CARRIED`; the block of `explained` raises it again."""
        return cls(json.dumps([type(error).__name__, error.what, error.next_step]))


def worker_start() -> Callable[[int], None]:
    """What every loader's workers begin with, however they are started."""
    return partial(start_worker, told=told())


def start_worker(_number: int, told: Told | None = None) -> None:
    """Begin a worker, whose warnings somebody may be told of."""
    from larder.engines.pool import end_with_parent  # imported here: naming errors needs no processes

    end_with_parent()
    sys.excepthook = _without_interrupted_batches
    if told is not None:
        told.listen()


def _without_interrupted_batches(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say what Python says, but for a lost connection of the thread that hands batches over: who interrupts a run that
    takes one would read a worker's traceback. What else fails in a worker isn't told by this hook.
    """
    if not isinstance(error, OSError | EOFError):
        sys.__excepthook__(kind, error, trace)


@contextmanager
def explained() -> Iterator[None]:
    """A block in which what DataLoader raises when a worker fails or is lost becomes an error of ours.

    Loaders use it while they read. A program that must not end with a traceback puts all of its work into one, too:
    DataLoader also raises from a signal handler, which runs anywhere.
    """
    try:
        yield
    except UnreadableImageError as error:
        raise InputError(_raised(error), next_step=RENEW) from error
    except CarriedError as error:
        kind, what, next_step = json.loads(_raised(error))
        raise _CARRIED.get(kind, InputError)(Lines(what), next_step=next_step) from error
    except RuntimeError as error:
        known = _explain(str(error))
        if known is None:
            raise
        raise known from error


def _raised(error: Exception) -> str:
    """The argument of what a worker raised: DataLoader puts its whole traceback before it, and it is the last line."""
    return str(error).strip().splitlines()[-1].removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")


def _explain(message: str) -> LarderError | None:
    """The error for a RuntimeError of DataLoader (torch/csrc/DataLoader.cpp, torch/utils/data/dataloader.py)."""
    if "Bus error" in message or "shared memory" in message or re.search(r"</?torch_\d+", message):
        return ResourceError(
            f"a loader's worker ran out of shared memory: {SHARED_MEMORY_FOLDER} has {_shared_memory_size()}, and "
            "batches that are ready wait there",
            next_step=SHARED_MEMORY,
        )
    if "DataLoader worker (pid" in message:
        return ResourceError(
            f"a loader's worker process was lost, most likely killed for lack of memory ({message.splitlines()[0]})",
            next_step=MEMORY,
        )
    return None


def _shared_memory_size() -> str:
    try:
        return amount(shutil.disk_usage(SHARED_MEMORY_FOLDER).total, "B")
    except OSError:
        return "an unknown size"
