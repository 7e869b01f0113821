"""Packs on a volume: each written beside its name, read back, renamed; the whole is swapped in at the end."""

from __future__ import annotations

import hashlib
import platform
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from larder.contract import META, IndexEntry, Manifest, find_manifest, first_missing, require_digest, samples_name
from larder.errors import InputError, StorageError
from larder.ledger import Ledger
from larder.next_step import Run
from larder.packing.checks import Checks, joined
from larder.packing.layout import Layout
from larder.packing.plan import Pack
from larder.packing.source import Source
from larder.progress import Reporter, amount
from larder.volume import Slot, remove_tree, require_space, start_writeback


class VolumeTarget:
    """The place of an artifact on the stage's volume."""

    def __init__(self, slot: Slot, reporter: Reporter) -> None:
        self._slot, self._reporter, self.name = slot, reporter, str(slot.folder)
        self._parts = slot.work / f"parts-{uuid.uuid4().hex}"  # no other run's, whose workers may still write

    seen = f"by their sizes: {Run('verify')} reads them"
    imports = (__name__,)

    def up_to_date(self, tree: str, wanted: dict[str, str | int]) -> Manifest | None:
        """See Target."""
        manifest = find_manifest(self._slot.folder)
        if manifest is None or manifest.input.get("manifest") != tree or manifest.settings != wanted:
            return None
        try:
            gone = first_missing(self._slot.folder, manifest)
            require_digest(self._slot.folder / META / samples_name(manifest), manifest.samples)
        except InputError as damage:  # one of its own two indexes
            self._reporter.event("repair", f"{damage.what}: making all anew")
            return None
        if gone is not None:
            self._reporter.event("repair", f"{self._slot.folder / gone} is missing or has changed: making all anew")
            return None
        return manifest

    def tidy(self, manifest: Manifest) -> None:
        """See Target: on a volume, the next run completes the swap before it looks at anything."""

    def begin(self, tree: Manifest, ledger: Ledger) -> None:
        """See Target. Raises StorageError when the volume hasn't room for the images."""
        for stale in self._slot.work.glob("parts-*"):
            remove_tree(stale)  # a worker of an earlier run that still writes fails now
        self._parts.mkdir()
        done = sum(entry.bytes for entry in ledger.entries())
        require_space(self._slot.root, max(tree.bytes - done, 0), f"packing {amount(tree.files, 'images')}")

    def has(self, entry: IndexEntry) -> bool:
        """See Target."""
        try:
            return (self._slot.staged / entry.path).stat().st_size == entry.bytes
        except FileNotFoundError:
            return False

    def writer(self, layout: Layout, source: Source) -> VolumeWriter:
        """See Target."""
        return VolumeWriter(str(self._slot.staged), str(self._parts), layout, source)

    def put(self, path: str, content: bytes) -> IndexEntry:
        """See Target."""
        (self._slot.staged / path).write_bytes(content)
        return IndexEntry(path, len(content), hashlib.sha256(content).hexdigest())

    def settle(self, entries: Iterator[IndexEntry]) -> Iterator[IndexEntry]:
        """See Target: the files lie where they are swapped in. Raises StorageError for one that doesn't."""
        for entry in entries:
            if not self.has(entry):
                raise StorageError(
                    f"{self._slot.staged / entry.path} is not here, though a worker has written it: elsewhere",
                    next_step="give all nodes of the cluster the same volume at the same path, or set LARDER_DEST=s3://…",
                )
            yield entry

    def commit(self, manifest: Manifest, run: dict[str, Any], ledger: Ledger) -> Manifest:
        """See Target."""
        self._slot.commit(manifest, run, ledger)
        return manifest


@dataclass(frozen=True)
class VolumeWriter:
    """Writes packs below `folder`, first in `parts`. Workers need both under the same path."""

    folder: str
    parts: str
    layout: Layout
    source: Source

    def __call__(self, pack: Pack) -> IndexEntry:
        """Write a pack. Raises InputError for an image that has changed, StorageError where the disk fails."""
        entries = pack.entries()
        place = Path(self.folder, pack.path)
        # A name of its own: a worker that is thought dead may still be writing the same pack.
        part = Path(self.parts, f"{uuid.uuid4().hex}-{place.name}")
        with _open_new(part) as file, Checks(self.source, file) as checks:
            for piece in joined(self.layout.encode(entries, checks.images(entries))):
                begin = file.tell()
                _write(file, piece)
                checks.written(begin, piece)
            digest, size = checks.digest(), file.tell()
            start_writeback(file.fileno())  # at the end, less is left to flush
        if size != pack.size:
            raise ValueError(f"{pack.path} has {size} bytes, and {pack.size} were planned")
        place.parent.mkdir(exist_ok=True)
        part.rename(place)
        return IndexEntry(pack.path, size, digest)


def _open_new(part: Path) -> FileIO:
    """Open a file of our own. Raises StorageError where the run's folder isn't."""
    try:
        return part.open("x+b", buffering=0)
    except FileNotFoundError:
        raise StorageError(
            f"{part.parent} is not on {platform.node()}, or the run that made it has ended",
            next_step="give all nodes of the cluster the same volume at the same path, or set LARDER_DEST=s3://…",
        ) from None


def _write(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as fault:
        fault.filename = file.name
        raise
