"""Runs that are killed, and objects that change while they are read."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from tests.conftest import Proxy, wait_until, workers_of
from tests.integration.conftest import MakePicture
from tests.integration.index.conftest import BucketStages, tar_of
from tests.parquet import packed

pytestmark = pytest.mark.any_store


class Held:
    """Holds back a store's answers for the images of a class."""

    def __init__(self, between: Any, class_name: str) -> None:
        self._between, self._class_name, self._go = between, class_name, threading.Event()
        self.paths = set[str]()
        between.fault = self._hold

    def _hold(self, method: str, path: str, number: int) -> None:
        if method == "GET" and f"/{self._class_name}/" in path:
            self.paths.add(path)
            self._go.wait()

    def release(self) -> None:
        self._between.fault = lambda method, path, number: None
        self._go.set()


@pytest.mark.parametrize("killed", ["run", "worker"])
def test_a_killed_one_goes_on(stages: BucketStages, picture: MakePicture, proxy: Proxy, killed: str) -> None:
    stages.put({f"in/{'cat' if number < 192 else 'dog'}/{number:04d}.jpg": picture(number) for number in range(300)})
    stages.env |= {"LARDER_SOURCE": stages.uri("in/")}
    whole = stages("index", env={"S3_PREFIX": "whole", "LARDER_WORKERS": "2"})
    assert whole.code == 0, whole.stderr
    held = Held(proxy, "dog")
    stages.env |= {"S3_ENDPOINT_URL": proxy.endpoint, "LARDER_WORKERS": "1" if killed == "run" else "2"}
    process = stages.start("index")
    first_of_batches = ["0192.jpg"] if killed == "run" else ["0192.jpg", "0256.jpg"]
    wait_until(lambda: all(name in " ".join(tuple(held.paths)) for name in first_of_batches), "dogs are read")
    if killed == "run":
        process.send_signal(signal.SIGKILL)
    else:
        workers_of(process)[0].kill()
    _, stderr = process.communicate(timeout=120)
    assert killed == "run" or (process.returncode, "a worker process was killed" in stderr) == (3, True), stderr
    held.release()
    assert "_larder/manifest.json" not in stages.objects("Food-11-index")
    proxy.settle()
    proxy.requests.clear()
    again = stages("index")
    assert again.code == 0, again.stderr
    assert "continuing an earlier run" in again.stderr
    assert proxy.count("GET", "/cat/") == 0, "what was checked is not read again"
    assert stages.objects("Food-11-index") == stages.objects("whole/Food-11-index")


class Replaced:
    """Replaces an object with another one of its length when the `number`th request for it comes."""

    def __init__(self, store: Any, bucket: str, key: str, number: int) -> None:
        self._store, self._bucket, self._key, self._left = store, bucket, key, number

    def __call__(self, method: str, path: str, _: int) -> None:
        if method == "GET" and path.endswith(self._key):
            self._left -= 1
            if self._left == 0:
                size = self._store.client.head_object(Bucket=self._bucket, Key=self._key)["ContentLength"]
                self._store.client.put_object(Bucket=self._bucket, Key=self._key, Body=bytes(size))


@pytest.mark.parametrize(("key", "number"), [("a.tar", 1), ("a.tar", 2), ("a.parquet", 1), ("a.parquet", 3)])
def test_what_is_replaced_while_it_is_read(
    stages: BucketStages, picture: MakePicture, proxy: Proxy, key: str, number: int
) -> None:
    if key == "a.tar":  # of more than one block
        stages.put({key: tar_of({"cat/1.jpg": picture(1), "notes.txt": bytes(9 << 20), "dog/2.jpg": picture(2)})})
    else:
        stages.put({key: packed([(picture(1), 0), (picture(2), 1)])})
    proxy.fault = Replaced(stages.store, stages.bucket, key, number)
    stages.env |= {"S3_ENDPOINT_URL": proxy.endpoint, "LARDER_SOURCE": f"s3://{stages.bucket}/{key}"}
    failed = stages("index")
    assert (failed.code, f"{key} has changed since it was listed" in failed.stderr) == (3, True), failed.stderr


def test_what_killed_runs_leave(stages: BucketStages, picture: MakePicture) -> None:
    """Objects and parts of no index are deleted; a record of no manifest is ignored."""
    stages.put({f"in/{label}/1.jpg": picture(number) for number, label in enumerate(("cat", "dog"))})
    stages.env |= {"LARDER_SOURCE": stages.uri("in/")}
    assert stages("index").code == 0
    meta, other = "Food-11-index/_larder", f"index-{'0' * 64}.jsonl"
    assert stages("index", "--verify=none", env={"S3_PREFIX": "other"}).code == 0
    run = stages.store.client.get_object(Bucket=stages.bucket, Key=f"other/{meta}/run.json")["Body"].read()
    stages.put({f"{meta}/run.json": run, f"{meta}/probe": b"larder", f"{meta}/{other}": b""})
    stages.store.client.create_multipart_upload(Bucket=stages.bucket, Key=f"{meta}/{other}")
    again = stages("index", "--verify=none")
    assert (again.code, "up to date" in again.stderr) == (0, False), "killed between its record and its manifest"
    assert stages.objects("Food-11-index") == stages.objects("other/Food-11-index")
    assert not stages.store.client.list_multipart_uploads(Bucket=stages.bucket).get("Uploads")
    stages.put({f"{meta}/probe": b"larder", f"{meta}/{other}": b""})
    assert "up to date" in stages("index", "--verify=none").stderr
    assert stages.objects("Food-11-index") == stages.objects("other/Food-11-index")
