"""What a pack looks like: the interface that each format has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from larder import dataset
from larder.contract import IndexEntry

if TYPE_CHECKING:
    from larder.packing.plan import Pack


class Layout(Protocol):
    """A format. It is picklable, since workers write the packs."""

    @property
    def artifact(self) -> dataset.Layout:
        """What the packs are."""

    @property
    def frame_bytes(self) -> int:
        """What a pack holds beside its samples."""

    @property
    def imports(self) -> tuple[str, ...]:
        """The modules that only `encode` imports, so that workers needn't do it one by one."""

    def path(self, split: str, number: int) -> str:
        """Where the pack with this number goes, below the artifact."""

    @property
    def remedy(self) -> str:
        """What helps against any `fault`."""

    def fault(self, entry: IndexEntry) -> str | None:
        """Why the format can't hold a sample, or None."""

    def needs_key(self, path: str, before: str) -> bool:
        """Whether the sample at `path` needs another key than its path's, where the format has keys. `before` is the
        last one, sorted by path, that has its path's; "" for none.
        """

    def own_key(self, path: str) -> str:
        """The key of a sample that needs one."""

    def sample_bytes(self, entry: IndexEntry) -> int:
        """What a sample adds to a pack's length."""

    def offsets(self, entries: Sequence[IndexEntry]) -> Iterator[int]:
        """Where each sample's image begins in a pack of these."""

    def encode(self, entries: Sequence[IndexEntry], contents: Iterable[bytes]) -> Iterator[bytes]:
        """The pack's bytes, piece by piece; `contents` are the samples' images."""

    def extras(self, packs: Sequence[Pack], digests: Mapping[str, str]) -> dict[str, bytes]:
        """Small files beside the packs, by path; `digests` are the packs' sha256s."""
