"""Carry errors out of worker processes, and turn DataLoader's failures into our errors."""

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
from larder.loaders.hints import CREATE_AGAIN, RAISE_SHARED_MEMORY, REDUCE_MEMORY
from larder.progress import format_amount
from larder.terminal import Lines
from larder.third_party import WarningReporter, current_warning_reporter

SHARED_MEMORY_FOLDER = Path("/dev/shm")
_ERROR_KINDS = {kind.__name__: kind for kind in (ConfigurationError, InputError, ServiceError, StorageError)}


class UnreadableImageError(Exception):
    """The image can't be decoded. DataLoader can re-raise it because it has a single argument."""


class UnreadableFileError(UnreadableImageError):
    """The image file exists, but the file system can't read it."""


class WorkerError(Exception):
    """A LarderError of a worker, as one line of JSON: DataLoader can only re-raise errors with a single argument."""

    @classmethod
    def from_error(cls, error: LarderError) -> WorkerError:
        """Wrap an error of a kind in `_ERROR_KINDS`; `map_worker_errors` raises it again."""
        return cls(json.dumps([type(error).__name__, error.what, error.next_step]))


def make_worker_init() -> Callable[[int], None]:
    """Return the `worker_init_fn` of all loaders; it works with any start method."""
    return partial(init_worker, warning_reporter=current_warning_reporter())


def init_worker(_number: int, warning_reporter: WarningReporter | None = None) -> None:
    """Initialize a worker, and forward its warnings if `warning_reporter` is given."""
    from larder.engines.pool import end_worker_with_parent  # imported here, since most users of this module start none

    end_worker_with_parent()
    sys.excepthook = _print_traceback
    if warning_reporter is not None:
        warning_reporter.install()


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback, except for a lost connection to the main process.

    If a run is interrupted, the thread that sends batches loses its connection. Its traceback would only confuse.
    """
    if not isinstance(error, OSError | EOFError):
        sys.__excepthook__(kind, error, trace)


@contextmanager
def map_worker_errors() -> Iterator[None]:
    """Turn DataLoader's errors about failed or lost workers into ours.

    Loaders use it while they read. A program that must not end with a traceback wraps all of its work in it:
    DataLoader also raises from a signal handler, which may run anywhere.
    """
    try:
        yield
    except UnreadableImageError as error:
        raise InputError(_worker_message(error), next_step=CREATE_AGAIN) from error
    except WorkerError as error:
        kind, what, next_step = json.loads(_worker_message(error))
        raise _ERROR_KINDS.get(kind, InputError)(Lines(what), next_step=next_step) from error
    except RuntimeError as error:
        known = _explain_runtime_error(str(error))
        if known is None:
            raise
        raise known from error


def _worker_message(error: Exception) -> str:
    """Return the message of a worker's exception: the last line of DataLoader's traceback text."""
    return str(error).strip().splitlines()[-1].removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")


def _explain_runtime_error(message: str) -> LarderError | None:
    """Return our error for a RuntimeError of DataLoader (torch/csrc/DataLoader.cpp, torch/utils/data/dataloader.py)."""
    if "Bus error" in message or "shared memory" in message or re.search(r"</?torch_\d+", message):
        return ResourceError(
            f"a loader's worker ran out of shared memory: {SHARED_MEMORY_FOLDER} has {_shared_memory_size()}, and "
            "batches that are ready wait there",
            next_step=RAISE_SHARED_MEMORY,
        )
    if "DataLoader worker (pid" in message:
        return ResourceError(
            f"a loader's worker process was lost, most likely killed for lack of memory ({message.splitlines()[0]})",
            next_step=REDUCE_MEMORY,
        )
    return None


def _shared_memory_size() -> str:
    try:
        return format_amount(shutil.disk_usage(SHARED_MEMORY_FOLDER).total, "B")
    except OSError:
        return "an unknown size"
