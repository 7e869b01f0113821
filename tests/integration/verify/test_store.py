"""The links in the store: objects, shards and chunks, each broken in its own way, in every kind of store."""

from __future__ import annotations

import json
import shutil
import signal
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.conftest import Proxy, Store
from tests.integration.conftest import Stage
from tests.integration.verify.conftest import Broken, Copy, Loaded, Outcome, Tools, Verify

pytestmark = pytest.mark.any_store

LOCAL = ("archive", "raw", "tree", "shards", "chunks")
STORED = ("objects in the store", "shards in the store", "chunks in the store")
OBJECTS, SHARDS, CHUNKS = STORED


class Case(NamedTuple):
    """A way to damage the store. `path` and `data` are those of the file that `of` names."""

    name: str
    of: str
    damage: Callable[[Any, str, bytes], None]
    link: str
    words: tuple[str, ...]


def other_bytes(there: Loaded, path: str, data: bytes) -> None:
    there.put(path, data[:-2000] + bytes(byte ^ 1 for byte in data[-2000:-1900]) + data[-1900:])


def shorter(there: Loaded, path: str, data: bytes) -> None:
    there.put(path, data[:-1])


def gone(there: Loaded, path: str, data: bytes) -> None:
    there.delete(path)


def put_in_parts(there: Loaded, path: str, data: bytes) -> None:
    """Put an object so that its ETag isn't the MD5 of its content."""
    where = {"Bucket": there.bucket, "Key": there.key(path)}
    upload = there.client.create_multipart_upload(**where)["UploadId"]
    part = there.client.upload_part(**where, UploadId=upload, PartNumber=1, Body=data)
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    there.client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload=parts)


def of_another_tree(there: Loaded, path: str, data: bytes) -> None:
    manifest = json.loads(data)
    manifest["input"]["manifest"] = "0" * 64
    there.put(path, (json.dumps(manifest, sort_keys=True, indent=2) + "\n").encode())


SHARD, CHUNK = "Food-11-webdataset/training/shard-000000.tar", "Food-11-litdata/training/chunk-0-0.bin"
REPLACED = "something else wrote to the same path"
CASES = (
    Case("an object replaced", "{image}", other_bytes, OBJECTS, ("{image}", "expected  sha256", "found", REPLACED)),
    Case("an object cut off", "{image}", shorter, OBJECTS, ("another length", "{image}")),
    Case("an object gone", "{image}", gone, OBJECTS, ("is missing", "{image}", "next step: run `make etl-load`;")),
    Case("the objects' index gone", "Food-11/_larder/index-*", gone, OBJECTS, ("an index in the manifest is missing",)),
    Case(
        "the objects' index", "Food-11/_larder/index-*", other_bytes, OBJECTS, ("an index differs from the manifest",)
    ),
    Case("objects of another tree", "Food-11/_larder/manifest.json", of_another_tree, OBJECTS, ("another tree",)),
    Case("a shard replaced", SHARD, other_bytes, SHARDS, (SHARD, "make etl-wds")),
    Case("a shard cut off", SHARD, shorter, SHARDS, ("another length", SHARD)),
    Case("a shard gone", SHARD, gone, SHARDS, ("is missing", SHARD)),
    Case("the index of samples gone", "Food-11-webdataset/_larder/samples-*", gone, SHARDS, ("is missing",)),
    Case(
        "shards of another tree", "Food-11-webdataset/_larder/manifest.json", of_another_tree, SHARDS, ("another tree",)
    ),
    Case("a chunk replaced", CHUNK, other_bytes, CHUNKS, (CHUNK, "make etl-lit")),
    Case("LitData's index gone", "Food-11-litdata/training/index.json", gone, CHUNKS, ("is missing", "index.json")),
)


LISTED = [case for case in CASES if case.damage is other_bytes and "_larder" not in case.of]


@pytest.mark.one_in(8)
@pytest.mark.parametrize(
    ("case", "samples"),
    [*((case, "all") for case in CASES), *((case, "33") for case in LISTED)],
    ids=lambda value: value.name if isinstance(value, Case) else value,
)
def test_the_first_break_is_named(
    verify: Verify, there: Loaded, objects: dict[str, bytes], broken: Broken, outcome: Outcome, case: Case, samples: str
) -> None:
    """A listing shows length and ETag, which are compared for all objects, whether in the sample or not."""
    image = next(path for path in objects if path.startswith("Food-11/training/"))
    start = case.of.format(image=image).removesuffix("*")
    path = next(path for path in objects if path.startswith(start))
    case.damage(there, path, objects[path])
    ended = verify(samples=samples, env=there.env)
    broken(ended, case.link, *(word.format(image=image) for word in case.words))
    links = outcome(ended.stdout)
    assert [links[link] for link in LOCAL] == ["ok"] * 5
    assert [link for link in STORED if links[link] != "ok"] == [case.link]


