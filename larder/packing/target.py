"""Define the interface of a destination for packs: a volume or a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from larder.contract import IndexEntry, Manifest
from larder.ledger import Ledger
from larder.packing.pack import Pack
from larder.packing.pack_input import PackInput
from larder.packing.pack_layout import PackLayout


class Target(Protocol):
    """The destination of one artifact."""

    @property
    def name(self) -> str:
        """Name for messages."""

    @property
    def comparison(self) -> str:
        """How `up_to_date` compares files, for messages, as in "by sizes"."""

    @property
    def imports(self) -> tuple[str, ...]:
        """Modules that the writers need. They are imported once, before workers are forked."""

    def up_to_date(self, tree: str, settings: dict[str, str | int]) -> Manifest | None:
        """Return the manifest in place if it is up to date.

        Args:
            tree: Digest of the input.
            settings: Settings that determine the bytes of the packs.

        Returns:
            The manifest if it has this input and these settings and no file is missing or has changed, else None.
        """

    def delete_stale(self, manifest: Manifest) -> None:
        """Delete leftovers of a run that was killed after it had written `manifest`, which is up to date."""

    def begin(self, tree: Manifest, ledger: Ledger) -> None:
        """Prepare for the packs of a tree. Raises LarderError if the destination can't take them."""

    def has(self, entry: IndexEntry) -> bool:
        """Return whether a file in the ledger of an earlier run still exists."""

    def writer(self, layout: PackLayout, source: PackInput) -> Callable[[Pack], IndexEntry]:
        """Return the picklable function with which workers write and verify a pack."""

    def put(self, path: str, content: bytes) -> IndexEntry:
        """Write a small file."""

    def finalize(self, entries: Iterator[IndexEntry]) -> Iterator[IndexEntry]:
        """Move files to their final places, and yield their entries for the index."""

    def commit(self, manifest: Manifest, run: dict[str, Any], ledger: Ledger) -> Manifest:
        """Write the manifest, after everything else.

        The indexes of files and samples must be in the staged artifact's `meta_folder`.

        Args:
            manifest: Manifest of the artifact.
            run: Content of run.json.
            ledger: Ledger of the work, which is deleted.

        Returns:
            The manifest as written, which differs in a store.
        """
