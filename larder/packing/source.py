"""Where images are read from: a tree in a folder, its objects in a bucket, or where an index says."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from larder.artifacts import name_in, require_dataset, tree_at
from larder.contract import META, IndexEntry, Manifest, find_manifest, index_name, require_digest
from larder.errors import TREE_ANEW, InputError
from larder.next_step import MAKES
from larder.packed import unpack
from larder.packing.settings import PackSettings
from larder.progress import Reporter
from larder.shards import MEMBER_BYTES
from larder.store import BucketSettings, place_in_store, split_uri

if TYPE_CHECKING:
    from larder.bucket import Folder

_READ_AT_ONCE = 16
"""Objects that are fetched at a time, since each takes a round trip."""
_OPENING = threading.Lock()


class FolderSource(NamedTuple):
    """A tree on a file system. Workers need it under the same path."""

    folder: str

    def contents(self, entries: Sequence[IndexEntry]) -> Iterator[bytes]:
        """The images, as long as the index says. Raises InputError for one that is gone or has another length."""
        for entry in entries:
            yield self.read(entry)

    def read(self, entry: IndexEntry) -> bytes:
        """One image; see `contents`."""
        path = f"{self.folder}/{entry.path}"
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            raise self.changed(entry, "is gone") from None
        try:
            data = os.read(descriptor, entry.bytes + 1)
            while 0 < len(data) < entry.bytes and (more := os.read(descriptor, entry.bytes - len(data) + 1)):
                data += more
        except IsADirectoryError:
            raise self.changed(entry, "is no file any more") from None
        except OSError as fault:
            fault.filename = path
            raise
        finally:
            os.close(descriptor)
        if len(data) != entry.bytes:
            raise self.changed(entry, "has changed")
        return data

    def changed(self, entry: IndexEntry, how: str) -> InputError:
        """The error for an image that isn't what the index says."""
        return InputError(
            f"{self.folder}/{entry.path} {how} since its manifest was written",
            next_step=f"{TREE_ANEW}, then run this again",
        )


class BucketSource(NamedTuple):
    """A tree's objects in a bucket. Each process has a client of its own."""

    settings: BucketSettings
    name: str

    def contents(self, entries: Sequence[IndexEntry]) -> Iterator[bytes]:
        """See FolderSource. Raises ServiceError or ConfigurationError when the store fails or refuses."""
        waiting: deque[Future[bytes]] = deque()
        pool = ThreadPoolExecutor(_READ_AT_ONCE)
        try:
            for entry in entries:
                waiting.append(pool.submit(self.read, entry))
                if len(waiting) > _READ_AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # nobody waits for a silent store any more

    def read(self, entry: IndexEntry) -> bytes:
        """One image; see `contents`."""
        data = open_folder(self.settings, self.name).read_start(entry.path, entry.bytes + 1)
        if data is None:
            raise self.changed(entry, "is gone")
        if len(data) != entry.bytes:
            raise self.changed(entry, "has changed")
        return data

    def changed(self, entry: IndexEntry, how: str) -> InputError:
        """The error for an object that isn't what the index says."""
        return InputError(
            f"{open_folder(self.settings, self.name).uri}/{entry.path} {how} since its manifest was written",
            next_step=f"run {MAKES['objects']}, then this again",
        )


class IndexedSource(BucketSource):
    """The images that an index in a bucket's folder tells the places of: whole objects, or ranges of them."""

    def read(self, entry: IndexEntry) -> bytes:
        """One image; see `contents`."""
        if entry.object is None or max(entry.bytes, entry.packed or 0, entry.at or 0) > MEMBER_BYTES:
            what = "names no object" if entry.object is None else f"says {entry.bytes:,} bytes"
            raise InputError(
                f"the index in {open_folder(self.settings, self.name).uri} {what} for {entry.path}",
                next_step=f"run {MAKES['index']}, then this again",
            )
        bucket, key = split_uri(entry.object)
        folder = open_folder(_of_bucket(self.settings, bucket), "")
        if entry.offset is None:
            data = folder.read_start(key, entry.bytes + 1)
        else:
            data = folder.read_range(key, entry.offset, entry.bytes if entry.packed is None else entry.packed)
            if data is not None and entry.packed is not None:
                data = _unpacked(entry, data)
        if data is None:
            raise self.changed(entry, "is gone")
        if len(data) != entry.bytes:
            raise self.changed(entry, "has changed")
        return data

    def changed(self, entry: IndexEntry, how: str) -> InputError:
        """The error for an image that isn't what the index says."""
        inside = "" if entry.offset is None else f" ({entry.path})"
        return InputError(
            f"{entry.object}{inside} {how} since it was indexed", next_step=f"run {MAKES['index']}, then this again"
        )