@pytest.mark.parametrize(
    ("samples", "workers"),
    [
        ("all", "3"),
        ("33", "1"),
        pytest.param("all", "1", marks=pytest.mark.exhaustive),
        pytest.param("33", "3", marks=pytest.mark.exhaustive),
    ],
)
def test_a_chain_that_holds(verify: Verify, loaded: Loaded, outcome: Outcome, samples: str, workers: str) -> None:
    ended = verify(samples=samples, env=loaded.env | {"LARDER_WORKERS": workers})
    assert ended.code == 0, ended.stderr
    assert outcome(ended.stdout) == dict.fromkeys(LOCAL + STORED, "ok")
    assert "8 of 8 links followed" in ended.stderr


@pytest.mark.parametrize(
    ("part", "link"), [("evaluation/class_", OBJECTS), ("shard-000000.tar", SHARDS), ("chunk-0-0.bin", CHUNKS)]
)
def test_bytes_that_go_wrong_on_the_way(
    verify: Verify, loaded: Loaded, broken: Broken, proxy: Proxy, part: str, link: str
) -> None:
    """Length and ETag are right, so only reading and hashing shows the fault."""
    proxy.fault = lambda method, path, number: "corrupt" if method == "GET" and part in path else None
    broken(
        verify(samples="33", env=loaded.env | {"S3_ENDPOINT_URL": proxy.endpoint}),
        link,
        "expected  ",
        "found     ",
        part,
    )


def test_each_file_is_read_once_and_nothing_is_written(
    verify: Verify, loaded: Loaded, objects: dict[str, bytes], proxy: Proxy
) -> None:
    assert verify(env=loaded.env | {"S3_ENDPOINT_URL": proxy.endpoint}).code == 0
    assert {method for method, _ in proxy.requests} <= {"GET", "HEAD"}
    for path in objects:
        if "/_larder/" not in path:
            assert proxy.count("GET", f"/{loaded.key(path)}") == 1, path
    assert loaded.all() == objects


def test_a_store_that_stumbles(verify: Verify, loaded: Loaded, proxy: Proxy) -> None:
    faults: list[int | str] = [503, "reset-response", 500]
    proxy.fault = lambda method, path, number: faults.pop() if number % 20 == 0 and faults else None
    assert verify(env=loaded.env | {"S3_ENDPOINT_URL": proxy.endpoint}).code == 0
    assert not faults


def test_the_same_bytes_under_another_etag_are_no_break(
    verify: Verify, there: Loaded, objects: dict[str, bytes]
) -> None:
    """ETags differ after a copy of the bucket, or in a store that encrypts."""
    for path in (SHARD, next(path for path in objects if path.startswith("Food-11/training/"))):
        put_in_parts(there, path, objects[path])
    for samples in ("33", "all"):
        ended = verify(samples=samples, env=there.env)
        assert ended.code == 0, ended.stderr
    for path in (SHARD, next(path for path in objects if path.startswith("Food-11/training/"))):
        there.put(path, objects[path])  # for the tests that follow


def test_verify_reads_packs_with_other_etags_up_to_the_sample_size(
    verify: Verify, there: Loaded, objects: dict[str, bytes]
) -> None:
    """In a store that encrypts, all ETags differ."""
    packs = [path for path in objects if path.endswith((".tar", ".bin"))]
    for path in packs:
        put_in_parts(there, path, objects[path])
    ended = verify(samples="22", env=there.env)
    assert ended.code == 0, ended.stderr
    for link in (SHARDS, CHUNKS):
        [line] = [line for line in ended.stdout.splitlines() if link in line]
        assert f"; 2 of {len(packs) // 2} packs with other ETags read whole" in line
    whole = verify(samples="all", env=there.env)
    assert whole.code == 0
    assert "ETags" not in whole.stdout
    for path in packs:
        there.put(path, objects[path])  # for the tests that follow


