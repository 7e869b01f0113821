"""Refusals and broken connections: the error is clear, nothing is lost, and the next run completes."""

from __future__ import annotations

import json
import random
import socket
import threading
from pathlib import Path

import pytest

from tests.conftest import Proxy, StartProxy, Store
from tests.integration.conftest import Stage
from tests.integration.load.conftest import InStore, Load, MakeTree
from tests.tls import serve_tls

pytestmark = pytest.mark.any_store

SHIFTED_CLOCK = """
import datetime, os, time
offset = float(os.environ["SHIFT_SECONDS"])
now = time.time
time.time = lambda: now() + offset
class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(time.time(), tz)
    @classmethod
    def utcnow(cls):
        return cls.now(datetime.timezone.utc).replace(tzinfo=None)
datetime.datetime = Shifted
"""


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"AWS_ACCESS_KEY_ID": "nobody-knows-me"}, "doesn't know the access key"),
        ({"AWS_SECRET_ACCESS_KEY": "a-wrong-secret"}, "secret key is wrong"),
        ({"S3_BUCKET": "larder-no-such-bucket"}, "make s3-bucket BUCKET=larder-no-such-bucket"),
        ({"AWS_SESSION_TOKEN": "", "AWS_SECRET_ACCESS_KEY": ""}, "belong together"),
        ({"S3_BUCKET": ""}, "S3_BUCKET is not set"),
        ({"S3_BUCKET": "a/b"}, "must be a bucket's name"),
        ({"LARDER_INPUT": "s3://photos/photos-index"}, "LARDER_INPUT names data in a store"),
    ],
    ids=["wrong key", "wrong secret", "missing bucket", "half the keys", "no bucket", "no bucket's name", "input"],
)
def test_what_is_wrong_is_named(load: Load, tree: MakeTree, keys: dict[str, str], says: str) -> None:
    early = load("--task=reach", env=keys)
    tree(5)
    for result in (early, load(env=keys)):
        assert result.code == 2
        assert says in result.stderr
        assert "next step" in result.stderr


def test_a_store_that_can_be_written(load: Load, there: InStore, reader: dict[str, str]) -> None:
    """The check needs no data to load."""
    result = load("--task=reach")
    assert result.code == 0, result.stderr
    assert there.paths() == []
    refused = load("--task=reach", env=reader)
    assert refused.code == 2
    assert "access is denied" in refused.stderr


@pytest.mark.parametrize("layout", ["webdataset", "litdata"])
def test_another_data_set_is_found_before_anything_is_packed(
    load: Load, tree: MakeTree, store: Store, bucket: str, volume: Path, layout: str
) -> None:
    tree(5)
    reach = ("--task=reach", f"--folder={layout}")
    assert load(*reach).code == 0
    manifest = json.loads((volume / "Food-11" / "_larder" / "manifest.json").read_text())
    key = f"Food-11-{layout}/_larder/manifest.json"
    store.client.put_object(Bucket=bucket, Key=key, Body=json.dumps(manifest).encode())
    assert load(*reach).code == 0
    store.client.put_object(Bucket=bucket, Key=key, Body=json.dumps({**manifest, "dataset": "others"}).encode())
    refused = load(*reach)
    assert refused.code == 2
    assert f"Food-11-{layout} holds the dataset 'others', and this is 'Food-11'" in refused.stderr
    assert "S3_PREFIX" in refused.stderr
    assert load(*reach, "--force").code == 0
    assert load(*reach, "--prefix=mine").code == 0
    assert load(*reach, env={"LARDER_INPUT": "/another/tree"}).code == 0  # a volume that this stage can't see


def test_endpoint_down(load: Load, tree: MakeTree) -> None:
    tree(5)
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can
        endpoint = f"http://127.0.0.1:{place.getsockname()[1]}"
        result = load(env={"S3_ENDPOINT_URL": endpoint})
    assert result.code == 5
    assert f"{endpoint} doesn't answer" in result.stderr


def test_tls_to_a_plain_port(load: Load, tree: MakeTree, s3: Store) -> None:
    tree(5)
    result = load(env={"S3_ENDPOINT_URL": s3.endpoint.replace("http://", "https://")})
    assert result.code == 2
    assert "doesn't speak TLS" in result.stderr
    assert "http://" in result.stderr


@pytest.mark.parametrize("minutes", [20, -20])
def test_a_clock_that_is_off(load: Load, tree: MakeTree, tmp_path: Path, minutes: int, there: InStore) -> None:
    tree(5)
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock/sitecustomize.py").write_text(SHIFTED_CLOCK)
    result = load(env={"PYTHONPATH": str(tmp_path / "clock"), "SHIFT_SECONDS": str(60 * minutes)})
    assert result.code == 2
    assert "clock" in result.stderr
    assert f"20 minutes {'ahead of' if minutes > 0 else 'behind'}" in result.stderr
    assert there.paths() == []


