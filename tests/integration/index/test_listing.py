"""List a source in a store: in few requests, and in constant memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from larder.sources.prefix_reader import PrefixReader
from larder.store import StoreSettings
from services.index.listing import ObjectListing, list_parallel
from tests.many_objects import BUCKET, many_objects


@pytest.mark.parametrize("count", [20_000, pytest.param(80_000, marks=pytest.mark.exhaustive)])
def test_a_listing_of_any_length_takes_no_memory(tmp_path: Path, count: int) -> None:
    with many_objects(count) as (server, address):
        settings = StoreSettings.load("store", [], {"S3_ENDPOINT_URL": address, "LARDER_UNSIGNED": "true"})
        prefix, listing = (
            PrefixReader(f"s3://{BUCKET}/", settings, count),
            ObjectListing(tmp_path / "listing.sqlite", count),
        )
        prefix.list_page(prefix.start)  # its client takes memory, too
        tracemalloc.start()
        for page in list_parallel(prefix):
            listing.add("many", BUCKET, page.objects, page.keys)
        listing.finish()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (listing.files, sum(1 for _ in listing.paths())) == (count, count)
    assert server.requests <= count / 1000 + 70, "a thousand in a request"
    assert peak < 48 << 20


def test_small_folders_are_not_listed_one_by_one() -> None:
    """Names begin with digits of a digest: each folder would need a request for its few objects."""
    folders = [f"{first:02x}/{second:02x}/" for first in range(20) for second in range(100)]
    with many_objects(30_000, folders=folders) as (server, address):
        settings = StoreSettings.load("store", [], {"S3_ENDPOINT_URL": address, "LARDER_UNSIGNED": "true"})
        keys = [
            found.key
            for page in list_parallel(PrefixReader(f"s3://{BUCKET}/", settings, 30_000))
            for found in page.objects
        ]
    assert len(set(keys)) == len(keys) == 30_000
    assert server.requests <= 100
