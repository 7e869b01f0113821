"""Read images from a tree in a folder, from its objects in a bucket, or from the objects that an index names."""

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

from larder.artifacts import find_tree, require_dataset, require_dataset_name
from larder.codecs import decompress
from larder.contract import META, IndexEntry, Manifest, find_manifest, index_name, require_digest
from larder.errors import REMAKE_TREE, InputError
from larder.next_step import CREATED_BY
from larder.packing.settings import PackSettings
from larder.progress import Reporter
from larder.shards import MEMBER_BYTES
from larder.store import BucketSettings, parse_store_uri, split_uri, with_bucket

if TYPE_CHECKING:
    from larder.bucket import BucketPrefix

_CONCURRENT_READS = 16
"""Number of objects fetched at a time, since each takes a round trip."""
_CLIENT_LOCK = threading.Lock()


class FolderInput(NamedTuple):
    """A tree on a file system. All workers must see it under the same path."""

    folder: str

    def contents(self, entries: Sequence[IndexEntry]) -> Iterator[bytes]:
        """Yield the images, checking their lengths only.

        Raises:
            InputError: If an image is missing or has another length than the index says.
        """
        for entry in entries:
            yield self.read(entry)

    def read(self, entry: IndexEntry) -> bytes:
        """Return one image; see `contents`."""
        path = f"{self.folder}/{entry.path}"
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            raise self.changed_error(entry, "is gone") from None
        try:
            data = os.read(descriptor, entry.bytes + 1)
            while 0 < len(data) < entry.bytes and (more := os.read(descriptor, entry.bytes - len(data) + 1)):
                data += more
        except IsADirectoryError:
            raise self.changed_error(entry, "is no longer a file") from None
        except OSError as fault:
            fault.filename = path
            raise
        finally:
            os.close(descriptor)
        if len(data) != entry.bytes:
            raise self.changed_error(entry, "has changed")
        return data

    def changed_error(self, entry: IndexEntry, how: str) -> InputError:
        """Return the error for an image that differs from the index."""
        return InputError(
            f"{self.folder}/{entry.path} {how} since its manifest was written",
            next_step=f"{REMAKE_TREE}, then run this again",
        )


class BucketInput(NamedTuple):
    """A tree's objects in a bucket. Each process creates its own client."""

    settings: BucketSettings
    name: str

    def contents(self, entries: Sequence[IndexEntry]) -> Iterator[bytes]:
        """Yield the images, fetching several objects at a time and checking their lengths only.

        Raises:
            InputError: If an object is missing or has another length than the index says.
            ServiceError: If the store fails.
            ConfigurationError: If the store refuses a request.
        """
        pending: deque[Future[bytes]] = deque()
        pool = ThreadPoolExecutor(_CONCURRENT_READS)
        try:
            for entry in entries:
                pending.append(pool.submit(self.read, entry))
                if len(pending) > _CONCURRENT_READS:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # don't wait for a store that doesn't answer

    def read(self, entry: IndexEntry) -> bytes:
        """Return one image; see `contents`."""
        data = open_prefix(self.settings, self.name).read_start(entry.path, entry.bytes + 1)
        if data is None:
            raise self.changed_error(entry, "is gone")
        if len(data) != entry.bytes:
            raise self.changed_error(entry, "has changed")
        return data

    def changed_error(self, entry: IndexEntry, how: str) -> InputError:
        """Return the error for an object that differs from the index."""
        return InputError(
            f"{open_prefix(self.settings, self.name).uri}/{entry.path} {how} since its manifest was written",
            next_step=f"run {CREATED_BY['objects']}, then this again",
        )


class IndexedInput(BucketInput):
    """The images that an index in a bucket's folder refers to: whole objects, or byte ranges of them."""

    def read(self, entry: IndexEntry) -> bytes:
        """Return one image; see `contents`."""
        if entry.object is None or max(entry.bytes, entry.packed or 0, entry.at or 0) > MEMBER_BYTES:
            what = "names no object" if entry.object is None else f"says {entry.bytes:,} bytes"
            raise InputError(
                f"the index in {open_prefix(self.settings, self.name).uri} {what} for {entry.path}",
                next_step=f"run {CREATED_BY['index']}, then this again",
            )
        bucket, key = split_uri(entry.object)
        folder = open_prefix(with_bucket(self.settings, bucket), "")
        if entry.offset is None:
            data = folder.read_start(key, entry.bytes + 1)
        else:
            data = folder.read_range(key, entry.offset, entry.bytes if entry.packed is None else entry.packed)
            if data is not None and entry.packed is not None:
                data = _decompress_image(entry, data)
        if data is None:
            raise self.changed_error(entry, "is gone")
        if len(data) != entry.bytes:
            raise self.changed_error(entry, "has changed")
        return data

    def changed_error(self, entry: IndexEntry, how: str) -> InputError:
        """Return the error for an image that differs from the index."""
        inside = "" if entry.offset is None else f" ({entry.path})"
        return InputError(
            f"{entry.object}{inside} {how} since it was indexed",
            next_step=f"run {CREATED_BY['index']}, then this again",
        )


