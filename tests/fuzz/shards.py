"""Tar shards, as read by larder, by webdataset and by verify."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import IO, cast

from larder.contract import SampleEntry
from larder.errors import LarderError
from larder.loaders.shard_dataset import read_shard_samples
from larder.shards import PlainTar
from services.verify.formats import PACK_FORMATS
from tests import hostile
from tests.fuzz.mutations import mutated

SOUND = b"".join(
    hostile.member(f"class_00/{number}.jpg", b"x" * 700) + hostile.member(f"class_00/{number}.cls", b"1")
    for number in range(3)
)
SEEDS = [
    SOUND + bytes(1024),
    hostile.pax(path=200 * "x" + ".jpg") + hostile.member("x.jpg", b"x") + hostile.member("x.cls", b"1") + bytes(1024),
    *(attack(SOUND + bytes(1024))[:20_000] for attack in hostile.shards(Path("nowhere")).values()),
]


def target(data: bytes, folder: Path) -> None:
    """Read it to its end, or until an error of ours."""
    for read in (_ours, _webdatasets):
        try:
            read(data)
        except (LarderError, tarfile.TarError, ValueError) as error:  # which ShardDataset makes one of ours
            assert len(str(error)) < 30_000
    sample = SampleEntry("training/shard-000000.tar", 512, 700, "0" * 64, 1, "training/class_00/0.jpg")
    PACK_FORMATS["webdataset"].check_frame(data, sample)


def _ours(data: bytes) -> None:
    for _, _, image, label, _ in read_shard_samples(io.BytesIO(data), len(data), "s3://bucket/shard.tar", classes=10):
        assert len(image) <= len(data) and 0 <= label < 10


def _webdatasets(data: bytes) -> None:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    stream = cast("IO[bytes]", PlainTar(io.BytesIO(data), "s3://bucket/shard.tar", ""))
    for sample in group_by_keys(tar_file_expander([{"url": "s3://bucket/shard.tar", "stream": stream}])):
        assert sum(len(part) for part in sample.values()) < 4 * len(data) + 1000


fuzz = mutated(SEEDS, target)
