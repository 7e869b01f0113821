"""Define the error classes and their exit codes.

    LarderError                       exit code
    ├── ConfigurationError            2    wrong usage or setting; lists every fault at once
    ├── InputError                    3    input missing, damaged, or not what its manifest says
    ├── RejectedSamplesError          4    more samples were rejected than LARDER_MAX_REJECTS allows
    ├── ServiceError                  5    a remote service failed after retries; running again resumes
    ├── StorageError                  3    the volume is full, read-only, or in use by another run
    └── ResourceError                 3    memory or a worker process was lost

Exit code 0 means done or already up to date; 130 means interrupted, and running again resumes.

Every error has two parts: what happened with its likely cause, and the next step. Both arguments are required, so that
no error can be raised without a remedy.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from larder.commands import name_commands
from larder.next_step import CREATED_BY, with_force
from larder.terminal import Lines, escape, join_lines

EXIT_INTERRUPTED = 130
REMAKE_TREE = f"run {with_force(CREATED_BY['tree'])} with the LARDER_SOURCE that the tree had"
"""A next step: make the tree again. It names LARDER_SOURCE, since with another source these stages would replace the
dataset."""


class LarderError(Exception):
    """Base class: an expected failure, shown to users without a traceback."""

    exit_code = 1
    cause: BaseException | None = None
    """What led to it, if `without_causes` has removed it from tracebacks."""

    def __init__(self, what: str, *, next_step: str) -> None:
        """Set the two parts of the message. Both are escaped.

        Use `larder.terminal.join_lines` for a text of several lines.

        Args:
            what: What happened, with its likely cause.
            next_step: What the user can do.
        """
        super().__init__(escape(what))
        self.what = escape(what)
        self.next_step = escape(next_step)

    def __str__(self) -> str:
        """Return both parts, so that a traceback shows what to do."""
        return name_commands(f"{self.what}\n  next step: {self.next_step}")

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders; pickle would call __init__ without the keyword.
        return _rebuild, (type(self), self.what, self.next_step)

    def format(self, to_commands: Callable[[str], str] = str) -> Lines:
        """Return the message for users. `to_commands` replaces stages by commands in each line (`larder.next_step`)."""
        return Lines(f"error: {self.what}\n  next step: {self.next_step}").map(to_commands)

    def _render_traceback_(self) -> list[str]:
        """Return the lines that a notebook shows instead of a traceback. IPython calls this method by its name."""
        return self.format().split("\n")


@contextmanager
def without_causes() -> Iterator[None]:
    """Raise errors of larder alone. What users of the library call has this block around it.

    Messages say already what their causes mean. Without this, a traceback would show dozens of lines of other libraries
    before them.
    """
    try:
        yield
    except LarderError as error:
        error.cause = error.__cause__ or error.cause
        raise error from None


def _rebuild(kind: type[LarderError], what: str, next_step: str) -> LarderError:
    return kind(what, next_step=next_step)


class ConfigurationError(LarderError):
    """Wrong usage or configuration."""

    exit_code = 2

    @classmethod
    def of_faults(cls, faults: Sequence[str], *, next_step: str) -> ConfigurationError:
        """Return one error that lists every fault on a line of its own."""
        head = "the configuration has a fault" if len(faults) == 1 else f"the configuration has {len(faults)} faults"
        return cls(join_lines(f"{head}:", *(f"  - {fault}" for fault in faults)), next_step=next_step)


class InputError(LarderError):
    """An input is missing, damaged, or not what its manifest says."""

    exit_code = 3


class StorageError(LarderError):
    """The volume is full, read-only, faulty, or locked by another run."""

    exit_code = 3


class ResourceError(LarderError):
    """Memory ran out, a worker process was killed, or another resource of the machine is missing."""

    exit_code = 3


class RejectedSamplesError(LarderError):
    """More samples were rejected than the limit allows."""

    exit_code = 4


class ServiceError(LarderError):
    """A remote service failed after retries."""

    exit_code = 5


_STORAGE_FAULTS = {
    errno.ENOSPC: ("the disk is full", "free some space, then run the same command again: it resumes"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, then run the same command again: it resumes"),
    errno.EROFS: ("the volume is mounted read-only", "mount it writable for this stage, then run again"),
    errno.EACCES: ("permission denied", f"give user {os.getuid()} access to it, then run again"),
    errno.EPERM: ("the operation is not permitted", "check who owns the volume and how it is mounted, then run again"),
    errno.EIO: ("the disk reports a read or write error", "check the disk's health (`dmesg`), then run again"),
    errno.ENAMETOOLONG: ("a file name is too long for this file system", "shorten the name in the source"),
}


def explain_os_error(error: OSError) -> LarderError | None:
    """Turn an operating-system error with a known cause into a StorageError.

    Returns:
        The StorageError, or None for other errors: they point at a bug in larder and should show a traceback.
    """
    fault = _STORAGE_FAULTS.get(error.errno or 0)
    if fault is None:
        return None
    cause, next_step = fault
    where = f"{error.filename!r}: " if error.filename else ""
    return StorageError(f"{where}{cause}", next_step=next_step)