def test_the_store_alone(
    verify: Verify, chain: Copy, there: Loaded, objects: dict[str, bytes], outcome: Outcome, broken: Broken
) -> None:
    """On another machine, verify follows only the store: shards up to the objects' index."""
    for folder in ("data", "wds", "lit"):
        shutil.rmtree(chain.root / folder)
    ended = verify(samples="33", env=there.env)
    assert ended.code == 0, ended.stderr
    links = outcome(ended.stdout)
    assert [links[link] for link in STORED] == ["ok"] * 3
    assert [links[link] for link in LOCAL[1:]] == ["not there"] * 4
    of_another_tree(there, path := "Food-11-litdata/_larder/manifest.json", objects[path])
    broken(verify(env=there.env), CHUNKS, "made from another tree")


def test_the_named_next_step_repairs_it(
    verify: Verify, stage: Stage, chain: Copy, there: Loaded, objects: dict[str, bytes]
) -> None:
    images = [path for path in objects if path.startswith("Food-11/training/")]
    other_bytes(there, images[0], objects[images[0]])
    assert "next step: run `make etl-load LARDER_FORCE=true`;" in verify(env=there.env).stderr
    env = there.env | {"LARDER_VOLUME_DIR": str(chain.root / "data")}
    assert stage("load", env=env | {"LARDER_FORCE": "true"}).code == 0
    there.delete(images[1])
    assert "next step: run `make etl-load`;" in verify(env=there.env).stderr
    assert stage("load", env=env).code == 0
    assert verify(env=there.env).code == 0


def test_nothing_loaded(verify: Verify, store: Store, bucket: str, outcome: Outcome) -> None:
    ended = verify(env=store.env | {"S3_BUCKET": bucket})
    assert ended.code == 0, ended.stderr
    assert [outcome(ended.stdout)[link] for link in STORED] == ["not there"] * 3


def test_a_break_on_a_volume_comes_first(
    verify: Verify, chain: Copy, tools: Tools, there: Loaded, objects: dict[str, bytes], broken: Broken
) -> None:
    path = next(path for path in objects if path.startswith("Food-11/training/"))
    there.delete(path)
    shard = chain.shards / "training/shard-000000.tar"
    tools.flip(shard, 600)
    broken(verify(env=there.env), "shards", "the bytes of an image have changed")


def failed(ended: Any, code: int, *words: str) -> None:
    """Check that links verified before are shown, and that later links are reported as left out."""
    assert ended.code == code, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["ok"] * 5
    assert lines[5].startswith(f"FAILED       {OBJECTS}")
    assert all(f"since {OBJECTS} failed" in line for line in lines[6:])
    for word in (*words, "next step"):
        assert word in ended.stderr


def test_a_store_that_is_down(verify: Verify, loaded: Loaded, proxy: Proxy) -> None:
    proxy.shutdown()
    proxy.server_close()
    failed(verify(env=loaded.env | {"S3_ENDPOINT_URL": proxy.endpoint}), 5, "doesn't answer")


def test_a_store_that_is_down_and_a_break_before(
    verify: Verify, loaded: Loaded, proxy: Proxy, chain: Copy, tools: Tools, broken: Broken
) -> None:
    proxy.shutdown()
    proxy.server_close()
    tools.flip(chain.shards / "training/shard-000000.tar", 600)
    broken(verify(env=loaded.env | {"S3_ENDPOINT_URL": proxy.endpoint}), "shards")


@pytest.mark.exhaustive
def test_a_store_that_fails_in_the_middle(verify: Verify, loaded: Loaded, proxy: Proxy) -> None:
    proxy.fault = lambda method, path, number: 503 if "evaluation/class_" in path else None
    failed(verify(env=loaded.env | {"S3_ENDPOINT_URL": proxy.endpoint}), 5)


def test_a_wrong_secret(verify: Verify, loaded: Loaded) -> None:
    failed(verify(env=loaded.env | {"AWS_SECRET_ACCESS_KEY": "not-the-secret"}), 2, "secret key is wrong")


def test_a_missing_bucket(verify: Verify, loaded: Loaded) -> None:
    failed(verify(env=loaded.env | {"S3_BUCKET": "larder-not-there"}), 2, "no such bucket")


def test_interrupted_while_the_store_is_silent(stage: Stage, chain: Copy, loaded: Loaded) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = stage.start("verify", env=chain.env | loaded.env | {"S3_ENDPOINT_URL": endpoint})
        connection, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
        connection.close()
    assert process.returncode == 130, stderr
    assert stdout.count("\n") == 5
