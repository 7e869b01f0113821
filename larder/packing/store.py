"""Stream packs to a bucket as they are made, and verify them by the store's checksums."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from larder.contract import (
    CLASSES,
    INDEX_IN_STORE,
    MANIFEST,
    META,
    RUN,
    Artifact,
    IndexEntry,
    Manifest,
    index_name,
    parse_index,
    samples_name,
)
from larder.errors import ConfigurationError, InputError, LarderError, ServiceError
from larder.fingerprint import CUTOFF_BYTES, PART_BYTES, etag_of_parts
from larder.ledger import Ledger
from larder.next_step import StageRun
from larder.packing.pack import Pack
from larder.packing.pack_input import PackInput, open_prefix, read_verified
from larder.packing.pack_layout import PackLayout
from larder.packing.settings import PackSettings
from larder.progress import Reporter, format_amount
from larder.store import BucketSettings, parse_store_uri
from larder.volume import StagedArtifact

if TYPE_CHECKING:
    from larder.bucket import ListedObject

INCOMING = f"{META}/incoming/"
"""Folder in which new packs wait until they replace the artifact in place."""


class StoreTarget:
    """A folder in a bucket. The ledger of unfinished work is on the stage's volume."""

    def __init__(
        self, settings: PackSettings, staged_artifact: StagedArtifact, artifact: Artifact, reporter: Reporter
    ) -> None:
        self._location = parse_store_uri(settings, settings.dest)
        self._folder = open_prefix(*self._location)
        self._staged_artifact, self._artifact, self._reporter, self._force = (
            staged_artifact,
            artifact,
            reporter,
            settings.force,
        )
        self._objects: dict[str, ListedObject] = {}
        self._subfolder = ""
        self.name = self._folder.uri

    comparison = f"by sizes and ETags; {StageRun('verify')} compares the content"
    imports = (__name__, "larder.bucket", "botocore.config", "crc32c")

    def up_to_date(self, tree: str, settings: dict[str, str | int]) -> Manifest | None:
        """See Target."""
        manifest = self._find_manifest()
        if manifest is None or manifest.input.get("manifest") != tree or not manifest.in_store:
            return None
        if not manifest.settings.items() >= settings.items():
            return None
        with tempfile.TemporaryDirectory(prefix="larder-") as folder:
            file = Path(folder) / "index.jsonl"
            if self._fetch_index(manifest, file):
                self._list_objects()
                samples = self._objects.get(f"{META}/{samples_name(manifest)}") if manifest.samples else None
                if samples and all(map(self._has_object, parse_index(file))):
                    return manifest
        self._reporter.event("repair", f"objects in {self.name} are missing or have changed: packing all of it again")
        return None

    def begin(self, tree: Manifest, ledger: Ledger) -> None:
        """See Target. Raises ConfigurationError if the folder holds another dataset or another type of artifact."""
        old = self._find_manifest()
        if old is not None and old.artifact != self._artifact:
            raise ConfigurationError(
                f"{self.name} holds {old.artifact!r} data, and {self._artifact!r} data would replace them",
                next_step="set LARDER_DEST to a folder of its own, such as "
                f"s3://{self._folder.bucket}/{self._staged_artifact.folder.name}",
            )
        if old is not None and old.dataset != tree.dataset and not self._force:
            raise ConfigurationError(
                f"{self.name} holds the dataset {old.dataset!r}, and this is {tree.dataset!r}",
                next_step="set another LARDER_DEST, or LARDER_FORCE=true to put this one in its place",
            )
        if old is not None:
            self._subfolder = INCOMING
        self._list_objects()

    def has(self, entry: IndexEntry) -> bool:
        """See Target."""
        return self._has_object(entry) or self._has_object(entry, INCOMING)

    def writer(self, layout: PackLayout, source: PackInput) -> StoreWriter:
        """See Target."""
        return StoreWriter(*self._location, self._subfolder, layout, source)

    def put(self, path: str, content: bytes) -> IndexEntry:
        """See Target."""
        return upload_pack(*self._location, self._subfolder, path, len(content), [content])

    def finalize(self, entries: Iterator[IndexEntry]) -> Iterator[IndexEntry]:
        """See Target. Packs that were uploaded beside an old artifact are copied into place by the store.

        Before the first copy the old manifest is deleted, so that there is no manifest until `commit`.

        Raises:
            ServiceError: If an object differs from what was sent.
        """
        self._list_objects()
        manifest_deleted = False
        for entry in entries:
            if self._has_object(entry):
                yield entry
                continue
            if not self._has_object(entry, INCOMING):
                raise ServiceError(
                    f"{self.name}/{entry.path} differs from what was sent: something else writes to the same place",
                    next_step="wait until that has ended, then run this again: it resumes",
                )
            if not manifest_deleted:
                self._reporter.event(
                    "replace", "replacing the dataset in place: there is no manifest until that is done"
                )
                self._folder.delete([MANIFEST])
                manifest_deleted = True
            etag = self._folder.copy(f"{INCOMING}{entry.path}", entry.path, entry.bytes)
            if etag != entry.etag and self._folder.digest(entry.path) != (entry.bytes, entry.sha256):
                raise ServiceError(
                    f"{self.name}/{entry.path} differs from the object that the store was asked to copy",
                    next_step=f"run {StageRun('s3', 'check')}, then this again",
                )
            yield entry._replace(etag=etag)

    def commit(self, manifest: Manifest, run: dict[str, Any], ledger: Ledger) -> Manifest:
        """See Target. Then delete the old artifact's objects and larder's temporary objects."""
        stored = manifest.stored(manifest.index)
        meta = self._staged_artifact.meta_folder
        for name, file in ((index_name(stored), "index.jsonl"), (samples_name(stored), "samples.jsonl")):
            self._folder.upload(f"{META}/{name}", meta / file, "application/x-ndjson")
        self._folder.write_manifest(stored, run)
        self._delete_old_objects(stored, meta / "index.jsonl")
        ledger.remove()
        self._staged_artifact.discard()
        return stored

    def delete_stale(self, manifest: Manifest) -> None:
        """See Target."""
        self._list_objects()
        if not self._leftovers(manifest):
            return
        with self._staged_artifact.lock(), tempfile.TemporaryDirectory(prefix="larder-") as folder:
            file = Path(folder) / "index.jsonl"
            if self._fetch_index(manifest, file):
                self._reporter.event("tidy", f"deleting what an earlier run has left in {self.name}/{META}/")
                self._delete_old_objects(manifest, file)
                if self._staged_artifact.work.exists():
                    self._staged_artifact.discard()

    def _delete_old_objects(self, manifest: Manifest, index: Path) -> None:
        """Delete the objects that old indexes name and `index` doesn't, then these old indexes and temporary objects.

        `index` belongs to the manifest in place. The old indexes are deleted last, so that a later run can
        repeat a killed deletion.
        """
        self._list_objects()
        named = {entry.path for entry in parse_index(index)}
        own = self._leftovers(manifest)
        old = set[str]().union(*map(self._paths_in_old_index, own))
        self._drop_uploads(named | old)
        self._folder.delete(sorted((old - named) & self._objects.keys()))
        self._folder.delete(own)
        extra = [path for path in self._objects if not path.startswith(f"{META}/") and path not in named | old]
        if extra:
            self._reporter.event(
                "extra",
                f"in the way: {format_amount(len(extra), 'objects')} in {self.name} that the manifest doesn't name, "
                f"such as {extra[0]}",
                objects=len(extra),
            )

    def _fetch_index(self, manifest: Manifest, file: Path) -> bool:
        """Download the manifest's index to `file`. Return whether it exists and has the right digest."""
        name, expected = f"{META}/{index_name(manifest)}", manifest.index
        return self._folder.download(name, file, expected.bytes) == expected.sha256

    def _drop_uploads(self, packs: set[str]) -> None:
        """Abort the multipart uploads that a killed run has left. If the store refuses, only report it."""
        try:
            self._folder.abort_uploads(lambda path: path.startswith(INCOMING) or path in packs)
        except LarderError as fault:
            self._reporter.event("left", f"parts of unfinished uploads may be left behind: {fault.what}")

    def _leftovers(self, manifest: Manifest) -> list[str]:
        """Return the objects in `_larder/` that don't belong to the manifest: old indexes and incoming packs."""
        keep = {MANIFEST, CLASSES, RUN, f"{META}/{index_name(manifest)}", f"{META}/{samples_name(manifest)}"}
        return [path for path in self._objects if path.startswith(f"{META}/") and path not in keep]

    def _paths_in_old_index(self, path: str) -> set[str]:
        """Return the paths that an index in the store names; none if it isn't an index or has changed."""
        match = INDEX_IN_STORE.fullmatch(path)
        if match is None:
            return set()
        with tempfile.TemporaryDirectory(prefix="larder-") as folder:
            file = Path(folder) / "index.jsonl"
            if self._folder.download(path, file) != match[1]:
                return set()
            try:
                return {entry.path for entry in parse_index(file)}
            except InputError:
                return set()

    def _find_manifest(self) -> Manifest | None:
        try:
            return self._folder.find_manifest()
        except InputError:
            if not self._force:
                raise
            return None

    def _list_objects(self) -> None:
        self._objects = {item.path: item for item in self._folder.list()}

    def _has_object(self, entry: IndexEntry, below: str = "") -> bool:
        stored = self._objects.get(below + entry.path)
        return stored is not None and (stored.bytes, stored.etag) == (entry.bytes, entry.etag)


