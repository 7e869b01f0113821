"""Streaming from shards and from chunks, over real stores, with a proxy between that counts and breaks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from larder.loaders.s3_reader import ATTEMPTS
from tests import forks
from tests.conftest import Proxy, Store, Until
from tests.integration.bench.conftest import RunArm, StartBench
from tests.integration.bench.packed_arms import ARMS, CHUNKS, SHARDS, all_arms, fetched, is_pack, one_store

ROOT = Path(__file__).resolve().parents[3]

StartStuck = Callable[..., tuple[forks.Fork, list[psutil.Process]]]

HarmPack = Callable[[Store, str, str], None]


@pytest.mark.exhaustive
@one_store
def test_workers_without_a_shard_are_named(run_packed: RunArm) -> None:
    code, _, err, _ = run_packed("webdataset", "--workers", "7")
    assert code == 0, err
    assert "of them read nothing" in err
    assert "of them read nothing" not in run_packed("webdataset", "--workers", "1")[2]


FEEDS = """
import json, os, zlib
import torch
from larder.imagenet import IMAGENET_MEAN, IMAGENET_STD
from larder.progress import Reporter
from larder.bench.open_arm import open_arm
from services.bench.settings import BenchSettings

def identify(image):  # by its 8-bit pixels: the floats of two loaders differ a little
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return zlib.crc32(((image * std + mean) * 255).round().to(torch.uint8).contiguous().numpy())

found = {}
for name, workers in (("imagefolder_local", 1), ("webdataset", 2), ("webdataset", 6),
                      ("library", 1), ("library", 6), ("stream", 1), ("stream", 6), ("litdata_streaming", 2),
                      ("litdata_streaming", 6)):
    loader = "webdataset" if name == "library" else "larder"
    arm = "webdataset" if name == "library" else name
    flags = ["--arm", arm, "--workers", str(workers), "--webdataset-loader", loader]
    settings = BenchSettings.load("bench", flags, os.environ)
    with open_arm(settings.arm, settings, Reporter("bench")) as measured:
        epochs = [
            [(label, identify(image)) for images, labels in measured.loader.read(epoch, 5)
             for image, label in zip(images, labels.tolist())]
            for epoch in (1, 2)
        ]
    found[f"{name} {workers}"] = epochs
