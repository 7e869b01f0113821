"""Sources in a store that can't be indexed."""

from __future__ import annotations

import zipfile

import pytest

from tests.integration.index.conftest import BucketStages, tar_of, zip_of
from tests.parquet import packed

pytestmark = pytest.mark.any_store

IMAGES = {f"{label}/{number}.jpg": b"%d" % number for label in ("cat", "dog") for number in range(3)}


REFUSED = {
    "compressed members": ({"a.zip": zip_of({"cat/1.jpg": b"1" * 999}, zipfile.ZIP_BZIP2)}, "a.zip", "zip -0"),
    "a compressed tar": ({"a.tar.gz": tar_of(IMAGES, "w:gz")}, "a.tar.gz", "compressed as a whole (gzip)"),
    "no archive": ({"a.tar": b"nothing of the kind" * 99}, "a.tar", "a.tar"),
    "no Parquet file": ({"in/train-0.parquet": b"PAR1"}, "in/", "train-0.parquet is damaged"),
    "Parquet files in Zstandard": (
        {"in/train-0.parquet": packed([(b"1", 0), (b"2", 1)], compression="zstd")},
        "in/",
        "compressed with ZSTD",
    ),
    "a table in an archive": ({"a.tar": tar_of({"labels.csv": b"file,label\n"} | IMAGES)}, "a.tar", "labels.csv"),
    "archives in an archive": (
        {"a.zip": zip_of({"bird.tar": tar_of({"1.jpg": b"1"})} | IMAGES)},
        "a.zip",
        "holds the archive 'bird.tar'",
    ),
    "a member twice": ({"a.tar": 2 * tar_of(IMAGES)[:6144] + bytes(1024)}, "a.tar", "is in it twice"),
    "a label of any length": (
        {"a.tar": tar_of({"1.jpg": b"1", "1.cls": b"1" * 2000})},
        "a.tar",
        "1.cls: has more than 1,024 bytes",
    ),
    "splits that names may mean": (
        {f"in/imagenet-{split}-000000.tar": tar_of({"1.jpg": b"1", "1.cls": b"1"}) for split in ("train", "val")},
        "in/",
        "LARDER_SPLITS=imagenet-train=training,imagenet-val=validation",
    ),
    "the same source twice": ({"in/a.tar": tar_of(IMAGES)}, "in/\n{source}in/", "'a.tar' is listed twice"),
    "an artifact of larder below it": (
        {f"in/{name}": data for name, data in IMAGES.items()} | {"in/photos-webdataset/_larder/manifest.json": b"{}"},
        "in/",
        "in/photos-webdataset\n",
    ),
    "nothing": ({}, "in/", "holds no objects"),
    "no such object": ({}, "a.tar", "does not exist"),
    "images without classes": ({"in/1.jpg": b"1"}, "in/", "no recipe recognizes the layout"),
    "labels for some": (
        {"in/a.tar": tar_of(IMAGES), "in/b.tar": tar_of({"1.jpg": b"1", "1.cls": b"1"})},
        "in/",
        "separately",
    ),
}


def test_an_index_beside_the_originals_is_no_part_of_them(stages: BucketStages) -> None:
    stages.put({f"in/{name}": data for name, data in IMAGES.items()})
    stages.put({"in/photos-index/_larder/manifest.json": b"{}"})
    result = stages("index", "--verify=none", env={"LARDER_SOURCE": stages.uri("in/")})
    assert result.code == 0, result.stderr
    assert "6 images in 2 classes" in result.stderr + result.stdout


@pytest.mark.parametrize("why", REFUSED)
def test_what_can_not_be_indexed(stages: BucketStages, why: str) -> None:
    there, source, words = REFUSED[why]
    stages.put(there)
    source = source.replace("{source}", stages.uri(""))
    result = stages("index", "--verify=none", env={"LARDER_SOURCE": stages.uri(source)})
    assert result.code in (2, 3), result.stderr
    assert words in result.stderr
    assert "next step:" in result.stderr
    assert "Traceback" not in result.stderr
