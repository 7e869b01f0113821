"""Streaming from shards and from chunks, over real stores, with a proxy between that counts and breaks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.bench.conftest import OURS

ROOT = Path(__file__).resolve().parents[3]
SHARDS, CHUNKS = "team/food/Food-11-webdataset", "team/food/Food-11-litdata"
ARMS = {"webdataset": ({}, SHARDS), "library": ({"LARDER_WEBDATASET_LOADER": "webdataset"}, SHARDS),
        "litdata_streaming": ({}, CHUNKS)}  # fmt: skip
one_store = pytest.mark.parametrize("store", ["seaweedfs"], indirect=True)


@pytest.fixture
def packed(tree, store, bucket, tmp_path):
    """The tree as shards and as chunks in a bucket, about five of each; the settings that name it."""
    environ = store.env | {"S3_BUCKET": bucket, "S3_PREFIX": "team/food", "LARDER_CACHE_DIR": str(tmp_path / "cache")}
    known = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}

    def stage(*command, **settings):
        subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=known | environ | settings, check=True)

    for name, flag, folder in (("shard", "--shard-bytes", SHARDS), ("optimize", "--chunk-bytes", CHUNKS)):
        volume = tmp_path / name
        volume.mkdir()
        size = str(sum(path.stat().st_size for path in (tree / "training").rglob("*.jpg")) // 4)
        stage(f"services.{name}", flag, size, LARDER_VOLUME_DIR=str(volume), LARDER_INPUT=str(tree))
        stage("services.load", LARDER_VOLUME_DIR=str(volume), LARDER_LOAD=Path(folder).name)
    return environ


@pytest.fixture
def run(run_bench, packed, tmp_path):
    """Run an arm: its exit code, stdout, stderr, and its record if there is one."""

    def run(arm, *flags, **environ):
        name = "webdataset" if arm == "library" else arm
        code, out, err = run_bench("--arm", name, *flags, **(packed | ARMS[arm][0] | environ))
        records = sorted((tmp_path / "results").glob("*.json"))
        return code, out, err, json.loads(records[-1].read_text()) if records else None

    return run


FEEDS = """
import json, os
from larder.progress import Reporter
from services.bench import arms
from services.bench.settings import BenchSettings

found = {}
for name, workers in (("imagefolder_local", 1), ("webdataset", 1), ("webdataset", 7), ("library", 1), ("library", 7),
                      ("litdata_streaming", 1), ("litdata_streaming", 3)):
    loader = "webdataset" if name == "library" else "larder"
    arm = "webdataset" if name == "library" else name
    flags = ["--arm", arm, "--workers", str(workers), "--webdataset-loader", loader]
    settings = BenchSettings.load("bench", flags, os.environ)
    with arms.load(settings.arm)(settings, Reporter("bench")) as feed:
        epochs = [
            [(label, round(float(image.double().sum()), 2)) for images, labels in feed.read(epoch, 5)
             for image, label in zip(images, labels.tolist())]
            for epoch in (1, 2)
        ]
    found[f"{name} {workers}"] = epochs
