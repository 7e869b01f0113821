"""Compact in-memory table of a split's images, from the index."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from larder.bucket import ListedObject
    from larder.contract import IndexEntry

_DIGEST_BYTES = 32


class ImageTable:
    """Path, label, length and sha256 of each image of a split, sorted by path.

    One million images take about 100 MB in six Python objects. Forked workers share that memory, since reference
    counting touches only the pages of those objects.
    """

    def __init__(self, entries: Iterable[IndexEntry], split: str, advance: Callable[[], None]) -> None:
        paths, digests = bytearray(), bytearray()
        self._ends, self._labels, self._lengths = array("Q", [0]), array("l"), array("Q")
        for entry in entries:
            if entry.label is not None and entry.path.startswith(f"{split}/"):
                paths += entry.path.encode()
                digests += bytes.fromhex(entry.sha256)
                self._ends.append(len(paths))
                self._labels.append(entry.label)
                self._lengths.append(entry.bytes)
                advance()
        self._paths, self._digests = bytes(paths), bytes(digests)

    def __len__(self) -> int:
        return len(self._labels)

    def path(self, number: int) -> str:
        """Return the path of an image, relative to the dataset's folder."""
        return self._encoded(number).decode()

    def label(self, number: int) -> int:
        """Return the label of an image."""
        return self._labels[number]

    def length(self, number: int) -> int:
        """Return the length of an image in bytes."""
        return self._lengths[number]

    def sha256(self, number: int) -> bytes:
        """Return the digest of an image, 32 bytes."""
        return self._digests[_DIGEST_BYTES * number : _DIGEST_BYTES * (number + 1)]

    def find(self, path: str) -> int | None:
        """Return the number of the image at a path; None if the index doesn't have it."""
        encoded = path.encode(errors="surrogateescape")
        number = bisect_left(range(len(self)), encoded, key=self._encoded)
        return number if number < len(self) and self._encoded(number) == encoded else None

    def first_missing(self, listed: Iterable[ListedObject], advance: Callable[[], None]) -> str | None:
        """Return the first path that isn't in `listed` with its length, or None. `listed` may be in any order."""
        present = bytearray(len(self))
        for item in listed:
            number = self.find(item.path)
            if number is not None:
                present[number] = self._lengths[number] == item.bytes
                advance()
        missing = present.find(0)
        return None if missing < 0 else self.path(missing)

    def _encoded(self, number: int) -> bytes:
        return self._paths[self._ends[number] : self._ends[number + 1]]
