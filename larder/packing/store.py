"""Packs in a bucket: each streamed there as it is made, and compared with what the store says it holds."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from larder.contract import (
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
from larder.next_step import Run
from larder.packing.layout import Layout
from larder.packing.plan import Pack
from larder.packing.settings import PackSettings
from larder.packing.source import Source, open_folder, verified
from larder.progress import Reporter, amount
from larder.store import BucketSettings, place_in_store
from larder.volume import Slot

if TYPE_CHECKING:
    from larder.bucket import Listed

INCOMING = f"{META}/incoming/"
"""Where packs wait while another data set is in place."""


class StoreTarget:
    """A folder in a bucket. Notes of unfinished work lie on the stage's volume."""

    def __init__(self, settings: PackSettings, slot: Slot, artifact: Artifact, reporter: Reporter) -> None:
        self._place = place_in_store(settings, settings.dest)
        self._folder = open_folder(*self._place)
        self._slot, self._artifact, self._reporter, self._force = slot, artifact, reporter, settings.force
        self._there: dict[str, Listed] = {}
        self._below = ""
        self.name = self._folder.uri

    seen = f"by their sizes and ETags: {Run('verify')} reads them"
    imports = (__name__, "larder.bucket", "botocore.config", "crc32c")

    def up_to_date(self, tree: str, wanted: dict[str, str | int]) -> Manifest | None:
        """See Target."""
        manifest = self._find_manifest()
        if manifest is None or manifest.input.get("manifest") != tree or not manifest.in_store:
            return None
        if not manifest.settings.items() >= wanted.items():
            return None
        with tempfile.TemporaryDirectory(prefix="larder-") as folder:
            place = Path(folder) / "index.jsonl"
            if self._fetch_index(manifest, place):
                self._look()
                samples = self._there.get(f"{META}/{samples_name(manifest)}") if manifest.samples else None
                if samples and all(map(self._is_there, parse_index(place))):
                    return manifest
        self._reporter.event("repair", f"objects in {self.name} are missing or have changed: making all anew")
        return None

    def begin(self, tree: Manifest, ledger: Ledger) -> None:
        """See Target. Raises ConfigurationError when the place holds another data set, or data of another kind."""
        old = self._find_manifest()
        if old is not None and old.artifact != self._artifact:
            raise ConfigurationError(
                f"{self.name} holds {old.artifact!r} data, and {self._artifact!r} data would replace them",
                next_step=f"set LARDER_DEST to a folder of its own, such as s3://{self._folder.bucket}/{self._slot.folder.name}",
            )
        if old is not None and old.dataset != tree.dataset and not self._force:
            raise ConfigurationError(
                f"{self.name} holds the data set {old.dataset!r}, and this is {tree.dataset!r}",
                next_step="set another LARDER_DEST, or LARDER_FORCE=true to put this one in its place",
            )
        if old is not None:
            self._below = INCOMING
        self._look()

    def has(self, entry: IndexEntry) -> bool:
        """See Target."""
        return self._is_there(entry) or self._is_there(entry, INCOMING)

    def writer(self, layout: Layout, source: Source) -> StoreWriter:
        """See Target."""
        return StoreWriter(*self._place, self._below, layout, source)

    def put(self, path: str, content: bytes) -> IndexEntry:
        """See Target."""
        return send(*self._place, self._below, path, len(content), [content])

    def settle(self, entries: Iterator[IndexEntry]) -> Iterator[IndexEntry]:
        """See Target: what came in beside a data set is copied by the store. Until `commit`, there is no manifest then.

        Raises ServiceError when an object isn't what was sent.
        """
        self._look()
        withdrawn = False
        for entry in entries:
            if self._is_there(entry):
                yield entry
                continue
            if not self._is_there(entry, INCOMING):
                raise ServiceError(
                    f"{self.name}/{entry.path} is not what was sent: something else writes to the same place",
                    next_step="wait until that has ended, then run this again: it resumes",
                )
            if not withdrawn:
                self._reporter.event(
                    "replace", "replacing the data set in place: there is no manifest until that is done"
                )
                self._folder.delete([MANIFEST])
                withdrawn = True
            etag = self._folder.copy(f"{INCOMING}{entry.path}", entry.path, entry.bytes)
            if etag != entry.etag and self._folder.digest(entry.path) != (entry.bytes, entry.sha256):
                raise ServiceError(
                    f"{self.name}/{entry.path} is not what the store was asked to copy",
                    next_step=f"run {Run('s3', 'check')}, then this again",
                )
            yield entry._replace(etag=etag)

    def commit(self, manifest: Manifest, run: dict[str, Any], ledger: Ledger) -> Manifest:
        """See Target. Then what larder left on the way is deleted, and what was in place before and is no more."""
        stored = manifest.stored(manifest.index)
        meta = self._slot.meta
        for name, file in ((index_name(stored), "index.jsonl"), (samples_name(stored), "samples.jsonl")):
            self._folder.upload(f"{META}/{name}", meta / file, "application/x-ndjson")
        self._folder.write(RUN, (json.dumps(run, indent=2) + "\n").encode(), "application/json")
        self._folder.write(MANIFEST, stored.to_json().encode(), "application/json")
        self._sweep(stored, meta / "index.jsonl")
        ledger.remove()
        self._slot.discard()
        return stored

    def tidy(self, manifest: Manifest) -> None:
        """See Target."""
        self._look()
        if not self._leftovers(manifest):
            return
        with self._slot.lock(), tempfile.TemporaryDirectory(prefix="larder-") as folder:
            place = Path(folder) / "index.jsonl"
            if self._fetch_index(manifest, place):
                self._reporter.event("tidy", f"deleting what an earlier run has left in {self.name}/{META}/")
                self._sweep(manifest, place)
                if self._slot.work.exists():
                    self._slot.discard()

    def _sweep(self, manifest: Manifest, index: Path) -> None:
        """Delete what was in place before, by the indexes of it that are still there; then these, and all else of ours.

        `index` is that of the manifest in place. What a later run needs to do this again goes last.
        """
        self._look()
        named = {entry.path for entry in parse_index(index)}
        own = self._leftovers(manifest)
        old = set[str]().union(*map(self._named_before, own))
        self._drop_uploads(named | old)
        self._folder.delete(sorted((old - named) & self._there.keys()))
        self._folder.delete(own)
        extra = [path for path in self._there if not path.startswith(f"{META}/") and path not in named | old]
        if extra:
            self._reporter.event(
                "extra", f"in the way: {amount(len(extra), 'objects')} in {self.name} that the manifest doesn't name, "
                f"such as {extra[0]}", objects=len(extra),
            )  # fmt: skip

    def _fetch_index(self, manifest: Manifest, place: Path) -> bool:
        """Write the index that a manifest names to the file `place`. Whether it is there and is what that says."""
        name, wanted = f"{META}/{index_name(manifest)}", manifest.index
        return self._folder.download(name, place, wanted.bytes) == wanted.sha256

    def _drop_uploads(self, packs: set[str]) -> None:
        """Have the store drop the parts of packs that a killed run was sending. Where it won't, that is only said."""
        try:
            self._folder.drop_uploads(lambda path: path.startswith(INCOMING) or path in packs)
        except LarderError as fault:
            self._reporter.event("left", f"parts of unfinished uploads may be left behind: {fault.what}")

    def _leftovers(self, manifest: Manifest) -> list[str]:
        """What lies beside the manifest and belongs to another one, or was on its way."""
        keep = {MANIFEST, RUN, f"{META}/{index_name(manifest)}", f"{META}/{samples_name(manifest)}"}
        return [path for path in self._there if path.startswith(f"{META}/") and path not in keep]

    def _named_before(self, path: str) -> set[str]:
        """What an index that lies in the store names; nothing, if it isn't one or has changed."""
        found = INDEX_IN_STORE.fullmatch(path)
        if found is None:
            return set()
        with tempfile.TemporaryDirectory(prefix="larder-") as folder:
            place = Path(folder) / "index.jsonl"
            if self._folder.download(path, place) != found[1]:
                return set()
            try:
                return {entry.path for entry in parse_index(place)}
            except InputError:
                return set()

    def _find_manifest(self) -> Manifest | None:
        try:
            return self._folder.find_manifest()
        except InputError:
            if not self._force:
                raise
            return None

    def _look(self) -> None:
        self._there = {item.path: item for item in self._folder.list()}

    def _is_there(self, entry: IndexEntry, below: str = "") -> bool:
        found = self._there.get(below + entry.path)
        return found is not None and (found.bytes, found.etag) == (entry.bytes, entry.etag)


