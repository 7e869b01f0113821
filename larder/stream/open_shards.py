"""Open a split's shards: find larder's manifest and index, or scan anybody's shards."""

from __future__ import annotations

import warnings
from pathlib import Path

from larder.contract import META, Manifest
from larder.errors import ConfigurationError
from larder.progress import Reporter
from larder.store import StoreSettings
from larder.stream.index_reader import read_index
from larder.stream.samples import SampleTable, Skipped
from larder.stream.shard_folders import ShardFolder, open_folder
from larder.stream.shard_scan import Wanted, scan_shards


def open_shards(
    uri: str, store: StoreSettings | None, wanted: Wanted, reporter: Reporter
) -> tuple[ShardFolder, Manifest | None, SampleTable, list[Skipped]]:
    """Open the shards of a split.

    Args:
        uri: The folder of the shards: `s3://bucket/prefix/training`, or a path.
        store: Settings of the store; None takes them from the environment.
        wanted: What to look for in shards without an index.
        reporter: Receives progress.

    Returns:
        The folder that paths in the table are relative to, its manifest (None for shards that larder didn't make), the
        table of samples, and the samples that were left out of it.

    Raises:
        ConfigurationError: If there is no such folder or split, or the store refuses access.
        InputError: If there are no shards, or they don't match their index.
        ServiceError: If the store doesn't answer.
    """
    uri = uri.rstrip("/") if uri.startswith("s3://") else str(Path(uri).absolute())
    parent, _, split = uri.rpartition("/")
    refusal: ConfigurationError | None = None
    if parent != "s3:/":
        folder = open_folder(parent or "/", store)
        manifest, refusal = _find_manifest(folder)
        if manifest is not None and manifest.artifact == "webdataset":
            return folder, manifest, read_index(folder, manifest, split, reporter), []
    folder = open_folder(uri, store)
    manifest, own_refusal = _find_manifest(folder)
    if manifest is not None:
        raise _no_split_error(uri, manifest)
    table, skipped = scan_shards(folder, "", wanted, reporter)
    if refusal := refusal or own_refusal:
        warnings.warn(
            f"{uri} is read without larder's index, so no digest is checked: {refusal.what}. If larder made these "
            f"shards, allow the keys to read {META}/ beside the splits; else ignore this warning",
            stacklevel=3,
        )
    return folder, None, table, skipped


def _no_split_error(uri: str, manifest: Manifest) -> ConfigurationError:
    split = next(iter(sorted(manifest.splits)), "training")
    return ConfigurationError(
        f"{uri} holds {manifest.artifact} data of {len(manifest.splits)} splits",
        next_step=f"name shards and a split, such as {uri}/{split}",
    )


def _find_manifest(folder: ShardFolder) -> tuple[Manifest | None, ConfigurationError | None]:
    """Return a folder's manifest, or why the keys don't allow reading it; (None, None) if there is none."""
    try:
        return folder.manifest(), None
    except ConfigurationError as refusal:
        return None, refusal
