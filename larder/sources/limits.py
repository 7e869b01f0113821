"""What a source may cost: files, and every byte that is read or unpacked for them."""

from __future__ import annotations

from typing import NamedTuple, NoReturn

from larder.errors import InputError
from larder.progress import amount

_FREE_BYTES = 64 << 10
"""Not counted: an archive's end, which tar pads to 10 KiB and tapes to more."""
_FREE_BYTES_PER_FILE = 4 << 10
"""Not counted: a file's headers and padding, with a long name."""


class TooLargeError(InputError):
    """A source that holds more than is allowed, or costs more to read."""


class Limits(NamedTuple):
    """The most that is read of one source."""

    max_files: int = 10_000_000
    max_bytes: int = 500 * 10**9


def require_length(length: int, source: str, limits: Limits) -> None:
    """Raise TooLargeError for an archive that is itself longer than what it may unpack to, whatever is in it."""
    if length > limits.max_bytes + _FREE_BYTES:
        raise _beyond(source, f"has {amount(length, 'B')}", "LARDER_MAX_UNPACKED")


class Meter:
    """Counts one pass over a source, and refuses it at the first file or byte beyond a limit."""

    def __init__(self, source: str, limits: Limits) -> None:
        self._source = source
        self._max_files, self._max_bytes = limits
        self.files = self.bytes = 0
        self._skipped = self._other = 0

    def count(self, size: int) -> None:
        """Add a file of `size` bytes, or of an unknown size where it is negative. Raises TooLargeError."""
        self.files += 1
        if size > 0:
            self.bytes += size
        if self.files > self._max_files or self.bytes > self._max_bytes:
            self._refuse()

    def count_again(self, size: int) -> None:
        """Add the bytes of a file that is counted, for a link to it: readers read it again. Raises TooLargeError."""
        self.bytes += size
        if self.bytes > self._max_bytes:
            self._refuse()

    def uncount(self, size: int) -> None:
        """Take a file back: it is an archive whose files are counted in its place."""
        self.files -= 1
        self.bytes -= size

    def skip(self) -> None:
        """Add an entry that is no file: a folder, or litter. Raises TooLargeError."""
        self._skipped += 1
        if self._skipped > self._max_files:
            raise self._beyond(f"has more than {self._max_files:,} entries that are no files", "LARDER_MAX_FILES")

    def other(self, size: int) -> None:
        """Add bytes that are read or unpacked beside the files: headers, padding, what is skipped, inner archives.

        Raises TooLargeError.
        """
        self._other += size
        counted = self._other - _FREE_BYTES - _FREE_BYTES_PER_FILE * self.files
        if counted > 0 and counted + self.bytes > self._max_bytes:
            raise self._beyond(
                f"takes reading more than {amount(self._max_bytes, 'B')}, most of which are no files",
                "LARDER_MAX_UNPACKED",
            )

    def _refuse(self) -> NoReturn:
        if self.files > self._max_files:
            raise self._beyond(f"unpacks to more than {self._max_files:,} files", "LARDER_MAX_FILES")
        raise self._beyond(f"unpacks to more than {amount(self._max_bytes, 'B')}", "LARDER_MAX_UNPACKED")

    def _beyond(self, what: str, setting: str) -> TooLargeError:
        return _beyond(self._source, what, setting)


def _beyond(source: str, what: str, setting: str) -> TooLargeError:
    return TooLargeError(f"{source} {what}", next_step=f"if you trust it, raise {setting} and run again")
