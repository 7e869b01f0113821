"""The error tree and the exit codes.

    LarderError                       exit code
    ├── ConfigurationError            2    wrong usage or setting; lists every fault at once
    ├── InputError                    3    input missing, damaged, or not what its manifest says
    ├── RejectedSamplesError          4    more samples were rejected than LARDER_MAX_REJECTS allows
    ├── ServiceError                  5    a remote service failed after retries; running again resumes
    ├── StorageError                  3    the volume is full, read-only, or in use by another run
    └── ResourceError                 3    memory or a worker process was lost

0 is done or already up to date; 130 is interrupted, and running again resumes.

Every message has two parts: what happened with its likely cause, and the next step. Both are
required, so an error without a remedy can't be raised.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

from larder.next_step import MAKES, forced
from larder.terminal import Lines, escaped, lines

EXIT_INTERRUPTED = 130
TREE_ANEW = f"run {forced(MAKES['tree'])} with the LARDER_SOURCE that the tree had"
"""A next step. Without its source, these would put another data set in its place."""


class LarderError(Exception):
    """The root: a foreseeable failure, shown to people without a traceback."""

    exit_code = 1

    def __init__(self, what: str, *, next_step: str) -> None:
        """Line breaks in `what` are escaped, as foreign ones must be; `larder.terminal.lines` makes our own."""
        super().__init__(escaped(what))
        self.what = escaped(what)
        self.next_step = escaped(next_step)

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders; pickle would call __init__ without the keyword.
        return _rebuild, (type(self), self.what, self.next_step)

    def shown(self, in_commands: Callable[[str], str] = str) -> Lines:
        """What people are shown. `in_commands` is applied to each line (larder.next_step)."""
        return Lines(f"error: {self.what}\n  next step: {self.next_step}").map(in_commands)

    def _render_traceback_(self) -> list[str]:
        """What a notebook's cell shows in a traceback's place: IPython asks for it by this name."""
        return self.shown().split("\n")


def _rebuild(kind: type[LarderError], what: str, next_step: str) -> LarderError:
    return kind(what, next_step=next_step)


class ConfigurationError(LarderError):
    """Wrong usage or configuration."""

    exit_code = 2

    @classmethod
    def of_faults(cls, faults: Sequence[str], *, next_step: str) -> ConfigurationError:
        """Join every fault into one error, one line each."""
        head = "the configuration has a fault" if len(faults) == 1 else f"the configuration has {len(faults)} faults"
        return cls(lines(f"{head}:", *(f"  - {fault}" for fault in faults)), next_step=next_step)


class InputError(LarderError):
    """An input is missing, damaged, or not what its manifest says."""

    exit_code = 3


class StorageError(LarderError):
    """The volume can't take or give the data: full, read-only, or locked by another run."""

    exit_code = 3


class ResourceError(LarderError):
    """The machine or container has too little memory for the work, or a worker process was killed."""

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
    errno.EACCES: ("permission denied", f"give user {os.getuid()} the right to it, then run again"),
    errno.EPERM: ("the operation is not permitted", "check who owns the volume and how it is mounted, then run again"),
    errno.EIO: ("the disk reports a read or write error", "check the disk's health (`dmesg`), then run again"),
    errno.ENAMETOOLONG: ("a file name is too long for this file system", "shorten the name in the source"),
}


def explain_os_error(error: OSError) -> LarderError | None:
    """Turn an operating-system error with a known cause into a StorageError.

    Returns None for those that point at a fault in larder itself, which should show a traceback.
    """
    fault = _STORAGE_FAULTS.get(error.errno or 0)
    if fault is None:
        return None
    cause, next_step = fault
    where = f"{error.filename!r}: " if error.filename else ""
    return StorageError(f"{where}{cause}", next_step=next_step)