print(json.dumps(found))
"""


@pytest.mark.any_store
def test_every_image_once_with_its_label_whatever_the_workers(packed: dict[str, str]) -> None:
    environ = {"PATH": "/usr/bin:/bin", "LARDER_BATCH_SIZE": "8", **packed}
    done = subprocess.run(
        [sys.executable, "-c", FEEDS], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    epochs_by_arm = json.loads(done.stdout)
    expected = sorted(epochs_by_arm.pop("imagefolder_local 1")[0])
    assert len(set(map(tuple, expected))) == 40
    for name, epochs in epochs_by_arm.items():
        assert [sorted(epoch) for epoch in epochs] == [expected, expected], name
        assert epochs[0] != epochs[1], f"{name}: each epoch has an order of its own"


@one_store
@pytest.mark.parametrize("arm", ["webdataset", "library"])
def test_shards_are_measured(run_packed: RunArm, store: Store, proxy: Proxy, arm: str) -> None:
    code, out, err, record = run_packed(arm, "--warmup-batches=0", "--workers=2", S3_ENDPOINT_URL=proxy.endpoint)
    assert code == 0, err
    assert record["images"] == 40
    assert (record["pass"], record["then"]) == ("epoch", [])
    sizes = record["dataset"]["bytes"]["training"]
    assert sizes < record["network_bytes"] < 1.3 * sizes
    asked = fetched(proxy, SHARDS)
    assert len(asked) == record["network_requests"] == 2 * len({path for _, path in asked}), "one HEAD and one GET each"
    assert record["settings"]["webdataset_loader"] == ("webdataset" if arm == "library" else "larder")
    assert ("of webdataset " if arm == "library" else "larder's own") in record["loader"] or arm == "litdata_streaming"
    assert f"\nloader                {record['loader']}\n" in out
    assert f"requests              {record['network_requests']}\n" in out
    assert not any(secret in out + err + json.dumps(record) for secret in (store.secret_key, store.access_key))


@pytest.mark.one_in(4)
@one_store
@pytest.mark.parametrize("arm", ["webdataset", "library"])
@pytest.mark.parametrize("workers", ["2", "7"], ids=["2-workers", "more-workers-than-shards"])
def test_part_of_an_epoch(run_packed: RunArm, arm: str, workers: str) -> None:
    code, _, err, record = run_packed(arm, "--warmup-batches", "1", "--batches", "4", "--workers", workers)
    assert code == 0, err
    assert (record["batches"], record["warmup_batches"]) == (4, 1)
    assert 4 < record["images"] <= 32


@pytest.mark.one_in(4)
@one_store
@all_arms
@pytest.mark.parametrize(
    ("environ", "code", "parts"),
    [
        pytest.param({"S3_PREFIX": "other"}, 3, ["holds no finished data", "run `make etl-"], id="no-data"),
        pytest.param({"FOOD11_SPLIT": "test"}, 2, ["FOOD11_SPLIT='test'", "validation"], id="no-split"),
        pytest.param({"S3_BUCKET": ""}, 2, ["S3_BUCKET is not set"], id="bucket-not-set"),
        pytest.param({"S3_BUCKET": "larder-no-such-bucket"}, 2, ["no such bucket"], id="no-bucket"),
        pytest.param({"AWS_SECRET_ACCESS_KEY": "s3cr3t"}, 2, ["AWS_SECRET_ACCESS_KEY"], id="wrong-secret"),
        pytest.param({"S3_ENDPOINT_URL": "http://127.0.0.1:9"}, 5, ["127.0.0.1:9 doesn't answer"], id="no-store"),
    ],
)
def test_what_is_wrong_from_the_start(
    run_packed: RunArm, arm: str, environ: Mapping[str, str], code: int, parts: list[str]
) -> None:
    returned, out, err, record = run_packed(arm, **environ)
    assert (returned, out, record) == (code, "", None), err
    assert all(part in err for part in parts), err


def put_other_kind(store: Store, bucket: str, folder: str) -> None:
    """Replace the manifest by the other kind's."""
    other = CHUNKS if folder == SHARDS else SHARDS
    manifest = store.client.get_object(Bucket=bucket, Key=f"{other}/_larder/manifest.json")["Body"].read()
    store.client.put_object(Bucket=bucket, Key=f"{folder}/_larder/manifest.json", Body=manifest)


def first_pack(store: Store, bucket: str, folder: str) -> str:
    listed = store.client.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/training/")["Contents"]
    return min(item["Key"] for item in listed if is_pack(item["Key"]))


def delete_pack(store: Store, bucket: str, folder: str) -> None:
    store.client.delete_object(Bucket=bucket, Key=first_pack(store, bucket, folder))


def edit(change: Callable[[bytearray], bytes | bytearray]) -> HarmPack:
    """Return a function that changes a pack's bytes."""

    def harm(store: Store, bucket: str, folder: str) -> None:
        key = first_pack(store, bucket, folder)
        content = bytearray(store.client.get_object(Bucket=bucket, Key=key)["Body"].read())
        store.client.put_object(Bucket=bucket, Key=key, Body=bytes(change(content)))

    return harm


def damage_image(content: bytearray) -> bytearray:
    place = content.rindex(b"\xff\xd8\xff")  # the last JPEG's first bytes
    content[place : place + 200] = bytes(200)
    return content


def damage_second_header(content: bytearray) -> bytearray:
    place = content.index(b"ustar", 600)
    content[place - 200 : place] = b"x" * 200
    return content


shorter = edit(lambda content: content[:-3000])

zeros_from_the_middle = edit(lambda content: content[:20000] + bytes(len(content) - 20000))