def _unpacked(entry: IndexEntry, packed: bytes) -> bytes:
    """An image that lies packed; nothing where it can't be unpacked."""
    at = entry.at or 0
    try:
        return unpack(entry.codec or "deflate", packed, at + entry.bytes + 1)[at : at + entry.bytes]
    except ValueError:
        return b""


@lru_cache(maxsize=64)
def _of_bucket(settings: BucketSettings, bucket: str) -> BucketSettings:
    return settings.model_copy(update={"bucket": bucket, "prefix": ""})


Source = FolderSource | BucketSource


def verified(source: Source, entries: Sequence[IndexEntry]) -> Iterator[bytes]:
    """The images, each hashed. Raises InputError for one that isn't what the index says."""
    for entry, data in zip(entries, source.contents(entries), strict=True):
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise source.changed(entry, "has changed")
        yield data


class Tree(NamedTuple):
    """The input: where its images are, and what it is."""

    source: Source
    manifest: Manifest
    digest: str
    """Of the tree's own manifest, also where it is its objects that are read; or of the index's."""

    @property
    def kind(self) -> str:
        """Whose digest that is: a tree's or an index's."""
        return "index" if self.manifest.artifact == "index" else "tree"

    @property
    def name(self) -> str:
        """The data set's name for what is made of it."""
        folder = Path(self.source.folder).name if isinstance(self.source, FolderSource) else self.source.name
        return name_in(self.manifest, folder)

    def index_file(self, work: Path) -> Path:
        """Its index as a file on this machine, which for objects is put into the folder `work`.

        Raises InputError when it isn't what the manifest says.
        """
        name = f"{META}/{index_name(self.manifest)}"
        if isinstance(self.source, FolderSource):
            require_digest(Path(self.source.folder, name), self.manifest.index)
            return Path(self.source.folder, name)
        folder = open_folder(*self.source)
        if folder.download(name, work / "input.jsonl", self.manifest.index.bytes) != self.manifest.index.sha256:
            raise InputError(
                f"{folder.uri}/{name} is missing or not what its manifest says",
                next_step=f"run {MAKES[self.manifest.artifact]}, which puts it back",
            )
        return work / "input.jsonl"


def open_folder(settings: BucketSettings, name: str) -> Folder:
    """A bucket's folder with a client that this process keeps."""
    with _OPENING:  # else each thread would make a client: a tenth of a second, 15 MB
        return _opened(settings, name)


@lru_cache(maxsize=8)
def _opened(settings: BucketSettings, name: str) -> Folder:
    from larder.bucket import Folder  # here, since boto3 takes a tenth of a second to import, and most runs need none

    return Folder(settings, name)


def find_tree(settings: PackSettings, reporter: Reporter) -> Tree:
    """The input. Raises InputError when there is no finished tree, ConfigurationError when it is another data set's."""
    if not settings.input.startswith("s3://"):
        place = str(tree_at(Path(settings.input or settings.volume), settings.dataset, reporter))
        manifest = _require(find_manifest(Path(place)), "tree", place, MAKES["tree"])
        require_dataset(settings.dataset, manifest, place)
        return Tree(FolderSource(place), manifest, manifest.digest())
    bucket, name = place_in_store(settings, settings.input)
    folder = open_folder(bucket, name)
    found = folder.find_manifest()
    if found is not None and found.artifact == "index":
        require_dataset(settings.dataset, found, folder.uri)
        return Tree(IndexedSource(bucket, name), found, found.digest())
    manifest = _require(found, "objects", folder.uri, f"{MAKES['objects']} or {MAKES['index']}")
    require_dataset(settings.dataset, manifest, folder.uri)
    return Tree(BucketSource(bucket, name), manifest, str(manifest.input["manifest"]))


def _require(manifest: Manifest | None, artifact: str, where: str, made_by: str) -> Manifest:
    if manifest is None:
        raise InputError(
            f"{where} holds no finished data: no {META}/manifest.json",
            next_step=f"run {made_by}, or set LARDER_INPUT",
        )
    if manifest.artifact != artifact:
        raise InputError(
            f"{where} holds {manifest.artifact!r} data, and a tree is needed ({artifact!r})",
            next_step=f"set LARDER_INPUT to what {made_by} made",
        )
    return manifest