@dataclass(frozen=True)
class StoreWriter:
    """Makes packs and sends them below `below` in a bucket's folder. Each process has a client of its own."""

    settings: BucketSettings
    name: str
    below: str
    layout: Layout
    source: Source

    def __call__(self, pack: Pack) -> IndexEntry:
        """Make and send a pack. Raises InputError for an image that has changed, ServiceError where the store fails."""
        entries = pack.entries()
        pieces = self.layout.encode(entries, verified(self.source, entries))
        return send(self.settings, self.name, self.below, pack.path, pack.size, pieces)


def send(settings: BucketSettings, name: str, below: str, path: str, size: int, pieces: Iterable[bytes]) -> IndexEntry:
    """Put a file of `size` bytes that comes in pieces: whole from memory, or, when it is large, in parts as they come.

    Raises ServiceError when it arrives wrong.
    """
    folder, place, sha256 = open_folder(settings, name), below + path, hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for piece in pieces:
            sha256.update(piece)  # while it is in the processor's cache: from memory, that takes longer by half
            yield piece

    if size < CUTOFF_BYTES:
        [data] = _parts(hashed(), size, size)
        etag, confirmed = folder.write_confirmed(place, data)
    else:
        md5s: list[bytes] = []

        def noted() -> Iterator[bytearray]:
            for part in _parts(hashed(), size, PART_BYTES):
                md5s.append(hashlib.md5(part, usedforsecurity=False).digest())
                yield part

        etag = folder.write_parts(place, noted())
        confirmed = etag == etag_of_parts(md5s)
    digest = sha256.hexdigest()
    if not confirmed:
        folder.require(place, size, digest)
    return IndexEntry(path, size, digest, etag=etag)


def _parts(pieces: Iterable[bytes], size: int, part_bytes: int) -> Iterator[bytearray]:
    """A file of `size` bytes that comes in pieces, in parts of `part_bytes`, the last one shorter.

    All parts are the same bytearray: each holds until the next one is asked for.
    """
    part, filled, left = _resize(_memory(), min(size, part_bytes)), 0, size
    for piece in pieces:
        view = memoryview(piece)
        while view:
            count = min(len(view), len(part) - filled)
            if not count:
                raise ValueError(f"more than {size} bytes came")
            with memoryview(part) as place:  # a bytearray would copy what isn't one before it copies it
                place[filled : filled + count] = view[:count]
            view, filled, left = view[count:], filled + count, left - count
            if filled == len(part) and left:
                yield part
                part, filled = _resize(part, min(left, part_bytes)), 0
    if filled != len(part) or left:
        raise ValueError(f"{size - left} bytes came of {size}")
    yield part


@cache
def _memory() -> bytearray:
    """What this process fills with one pack after another: to get memory anew takes half as long as hashing a pack."""
    return bytearray()


def _resize(part: bytearray, size: int) -> bytearray:
    if size > len(part):
        part.extend(bytes(size - len(part)))
    del part[size:]
    return part