nonsense = edit(lambda content: b"\xc3\x28" * (len(content) // 2) + content[: len(content) % 2])

LISTING = [arm for arm in ARMS if arm != "stream"]  # these list the packs, and compare lengths, before they read

listed_wrong = ["is missing or has another length", "run `make etl-"]

forced = "LARDER_FORCE=true"

other_bytes = ["chunk-0-", "has other bytes than the dataset's index says", forced]


@pytest.mark.one_in(6)
@one_store
@pytest.mark.parametrize(
    ("arms", "harm", "parts"),
    [
        pytest.param(["webdataset"], put_other_kind, ["holds 'litdata' data; ", "what `make etl-wds`"], id="chunks"),
        pytest.param(
            ["litdata_streaming"], put_other_kind, ["holds 'webdataset' data; ", "`make etl-lit`"], id="shards"
        ),
        pytest.param(LISTING, delete_pack, listed_wrong, id="missing"),
        pytest.param(LISTING, shorter, listed_wrong, id="shorter"),
        pytest.param(["stream"], delete_pack, ["shard-000000.tar", "the shard is missing", "etl-wds"], id="not-listed"),
        pytest.param(["stream"], shorter, ["shard-000000.tar", "the shard ends before byte", forced], id="too-short"),
        pytest.param(["stream"], nonsense, ["shard-000000.tar, byte ", "other bytes than", forced], id="stream-no-tar"),
        pytest.param(["stream"], edit(damage_image), [".jpg' can't be read: it has other", forced], id="stream-image"),
        pytest.param(
            ["webdataset"], zeros_from_the_middle, ["shard-000000.tar", "is damaged", forced], id="zeros-in-tar"
        ),
        pytest.param(["library"], zeros_from_the_middle, [forced], id="zeros-in-tar-library"),
        pytest.param(["litdata_streaming"], zeros_from_the_middle, other_bytes, id="zeros-in-chunk"),
        pytest.param(["webdataset"], edit(damage_second_header), ["shard-000000.tar is damaged", forced], id="header"),
        pytest.param(["library"], edit(damage_second_header), [forced], id="header-library"),
        pytest.param(["webdataset", "library"], nonsense, ["shard-000000.tar is damaged", forced], id="no-tar"),
        pytest.param(["litdata_streaming"], nonsense, other_bytes, id="no-chunk"),
        pytest.param(
            ["webdataset", "library"],
            edit(damage_image),
            ["shard-000000.tar", ".jpg can't be read", forced],
            id="image",
        ),
        pytest.param(["litdata_streaming"], edit(damage_image), other_bytes, id="image-in-chunk"),
    ],
)
@pytest.mark.usefixtures("own_copy")
def test_packs_that_are_not_what_they_should_be(
    run_packed: RunArm, store: Store, packed: dict[str, str], arms: list[str], harm: HarmPack, parts: list[str]
) -> None:
    for arm in arms:
        if arm in ("webdataset", "litdata_streaming") or len(arms) == 1:
            harm(store, packed["S3_BUCKET"], ARMS[arm][1])
        code, out, err, record = run_packed(arm, "--warmup-batches", "0")
        assert (code, out, record) == (3, "", None), err
        assert all(part in err for part in parts), err


@pytest.mark.one_in(8)
@one_store
@all_arms
@pytest.mark.parametrize(
    ("answer", "code", "parts"),
    [
        pytest.param(403, 2, ["access is denied"], id="refused"),
        pytest.param(404, 3, ["is missing", "run "], id="gone"),
        pytest.param("corrupt", 3, [forced], id="corrupt"),
    ],
)
def test_a_pack_in_the_middle_that_does_not_come(
    run_packed: RunArm, proxy: Proxy, arm: str, answer: int | str, code: int, parts: list[str]
) -> None:
    third = ("shard-000002.tar", "chunk-0-2.bin")
    # Bodies alone are corrupt; HEAD has none.
    proxy.fault = lambda method, path, number: answer if path.endswith(third) else None
    returned, out, err, record = run_packed(arm, S3_ENDPOINT_URL=proxy.endpoint)
    assert (returned, out, record) == (code, "", None), err
    assert all(part in err for part in parts), err
    if answer != "corrupt":
        assert f"s3://{proxy.requests[0][1].split('/')[1]}/{ARMS[arm][1]}/training/" in err


@pytest.mark.one_in(6)
@one_store
@all_arms
@pytest.mark.parametrize("answer", [503, 500, "reset-response", "reset-request"])
def test_faults_that_pass_are_got_over(run_packed: RunArm, proxy: Proxy, arm: str, answer: int | str) -> None:
    failed: list[str] = []

    def fault(method: str, path: str, number: int) -> int | str | None:
        if is_pack(path) and len(failed) < 4:
            failed.append(path)
            return answer
        return None

    proxy.fault = fault
    code, _, err, record = run_packed(arm, S3_ENDPOINT_URL=proxy.endpoint)
    assert code == 0, err
    assert len(failed) == 4
    assert record["images"] == 40


@pytest.mark.one_in(6)
@one_store
@all_arms
@pytest.mark.parametrize("answer", [503, "reset-response"])
def test_faults_that_stay_end_the_run(run_packed: RunArm, proxy: Proxy, arm: str, answer: int | str) -> None:
    proxy.fault = lambda method, path, number: answer if is_pack(path) and method == "GET" else None
    code, out, err, record = run_packed(arm, S3_ENDPOINT_URL=proxy.endpoint)
    assert (code, out, record) == (5, "", None), err
    assert "reading s3://" in err
    assert len(fetched(proxy, ARMS[arm][1])) < 5 * (ATTEMPTS + 6)


@pytest.fixture
def stuck(start_packed: StartBench, proxy: Proxy, until: Until) -> Iterator[StartStuck]:
    """Start an arm whose packs, except for the first, never arrive. Returns the process and its workers."""
    end, asked = threading.Event(), list[str]()

    def fault(method: str, path: str, number: int) -> int | str | None:
        if is_pack(path):
            asked.append(path)
            if len(asked) > 2:
                end.wait(100)
        return None

    proxy.fault = fault
    started = []

    def start_stuck(arm: str, **environ: str) -> tuple[forks.Fork, list[psutil.Process]]:
        process = start_packed(arm, S3_ENDPOINT_URL=proxy.endpoint, LARDER_WARMUP_BATCHES="0", **environ)
        started.append(process)
        until(lambda: len(asked) > 2, "a pack is waited for")
        return process, psutil.Process(process.pid).children(recursive=True)

    yield start_stuck
    end.set()
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.one_in(6)
@one_store
@all_arms
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(stuck: StartStuck, tmp_path: Path, until: Until, arm: str, sent: signal.Signals) -> None:
    process, workers = stuck(arm, LARDER_WORKERS="2")
    assert len(workers) >= (0 if arm == "stream" else 2)  # it has threads
    for one in (process, *workers) if sent == signal.SIGINT else (process,):  # Ctrl-C reaches all that a terminal runs
        one.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, ""), err
    assert "Traceback" not in err, err
    assert "interrupted" in err
    until(lambda: not any(worker.is_running() for worker in workers), "no worker is left")
    assert list((tmp_path / "cache").glob("larder-*")) == []
    assert list((tmp_path / "results").iterdir()) == []


@one_store
def test_a_run_that_was_killed_is_cleaned_up_by_the_next(stuck: StartStuck, run_packed: RunArm, tmp_path: Path) -> None:
    process, _ = stuck("litdata_streaming")
    process.kill()
    process.wait()
    left = tmp_path / "cache/larder-litdata"
    assert left.is_dir()
    (left / "mark").touch()
    code, _, err, record = run_packed("litdata_streaming")
    assert code == 0, err
    assert record["images"] == 40