print(json.dumps(found))
"""


def test_every_image_once_with_its_label_whatever_the_workers(packed, tree):
    environ = {"PATH": "/usr/bin:/bin", "LARDER_BATCH_SIZE": "8", "FOOD11_DATA_DIR": str(tree), **packed}
    done = subprocess.run(
        [sys.executable, "-c", FEEDS], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = sorted(found.pop("imagefolder_local 1")[0])
    assert len(expected) == 40
    for name, epochs in found.items():
        assert [sorted(epoch) for epoch in epochs] == [expected, expected], name
        assert epochs[0] != epochs[1], f"{name}: each epoch has an order of its own"


def fetched(proxy, folder):
    """The requests for packs."""
    return [path for method, path in proxy.requests if method == "GET" and f"{folder}/training/" in path]


@one_store
@pytest.mark.parametrize("arm", ["webdataset", "library"])
def test_shards_are_measured(run, store, proxy, arm):
    front = proxy(store)
    code, out, err, record = run(arm, "--warmup-batches", "0", S3_ENDPOINT_URL=front.endpoint)
    assert code == 0, err
    assert record["images"] == 40
    assert (record["pass"], record["then"]) == ("epoch", [])
    sizes = record["dataset"]["bytes"]["training"]
    assert sizes < record["network_bytes"] < 1.3 * sizes
    # one GET and one HEAD for each shard
    assert record["network_requests"] == 2 * len(set(fetched(front, SHARDS))) == 2 * len(fetched(front, SHARDS))
    assert record["settings"]["webdataset_loader"] == ("webdataset" if arm == "library" else "larder")
    assert "requests" in out


@one_store
def test_part_of_an_epoch(run):
    code, _, err, record = run("webdataset", "--warmup-batches", "1", "--batches", "3")
    assert code == 0, err
    assert (record["images"], record["batches"], record["warmup_batches"]) == (24, 3, 1)


@one_store
def test_litdata_cold_and_warm(run, store, proxy, tmp_path):
    front = proxy(store)
    code, out, err, record = run("litdata_streaming", S3_ENDPOINT_URL=front.endpoint)
    assert code == 0, err
    [warm] = record["then"]
    assert (record["pass"], warm["pass"]) == ("cold", "warm")
    assert (record["images"], warm["images"]) == (40, 40)
    assert record["network_bytes"] >= record["dataset"]["bytes"]["training"]
    assert (warm["network_bytes"], warm["network_requests"], record["network_requests"]) == (0, None, None)
    assert record["warmup_batches"] == 0
    assert "cold" in out
    assert "warm" in out
    assert not (tmp_path / "cache/larder-litdata").exists()
    assert store.secret_key not in out + err + json.dumps(record)


@one_store
def test_litdata_of_part_of_an_epoch(run):
    code, _, err, record = run("litdata_streaming", "--batches", "3")
    assert code == 0, err
    assert [record["images"], record["then"][0]["images"]] == [24, 24]


@one_store
def test_a_cache_that_is_too_small_or_in_use(run, tmp_path):
    code, _, err, _ = run("litdata_streaming", "--max-cache-size", "1000")
    assert code == 2, err
    assert "LARDER_MAX_CACHE_SIZE=1000: 2 workers" in err
    (tmp_path / "cache").mkdir(exist_ok=True)
    lock = tmp_path / "cache/.larder-litdata.lock"
    holder = subprocess.Popen(["flock", str(lock), "-c", "echo held; read _"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)  # fmt: skip
    assert holder.stdout.readline() == b"held\n"
    code, _, err, _ = run("litdata_streaming")
    holder.communicate(b"\n")
    assert code == 3, err
    assert "another run uses" in err


def harm(store, bucket, folder, how):
    """Spoil the first pack of the split, behind the manifest's back."""
    listed = store.client.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/training/")["Contents"]
    key = min(item["Key"] for item in listed if not item["Key"].endswith(".json"))
    content = store.client.get_object(Bucket=bucket, Key=key)["Body"].read()
    if how == "gone":
        store.client.delete_object(Bucket=bucket, Key=key)
    elif how == "shorter":
        store.client.put_object(Bucket=bucket, Key=key, Body=content[:-3000])
    elif how == "no tar":
        store.client.put_object(Bucket=bucket, Key=key, Body=content[:20000] + bytes(len(content) - 20000))
    return key


@one_store
@pytest.mark.parametrize(
    ("arm", "how", "parts"),
    [
        ("webdataset", "gone", ["is missing or has another length", "make etl-wds"]),
        ("litdata_streaming", "shorter", ["is missing or has another length", "make etl-lit"]),
    ],
)
def test_packs_that_are_not_what_the_manifest_says(run, store, bucket, arm, how, parts):
    key = harm(store, bucket, ARMS[arm][1], how)
    code, out, err, record = run(arm)
    assert (code, out, record) == (3, "", None), err
    assert all(part in err for part in [key, *parts]), err
    assert "Traceback" not in err


@one_store
@pytest.mark.parametrize("arm", ["webdataset", "library"])
def test_a_shard_whose_rest_is_zeros(run, store, bucket, arm):
    harm(store, bucket, SHARDS, "no tar")
    code, out, err, record = run(arm)
    assert (code, out, record) == (3, "", None), err
    assert "Traceback" not in err
    assert "make etl-wds" in err or "LARDER_FORCE=true" in err


@one_store
@pytest.mark.parametrize("arm", list(ARMS))
def test_a_store_that_refuses_packs(run, store, proxy, arm):
    front = proxy(store)
    front.fault = lambda method, path, number: 403 if "/training/" in path and "list-type" not in path else None
    code, out, err, record = run(arm, S3_ENDPOINT_URL=front.endpoint)
    assert (code, out, record) == (2, "", None), err
    assert "Traceback" not in err
    assert "AccessDenied" in err or "may not" in err, err


@one_store
@pytest.mark.parametrize("arm", list(ARMS))
def test_a_burst_of_503_is_got_over(run, store, proxy, arm):
    front = proxy(store)
    failed = []

    def fault(method, path, number):
        if method == "GET" and "/training/" in path and "list-type" not in path and len(failed) < 4:
            failed.append(path)
            return 503
        return None

    front.fault = fault
    code, _, err, record = run(arm, S3_ENDPOINT_URL=front.endpoint)
    assert code == 0, err
    assert len(failed) == 4
    assert record["images"] == 40
