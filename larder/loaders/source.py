"""Finds and checks what a loader reads from a bucket: finished data, every file where its manifest says."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, NamedTuple

from larder.bucket import Folder
from larder.contract import (
    LINE_BYTES,
    META,
    Artifact,
    IndexEntry,
    Manifest,
    SampleEntry,
    index_name,
    parse_index,
    parse_samples,
    samples_name,
)
from larder.errors import ConfigurationError, InputError
from larder.loaders.loader import check_manifest
from larder.loaders.remedies import RENEW, RESTORE
from larder.loaders.shard_table import ShardTable
from larder.progress import Reporter
from larder.store import StoreSettings, make_store, place_in_store

if TYPE_CHECKING:
    from botocore.response import StreamingBody

_PIECE_BYTES = 1 << 20


def open_folder(uri: str, store: StoreSettings | None) -> Folder:
    """The folder of a bucket at `s3://bucket/[prefix/]name`, in the environment's store where none is given.

    Raises ConfigurationError for another URI.
    """
    try:
        settings, name = place_in_store(store or make_store(), uri)
    except ValueError:  # pydantic's, of a bucket or a prefix that can't be one
        name = ""
    if not uri.startswith("s3://") or not name:
        raise ConfigurationError(
            f"uri={uri!r}: it must name a folder in a bucket",
            next_step="write s3://bucket/photos, perhaps with a prefix before the name",
        )
    return Folder(settings, name)


def read_index(folder: Folder, manifest: Manifest) -> Iterator[IndexEntry]:
    """Fetch the index that the manifest names, and stream it. Raises InputError when it isn't what that says."""
    name = f"{META}/{index_name(manifest)}"
    size = min(manifest.index.bytes, manifest.files * LINE_BYTES)
    with tempfile.TemporaryFile(prefix="larder-") as place:
        fetch(folder, name, size, manifest.index.sha256, place)
        yield from parse_index(place, f"{folder.uri}/{name}", len(manifest.classes))


def read_samples(folder: Folder, manifest: Manifest) -> Iterator[SampleEntry]:
    """Fetch the index of samples that the manifest names, and stream it.

    Raises InputError when the manifest names none, or it isn't what that says.
    """
    if manifest.samples is None:
        raise InputError(f"the manifest of {folder.uri} names no index of samples", next_step=RENEW)
    name = f"{META}/{samples_name(manifest)}"
    most = sum(split.samples for split in manifest.splits.values()) * LINE_BYTES
    with tempfile.TemporaryFile(prefix="larder-") as place:
        fetch(folder, name, min(manifest.samples.bytes, most), manifest.samples.sha256, place)
        yield from parse_samples(place, f"{folder.uri}/{name}")


def fetch(folder: Folder, path: str, size: int, sha256: str, place: IO[bytes]) -> None:
    """Write an object to a file, which is at its beginning then.

    Raises InputError unless it has this length and digest. No more than that is fetched.
    """

    def copy(body: StreamingBody) -> str:
        place.seek(0)
        place.truncate()
        digest, left = hashlib.sha256(), size + 1
        while left and (piece := body.read(min(left, _PIECE_BYTES))):
            left -= len(piece)
            digest.update(piece)
            place.write(piece)
        return digest.hexdigest() if left == 1 else ""

    if folder.with_body(path, copy) != sha256:
        raise InputError(f"{folder.uri}/{path} is missing or not what its manifest says", next_step=RESTORE)
    place.seek(0)


def require_none_missing(folder: Folder, missing: str | None) -> None:
    """Raise InputError for the first path that a listing didn't show with its length."""
    if missing is not None:
        raise InputError(
            f"{folder.uri}/{missing} is missing or has another length than its manifest says", next_step=RESTORE
        )


class Packs(NamedTuple):
    """The packs of a split in a bucket: tar shards, or chunks."""

    folder: Folder
    manifest: Manifest
    files: list[IndexEntry]


def find_packs(uri: str, artifact: Artifact, split: str, store: StoreSettings | None, reporter: Reporter) -> Packs:
    """The packs of a split below `uri`, each of which is there.

    Raises ConfigurationError without a split or when the store refuses, InputError when the objects aren't what the
    manifest says, ServiceError when the store doesn't answer.
    """
    folder = open_folder(uri, store)
    manifest = check_manifest(folder.find_manifest(), artifact, split, folder.uri)
    files = [entry for entry in read_index(folder, manifest) if entry.path.startswith(f"{split}/")]
    missing = {file.path: file.bytes for file in files}
    with reporter.task(f"listing {split}", len(files), "files") as task:
        for item in folder.list(split):
            if missing.get(item.path) == item.bytes:
                del missing[item.path]
            task.advance()
    require_none_missing(folder, next(iter(missing), None))
    return Packs(folder, manifest, files)


def read_shard_table(packs: Packs, split: str, reporter: Reporter) -> ShardTable:
    """What the samples of a split's shards must be. Raises InputError unless that is what the manifest says."""
    samples = packs.manifest.splits[split].samples
    with reporter.task("reading the index of samples", samples, "images") as task:

        def counted() -> Iterator[SampleEntry]:
            for sample in read_samples(packs.folder, packs.manifest):
                if sample.file.startswith(f"{split}/"):
                    task.advance()
                    yield sample

        table = ShardTable(counted(), split, packs.folder.uri)
    if len(table) != samples:
        raise InputError(
            f"the index of samples of {packs.folder.uri} names {len(table):,} images in {split!r}, its manifest "
            f"{samples:,}",
            next_step=RENEW,
        )
    return table
