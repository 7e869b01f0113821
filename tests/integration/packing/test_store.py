"""Pack into a bucket, from a bucket, and through a volume and load: the objects are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Proxy, Store
from tests.integration.conftest import ReadObjects, Stage
from tests.integration.packing.conftest import MakeTree, Packing


@pytest.mark.one_in(2)
def test_streamed_is_what_load_leaves(
    stage: Stage, volume: Path, tree: Path, packing: Packing, bucket: str, env: dict[str, str], objects: ReadObjects
) -> None:
    assert stage(packing.stage, packing.size).code == 0
    loaded = stage("load", f"--folder={packing.folder}", env=env)
    assert loaded.code == 0, loaded.stderr
    streamed = stage(
        packing.stage, packing.size, f"--dest=s3://{bucket}/direct/{packing.folder}", "--workers=2", env=env
    )
    assert streamed.code == 0, streamed.stderr
    assert objects(f"direct/{packing.folder}") == objects(packing.folder)
    assert not (volume / ".larder" / packing.folder).exists()
    again = stage(packing.stage, packing.size, f"--dest=s3://{bucket}/direct/{packing.folder}", env=env)
    assert "up to date" in again.stderr
    assert "by their sizes and ETags" in again.stderr
    assert "or `make verify S3_PREFIX=direct`\n" in again.stderr
    checked = stage("load", f"--folder={packing.folder}", "--task=check", env=env | {"S3_PREFIX": "direct"})
    assert checked.code == 0, checked.stderr


@pytest.mark.any_store
@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.exhaustive)])
def test_from_store_to_store(
    stage: Stage,
    volume: Path,
    tree: Path,
    sharding: Packing,
    bucket: str,
    env: dict[str, str],
    objects: ReadObjects,
    tmp_path: Path,
    engine: str,
) -> None:
    assert stage("load", env=env).code == 0
    dest = f"--dest=s3://{bucket}/{sharding.folder}"
    assert stage(sharding.stage, sharding.size, dest, env=env).code == 0
    from_volume = objects(sharding.folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    flags = (sharding.size, f"--input=s3://{bucket}/Food-11", f"--dest=s3://{bucket}/far/{sharding.folder}")
    result = stage(sharding.stage, *flags, f"--engine={engine}", env=env, volume=empty)
    assert result.code == 0, result.stderr
    assert objects(f"far/{sharding.folder}") == from_volume


def test_an_object_that_changed_in_the_input(
    stage: Stage,
    store: Store,
    tree: Path,
    sharding: Packing,
    bucket: str,
    env: dict[str, str],
    images: dict[str, bytes],
) -> None:
    assert stage("load", env=env).code == 0
    path = "training/class_01/1_100.jpg"
    store.client.put_object(Bucket=bucket, Key=f"Food-11/{path}", Body=bytes(len(images[path])))
    result = stage(sharding.stage, sharding.size, f"--input=s3://{bucket}/Food-11", env=env)
    assert result.code == 3, result.stderr
    assert path in result.stderr
    assert "make etl-load" in result.stderr


def test_a_data_set_is_replaced_whole(
    stage: Stage,
    volume: Path,
    make_tree: MakeTree,
    images: dict[str, bytes],
    sharding: Packing,
    bucket: str,
    env: dict[str, str],
    objects: ReadObjects,
) -> None:
    make_tree(images)
    dest = f"--dest=s3://{bucket}/{sharding.folder}"
    assert stage(sharding.stage, sharding.size, dest, env=env).code == 0
    before = objects(sharding.folder)
    fewer = dict(list(images.items())[:100])
    for path in images.keys() - fewer.keys():
        (volume / "Food-11" / path).unlink()
    make_tree(fewer)
    result = stage(sharding.stage, sharding.size, dest, env=env)
    assert result.code == 0, result.stderr
    assert "there is no manifest until" in result.stderr
    after = objects(sharding.folder)
    assert json.loads(after["_larder/manifest.json"])["splits"]["training"]["samples"] == 100
    assert not [path for path in after if "incoming" in path]
    elsewhere = stage(sharding.stage, sharding.size, f"--dest=s3://{bucket}/other/{sharding.folder}", env=env)
    assert elsewhere.code == 0
    assert after == objects(f"other/{sharding.folder}"), "nothing of the old dataset is left"
    assert after != before


def test_what_a_run_that_ended_after_its_manifest_has_left(
    stage: Stage,
    volume: Path,
    make_tree: MakeTree,
    images: dict[str, bytes],
    sharding: Packing,
    bucket: str,
    env: dict[str, str],
    objects: ReadObjects,
    store: Store,
    proxy: Proxy,
) -> None:
    make_tree(images)
    dest = f"--dest=s3://{bucket}/x/{sharding.folder}"
    assert stage(sharding.stage, sharding.size, dest, env=env).code == 0
    store.client.put_object(Bucket=bucket, Key=f"x/{sharding.folder}/training/shard-000099.tar", Body=b"another's")
    fewer = dict(list(images.items())[:100])
    for path in images.keys() - fewer.keys():
        (volume / "Food-11" / path).unlink()
    make_tree(fewer)
    # The withdrawal of the old manifest is the first deletion; what follows the new one fails.
    proxy.fault = lambda method, path, number: 403 if method == "POST" and proxy.copies else None
    failed = stage(sharding.stage, sharding.size, dest, env=env | {"S3_ENDPOINT_URL": proxy.endpoint})
    assert failed.code == 2, failed.stderr
    left = objects(f"x/{sharding.folder}")
    assert [path for path in left if "/incoming/" in path]
    assert json.loads(left["_larder/manifest.json"])["splits"]["training"]["samples"] == 100
    again = stage(sharding.stage, sharding.size, dest, env=env)
    assert again.code == 0, again.stderr
    assert "deleting what an earlier run has left" in again.stderr
    assert stage(sharding.stage, sharding.size, f"--dest=s3://{bucket}/y/{sharding.folder}", env=env).code == 0
    found = objects(f"x/{sharding.folder}")
    assert found.pop("training/shard-000099.tar") == b"another's", "what no manifest has named stays"
    assert found == objects(f"y/{sharding.folder}")
    assert "deleting" not in stage(sharding.stage, sharding.size, dest, env=env).stderr


# What a replacement asks of the store, once the new packs have come in: method, path, and how many copies there were.


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
    [found] = [item for item in folder.list() if item.path == "in/large.tar"]
    assert found.etag == entry.etag


def test_check_says_what_the_store_lacks(
    stage: Stage, store: Store, volume: Path, tree: Path, packing: Packing, bucket: str, env: dict[str, str]
) -> None:
    assert stage(packing.stage, packing.size).code == 0
    check = ("load", f"--folder={packing.folder}", "--task=check")
    assert stage(*check, env=env).code == 3
    assert not store.client.list_objects_v2(Bucket=bucket).get("Contents"), "a check sends nothing"
    assert stage("load", f"--folder={packing.folder}", env=env).code == 0
    assert stage(*check, env=env).code == 0
    keys = [item["Key"] for item in store.client.list_objects_v2(Bucket=bucket)["Contents"]]
    store.client.delete_object(Bucket=bucket, Key=next(key for key in keys if "/training/" in key))
    result = stage(*check, env=env)
    assert result.code == 3
    assert "missing or different there: 1 object\n" in result.stderr


def test_another_kind_of_data_is_not_replaced(
    stage: Stage, tree: Path, sharding: Packing, bucket: str, env: dict[str, str], objects: ReadObjects
) -> None:
    assert stage("load", env=env).code == 0
    before = objects("Food-11")
    result = stage(sharding.stage, sharding.size, f"--dest=s3://{bucket}/Food-11", "--force", env=env)
    assert result.code == 2, result.stderr
    assert f"s3://{bucket}/{sharding.folder}" in result.stderr
    assert objects("Food-11") == before


def test_litdatas_index_comes_after_its_chunks(
    stage: Stage, tree: Path, bucket: str, env: dict[str, str], proxy: Proxy
) -> None:
    assert stage("optimize", "--chunk-bytes=60000").code == 0
    failed: set[str] = set()

    def once(method: str, path: str, number: int) -> Any:
        if method == "PUT" and "chunk-0-3.bin" in path and len(failed) < 4:
            failed.add(f"{number}")
            return 503
        return None

    proxy.fault = once
    env = env | {"S3_ENDPOINT_URL": proxy.endpoint}
    loaded = stage("load", "--folder=Food-11-litdata", env=env)
    assert loaded.code == 0, loaded.stderr
    puts = [path for method, path in proxy.requests if method == "PUT" and "Food-11-litdata/" in path]
    first_index = next(number for number, path in enumerate(puts) if "/index.json" in path)
    assert not [path for path in puts[first_index:] if "chunk-0-" in path]


@pytest.mark.one_in(2)
def test_packing_then_loading_leaves_the_same_objects_as_packing_to_the_store(
    stage: Stage,
    tree: Path,
    packing: Packing,
    bucket: str,
    env: dict[str, str],
    store: Store,
    objects: ReadObjects,
    images: dict[str, bytes],
) -> None:
    """With fewer packs than before, the old surplus is deleted, by load and by packing to the store."""
    larger = packing.size.replace("60000", "200000")
    streams = [(packing.stage, size, f"--dest=s3://{bucket}/x/{packing.folder}") for size in (packing.size, larger)]
    load = ("load", f"--folder={packing.folder}")
    assert stage(packing.stage, packing.size).code == 0
    assert stage(*load, env=env).code == 0
    assert stage(*streams[0], env=env).code == 0
    before = objects(packing.folder)
    for place in ("", "x/"):
        store.client.put_object(Bucket=bucket, Key=f"{place}{packing.folder}/training/mine.txt", Body=b"mine")
    assert stage(packing.stage, larger).code == 0
    loaded = stage(*load, env=env)
    assert loaded.code == 0, loaded.stderr
    assert "in the way: 1 object " in loaded.stderr
    streamed = stage(*streams[1], env=env)
    assert "in the way: 1 object " in streamed.stderr
    after = objects(packing.folder)
    assert after == objects(f"x/{packing.folder}")
    assert len(after) < len(before)
    assert after["training/mine.txt"] == b"mine", "what no manifest of ours has named stays"
