"""Limit the number of files in a source, and the bytes that are read or unpacked for them."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from larder.errors import InputError
from larder.progress import format_amount

_FREE_BYTES = 64 << 10
"""Allowance for the end of an archive, which tar pads to 10 KiB and tapes to more."""
_FREE_BYTES_PER_FILE = 4 << 10
"""Allowance for a file's headers and padding, including a long name."""


class TooLargeError(InputError):
    """A source exceeds a limit on files or bytes."""


class SourceLimits(NamedTuple):
    """Maximum number of files and bytes of one source."""

    max_files: int = 10_000_000
    max_bytes: int = 500 * 10**9


def require_within_limit(length: int, source: str, limits: SourceLimits) -> None:
    """Check the size of an archive itself.

    Args:
        length: Size of the archive in bytes.
        source: Name of the source in messages.
        limits: Limits of the source.

    Raises:
        TooLargeError: If the archive is larger than `limits.max_bytes`.
    """
    if length > limits.max_bytes + _FREE_BYTES:
        raise _limit_error(source, f"has {format_amount(length, 'B')}", "LARDER_MAX_UNPACKED")


class ReadMeter:
    """Count files and bytes during one pass over a source. Its methods raise TooLargeError beyond a limit."""

    def __init__(self, source: str, limits: SourceLimits) -> None:
        self._source = source
        self._max_files, self._max_bytes = limits
        self.files = self.bytes = 0
        self._skipped = self._overhead = 0

    def count_file(self, size: int) -> None:
        """Count a file of `size` bytes; a negative size is unknown and counts as 0."""
        self.files += 1
        if size > 0:
            self.bytes += size
        if self.files > self._max_files or self.bytes > self._max_bytes:
            self._raise_limit_error()

    def count_link(self, size: int) -> None:
        """Count the bytes of a file again for a link to it, since readers read it again."""
        self.bytes += size
        if self.bytes > self._max_bytes:
            self._raise_limit_error()

    def uncount_file(self, size: int) -> None:
        """Undo `count_file` for an inner archive, whose files are counted instead."""
        self.files -= 1
        self.bytes -= size

    def count_skipped(self) -> None:
        """Count an entry that isn't a file of the dataset: a folder, or litter."""
        self._skipped += 1
        if self._skipped > self._max_files:
            raise self._limit_error(f"has more than {self._max_files:,} entries that are not files", "LARDER_MAX_FILES")

    def count_overhead(self, size: int) -> None:
        """Count other bytes that are read or unpacked: headers, padding, skipped entries, inner archives."""
        self._overhead += size
        counted = self._overhead - _FREE_BYTES - _FREE_BYTES_PER_FILE * self.files
        if counted > 0 and counted + self.bytes > self._max_bytes:
            raise self._limit_error(
                f"takes reading more than {format_amount(self._max_bytes, 'B')}, most of which are not files",
                "LARDER_MAX_UNPACKED",
            )

    def _raise_limit_error(self) -> NoReturn:
        if self.files > self._max_files:
            raise self._limit_error(f"unpacks to more than {self._max_files:,} files", "LARDER_MAX_FILES")
        raise self._limit_error(f"unpacks to more than {format_amount(self._max_bytes, 'B')}", "LARDER_MAX_UNPACKED")

    def _limit_error(self, what: str, setting: str) -> TooLargeError:
        return _limit_error(self._source, what, setting)


def _limit_error(source: str, what: str, setting: str) -> TooLargeError:
    return TooLargeError(f"{source} {what}", next_step=f"if you trust it, raise {setting} and run again")
