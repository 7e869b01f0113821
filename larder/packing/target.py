"""Where packs go: the interface that a volume and a store share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from larder.contract import IndexEntry, Manifest
from larder.ledger import Ledger
from larder.packing.layout import Layout
from larder.packing.plan import Pack
from larder.packing.source import Source


class Target(Protocol):
    """A place for one artifact."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def seen(self) -> str:
        """What `up_to_date` compares of each file, for people."""

    @property
    def imports(self) -> tuple[str, ...]:
        """The modules that its writers need, so that workers needn't import them one by one."""

    def up_to_date(self, tree: str, wanted: dict[str, str | int]) -> Manifest | None:
        """The manifest in place, when it is of the tree with this digest, made as wanted, and no file is missing."""

    def tidy(self, manifest: Manifest) -> None:
        """Delete what a run left that was killed after it had put the manifest, which is up to date."""

    def begin(self, tree: Manifest, ledger: Ledger) -> None:
        """Make ready for packs of a tree. Raises LarderError when the place can't take them."""

    def has(self, entry: IndexEntry) -> bool:
        """Whether a file that an earlier run noted is still there."""

    def writer(self, layout: Layout, source: Source) -> Callable[[Pack], IndexEntry]:
        """What workers call to write a pack and verify it; picklable."""

    def put(self, path: str, content: bytes) -> IndexEntry:
        """Write a small file."""

    def settle(self, entries: Iterator[IndexEntry]) -> Iterator[IndexEntry]:
        """Bring files to their last places; gives the entries as the index has them."""

    def commit(self, manifest: Manifest, run: dict[str, Any], ledger: Ledger) -> Manifest:
        """Put the manifest, last. Index and samples' index lie in the slot's `meta`. Returns the manifest in place."""
