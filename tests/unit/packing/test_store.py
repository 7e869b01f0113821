"""Uploads to a store: a file's parts, and valid destinations."""

from __future__ import annotations

import pytest

from larder.errors import ConfigurationError
from larder.packing.store import _parts
from services.shard.settings import ShardSettings


@pytest.mark.parametrize("part_bytes", [1, 3, 4, 7, 100])
def test_parts(part_bytes: int) -> None:
    parts = [bytes(part) for part in _parts([b"abc", b"", b"defg"], 7, part_bytes)]
    assert b"".join(parts) == b"abcdefg"
    assert {len(part) for part in parts[:-1]} <= {part_bytes}


@pytest.mark.parametrize("pieces", [[b"abcdefgh"], [b"abc", b"defgh"], [b"abcdef"], []], ids=len)
def test_parts_of_a_file_that_is_longer_or_shorter_than_planned(pieces: list[bytes]) -> None:
    for part_bytes in (2, 7, 100):
        with pytest.raises(ValueError, match="received"):
            list(_parts(pieces, 7, part_bytes))


def test_a_shard_that_no_store_takes() -> None:
    with pytest.raises(ConfigurationError, match=r"at most 156\.25 GiB \(167772160000 bytes\): S3 takes 10,000 parts"):
        ShardSettings.load("shard", [], {"LARDER_SHARD_BYTES": "167772160001"})
    ShardSettings.load("shard", [], {"LARDER_SHARD_BYTES": "156.25GiB"})


@pytest.mark.parametrize("name", ["INPUT", "DEST"])
@pytest.mark.parametrize("place", ["s3://b/../x", "s3://b/./x", "s3://b/x/..", "s3://b", "s3://b//x", "s3:/b/x"])
def test_a_place_that_is_none(name: str, place: str) -> None:
    with pytest.raises(ConfigurationError, match=f"LARDER_{name}"):
        ShardSettings.load("shard", [], {f"LARDER_{name}": place})
