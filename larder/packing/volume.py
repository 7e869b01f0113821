"""Write packs to a volume: write each to a temporary file, read it back, rename it, and swap in all at the end."""

from __future__ import annotations

import hashlib
import platform
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from larder.contract import META, IndexEntry, Manifest, find_manifest, find_missing_file, require_digest, samples_name
from larder.errors import InputError, StorageError
from larder.ledger import Ledger
from larder.next_step import StageRun
from larder.packing.pack import Pack
from larder.packing.pack_checker import PackChecker, join_pieces
from larder.packing.pack_input import PackInput
from larder.packing.pack_layout import PackLayout
from larder.progress import Reporter, format_amount
from larder.volume import StagedArtifact, remove_tree, require_space, start_writeback


class VolumeTarget:
    """A folder on the stage's volume."""

    def __init__(self, staged_artifact: StagedArtifact, reporter: Reporter) -> None:
        self._staged_artifact, self._reporter, self.name = staged_artifact, reporter, str(staged_artifact.folder)
        # A unique name, since workers of a killed run may still write.
        self._parts = staged_artifact.work / f"parts-{uuid.uuid4().hex}"

    comparison = f"by sizes; {StageRun('verify')} compares the content"
    imports = (__name__,)

    def up_to_date(self, tree: str, settings: dict[str, str | int]) -> Manifest | None:
        """See Target."""
        manifest = find_manifest(self._staged_artifact.folder)
        if manifest is None or manifest.input.get("manifest") != tree or manifest.settings != settings:
            return None
        try:
            missing = find_missing_file(self._staged_artifact.folder, manifest)
            require_digest(self._staged_artifact.folder / META / samples_name(manifest), manifest.samples)
        except InputError as damage:  # one of the two indexes is damaged
            self._reporter.event("repair", f"{damage.what}: packing all of it again")
            return None
        if missing is not None:
            self._reporter.event(
                "repair", f"{self._staged_artifact.folder / missing} is missing or has changed: packing all of it again"
            )
            return None
        return manifest

    def delete_stale(self, manifest: Manifest) -> None:
        """Do nothing: `StagedArtifact.recover` has completed an interrupted swap already."""

    def begin(self, tree: Manifest, ledger: Ledger) -> None:
        """See Target. Raises StorageError if the volume has too little space for the images."""
        for stale in self._staged_artifact.work.glob("parts-*"):
            remove_tree(stale)  # workers of an earlier run that still write now fail
        self._parts.mkdir()
        done = sum(entry.bytes for entry in ledger.entries())
        require_space(
            self._staged_artifact.root, max(tree.bytes - done, 0), f"packing {format_amount(tree.files, 'images')}"
        )

    def has(self, entry: IndexEntry) -> bool:
        """See Target."""
        try:
            return (self._staged_artifact.staged / entry.path).stat().st_size == entry.bytes
        except FileNotFoundError:
            return False

    def writer(self, layout: PackLayout, source: PackInput) -> VolumeWriter:
        """See Target."""
        return VolumeWriter(str(self._staged_artifact.staged), str(self._parts), layout, source)

    def put(self, path: str, content: bytes) -> IndexEntry:
        """See Target."""
        (self._staged_artifact.staged / path).write_bytes(content)
        return IndexEntry(path, len(content), hashlib.sha256(content).hexdigest())

    def finalize(self, entries: Iterator[IndexEntry]) -> Iterator[IndexEntry]:
        """See Target. Only check that the files are there: the swap moves them. Raises StorageError if one isn't."""
        for entry in entries:
            if not self.has(entry):
                raise StorageError(
                    f"{self._staged_artifact.staged / entry.path} is not on this machine: a worker has written "
                    "it elsewhere",
                    next_step="give all nodes of the cluster the same volume at the same path, or set LARDER_DEST=s3://…",
                )
            yield entry

    def commit(self, manifest: Manifest, run: dict[str, Any], ledger: Ledger) -> Manifest:
        """See Target."""
        self._staged_artifact.commit(manifest, run, ledger)
        return manifest


@dataclass(frozen=True)
class VolumeWriter:
    """Write packs to `folder`, through temporary files in `parts`. All workers must see both under the same path."""

    folder: str
    parts: str
    layout: PackLayout
    source: PackInput

    def __call__(self, pack: Pack) -> IndexEntry:
        """Write and verify a pack.

        Raises:
            InputError: If an image differs from the index.
            StorageError: If the file's content differs from what was written.
        """
        entries = pack.entries()
        target = Path(self.folder, pack.path)
        # A unique name: a worker that is believed to be dead may still write the same pack.
        part = Path(self.parts, f"{uuid.uuid4().hex}-{target.name}")
        with _open_new(part) as file, PackChecker(self.source, file) as checks:
            for piece in join_pieces(self.layout.encode(entries, checks.read_images(entries))):
                begin = file.tell()
                _write(file, piece)
                checks.check_written(begin, piece)
            digest, size = checks.digest(), file.tell()
            start_writeback(file.fileno())  # leaves less to flush at the end
        if size != pack.size:
            raise ValueError(f"{pack.path} has {size} bytes, and {pack.size} were planned")
        target.parent.mkdir(exist_ok=True)
        part.rename(target)
        return IndexEntry(pack.path, size, digest)


def _open_new(part: Path) -> FileIO:
    """Create a file. Raises StorageError if the run's folder doesn't exist on this machine."""
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
