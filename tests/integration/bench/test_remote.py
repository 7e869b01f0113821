"""One GET per image, over real stores, with a proxy between that counts and breaks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import unquote

import pytest

from larder.contract import read_index, read_manifest
from larder.errors import ConfigurationError, InputError, LarderError, ServiceError
from larder.loaders import s3_reader
from larder.loaders.s3_reader import ATTEMPTS, ObjectReader
from larder.loaders.traffic import TrafficCounter
from services.bench.settings import BenchSettings
from tests.conftest import Proxy, Store
from tests.integration.bench.conftest import ArmRun, RunArm, RunBench

pytestmark = pytest.mark.any_store

ROOT = Path(__file__).resolve().parents[3]
ARM = "remote_one_sample"
FOLDER = "team/food/Food-11"
MakeReader = Callable[..., tuple[ObjectReader, TrafficCounter]]


@pytest.fixture
def run(run_bench: RunBench, loaded: dict[str, str], tmp_path: Path) -> RunArm:
    """Run the arm over the loaded bucket: its exit code, output and record."""

    def run(*flags: str, **environ: str) -> ArmRun:
        code, out, err = run_bench("--arm", ARM, *flags, **(loaded | environ))
        records = sorted((tmp_path / "results").glob("*.json"))
        return code, out, err, json.loads(records[-1].read_text()) if records else None

    return run


def images(proxy: Proxy) -> Counter[str]:
    """Count the requests for each image, by its path below the folder."""
    paths = (unquote(path).partition(f"{FOLDER}/")[2] for method, path in proxy.requests if method == "GET")
    return Counter(path for path in paths if path.endswith(".jpg"))


def test_one_get_per_image_and_nothing_else(run: RunArm, store: Store, proxy: Proxy, tree: Path) -> None:
    code, out, err, record = run("--warmup-batches", "0", S3_ENDPOINT_URL=proxy.endpoint)
    assert code == 0, err
    listed = [entry for entry in read_index(tree, read_manifest(tree, made_by="")) if entry.path.startswith("training")]
    assert images(proxy) == {entry.path: 1 for entry in listed}
    # The manifest, its index and one listing, all before the clock starts.
    assert len(proxy.requests) == 40 + 3
    assert {method for method, _ in proxy.requests} == {"GET"}
    assert record["network_requests"] == 40 == record["images"]
    assert record["network_bytes"] == sum(entry.bytes for entry in listed)
    assert record["dataset"]["artifact"] == "objects"
    assert (record["settings"]["bucket"], record["settings"]["prefix"]) == (front_bucket(proxy), "team/food")
    assert ["requests", "40"] in [line.split() for line in out.splitlines()]
    secrets = {store.secret_key, store.access_key}
    assert not any(secret in text for secret in secrets for text in (out, err, json.dumps(record)))


def front_bucket(proxy: Proxy) -> str:
    return proxy.requests[0][1].split("/")[1]


def test_the_warm_up_is_not_counted(run: RunArm, proxy: Proxy) -> None:
    code, _, err, record = run("--warmup-batches", "2", "--batches", "3", S3_ENDPOINT_URL=proxy.endpoint)
    assert code == 0, err
    assert sum(images(proxy).values()) == 16 + 24
    assert record["network_requests"] == 24


def test_resets_and_bursts_of_503_are_retried_and_counted(run: RunArm, proxy: Proxy) -> None:

    def fault(method: str, path: str, number: int) -> int | str | None:
        if not path.endswith(".jpg"):
            return None
        if 10 <= number < 15:
            return 503
        return "reset-response" if number % 7 == 0 else None

    proxy.fault = fault
    code, _, err, record = run("--warmup-batches", "0", S3_ENDPOINT_URL=proxy.endpoint)
    assert code == 0, err
    tries = sum(images(proxy).values())
    assert tries > 40
    assert len(images(proxy)) == 40 == record["images"]
    assert record["network_requests"] == tries
    whole = record["dataset"]["bytes"]["training"]
    assert whole < record["network_bytes"] < 1.3 * whole  # what came before a connection broke counts, too


def test_connections_lost_between_requests_are_reopened(run: RunArm, proxy: Proxy) -> None:
    proxy.fault = lambda method, path, number: "reset-request" if path.endswith(".jpg") and number % 5 == 0 else None
    code, _, err, record = run("--warmup-batches", "0", S3_ENDPOINT_URL=proxy.endpoint)
    assert code == 0, err
    # Before any answer has begun, aiohttp repeats by itself, once: that counts as one request.
    assert 40 <= record["network_requests"] < sum(images(proxy).values())


def test_a_lasting_fault_in_a_worker_is_reported(run: RunArm, proxy: Proxy) -> None:
    proxy.fault = lambda method, path, number: 503 if "/training/class_01/" in path else None
    code, out, err, record = run(S3_ENDPOINT_URL=proxy.endpoint)
    assert (code, out, record) == (5, "", None), err
    assert "Traceback" not in err
    for part in (f"reading s3://{front_bucket(proxy)}/{FOLDER}/training/class_01/", "SlowDown", "LARDER_WORKERS"):
        assert part in err
    assert max(images(proxy).values()) == ATTEMPTS


def delete_one(store: Store, bucket: str, path: str = "training/class_00/0.jpg") -> None:
    store.client.delete_object(Bucket=bucket, Key=f"{FOLDER}/{path}")


def overwrite_one(store: Store, bucket: str) -> None:
    store.client.put_object(Bucket=bucket, Key=f"{FOLDER}/training/class_00/0.jpg", Body=b"another")


def delete_manifest(store: Store, bucket: str) -> None:
    store.client.delete_object(Bucket=bucket, Key=f"{FOLDER}/_larder/manifest.json")


def corrupt_index(store: Store, bucket: str) -> None:
    for item in store.client.list_objects_v2(Bucket=bucket, Prefix=f"{FOLDER}/_larder/index-")["Contents"]:
        store.client.put_object(Bucket=bucket, Key=item["Key"], Body=b"{}\n")


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("harm", "environ", "code", "parts"),
    [
        pytest.param(delete_one, {}, 3, ["class_00/0.jpg is missing", "make etl-load"], id="deleted"),
        pytest.param(overwrite_one, {}, 3, ["class_00/0.jpg is missing or has another length"], id="overwritten"),
        pytest.param(delete_manifest, {}, 3, ["holds no finished data", "run `make etl-load`"], id="no-manifest"),
        pytest.param(
            corrupt_index,
            {},
            3,
            ["not what its manifest says", "run `make etl-load`, which"],
            id="corrupt-index",
        ),
        pytest.param(None, {"S3_PREFIX": "other"}, 3, ["/other/Food-11 holds no finished data"], id="other-prefix"),
        pytest.param(None, {"FOOD11_SPLIT": "test"}, 2, ["FOOD11_SPLIT='test'", "validation"], id="no-split"),
        pytest.param(None, {"S3_BUCKET": "larder-no-such-bucket"}, 2, ["no such bucket", "S3_BUCKET"], id="no-bucket"),
        pytest.param(None, {"S3_BUCKET": ""}, 2, ["S3_BUCKET is not set", "`make s3-up`"], id="bucket-not-set"),
        pytest.param(
            None, {"AWS_SECRET_ACCESS_KEY": "another-s3cr3t"}, 2, ["AWS_SECRET_ACCESS_KEY"], id="wrong-secret"
        ),
    ],
)
@pytest.mark.usefixtures("own_copy")
def test_faults_before_the_first_image_name_a_remedy(
    run: RunArm,
    store: Store,
    loaded: dict[str, str],
    harm: Callable[[Store, str], None] | None,
    environ: Mapping[str, str],
    code: int,
    parts: list[str],
) -> None:
    if harm:
        harm(store, loaded["S3_BUCKET"])
    returned, out, err, record = run(**environ)
    assert (returned, out, record) == (code, "", None), err
    assert all(part in err for part in parts), err
    assert "Traceback" not in err
    assert store.secret_key not in err
    assert "s3cr3t" not in err


@pytest.mark.usefixtures("own_copy")
def test_an_object_deleted_in_the_middle_of_a_run(
    run: RunArm, store: Store, proxy: Proxy, loaded: dict[str, str], tree: Path
) -> None:
    deleted: list[str] = []

    def fault(method: str, path: str, number: int) -> int | str | None:
        asked = images(proxy)
        if asked.total() == 20 and not deleted:
            index = read_index(tree, read_manifest(tree, made_by=""))
            deleted.append(next(e.path for e in index if e.path.startswith("training/") and e.path not in asked))
            delete_one(store, loaded["S3_BUCKET"], deleted[0])  # without the loader's knowledge
        return None

    proxy.fault = fault
    code, out, err, _ = run("--warmup-batches", "0", "--workers", "1", S3_ENDPOINT_URL=proxy.endpoint)
    assert (code, out) == (3, ""), err
    assert f"{deleted[0]} is missing" in err
    assert "make etl-load" in err
    assert "Traceback" not in err


def test_an_image_that_is_spoilt_on_the_way(run: RunArm, proxy: Proxy) -> None:
    proxy.fault = lambda method, path, number: "corrupt" if path.endswith("/training/class_02/2.jpg") else None
    code, out, err, _ = run(S3_ENDPOINT_URL=proxy.endpoint, LARDER_WARMUP_BATCHES="0")
    assert (code, out) == (3, ""), err
    assert f"{FOLDER}/training/class_02/2.jpg can't be read: it has other bytes than the dataset's index says" in err
    assert "make etl-load LARDER_FORCE=true" in err


@pytest.fixture
def reader(loaded: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> MakeReader:
    """Make a reader in this process, and its counter: settings by keyword."""
    monkeypatch.setattr(s3_reader, "FIRST_PAUSE_SECONDS", 0.001)

    def make(**environ: str) -> tuple[ObjectReader, TrafficCounter]:
        settings, traffic = BenchSettings.load("bench", [], loaded | environ), TrafficCounter()
        return ObjectReader(settings, "us-east-1", traffic), traffic

    return make


KEY = f"{FOLDER}/training/class_00/0.jpg"


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("fault", "part"),
    [
        pytest.param("reset-response", "the connection to .* broke", id="reset-in-the-answer"),
        pytest.param(503, f"SlowDown.*{ATTEMPTS} times in a row", id="slow-down"),
        pytest.param(500, f"InternalError.*{ATTEMPTS} times in a row", id="internal-error"),
    ],
)
def test_tries_are_limited_and_all_counted(reader: MakeReader, proxy: Proxy, fault: int | str, part: str) -> None:
    proxy.fault = lambda method, path, number: fault
    one, traffic = reader(S3_ENDPOINT_URL=proxy.endpoint)
    with pytest.raises(ServiceError, match=rf"reading s3://.*/0\.jpg: .*{part}"):
        one.read(KEY, 1 << 20)
    assert traffic.read().requests == ATTEMPTS == len(proxy.requests)


def test_a_body_is_read_again_when_it_breaks_off(reader: MakeReader, proxy: Proxy, tree: Path) -> None:
    proxy.fault = lambda method, path, number: "reset-response" if number <= 2 else None
    one, traffic = reader(S3_ENDPOINT_URL=proxy.endpoint)
    content = (tree / "training/class_00/0.jpg").read_bytes()
    assert one.read(KEY, 1 << 20) == content
    assert traffic.read().requests == 3
    assert len(content) <= traffic.read().bytes <= 2 * len(content)


@pytest.mark.parametrize(
    ("environ", "key", "kind", "part"),
    [
        pytest.param({}, f"{FOLDER}/nothing.jpg", InputError, "nothing.jpg is missing", id="no-object"),
        pytest.param({"S3_BUCKET": "larder-no-such-bucket"}, KEY, ConfigurationError, "no such bucket", id="no-bucket"),
        pytest.param({"AWS_SECRET_ACCESS_KEY": "s3cr3t"}, KEY, ConfigurationError, "secret key", id="wrong-secret"),
        pytest.param({"AWS_ACCESS_KEY_ID": "nobody"}, KEY, ConfigurationError, "key", id="wrong-key"),
    ],
)
def test_what_only_fails_again_is_tried_once(
    reader: MakeReader, environ: Mapping[str, str], key: str, kind: type[LarderError], part: str
) -> None:
    one, traffic = reader(**environ)
    with pytest.raises(kind, match=part) as caught:
        one.read(key, 1 << 20)
    assert traffic.read().requests == 1
    assert traffic.read().bytes > 0  # the body of the refusal
    assert "s3cr3t" not in str(caught.value)


def test_a_store_that_is_down(reader: MakeReader) -> None:
    one, _ = reader(S3_ENDPOINT_URL="http://127.0.0.1:9")
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:9 doesn't answer"):
        one.read(KEY, 1 << 20)


FORKS = """
import os, sys
from larder.progress import Reporter
from larder.bench.open_arm import open_arm
from services.bench.settings import BenchSettings

settings = BenchSettings.load("bench", ["--arm", "remote_one_sample"], os.environ)
for number in range(2):
    with open_arm("remote_one_sample", settings, Reporter("bench")) as opened:
        dataset = opened.loader.dataset
        image, label = dataset[0]  # in the parent: its event loop and thread are there when it forks
        for epoch in range(2):
            print(sum(len(labels) for _, labels in opened.loader.read(epoch, 5)), opened.network().requests, flush=True)
"""


@pytest.mark.exhaustive
def test_two_epochs_fork_while_the_parent_reads(loaded: dict[str, str]) -> None:
    environ = {"PATH": "/usr/bin:/bin", "LARDER_WORKERS": "2", "LARDER_BATCH_SIZE": "8", **loaded}
    done = subprocess.run(
        [sys.executable, "-c", FORKS], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.split() == ["40", "41", "40", "81"] * 2, done.stderr