def _decompress_image(entry: IndexEntry, packed: bytes) -> bytes:
    """Decompress an image. Return b"" if that fails."""
    at = entry.at or 0
    try:
        return decompress(entry.codec or "deflate", packed, at + entry.bytes + 1)[at : at + entry.bytes]
    except ValueError:
        return b""


PackInput = FolderInput | BucketInput


def read_verified(source: PackInput, entries: Sequence[IndexEntry]) -> Iterator[bytes]:
    """Yield the images after checking their sha256. Raises InputError if an image differs from the index."""
    for entry, data in zip(entries, source.contents(entries), strict=True):
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise source.changed_error(entry, "has changed")
        yield data


class InputTree(NamedTuple):
    """The input of a packing stage."""

    source: PackInput
    manifest: Manifest
    digest: str
    """Digest of the manifest of the tree or of the index. For a tree's objects, it is that of the tree's manifest."""

    @property
    def kind(self) -> str:
        """What `digest` belongs to: "tree" or "index"."""
        return "index" if self.manifest.artifact == "index" else "tree"

    @property
    def name(self) -> str:
        """Name of the dataset for the packed artifact."""
        folder = Path(self.source.folder).name if isinstance(self.source, FolderInput) else self.source.name
        return require_dataset_name(self.manifest, folder)

    def index_file(self, work: Path) -> Path:
        """Return the path of the input's index on this machine.

        Args:
            work: Folder for the index if it must be downloaded.

        Raises:
            InputError: If the index doesn't have the digest in the manifest.
        """
        name = f"{META}/{index_name(self.manifest)}"
        if isinstance(self.source, FolderInput):
            require_digest(Path(self.source.folder, name), self.manifest.index)
            return Path(self.source.folder, name)
        folder = open_prefix(*self.source)
        if folder.download(name, work / "input.jsonl", self.manifest.index.bytes) != self.manifest.index.sha256:
            raise InputError(
                f"{folder.uri}/{name} is missing or not what its manifest says",
                next_step=f"run {CREATED_BY[self.manifest.artifact]}, which restores it",
            )
        return work / "input.jsonl"


def open_prefix(settings: BucketSettings, name: str) -> BucketPrefix:
    """Return a bucket's folder. Its client is cached in this process."""
    with _CLIENT_LOCK:  # else each thread would create a client, which takes 0.1 s and 15 MB
        return _cached_prefix(settings, name)


@lru_cache(maxsize=8)
def _cached_prefix(settings: BucketSettings, name: str) -> BucketPrefix:
    # Imported here, since boto3 takes 0.1 s to import, and most runs don't need it.
    from larder.bucket import BucketPrefix

    return BucketPrefix(settings, name)


def find_input_tree(settings: PackSettings, reporter: Reporter) -> InputTree:
    """Find the input of a packing stage.

    Raises:
        InputError: If there is no finished tree.
        ConfigurationError: If it belongs to another dataset than LARDER_DATASET names.
    """
    if not settings.input.startswith("s3://"):
        path = str(find_tree(Path(settings.input or settings.volume), settings.dataset, reporter))
        manifest = _require_artifact(find_manifest(Path(path)), "tree", path, CREATED_BY["tree"])
        require_dataset(settings.dataset, manifest, path)
        return InputTree(FolderInput(path), manifest, manifest.digest())
    bucket, name = parse_store_uri(settings, settings.input)
    folder = open_prefix(bucket, name)
    stored = folder.find_manifest()
    if stored is not None and stored.artifact == "index":
        require_dataset(settings.dataset, stored, folder.uri)
        return InputTree(IndexedInput(bucket, name), stored, stored.digest())
    manifest = _require_artifact(stored, "objects", folder.uri, f"{CREATED_BY['objects']} or {CREATED_BY['index']}")
    require_dataset(settings.dataset, manifest, folder.uri)
    return InputTree(BucketInput(bucket, name), manifest, str(manifest.input["manifest"]))


def _require_artifact(manifest: Manifest | None, artifact: str, where: str, made_by: str) -> Manifest:
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
