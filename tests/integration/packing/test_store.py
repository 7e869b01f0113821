"""Pack into a bucket, from a bucket, and through a volume and load: the objects are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Proxy, Store
from tests.integration.conftest import ReadObjects, Stage
from tests.integration.packing.conftest import ShrinkTree, StorePacker


@pytest.mark.one_in(2)
def test_streamed_is_what_load_leaves(pack: StorePacker, stage: Stage, volume: Path) -> None:
    assert pack.to_volume().code == 0
    loaded = pack.load()
    assert loaded.code == 0, loaded.stderr
    streamed = pack("direct", "--workers=2")
    assert streamed.code == 0, streamed.stderr
    assert pack.objects("direct") == pack.objects()
    assert not (volume / ".larder" / pack.folder()).exists()
    again = pack("direct")
    assert "up to date" in again.stderr
    assert "by sizes and ETags" in again.stderr
    assert "or `make verify S3_PREFIX=direct`\n" in again.stderr
    checked = stage("load", f"--folder={pack.folder()}", "--task=check", env=pack.env | {"S3_PREFIX": "direct"})
    assert checked.code == 0, checked.stderr


@pytest.mark.any_store
@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.exhaustive)])
def test_from_store_to_store(shard: StorePacker, bucket: str, empty: Path, engine: str) -> None:
    shard.load_tree()
    assert shard("").code == 0
    result = shard("far", f"--input=s3://{bucket}/Food-11", f"--engine={engine}", volume=empty)
    assert result.code == 0, result.stderr
    assert shard.objects("far") == shard.objects()


def test_an_object_that_changed_in_the_input(
    shard: StorePacker, store: Store, bucket: str, images: dict[str, bytes]
) -> None:
    shard.load_tree()
    path = "training/class_01/1_100.jpg"
    store.client.put_object(Bucket=bucket, Key=f"Food-11/{path}", Body=bytes(len(images[path])))
    result = shard.stage("shard", shard.packing.size, f"--input=s3://{bucket}/Food-11", env=shard.env)
    assert result.code == 3, result.stderr
    assert path in result.stderr
    assert "make etl-load" in result.stderr


def test_a_data_set_is_replaced_whole(shard: StorePacker, shrink_tree: ShrinkTree) -> None:
    assert shard("").code == 0
    before = shard.objects()
    shrink_tree(100)
    result = shard("")
    assert result.code == 0, result.stderr
    assert "there is no manifest until" in result.stderr
    after = shard.objects()
    assert json.loads(after["_larder/manifest.json"])["splits"]["training"]["samples"] == 100
    assert not [path for path in after if "incoming" in path]
    assert shard("other").code == 0
    assert after == shard.objects("other"), "nothing of the old dataset is left"
    assert after != before


def test_what_a_run_that_ended_after_its_manifest_has_left(
    shard: StorePacker, shrink_tree: ShrinkTree, store: Store, bucket: str, proxy: Proxy
) -> None:
    assert shard("x").code == 0
    other = {"Key": f"{shard.folder('x')}/training/shard-000099.tar", "Body": b"another's"}
    store.client.put_object(Bucket=bucket, **other)
    shrink_tree(100)
    # The withdrawal of the old manifest is the first deletion; what follows the new one fails.
    proxy.fault = lambda method, path, number: 403 if method == "POST" and proxy.copies else None
    failed = shard("x", via=proxy)
    assert failed.code == 2, failed.stderr
    left = shard.objects("x")
    assert [path for path in left if "/incoming/" in path]
    assert json.loads(left["_larder/manifest.json"])["splits"]["training"]["samples"] == 100
    again = shard("x")
    assert again.code == 0, again.stderr
    assert "deleting what an earlier run has left" in again.stderr
    assert shard("y").code == 0
    completed = shard.objects("x")
    assert completed.pop("training/shard-000099.tar") == b"another's", "what no manifest has named stays"
    assert completed == shard.objects("y")
    assert "deleting" not in shard("x").stderr


def test_large_packs_go_in_parts_and_are_copied_in_them(
    store: Store, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from larder import bucket as module
    from larder.packing import store as packs
    from larder.store import BucketSettings

    part = 5 << 20
    for where in (module, packs):
        monkeypatch.setattr(where, "CUTOFF_BYTES", part + 1)
        monkeypatch.setattr(where, "PART_BYTES", part)
    settings = BucketSettings.load("test", [], store.env | {"S3_BUCKET": bucket})
    pieces = [bytes([number]) * (1 << 20) for number in range(11)]
    entry = packs.upload_pack(settings, "folder", "in/", "large.tar", 11 << 20, pieces)
    folder = module.BucketPrefix(settings, "folder")
    assert folder.digest("in/large.tar") == (11 << 20, entry.sha256)
    assert entry.etag is not None
    assert entry.etag.endswith("-3")
    folder.copy("in/large.tar", "large.tar", 11 << 20)
    assert folder.digest("large.tar") == (11 << 20, entry.sha256)
    [listed] = [item for item in folder.list() if item.path == "in/large.tar"]
    assert listed.etag == entry.etag


def test_check_says_what_the_store_lacks(pack: StorePacker, store: Store, bucket: str) -> None:
    assert pack.to_volume().code == 0
    assert pack.load("--task=check").code == 3
    assert not store.client.list_objects_v2(Bucket=bucket).get("Contents"), "a check sends nothing"
    assert pack.load().code == 0
    assert pack.load("--task=check").code == 0
    keys = [item["Key"] for item in store.client.list_objects_v2(Bucket=bucket)["Contents"]]
    store.client.delete_object(Bucket=bucket, Key=next(key for key in keys if "/training/" in key))
    result = pack.load("--task=check")
    assert result.code == 3
    assert "missing or different there: 1 object\n" in result.stderr


def test_another_kind_of_data_is_not_replaced(shard: StorePacker, bucket: str, objects: ReadObjects) -> None:
    shard.load_tree()
    before = objects("Food-11")
    result = shard("", f"--dest=s3://{bucket}/Food-11", "--force")
    assert result.code == 2, result.stderr
    assert f"s3://{bucket}/{shard.folder()}" in result.stderr
    assert objects("Food-11") == before


def test_litdatas_index_comes_after_its_chunks(stage: Stage, tree: Path, env: dict[str, str], proxy: Proxy) -> None:
    assert stage("optimize", "--chunk-bytes=60000").code == 0
    failed: set[str] = set()

    def once(method: str, path: str, number: int) -> Any:
        if method == "PUT" and "chunk-0-3.bin" in path and len(failed) < 4:
            failed.add(f"{number}")
            return 503
        return None

    proxy.fault = once
    loaded = stage("load", "--folder=Food-11-litdata", env=env | {"S3_ENDPOINT_URL": proxy.endpoint})
    assert loaded.code == 0, loaded.stderr
    puts = [path for method, path in proxy.requests if method == "PUT" and "Food-11-litdata/" in path]
    first_index = next(number for number, path in enumerate(puts) if "/index.json" in path)
    assert not [path for path in puts[first_index:] if "chunk-0-" in path]


@pytest.mark.one_in(2)
def test_packing_then_loading_leaves_the_same_objects_as_packing_to_the_store(
    pack: StorePacker, store: Store, bucket: str
) -> None:
    """With fewer packs than before, the old surplus is deleted, by load and by packing to the store."""
    larger = pack.packing.size.replace("60000", "200000")
    assert pack.to_volume().code == 0
    assert pack.load().code == 0
    assert pack("x").code == 0
    before = pack.objects()
    for prefix in ("", "x"):
        store.client.put_object(Bucket=bucket, Key=f"{pack.folder(prefix)}/training/mine.txt", Body=b"mine")
    assert pack.to_volume(larger).code == 0
    loaded = pack.load()
    assert loaded.code == 0, loaded.stderr
    assert "in the way: 1 object " in loaded.stderr
    assert "in the way: 1 object " in pack("x", larger).stderr
    after = pack.objects()
    assert after == pack.objects("x")
    assert len(after) < len(before)
    assert after["training/mine.txt"] == b"mine", "what no manifest of ours has named stays"