@dataclass(frozen=True)
class StoreWriter:
    """Make packs and send them to the subfolder `below` of a bucket's folder. Each process creates its own client."""

    settings: BucketSettings
    name: str
    below: str
    layout: PackLayout
    source: PackInput

    def __call__(self, pack: Pack) -> IndexEntry:
        """Make and send a pack.

        Raises:
            InputError: If an image differs from the index.
            ServiceError: If the store fails.
        """
        entries = pack.entries()
        pieces = self.layout.encode(entries, read_verified(self.source, entries))
        return upload_pack(self.settings, self.name, self.below, pack.path, pack.size, pieces)


def upload_pack(
    settings: BucketSettings, name: str, below: str, path: str, size: int, pieces: Iterable[bytes]
) -> IndexEntry:
    """Write an object whose content comes in pieces, and verify it. Large objects are sent in parts as they come.

    Args:
        settings: The bucket.
        name: The folder in the bucket.
        below: Subfolder, with a final slash, or "".
        path: Path of the object below that.
        size: Total length of the pieces in bytes.
        pieces: The content.

    Returns:
        The object's index entry, with its ETag.

    Raises:
        ServiceError: If the store holds other bytes than were sent.
    """
    folder, target, sha256 = open_prefix(settings, name), below + path, hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for piece in pieces:
            sha256.update(piece)  # hashed while in the CPU cache: from memory it takes 50 % longer
            yield piece

    if size < CUTOFF_BYTES:
        [data] = _parts(hashed(), size, size)
        etag, confirmed = folder.write_confirmed(target, data)
    else:
        md5s: list[bytes] = []

        def hashed_parts() -> Iterator[bytearray]:
            for part in _parts(hashed(), size, PART_BYTES):
                md5s.append(hashlib.md5(part, usedforsecurity=False).digest())
                yield part

        etag = folder.write_parts(target, hashed_parts())
        confirmed = etag == etag_of_parts(md5s)
    digest = sha256.hexdigest()
    if not confirmed:
        folder.verify_object(target, size, digest)
    return IndexEntry(path, size, digest, etag=etag)


def _parts(pieces: Iterable[bytes], size: int, part_bytes: int) -> Iterator[bytearray]:
    """Join pieces of `size` bytes in total into parts of `part_bytes`; the last part may be shorter.

    All parts are the same bytearray: each is valid until the next one is requested.
    """
    part, filled, left = _resize(_memory(), min(size, part_bytes)), 0, size
    for piece in pieces:
        view = memoryview(piece)
        while view:
            count = min(len(view), len(part) - filled)
            if not count:
                raise ValueError(f"received more than {size} bytes")
            with memoryview(part) as target:  # assigning to a bytearray's slice would copy the view twice
                target[filled : filled + count] = view[:count]
            view, filled, left = view[count:], filled + count, left - count
            if filled == len(part) and left:
                yield part
                part, filled = _resize(part, min(left, part_bytes)), 0
    if filled != len(part) or left:
        raise ValueError(f"received {size - left} of {size} bytes")
    yield part


@cache
def _memory() -> bytearray:
    """Return this process's buffer for packs. Allocating one per pack would take half as long as hashing the pack."""
    return bytearray()


def _resize(part: bytearray, size: int) -> bytearray:
    if size > len(part):
        part.extend(bytes(size - len(part)))
    del part[size:]
    return part
