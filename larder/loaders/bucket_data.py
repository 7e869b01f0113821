"""Find a loader's data in a bucket, and check it against its manifest."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, NamedTuple

from larder.bucket import BucketPrefix
from larder.contract import (
    MAX_LINE_BYTES,
    META,
    Artifact,
    IndexEntry,
    IndexSummary,
    Manifest,
    SampleEntry,
    index_name,
    parse_index,
    parse_samples,
    samples_name,
)
from larder.errors import ConfigurationError, InputError
from larder.loaders.hints import CREATE_AGAIN, RESTORE
from larder.loaders.loader import check_manifest
from larder.loaders.shard_table import ShardTable
from larder.progress import Reporter
from larder.store import StoreSettings, make_store, parse_store_uri

if TYPE_CHECKING:
    from botocore.response import StreamingBody

_PIECE_BYTES = 1 << 20


def open_artifact_prefix(uri: str, store: StoreSettings | None) -> BucketPrefix:
    """Return the folder at `s3://bucket/[prefix/]name`.

    Args:
        uri: The folder's URI.
        store: Settings of the store; None takes them from the environment.

    Raises:
        ConfigurationError: If `uri` doesn't name a folder in a bucket.
    """
    try:
        settings, name = parse_store_uri(store or make_store(), uri)
    except ValueError:  # from pydantic: invalid bucket or prefix
        name = ""
    if not uri.startswith("s3://") or not name:
        raise ConfigurationError(
            f"uri={uri!r}: it must name a folder in a bucket",
            next_step="write s3://bucket/photos, perhaps with a prefix before the name",
        )
    return BucketPrefix(settings, name)


def fetch_index(folder: BucketPrefix, manifest: Manifest) -> Iterator[IndexEntry]:
    """Fetch the index that the manifest names, and stream its entries.

    Raises:
        InputError: If the index doesn't match the manifest.
    """
    name = f"{META}/{index_name(manifest)}"
    size = min(manifest.index.bytes, manifest.files * MAX_LINE_BYTES)
    with tempfile.TemporaryFile(prefix="larder-") as file:
        download_object(folder, name, size, manifest.index.sha256, file)
        yield from parse_index(file, f"{folder.uri}/{name}", len(manifest.classes))


def fetch_samples(folder: BucketPrefix, manifest: Manifest) -> Iterator[SampleEntry]:
    """Fetch the index of samples that the manifest names, and stream its entries.

    Raises:
        InputError: If the manifest names no index of samples, or the index doesn't match the manifest.
    """
    name, summary = _samples_of(folder, manifest)
    with tempfile.TemporaryFile(prefix="larder-") as file:
        download_object(folder, name, summary.bytes, summary.sha256, file)
        yield from parse_samples(file, f"{folder.uri}/{name}")


def feed_samples(folder: BucketPrefix, manifest: Manifest, begin: Callable[[str], Callable[[bytes], object]]) -> None:
    """Fetch the index of samples that the manifest names, and give it away in pieces, without a file.

    Args:
        folder: The prefix of the data.
        manifest: Its manifest.
        begin: Takes the index's name, and returns the function that takes the pieces. It is called again if a transfer
            fails: then the index comes from the beginning.

    Raises:
        InputError: If the manifest names no index of samples, or the index doesn't match the manifest. Don't use the
            pieces then.
    """
    name, summary = _samples_of(folder, manifest)
    _feed_object(folder, name, summary.bytes, summary.sha256, lambda: begin(f"{folder.uri}/{name}"))


def _samples_of(folder: BucketPrefix, manifest: Manifest) -> tuple[str, IndexSummary]:
    """Return path, length and digest of the index of samples. A length that can't be true is cut."""
    if manifest.samples is None:
        raise InputError(f"the manifest of {folder.uri} names no index of samples", next_step=CREATE_AGAIN)
    max_bytes = sum(split.samples for split in manifest.splits.values()) * MAX_LINE_BYTES
    size = min(manifest.samples.bytes, max_bytes)
    return f"{META}/{samples_name(manifest)}", IndexSummary(bytes=size, sha256=manifest.samples.sha256)


