"""Listings of prefixes: memory doesn't depend on their length, and entries stay unchanged."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from larder.sources.kinds import KindDetector
from larder.sources.prefix_reader import PrefixReader, S3Object
from larder.store import StoreSettings
from services.extract.remotes.prefix import ListingFile


@pytest.mark.parametrize("count", [20_000, pytest.param(40_000, marks=pytest.mark.exhaustive)])
def test_a_listing_of_any_length_takes_no_memory(tmp_path: Path, count: int) -> None:
    objects = (
        S3Object(f"class/{number:07d}.jpg", 3, f"{number:032x}", f"p/class/{number:07d}.jpg") for number in range(count)
    )
    listing, kinds = ListingFile(tmp_path / "listing"), KindDetector()
    tracemalloc.start()
    listing.write(objects)
    for found in listing:
        kinds.add(found.path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (listing.files, listing.bytes, kinds.kind) == (count, 3 * count, "files")
    assert peak < 2 << 20


@pytest.mark.parametrize(
    ("uri", "key", "path"),
    [
        ("s3://b/p", "p/a/b.jpg", "a/b.jpg"),
        ("s3://b/p/", "p/b.jpg", "b.jpg"),
        ("s3://b/", "a/b.jpg", "a/b.jpg"),
        ("s3://b/p", "p/", None),
        ("s3://b/p", "p/a_$folder$", None),
        ("s3://b/p", "p/__MACOSX/a", None),
        ("s3://b/p/*.tar", "p/a.tar", "a.tar"),
        ("s3://b/p/*.tar", "p/q/a.tar", None),
        ("s3://b/p/**.tar", "p/q/a.tar", "q/a.tar"),
        ("s3://b/p/a?.tar/", "p/a?.tar/1", "1"),
        ("s3://b/p?q#r/", "p?q#r/a.jpg", "a.jpg"),
    ],
)
def test_the_path_of_a_key(uri: str, key: str, path: str | None) -> None:
    prefix = PrefixReader(uri, StoreSettings.load("test", [], {}), 10)
    entry = prefix._object({"Key": key, "Size": 0, "ETag": '"x"'}) if key.startswith(prefix.start) else None
    assert (entry.path if entry else None) == path
