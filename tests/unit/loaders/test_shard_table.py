"""Comparison of a shard's samples with the index."""

from __future__ import annotations

import hashlib

import pytest

from larder.contract import SampleEntry
from larder.errors import InputError
from larder.loaders.shard_table import ShardSample, ShardTable

FOLDER = "s3://bucket/photos-webdataset"


def entry(shard: int, number: int, split: str = "training") -> SampleEntry:
    image = b"%d-%d" % (shard, number)
    path = f"{split}/class_00/{shard}-{number}.jpg"
    return SampleEntry(f"{split}/shard-{shard:06d}.tar", 512, 3, hashlib.sha256(image).hexdigest(), number % 2, path)


def sample(shard: int, number: int) -> ShardSample:
    return ShardSample(uri(shard), f"{shard}-{number}", b"%d-%d" % (shard, number), number % 2)


def uri(shard: int) -> str:
    return f"{FOLDER}/training/shard-{shard:06d}.tar"


@pytest.fixture(scope="module")
def table() -> ShardTable:
    """Shards of 3, 2 and 1 samples."""
    entries = [entry(shard, number) for shard in range(3) for number in range(3 - shard)]
    return ShardTable([entry(0, 0, "test"), *entries], "training", FOLDER)


def test_every_sample_gets_its_digest_in_any_order_of_shards(table: ShardTable) -> None:
    assert len(table) == 6
    read = [sample(2, 0), sample(0, 0), sample(0, 1), sample(0, 2)]
    checked = list(table.check_samples(read, [uri(2), uri(0)]))
    assert [one._replace(sha256=None) for one in checked] == read
    assert all(hashlib.sha256(one.image).digest() == one.sha256 for one in checked)


@pytest.mark.parametrize(
    ("read", "what"),
    [
        ([sample(0, 0), sample(0, 1)], "lacks 1 samples"),
        ([sample(0, 0), sample(1, 0)], "lacks 2 samples"),
        ([*(sample(0, n) for n in range(3)), sample(0, 3)], "one of the samples"),
        ([sample(7, 0)], "lacks 3 samples"),
        ([sample(0, 1)], "has class 1, and the index says 0"),
        ([*(sample(0, n) for n in range(3))], "shard-000001.tar lacks 2 samples"),
        ([], "shard-000000.tar lacks 3 samples"),
    ],
    ids=["cut off", "cut off before the next", "one more", "another shard", "class", "no second shard", "nothing"],
)
def test_what_is_not_as_the_index_says(table: ShardTable, read: list[ShardSample], what: str) -> None:
    with pytest.raises(InputError, match=what):
        list(table.check_samples(read, [uri(0), uri(1)]))


def test_shards_whose_samples_are_scattered() -> None:
    with pytest.raises(InputError, match="aren't listed together"):
        ShardTable([entry(0, 0), entry(1, 0), entry(0, 1)], "training", FOLDER)
