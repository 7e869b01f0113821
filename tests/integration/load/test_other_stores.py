"""Stores that are full, and stores whose ETags aren't checksums."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from tests.conftest import StartProxy, Store
from tests.integration.conftest import Stage
from tests.integration.load.conftest import InStore, MakeTree


@pytest.fixture
def full(stage: Stage, small_minio: Store) -> Any:
    """A store with 128 MiB, 100 of which are taken."""
    client = small_minio.client
    client.create_bucket(Bucket="images")
    for number in range(100):
        client.put_object(Bucket="images", Key=f"something else/{number}", Body=bytes(1 << 20))
    return small_minio


def test_a_full_disk_under_the_store(stage: Stage, tree: MakeTree, full: Any, in_bucket: type[InStore]) -> None:
    made = tree(
        {f"soup/{n}.jpg": os.urandom(1 << 20) for n in range(40)}, LARDER_VERIFY="none", LARDER_RECIPE="imagefolder"
    )
    env = full.env | {"S3_BUCKET": "images"}
    result = stage("load", env=env)
    assert result.code == 5
    assert "the store's disk is full" in result.stderr
    assert "free space" in result.stderr
    there = in_bucket(full.client, "images")
    assert there.find_manifest() is None
    taken = [{"Key": f"something else/{number}"} for number in range(100)]
    # With a full disk, MinIO may not delete all at once; and it frees the disk some time after it has answered.
    for _attempt in range(20):
        full.client.delete_objects(Bucket="images", Delete={"Objects": taken})
        arrived = there.data()
        result = stage("load", env=env)
        if "disk is full" not in result.stderr:
            break
        time.sleep(1)
    assert result.code == 0, result.stderr
    assert f"{40 - len(arrived)} sent" in result.stderr
    assert there.data() == made
    there.require_whole()


def test_a_store_that_encrypts_gives_no_checksums(
    stage: Stage, tree: MakeTree, encrypting_minio: Store, in_bucket: type[InStore], start_proxy: StartProxy
) -> None:
    store = encrypting_minio
    store.client.create_bucket(Bucket="images")
    made = tree(30)
    there = in_bucket(store.client, "images")
    env = store.env | {"S3_BUCKET": "images"}
    result = stage("load", env=env)
    assert result.code == 0, result.stderr
    assert "gives no checksums" in result.stderr
    assert "verified by size, " in result.stderr
    assert there.data() == made
    proxy = start_proxy(store)
    again = stage("load", env=env | {"S3_ENDPOINT_URL": proxy.endpoint})
    assert again.code == 0
    assert "up to date" in again.stderr
    assert proxy.count("PUT", ".jpg") == 0
    checked = stage("load", "--task=check", env=env)
    assert checked.code == 0, checked.stderr
    assert "verified by size and checksum, 30 of them by content" in checked.stderr
    victim = "training/class_00/0_0.jpg"
    there.put(victim, bytes(len(made[victim])))
    assert "missing or different there: 1 object\n" in stage("load", "--task=check", env=env).stderr
    assert "1 sent" in stage("load", "--verify-remote=read", env=env).stderr
    assert there.data() == made
