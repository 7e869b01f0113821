"""Find and read shards in a folder on a disk, or below a prefix of a bucket."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from larder.bucket import BucketPrefix
from larder.contract import META, Manifest, find_manifest, require_digest, samples_name
from larder.errors import ConfigurationError, InputError, StorageError
from larder.loaders.bucket_data import feed_samples
from larder.loaders.hints import CREATE_AGAIN, RESTORE
from larder.s3_objects import make_object_client
from larder.store import BucketSettings, StoreSettings, make_store

_ENDING = ".tar"
_PIECE_BYTES = 1 << 20


class ShortShardError(InputError):
    """A shard ends too early.

    Args:
        shard: Name of the shard.
        end: Position after the last byte that was wanted.
        content: The bytes that it has.
    """

    def __init__(self, shard: str, end: int, content: memoryview) -> None:
        super().__init__(f"{shard} ends before byte {end:,}", next_step=CREATE_AGAIN)
        self.content = content


class ShardFolder(Protocol):
    """A folder with shards below it. Paths are relative to it."""

    uri: str

    def list(self, below: str) -> dict[str, int]:
        """Return the path and length of each tar file below a subfolder, sorted by path."""

    def manifest(self) -> Manifest | None:
        """Return the folder's manifest, or None if it has none."""

    def feed_samples(self, manifest: Manifest, begin: Callable[[str], Callable[[bytes], object]]) -> None:
        """Give the index of samples away in pieces; see `larder.loaders.bucket_data.feed_samples`."""

    def read(self, path: str, begin: int, end: int, memory: memoryview | None = None) -> memoryview:
        """Return the bytes of a shard from `begin` to `end`. May be called in several threads.

        Args:
            path: The shard.
            begin: Position of the first byte.
            end: Position after the last byte.
            memory: Where to put the bytes, and what is returned then; None takes new memory.

        Raises:
            InputError: If the shard is missing, or was replaced since it was listed.
            ShortShardError: If it ends before `end`.
            ServiceError: If the store fails.
        """


def open_folder(uri: str, store: StoreSettings | None) -> ShardFolder:
    """Open a folder: `s3://bucket[/prefix]`, or a path.

    Args:
        uri: The folder.
        store: Settings of the store; None takes them from the environment.

    Raises:
        ConfigurationError: If the URI is invalid or there is no such folder.
    """
    if not uri.startswith("s3://"):
        return LocalShards(Path(uri))
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    settings = store or make_store()
    shared = {name: getattr(settings, name) for name in StoreSettings.model_fields}
    try:
        in_bucket = BucketSettings.model_validate(shared | {"bucket": bucket, "prefix": key}, by_name=True)
    except ValueError:
        raise ConfigurationError(
            f"{uri!r} isn't the URI of a folder in a bucket", next_step="write s3://bucket/photos-webdataset/training"
        ) from None
    return BucketShards(in_bucket)


class LocalShards:
    """Shards in a folder on a disk; see `ShardFolder`."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise ConfigurationError(f"{folder} isn't a folder", next_step="give the folder of the shards")
        self._folder, self.uri = folder, str(folder)
        self._versions: dict[str, tuple[int, int, int]] = {}

    def list(self, below: str) -> dict[str, int]:
        """See `ShardFolder`."""
        files = (path for path in (self._folder / below).rglob(f"*{_ENDING}") if path.is_file())
        # Sorted as a store lists them, so that the order of samples is the same: not as Path sorts, by its parts.
        found = dict(sorted((path.relative_to(self._folder).as_posix(), path.stat()) for path in files))
        self._versions = {path: _version(stat) for path, stat in found.items()}
        return {path: stat.st_size for path, stat in found.items()}

    def manifest(self) -> Manifest | None:
        """See `ShardFolder`."""
        return find_manifest(self._folder)

    def feed_samples(self, manifest: Manifest, begin: Callable[[str], Callable[[bytes], object]]) -> None:
        """See `ShardFolder`."""
        if manifest.samples is None:
            raise InputError(f"the manifest of {self.uri} names no index of samples", next_step=CREATE_AGAIN)
        path = self._folder / META / samples_name(manifest)
        require_digest(path, manifest.samples)
        take = begin(str(path))
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                take(piece)

    def read(self, path: str, begin: int, end: int, memory: memoryview | None = None) -> memoryview:
        """See `ShardFolder`."""
        content = np.empty(end - begin, np.uint8).data if memory is None else memory
        done = 0
        try:
            with (self._folder / path).open("rb", buffering=0) as file:
                version = _version(os.fstat(file.fileno()))
                if self._versions.setdefault(path, version) != version:
                    raise InputError(f"{self.uri}/{path} was replaced", next_step=RESTORE)
                file.seek(begin)
                while done < len(content) and (got := file.readinto(content[done:])):
                    done += got
        except FileNotFoundError:
            raise InputError(f"{self.uri}/{path} is missing", next_step=RESTORE) from None
        except OSError as error:
            raise StorageError(
                f"{self.uri}/{path} can't be read: {error.strerror}", next_step="check the disk, then run again"
            ) from error
        if done < len(content):
            raise ShortShardError(f"{self.uri}/{path}", end, content[:done])
        return content


def _version(stat: os.stat_result) -> tuple[int, int, int]:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _open_prefix(settings: BucketSettings) -> BucketPrefix:
    return BucketPrefix(settings, "", make_object_client(settings))


class BucketShards:
    """Shards below a prefix of a bucket; see `ShardFolder`."""

    def __init__(self, settings: BucketSettings) -> None:
        self._settings = settings
        self._process, self._prefix_of_process = os.getpid(), _open_prefix(settings)
        self._lock = threading.Lock()
        self.uri = self._prefix_of_process.uri
        self._etags: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": 0, "_prefix_of_process": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    @property
    def _prefix(self) -> BucketPrefix:
        """The prefix, with a client of this process: forks of a client would read each other's answers."""
        with self._lock:
            if self._process != os.getpid():
                self._process, self._prefix_of_process = os.getpid(), _open_prefix(self._settings)
            return self._prefix_of_process

    def list(self, below: str) -> dict[str, int]:
        """See `ShardFolder`."""
        found = sorted(item for item in self._prefix.list(below) if item.path.endswith(_ENDING))
        self._etags.update({item.path: item.etag for item in found})
        return {item.path: item.bytes for item in found}

    def manifest(self) -> Manifest | None:
        """See `ShardFolder`."""
        return self._prefix.find_manifest()

    def feed_samples(self, manifest: Manifest, begin: Callable[[str], Callable[[bytes], object]]) -> None:
        """See `ShardFolder`."""
        feed_samples(self._prefix, manifest, begin)

    def read(self, path: str, begin: int, end: int, memory: memoryview | None = None) -> memoryview:
        """See `ShardFolder`."""
        content = np.empty(end - begin, np.uint8).data if memory is None else memory
        known = self._etags.get(path, "")
        found = self._prefix.read_into(path, begin, content, known)
        # The index of samples has no ETags. Then the first response says which version is read.
        if found is None or (found[1] and self._etags.setdefault(path, found[1]) != found[1]):
            what = "was deleted or replaced" if path in self._etags else "is missing"
            raise InputError(f"{self.uri}/{path} {what}", next_step=RESTORE)
        if found[0] < len(content):
            raise ShortShardError(f"{self.uri}/{path}", end, content[: found[0]])
        return content
