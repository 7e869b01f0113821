"""Define a pack, and the limits on its size."""

from __future__ import annotations

from typing import NamedTuple

from larder.contract import IndexEntry


class PackLimits(NamedTuple):
    """Limits on the size of a pack."""

    bytes: int
    samples: int
    """Maximum number of samples; 0 for no limit."""
    setting: str
    """Name of the setting that limits the bytes, for messages."""


class Pack(NamedTuple):
    """One file to write."""

    path: str
    size: int
    """Length in bytes."""
    samples: int
    lines: bytes
    """Lines of the tree's index, in the order of the samples. Kept as bytes to save memory: many packs may wait."""

    def entries(self) -> list[IndexEntry]:
        """Return the entries of the samples."""
        return [IndexEntry.from_json(line) for line in self.lines.splitlines()]
