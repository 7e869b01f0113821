"""Work of a Ray cluster on data in a store: the result is that of one local process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Store
from tests.integration.conftest import MakePicture, ReadObjects, Stage
from tests.integration.engines.conftest import Cluster


@pytest.mark.any_store
@pytest.mark.exhaustive
def test_index_shard_and_verify(
    stage: Stage,
    picture: MakePicture,
    store: Store,
    bucket: str,
    objects: ReadObjects,
    cluster: Cluster,
    tmp_path: Path,
) -> None:
    for number in range(150):
        key = f"in/{('train', 'val')[number % 5 == 0]}/{('cat', 'dog')[number % 2]}/{number}.jpg"
        store.client.put_object(Bucket=bucket, Key=key, Body=picture(number))
    results = {}
    by_ray = {"LARDER_ENGINE": "ray", "RAY_ADDRESS": cluster.address}
    ways: dict[str, dict[str, str]] = {"one": {}, "two": {"LARDER_WORKERS": "2"}, "ray": by_ray}
    for way, how in ways.items():
        env = store.env | {"S3_BUCKET": bucket, "S3_PREFIX": way, "LARDER_SOURCE": f"s3://{bucket}/in/"} | how
        volume = tmp_path / way
        volume.mkdir()
        assert (done := stage("index", env=env, volume=volume)).code == 0, done.stderr
        flags = (f"--input=s3://{bucket}/{way}/Food-11-index", f"--dest=s3://{bucket}/{way}/Food-11-webdataset")
        packed = stage("shard", "--shard-bytes=40000", *flags, env=env, volume=volume)
        assert packed.code == 0, packed.stderr
        results[way] = objects(way)
    assert results["one"] == results["two"] == results["ray"]
    assert len(json.loads(results["ray"]["Food-11-index/_larder/manifest.json"])["splits"]) == 2

    store.client.put_object(Bucket=bucket, Key="in/train/dog/7.jpg", Body=bytes(len(picture(7))))
    env = store.env | {"S3_BUCKET": bucket, "S3_PREFIX": "ray", "LARDER_VERIFY_SAMPLES": "all"} | by_ray
    checked = stage("verify", env=env, volume=tmp_path)
    assert checked.code == 3, checked.stdout + checked.stderr
    assert "in/train/dog/7.jpg has changed since it was indexed" in checked.stdout
    assert "150 of 150 samples" in checked.stdout, "the shards hold"