def download_object(folder: BucketPrefix, path: str, size: int, sha256: str, file: IO[bytes]) -> None:
    """Download an object into a file and rewind the file. Read at most `size` + 1 bytes.

    Args:
        folder: The prefix of the data.
        path: The object, relative to the prefix.
        size: Expected length in bytes.
        sha256: Expected digest, in hexadecimal.
        file: Binary file for the content.

    Raises:
        InputError: If the object is missing, or its length or digest differs.
    """

    def begin() -> Callable[[bytes], object]:
        file.seek(0)
        file.truncate()
        return file.write

    _feed_object(folder, path, size, sha256, begin)
    file.seek(0)


def _feed_object(
    folder: BucketPrefix, path: str, size: int, sha256: str, begin: Callable[[], Callable[[bytes], object]]
) -> None:
    """Give an object away in pieces, to a new function from `begin` at each attempt; see `download_object`."""

    def copy(body: StreamingBody) -> str:
        take, digest, left = begin(), hashlib.sha256(), size + 1
        while left and (piece := body.read(min(left, _PIECE_BYTES))):
            left -= len(piece)
            digest.update(piece)
            take(piece)
        return digest.hexdigest() if left == 1 else ""

    if folder.with_body(path, copy) != sha256:
        raise InputError(f"{folder.uri}/{path} is missing or not what its manifest says", next_step=RESTORE)


def require_none_missing(folder: BucketPrefix, missing: str | None) -> None:
    """Raise InputError if `missing` is a path, the first that a listing lacks."""
    if missing is not None:
        raise InputError(
            f"{folder.uri}/{missing} is missing or has another length than its manifest says", next_step=RESTORE
        )


class PackedSplit(NamedTuple):
    """Shards or chunks of a split in a bucket."""

    folder: BucketPrefix
    manifest: Manifest
    files: list[IndexEntry]


def find_packed_split(
    uri: str, artifact: Artifact, split: str, store: StoreSettings | None, reporter: Reporter
) -> PackedSplit:
    """Return the shards or chunks of a split, after checking that each exists with its length.

    Args:
        uri: The folder of the packed data, `s3://bucket/[prefix/]name`.
        artifact: "webdataset" or "litdata".
        split: The split, such as "training".
        store: Settings of the store; None takes them from the environment.
        reporter: Receives progress of the listing.

    Raises:
        ConfigurationError: If there is no such split, or the store refuses access.
        InputError: If the objects don't match the manifest.
        ServiceError: If the store doesn't answer.
    """
    folder = open_artifact_prefix(uri, store)
    manifest = check_manifest(folder.find_manifest(), artifact, split, folder.uri)
    files = [entry for entry in fetch_index(folder, manifest) if entry.path.startswith(f"{split}/")]
    missing = {file.path: file.bytes for file in files}
    with reporter.task(f"listing {split}", len(files), "files") as task:
        for item in folder.list(split):
            if missing.get(item.path) == item.bytes:
                del missing[item.path]
            task.advance()
    require_none_missing(folder, next(iter(missing), None))
    return PackedSplit(folder, manifest, files)


def fetch_shard_table(packs: PackedSplit, split: str, reporter: Reporter) -> ShardTable:
    """Read labels and digests of a split's samples from the index of samples.

    Args:
        packs: The shards of the split.
        split: The split, such as "training".
        reporter: Receives progress.

    Raises:
        InputError: If the index of samples doesn't match the manifest.
    """
    samples = packs.manifest.splits[split].samples
    with reporter.task("reading the index of samples", samples, "images") as task:

        def counted() -> Iterator[SampleEntry]:
            for sample in fetch_samples(packs.folder, packs.manifest):
                if sample.file.startswith(f"{split}/"):
                    task.advance()
                    yield sample

        table = ShardTable(counted(), split, packs.folder.uri)
    if len(table) != samples:
        raise InputError(
            f"the index of samples of {packs.folder.uri} names {len(table):,} images in {split!r}, its manifest "
            f"{samples:,}",
            next_step=CREATE_AGAIN,
        )
    return table
