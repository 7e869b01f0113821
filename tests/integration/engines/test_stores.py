"""Work on what lies in a store, by a Ray cluster: the same as by one process here."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.integration.engines.conftest import Cluster


@pytest.fixture
def objects(store: Any, bucket: str) -> Callable[[str], dict[str, bytes]]:
    """The objects below a folder of the bucket but run.json: path and content."""

    def objects(folder: str) -> dict[str, bytes]:
        listed = store.client.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/").get("Contents", ())
        keys = [item["Key"] for item in listed if not item["Key"].endswith("run.json")]
        return {key.removeprefix(f"{folder}/"): store.client.get_object(Bucket=bucket, Key=key)["Body"].read()
                for key in keys}  # fmt: skip

    return objects


@pytest.mark.any_store
@pytest.mark.exhaustive
def test_index_shard_and_verify(
    stage: Any, picture: Callable[[int], bytes], store: Any, bucket: str, objects: Any, cluster: Cluster, tmp_path: Path
) -> None:
    for number in range(150):
        key = f"in/{('train', 'val')[number % 5 == 0]}/{('cat', 'dog')[number % 2]}/{number}.jpg"
        store.client.put_object(Bucket=bucket, Key=key, Body=picture(number))
    found = {}
    by_ray = {"LARDER_ENGINE": "ray", "RAY_ADDRESS": cluster.address}
    ways: dict[str, Mapping[str, str]] = {"one": {}, "two": {"LARDER_WORKERS": "2"}, "ray": by_ray}
    for way, how in ways.items():
        env = store.env | {"S3_BUCKET": bucket, "S3_PREFIX": way, "LARDER_SOURCE": f"s3://{bucket}/in/"} | how
        volume = tmp_path / way
        volume.mkdir()
        assert (done := stage("index", env=env, volume=volume)).code == 0, done.stderr
        flags = (f"--input=s3://{bucket}/{way}/Food-11-index", f"--dest=s3://{bucket}/{way}/Food-11-webdataset")
        packed = stage("shard", "--shard-bytes=40000", *flags, env=env, volume=volume)
        assert packed.code == 0, packed.stderr
        found[way] = objects(way)
    assert found["one"] == found["two"] == found["ray"]
    assert len(json.loads(found["ray"]["Food-11-index/_larder/manifest.json"])["splits"]) == 2

    store.client.put_object(Bucket=bucket, Key="in/train/dog/7.jpg", Body=bytes(len(picture(7))))
    env = store.env | {"S3_BUCKET": bucket, "S3_PREFIX": "ray", "LARDER_VERIFY_SAMPLES": "all"} | by_ray
    checked = stage("verify", env=env, volume=tmp_path)
    assert checked.code == 3, checked.stdout + checked.stderr
    assert "in/train/dog/7.jpg has changed since it was indexed" in checked.stdout
    assert "150 of 150 samples" in checked.stdout, "the shards hold"
