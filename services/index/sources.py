"""List the sources of a run, and read larder's manifest of its own shards."""

from __future__ import annotations

from collections.abc import Iterator

from larder.bucket import BucketPrefix
from larder.contract import Manifest
from larder.dataset import is_dataset
from larder.errors import InputError
from larder.progress import Reporter, format_amount
from larder.sources.prefix_reader import ListingPage, PrefixReader, find_object, is_prefix
from larder.store import split_uri, with_bucket
from services.index.labelled_shards import SHARDS_RECIPE
from services.index.listing import ObjectListing, list_parallel, require_objects
from services.index.settings import IndexSettings


def list_sources(settings: IndexSettings, listing: ObjectListing, reporter: Reporter) -> None:
    """List all sources. Raises InputError if they have no objects or can't be combined."""
    several = len(settings.sources) > 1
    with reporter.task("list", None, "objects") as task:
        for source in settings.sources:
            bucket, _ = split_uri(source)
            for page in _pages(source, settings):
                listing.add(source, bucket, page.objects, page.keys)
                task.advance(len(page.objects))
    listing.finish()
    require_objects(listing, settings.source)
    if several and listing.kinds.images:
        raise InputError(
            "several sources must be archives, and one of them holds images",
            next_step="index each separately, with its own LARDER_DATASET",
        )
    size = f"{format_amount(listing.files, 'objects')}, {format_amount(listing.bytes, 'B')}"
    reporter.event("listed", f"the source holds {size}", objects=listing.files, bytes=listing.bytes)


def _pages(source: str, settings: IndexSettings) -> Iterator[ListingPage]:
    if is_prefix(source, settings):
        yield from list_parallel(PrefixReader(source, settings, settings.max_files))
    else:
        yield ListingPage([find_object(source, settings)], 1, "")


def find_shards_dataset(settings: IndexSettings) -> str:
    """Return the dataset of shards that larder has packed, or "" for other sources."""
    manifest = find_shards_manifest(settings)
    return manifest.dataset if manifest is not None and is_dataset(manifest.dataset) else ""


def find_shards_manifest(settings: IndexSettings) -> Manifest | None:
    """Return the manifest of shards that larder has packed, or None for other sources."""
    bucket, key = split_uri(settings.source)
    if len(settings.sources) > 1 or "*" in key or not key.strip("/"):
        return None
    folder = BucketPrefix(with_bucket(settings, bucket), key.strip("/"))
    try:
        manifest = folder.find_manifest()
    except InputError:  # not larder's
        return None
    return manifest if manifest is not None and manifest.artifact == SHARDS_RECIPE else None
