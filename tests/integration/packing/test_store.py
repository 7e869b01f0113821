"""Packs straight into a bucket, from a bucket, and by way of a volume and load: the same objects in the end."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest


@pytest.fixture
def objects(store: Any, bucket: str) -> Any:
    """The objects below a folder of the bucket: path and content, without run.json."""

    def objects(folder: str) -> dict[str, bytes]:
        found = {}
        for item in store.client.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/").get("Contents", ()):
            path = item["Key"].removeprefix(f"{folder}/")
            if not path.endswith("run.json"):
                found[path] = store.client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        return found

    return objects


@pytest.fixture
def env(store: Any, bucket: str) -> dict[str, str]:
    """The settings that reach the bucket."""
    return store.env | {"S3_BUCKET": bucket}


def test_streamed_is_what_load_leaves(
    stage: Any, volume: Path, tree: Path, packing: Any, bucket: str, env: dict[str, str], objects: Any
) -> None:
    assert stage(packing.stage, packing.size).code == 0
    loaded = stage("load", f"--folder={packing.folder}", env=env)
    assert loaded.code == 0, loaded.stderr
    streamed = stage(packing.stage, packing.size, f"--dest=s3://{bucket}/direct/{packing.folder}", env=env)
    assert streamed.code == 0, streamed.stderr
    assert objects(f"direct/{packing.folder}") == objects(packing.folder)
    assert not (volume / ".larder" / packing.folder).exists()
    again = stage(packing.stage, packing.size, f"--dest=s3://{bucket}/direct/{packing.folder}", env=env)
    assert "up to date" in again.stderr
    assert "by their sizes and ETags" in again.stderr
    assert "or make verify S3_PREFIX=direct\n" in again.stderr
    checked = stage("load", f"--folder={packing.folder}", "--task=check", env=env | {"S3_PREFIX": "direct"})
    assert checked.code == 0, checked.stderr


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_from_store_to_store(
    stage: Any, volume: Path, tree: Path, sharding: Any, bucket: str, env: dict[str, str], objects: Any, tmp_path: Path,
    engine: str,
) -> None:  # fmt: skip
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
    stage: Any, store: Any, tree: Path, sharding: Any, bucket: str, env: dict[str, str], images: dict[str, bytes]
) -> None:
    assert stage("load", env=env).code == 0
    path = "training/class_01/1_100.jpg"
    store.client.put_object(Bucket=bucket, Key=f"Food-11/{path}", Body=bytes(len(images[path])))
    result = stage(sharding.stage, sharding.size, f"--input=s3://{bucket}/Food-11", env=env)
    assert result.code == 3, result.stderr
    assert path in result.stderr
    assert "make etl-load" in result.stderr


def test_a_data_set_is_replaced_whole(
    stage: Any, volume: Path, make_tree: Any, images: dict[str, bytes], sharding: Any, bucket: str, env: dict[str, str],
    objects: Any,
) -> None:  # fmt: skip
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
    assert after == objects(f"other/{sharding.folder}"), "nothing of the old data set is left"
    assert after != before


def test_what_a_run_that_ended_after_its_manifest_has_left(
    stage: Any, volume: Path, make_tree: Any, images: dict[str, bytes], sharding: Any, bucket: str, env: dict[str, str],
    objects: Any, store: Any, proxy: Any,
) -> None:  # fmt: skip
    make_tree(images)
    dest = f"--dest=s3://{bucket}/x/{sharding.folder}"
    assert stage(sharding.stage, sharding.size, dest, env=env).code == 0
    store.client.put_object(Bucket=bucket, Key=f"x/{sharding.folder}/training/shard-000099.tar", Body=b"another's")
    fewer = dict(list(images.items())[:100])
    for path in images.keys() - fewer.keys():
        (volume / "Food-11" / path).unlink()
    make_tree(fewer)
    between = proxy(store)
    # The withdrawal of the old manifest is the first deletion; what follows the new one fails.
    between.fault = lambda method, path, number: 403 if method == "POST" and between.copies else None
    failed = stage(sharding.stage, sharding.size, dest, env=env | {"S3_ENDPOINT_URL": between.endpoint})
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
MOMENTS: dict[str, Callable[[str, str, int], bool]] = {
    "the manifest is withdrawn": lambda method, path, copies: method == "POST" and "delete" in path,
    "half of the packs are copied": lambda method, path, copies: copies == 3,
    "the new manifest is put": lambda method, path, copies: method == "PUT" and path.endswith("manifest.json"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_replacement_that_is_killed_is_completed(
    stage: Any, volume: Path, make_tree: Any, images: dict[str, bytes], packing: Any, bucket: str, env: dict[str, str],
    objects: Any, store: Any, proxy: Any, moment: str,
) -> None:  # fmt: skip
    def pack(place: str) -> tuple[str, ...]:
        return packing.stage, packing.size, f"--dest=s3://{bucket}/{place}/{packing.folder}"

    make_tree(images)
    for place in ("undisturbed", "killed"):
        assert stage(*pack(place), env=env).code == 0
    fewer = dict(list(images.items())[:150])
    for path in images.keys() - fewer.keys():
        (volume / "Food-11" / path).unlink()
    make_tree(fewer)
    assert stage(*pack("undisturbed"), env=env).code == 0
    between, reached, following, go = proxy(store), threading.Event(), threading.Event(), threading.Event()

    def hold(method: str, path: str, number: int) -> str | None:
        if reached.is_set():
            following.set()  # so the one before has been answered
            go.wait(60)
            return "reset-request"  # what was on its way when the process died doesn't count
        if MOMENTS[moment](method, path, between.copies):
            reached.set()
        return None

    between.fault = hold
    process = stage.start(*pack("killed"), env=env | {"S3_ENDPOINT_URL": between.endpoint})
    assert following.wait(60), process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    go.set()
    between.settle()
    left = objects(f"killed/{packing.folder}")
    assert ("_larder/manifest.json" in left) == (moment == "the new manifest is put")
    again = stage(*pack("killed"), env=env)
    assert again.code == 0, again.stderr
    assert objects(f"killed/{packing.folder}") == objects(f"undisturbed/{packing.folder}")
    assert not (volume / ".larder" / packing.folder).exists(), "nothing is left to go on with"


def test_killed_while_sending(
    stage: Any, tree: Path, bucket: str, env: dict[str, str], store: Any, proxy: Any, objects: Any, until: Any
) -> None:
    assert stage("shard", "--shard-bytes=12000", f"--dest=s3://{bucket}/whole/x", env=env).code == 0
    between, go = proxy(store), threading.Event()

    def hold(method: str, path: str, number: int) -> str | None:
        if between.count("PUT", ".tar") <= 20 or go.is_set():
            return None
        go.wait(60)
        return "reset-request"

    between.fault = hold
    flags = ("shard", "--shard-bytes=12000", "--workers=2", f"--dest=s3://{bucket}/killed/x")
    process = stage.start(*flags, env=env | {"S3_ENDPOINT_URL": between.endpoint})
    until(lambda: between.count("PUT", ".tar") > 20 or process.poll() is not None, "some shards were sent")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    go.set()
    between.settle()
    assert process.returncode == -signal.SIGKILL
    assert "_larder/manifest.json" not in objects("killed/x")
    sent = between.count("PUT", ".tar")
    result = stage(*flags, env=env | {"S3_ENDPOINT_URL": between.endpoint})
    assert result.code == 0, result.stderr
    assert "continuing" in result.stderr
    total = len([path for path in objects("whole/x") if path.endswith(".tar")])
    assert between.count("PUT", ".tar") < sent + total, "not everything was sent again"
    assert objects("killed/x") == objects("whole/x")


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("method", "part", "sent"), [("PUT", ".tar", signal.SIGINT), ("GET", ".jpg", signal.SIGTERM)],
    ids=["sending", "reading"],
)  # fmt: skip
def test_interrupted_it_ends_at_once_and_goes_on(
    stage: Any, store: Any, tree: Path, sharding: Any, bucket: str, env: dict[str, str], objects: Any, proxy: Any,
    until: Any, tmp_path: Path, workers: str, method: str, part: str, sent: signal.Signals,
) -> None:  # fmt: skip
    """Whatever it waits for: here, a store that has fallen silent."""
    assert stage("load", env=env).code == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    between, held, go = proxy(store), threading.Semaphore(0), threading.Event()

    def hold(made: str, path: str, number: int) -> None:
        if made == method and part in path and between.count(method, part) > 2:
            held.release()
            go.wait(60)

    between.fault = hold
    flags = (sharding.size, f"--input=s3://{bucket}/Food-11", f"--dest=s3://{bucket}/{sharding.folder}")
    options = {"env": env | {"S3_ENDPOINT_URL": between.endpoint, "LARDER_WORKERS": workers}, "volume": empty}
    process = stage.start(sharding.stage, *flags, **options)
    try:
        assert held.acquire(timeout=60)
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=30)  # half of what the store is silent for
    finally:
        go.set()
        process.kill()
    assert process.returncode == 130
    assert "interrupted: ending within seconds" in stderr
    assert stderr.rstrip().endswith("interrupted; nothing is lost, run the same command again")
    assert stage(sharding.stage, *flags, **options).code == 0
    assert stage(sharding.stage, sharding.size, env=env).code == 0
    assert stage("load", f"--folder={sharding.folder}", "--task=check", env=env).code == 0


def test_a_failure_waits_for_nothing_else_that_was_asked(
    stage: Any, store: Any, tree: Path, sharding: Any, bucket: str, env: dict[str, str], proxy: Any, tmp_path: Path,
    images: dict[str, bytes],
) -> None:  # fmt: skip
    """Of a store that refuses one image, and is silent about the others."""
    assert stage("load", env=env).code == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    between, others, go = proxy(store), threading.Event(), threading.Event()

    def hold(method: str, path: str, number: int) -> int | None:
        if path.endswith(min(images)):
            others.wait(60)
            return 403
        if path.endswith(".jpg"):
            others.set()
            go.wait(60)
        return None

    between.fault = hold
    flags = (sharding.size, "--workers=1", "--shuffle=none", f"--input=s3://{bucket}/Food-11")
    process = stage.start(sharding.stage, *flags, env=env | {"S3_ENDPOINT_URL": between.endpoint}, volume=empty)
    try:
        _, stderr = process.communicate(timeout=40)
    finally:
        go.set()
        process.kill()
    assert process.returncode == 2, stderr
    assert "access is denied" in stderr


def test_ctrl_c_while_workers_are_being_started_is_told_by_one_process(
    stage: Any, tree: Path, bucket: str, env: dict[str, str], until: Any, held: Any
) -> None:
    """A terminal gives it to all of them."""
    with held(tree / "training/class_00/0_0.jpg"):
        process = stage.start("shard", f"--dest=s3://{bucket}/x/shards", env=env | {"LARDER_WORKERS": "2"})
        seen = psutil.Process(process.pid)
        until(
            lambda: any("forkserver" in word for child in seen.children() for word in child.cmdline()),
            "they are being started",
        )
        for one in [*seen.children(), seen]:
            one.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr and stderr.count("interrupted; nothing is lost") == 1


@pytest.mark.parametrize("fault", ["reset-request", 503])
def test_a_store_that_fails_in_passing(
    stage: Any, tree: Path, bucket: str, env: dict[str, str], store: Any, proxy: Any, objects: Any, fault: Any
) -> None:
    between = proxy(store)
    broken: set[str] = set()

    def once(method: str, path: str, number: int) -> Any:
        if method == "PUT" and path.endswith((".tar", "3.tar?x")) and path not in broken:
            broken.add(path)
            return fault
        return None

    between.fault = once
    dest = f"--dest=s3://{bucket}/x/shards"
    result = stage("shard", "--shard-bytes=100000", dest, env=env | {"S3_ENDPOINT_URL": between.endpoint})
    assert result.code == 0, result.stderr
    assert broken
    assert stage("shard", "--shard-bytes=100000", f"--dest=s3://{bucket}/y/shards", env=env).code == 0
    assert objects("x/shards") == objects("y/shards")


def test_a_store_that_fails_for_good(
    stage: Any, tree: Path, bucket: str, env: dict[str, str], store: Any, proxy: Any, objects: Any
) -> None:
    between = proxy(store)
    between.fault = lambda method, path, number: 403 if method == "PUT" and "000002.tar" in path else None
    dest = f"--dest=s3://{bucket}/x/shards"
    result = stage("shard", "--shard-bytes=100000", dest, env=env | {"S3_ENDPOINT_URL": between.endpoint})
    assert result.code == 2, result.stderr
    assert "shard-000002.tar" in result.stderr
    assert "_larder/manifest.json" not in objects("x/shards")
    assert stage("shard", "--shard-bytes=100000", dest, env=env).code == 0


@pytest.mark.parametrize(
    ("faults", "puts"),
    [
        pytest.param([501], 2, id="takes-no-checksum"),
        pytest.param(["no-checksum"], 1, id="confirms-nothing"),
        pytest.param(["spoilt-request"], 2, id="got-other-bytes"),
        pytest.param([501, "spoilt-request"], 3, id="takes-no-checksum-and-got-other-bytes"),
    ],
)
def test_what_arrives_is_verified(
    stage: Any, tree: Path, bucket: str, env: dict[str, str], store: Any, proxy: Any, objects: Any, faults: list[Any],
    puts: int,
) -> None:  # fmt: skip
    between, waiting = proxy(store), list(faults)
    between.fault = lambda method, path, number: (
        waiting.pop(0) if waiting and method == "PUT" and "training/shard-000001.tar" in path else None
    )
    dest = f"--dest=s3://{bucket}/x/shards"
    result = stage("shard", "--shard-bytes=300000", dest, env=env | {"S3_ENDPOINT_URL": between.endpoint})
    assert result.code == 0, result.stderr
    assert not waiting
    assert between.count("PUT", "training/shard-000001.tar") == puts
    assert not between.count("GET", "training/shard-000001.tar"), "its ETag vouches for it"
    assert stage("shard", "--shard-bytes=300000", f"--dest=s3://{bucket}/y/shards", env=env).code == 0
    assert objects("x/shards") == objects("y/shards")


def test_other_bytes_in_a_store_that_gives_no_checksums(
    stage: Any, tree: Path, bucket: str, env: dict[str, str], store: Any, proxy: Any, objects: Any
) -> None:
    between = proxy(store)
    between.fault = lambda method, path, number: (
        {"PUT": "no-digest", "GET": "spoilt"}.get(method) if "training/shard-000001.tar" in path else None
    )
    dest = f"--dest=s3://{bucket}/x/shards"
    result = stage("shard", "--shard-bytes=300000", dest, env=env | {"S3_ENDPOINT_URL": between.endpoint})
    assert result.code == 5, result.stderr
    assert "holds other bytes than were sent" in result.stderr
    assert "_larder/manifest.json" not in objects("x/shards")


@pytest.mark.parametrize("index", ["_larder/index-", "_larder/samples-"])
@pytest.mark.parametrize("way", ["streamed", "loaded"])
def test_an_index_that_arrives_wrong_gets_no_manifest(
    stage: Any, tree: Path, sharding: Any, bucket: str, env: dict[str, str], store: Any, proxy: Any, objects: Any,
    index: str, way: str,
) -> None:  # fmt: skip
    between = proxy(store)
    between.fault = lambda method, path, number: "spoilt-request" if method == "PUT" and index in path else None
    env = env | {"S3_ENDPOINT_URL": between.endpoint}
    if way == "streamed":
        result = stage(sharding.stage, sharding.size, f"--dest=s3://{bucket}/{sharding.folder}", env=env)
    else:
        assert stage(sharding.stage, sharding.size).code == 0
        result = stage("load", f"--folder={sharding.folder}", env=env)
    assert result.code == 5, result.stderr
    assert index in result.stderr
    assert "holds other bytes than were sent" in result.stderr
    assert "_larder/manifest.json" not in objects(sharding.folder)


def test_a_store_that_takes_no_checksum_is_sent_one_pack_twice(store: Any, bucket: str, proxy: Any) -> None:
    from larder.bucket import Folder
    from larder.store import BucketSettings

    between = proxy(store)
    between.fault = lambda method, path, number: 501 if number == 1 else None
    settings = BucketSettings.load("test", [], store.env | {"S3_BUCKET": bucket, "S3_ENDPOINT_URL": between.endpoint})
    folder = Folder(settings, "folder")
    assert [folder.write_confirmed(path, b"pack")[1] for path in ("1.tar", "2.tar")] == [True, True]
    assert [between.count("PUT", path) for path in ("1.tar", "2.tar")] == [2, 1]
    assert between.checksums == 1


def test_large_packs_go_in_parts_and_are_copied_in_them(store: Any, bucket: str, monkeypatch: Any) -> None:
    from larder import bucket as module
    from larder.packing import store as packs
    from larder.store import BucketSettings

    part = 5 << 20
    for where in (module, packs):
        monkeypatch.setattr(where, "CUTOFF_BYTES", part + 1)
        monkeypatch.setattr(where, "PART_BYTES", part)
    settings = BucketSettings.load("test", [], store.env | {"S3_BUCKET": bucket})
    pieces = [bytes([number]) * (1 << 20) for number in range(11)]
    entry = packs.send(settings, "folder", "in/", "large.tar", 11 << 20, pieces)
    folder = module.Folder(settings, "folder")
    assert folder.digest("in/large.tar") == (11 << 20, entry.sha256)
    assert entry.etag is not None
    assert entry.etag.endswith("-3")
    folder.copy("in/large.tar", "large.tar", 11 << 20)
    assert folder.digest("large.tar") == (11 << 20, entry.sha256)
    [found] = [item for item in folder.list() if item.path == "in/large.tar"]
    assert found.etag == entry.etag


def test_check_says_what_the_store_lacks(
    stage: Any, store: Any, volume: Path, tree: Path, packing: Any, bucket: str, env: dict[str, str]
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
    stage: Any, tree: Path, sharding: Any, bucket: str, env: dict[str, str], objects: Any
) -> None:
    assert stage("load", env=env).code == 0
    before = objects("Food-11")
    result = stage(sharding.stage, sharding.size, f"--dest=s3://{bucket}/Food-11", "--force", env=env)
    assert result.code == 2, result.stderr
    assert f"s3://{bucket}/{sharding.folder}" in result.stderr
    assert objects("Food-11") == before


def test_litdatas_index_comes_after_its_chunks(
    stage: Any, tree: Path, bucket: str, env: dict[str, str], store: Any, proxy: Any
) -> None:
    assert stage("optimize", "--chunk-bytes=60000").code == 0
    between = proxy(store)
    failed: set[str] = set()

    def once(method: str, path: str, number: int) -> Any:
        if method == "PUT" and "chunk-0-3.bin" in path and len(failed) < 4:
            failed.add(f"{number}")
            return 503
        return None

    between.fault = once
    env = env | {"S3_ENDPOINT_URL": between.endpoint}
    loaded = stage("load", "--folder=Food-11-litdata", env=env)
    assert loaded.code == 0, loaded.stderr
    puts = [path for method, path in between.requests if method == "PUT" and "Food-11-litdata/" in path]
    first_index = next(number for number, path in enumerate(puts) if "/index.json" in path)
    assert not [path for path in puts[first_index:] if "chunk-0-" in path]


def test_a_large_pack_that_fails_leaves_nothing(store: Any, bucket: str, proxy: Any, monkeypatch: Any) -> None:
    from larder.errors import ConfigurationError
    from larder.packing import store as packs
    from larder.store import BucketSettings

    monkeypatch.setattr(packs, "CUTOFF_BYTES", 5 << 20)
    monkeypatch.setattr(packs, "PART_BYTES", 5 << 20)
    between = proxy(store)
    between.fault = lambda method, path, number: 403 if "partNumber=2" in path else None
    settings = BucketSettings.load("test", [], store.env | {"S3_BUCKET": bucket, "S3_ENDPOINT_URL": between.endpoint})
    with pytest.raises(ConfigurationError, match=r"folder/large\.tar"):
        packs.send(settings, "folder", "", "large.tar", 11 << 20, [bytes(11 << 20)])
    assert between.count("PUT", "partNumber=1") == 1
    assert not store.client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert not store.client.list_objects_v2(Bucket=bucket).get("Contents")


def test_an_upload_in_parts_that_is_interrupted_waits_for_no_silent_store(
    store: Any, bucket: str, proxy: Any, until: Any
) -> None:
    from larder.bucket import Folder
    from larder.store import BucketSettings

    def parts() -> Iterator[bytes]:
        yield bytes(5 << 20)
        raise KeyboardInterrupt

    between, go = proxy(store), threading.Event()

    def hold(method: str, path: str, number: int) -> None:
        if method == "DELETE":
            go.wait(60)

    between.fault = hold
    settings = BucketSettings.load("test", [], store.env | {"S3_BUCKET": bucket, "S3_ENDPOINT_URL": between.endpoint})
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Folder(settings, "folder").write_parts("large.tar", parts())
    assert time.monotonic() - begin < 30, "sooner than a request's own time is over"
    go.set()
    until(lambda: not store.client.list_multipart_uploads(Bucket=bucket).get("Uploads"), "what was asked for is done")


@pytest.fixture
def begin_upload(store: Any, bucket: str) -> Any:
    """Begins an upload in parts, as one that SIGKILL ended leaves it."""

    def begin(path: str) -> None:
        place = {"Bucket": bucket, "Key": path}
        upload = store.client.create_multipart_upload(**place)["UploadId"]
        store.client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"part")

    yield begin
    for item in store.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
        store.client.abort_multipart_upload(Bucket=bucket, Key=item["Key"], UploadId=item["UploadId"])


def test_parts_that_a_killed_run_has_left(
    stage: Any, tree: Path, sharding: Any, bucket: str, env: dict[str, str], store: Any, begin_upload: Any
) -> None:
    folder = sharding.folder
    others = [f"{folder}/training/another.tar", f"x/{folder}/_larder/incoming/training/shard-000000.tar"]
    ours = [f"{folder}/_larder/incoming/training/shard-000077.tar", f"{folder}/training/shard-000000.tar"]
    for path in others + ours:
        begin_upload(path)
    result = stage(sharding.stage, sharding.size, f"--dest=s3://{bucket}/{folder}", env=env)
    assert result.code == 0, result.stderr
    left = [item["Key"] for item in store.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]
    assert sorted(left) == sorted(others)


def test_a_store_that_lists_no_uploads(
    stage: Any, tree: Path, sharding: Any, bucket: str, env: dict[str, str], store: Any, proxy: Any
) -> None:
    between = proxy(store)
    between.fault = lambda method, path, number: 403 if method == "GET" and "uploads" in path else None
    dest = f"--dest=s3://{bucket}/{sharding.folder}"
    result = stage(sharding.stage, sharding.size, dest, env=env | {"S3_ENDPOINT_URL": between.endpoint})
    assert result.code == 0, result.stderr
    assert "may be left behind" in result.stderr


def test_packed_anew_and_loaded_leaves_what_streaming_leaves(
    stage: Any, tree: Path, packing: Any, bucket: str, env: dict[str, str], store: Any, objects: Any, images: Any
) -> None:
    """Fewer packs than before: the surplus of the data set before goes, whichever way the new one came."""
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
