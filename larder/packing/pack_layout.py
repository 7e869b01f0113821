"""Define the interface of a pack's format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from larder import dataset
from larder.contract import IndexEntry
from larder.packing.pack import Pack


class PackLayout(Protocol):
    """The format of a pack. It must be picklable, since workers write the packs."""

    @property
    def artifact(self) -> dataset.ArtifactLayout:
        """Type of the artifact."""

    @property
    def frame_bytes(self) -> int:
        """Number of bytes in a pack besides its samples."""

    @property
    def imports(self) -> tuple[str, ...]:
        """Modules that only `encode` imports. They are imported once, before workers are forked."""

    def path(self, split: str, number: int) -> str:
        """Return the path of a pack, relative to the artifact."""

    @property
    def hint(self) -> str:
        """The next step for any `reject_reason`."""

    def reject_reason(self, entry: IndexEntry) -> str | None:
        """Return why the format can't hold a sample, or None."""

    def needs_special_key(self, path: str, previous: str) -> bool:
        """Return whether the path of a sample can't be its key. False for formats without keys.

        Args:
            path: Path of the sample in the tree.
            previous: Path of the last sample before it, sorted by path, whose path is its key; "" for none.
        """

    def special_key(self, path: str) -> str:
        """Return the special key of a sample whose path can't be its key."""

    def sample_bytes(self, entry: IndexEntry) -> int:
        """Return the number of bytes that a sample adds to a pack."""

    def offsets(self, entries: Sequence[IndexEntry]) -> Iterator[int]:
        """Yield the position of each sample's image in a pack of these samples."""

    def encode(self, entries: Sequence[IndexEntry], contents: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the bytes of a pack in pieces.

        Args:
            entries: The samples of the pack.
            contents: Their images, in the same order.
        """

    def extras(self, packs: Sequence[Pack], digests: Mapping[str, str]) -> dict[str, bytes]:
        """Return the content of small files beside the packs, by path.

        Args:
            packs: All packs of the artifact.
            digests: The sha256 of each pack, by path.
        """