def test_a_bucket_of_another(load: Load, tree: MakeTree, reader: dict[str, str]) -> None:
    tree(5)
    result = load(env=reader | {"S3_BUCKET": "larder-tests-ready"})
    assert result.code == 2
    assert "access is denied" in result.stderr


def test_a_bucket_that_may_only_be_read(load: Load, tree: MakeTree, there: InStore, reader: dict[str, str]) -> None:
    tree(5)
    result = load(env=reader)
    assert result.code == 2
    assert "access is denied" in result.stderr
    assert "writing" in result.stderr
    assert there.paths() == []


def test_resets_and_busy_answers_are_got_over(load: Load, tree: MakeTree, there: InStore, proxy: Proxy) -> None:
    """One request in four fails, in one of four ways."""
    made = tree(120)
    moments, lock = random.Random(5), threading.Lock()

    def fault(method: str, path: str, number: int) -> int | str | None:
        with lock:
            return moments.choice((503, 500, "reset-request", "reset-response")) if moments.random() < 0.25 else None

    proxy.fault = fault
    result = load("--verify-remote=read", env={"S3_ENDPOINT_URL": proxy.endpoint})
    assert result.code == 0, result.stderr
    assert there.data() == made
    assert set(there.require_whole()) == set(made)


def test_a_burst_of_slow_down(load: Load, tree: MakeTree, there: InStore, proxy: Proxy) -> None:
    made = tree(60)
    proxy.fault = lambda method, path, number: 503 if 20 < number < 35 else None
    result = load(env={"S3_ENDPOINT_URL": proxy.endpoint})
    assert result.code == 0, result.stderr
    assert there.data() == made


@pytest.mark.one_in(2)
@pytest.mark.parametrize("fault", [503, "reset-request"])
def test_load_gives_up_on_a_failing_store_and_the_next_run_completes(
    load: Load, tree: MakeTree, there: InStore, start_proxy: StartProxy, store: Store, fault: int | str
) -> None:
    made = tree(20)
    watched = start_proxy(store)
    watched.fault = lambda method, path, number: fault if method == "PUT" and number > 15 else None
    result = load("--stall-seconds=1", env={"S3_ENDPOINT_URL": watched.endpoint})
    assert result.code == 5
    assert "error" in result.stderr
    watched.settle()
    assert there.find_manifest() is None
    before = there.data()
    assert before
    watched = start_proxy(store)
    assert load(env={"S3_ENDPOINT_URL": watched.endpoint}).code == 0
    assert watched.count("PUT", ".jpg") == len(made) - len(before), "what had arrived is not sent again"
    assert there.data() == made


def test_an_object_that_vanishes_during_the_load_is_sent_again(
    load: Load, tree: MakeTree, there: InStore, proxy: Proxy
) -> None:
    made = tree(30)
    deleted: list[str] = []

    def fault(method: str, path: str, number: int) -> None:
        if method == "GET" and "list-type" in path and proxy.count("PUT", ".jpg") and not deleted:
            deleted.append(path)
            there.delete("training/class_00/0_0.jpg")

    proxy.fault = fault
    assert load(env={"S3_ENDPOINT_URL": proxy.endpoint}).code == 0
    assert deleted
    assert there.data() == made


def test_two_loads_from_one_volume(
    load: Load, tree: MakeTree, stage: Stage, store: Store, bucket: str, proxy: Proxy
) -> None:
    tree(30)
    waiting, go = threading.Event(), threading.Event()

    def fault(method: str, path: str, number: int) -> None:
        waiting.set()
        go.wait(60)

    proxy.fault = fault
    first = stage.start("load", env=store.env | {"S3_BUCKET": bucket, "S3_ENDPOINT_URL": proxy.endpoint})
    try:
        assert waiting.wait(60)
        second = load()
        assert second.code == 3
        assert "another run" in second.stderr
    finally:
        go.set()
        assert first.communicate(timeout=60)
    assert first.returncode == 0


def test_the_store_speaks_tls(load: Load, tree: MakeTree, there: InStore, store: Store, tmp_path: Path) -> None:
    if store.endpoint.startswith("https"):
        pytest.skip("this store speaks TLS by itself, as all tests of it show")
    made = tree(20)
    with serve_tls(store.endpoint, tmp_path) as tls:
        refused = load(env={"S3_ENDPOINT_URL": tls.endpoint})
        assert refused.code == 2
        assert "AWS_CA_BUNDLE" in refused.stderr
        result = load(env={"S3_ENDPOINT_URL": tls.endpoint, "AWS_CA_BUNDLE": str(tls.authority)})
    assert result.code == 0, result.stderr
    assert there.data() == made
