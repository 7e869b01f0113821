"""A run that packs into a store is killed or interrupted: it ends at once, and the next run completes it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Proxy, Store, Until
from tests.integration.conftest import Held
from tests.integration.packing.conftest import ShrinkTree, StorePacker

pytestmark = pytest.mark.any_store

MOMENTS: dict[str, Callable[[str, str, int], bool]] = {
    "the manifest is withdrawn": lambda method, path, copies: method == "POST" and "delete" in path,
    "half of the packs are copied": lambda method, path, copies: copies == 3,
    "the new manifest is put": lambda method, path, copies: method == "PUT" and path.endswith("manifest.json"),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_replacement_that_is_killed_is_completed(
    pack: StorePacker, shrink_tree: ShrinkTree, volume: Path, proxy: Proxy, moment: str
) -> None:
    for prefix in ("undisturbed", "killed"):
        assert pack(prefix).code == 0
    shrink_tree(75)
    assert pack("undisturbed").code == 0
    reached, following, go = threading.Event(), threading.Event(), threading.Event()

    def hold(method: str, path: str, number: int) -> str | None:
        if reached.is_set():
            following.set()  # so the one before has been answered
            go.wait(600)  # the time limit of a test ends sooner
            return "reset-request"  # what was on its way when the process died doesn't count
        if MOMENTS[moment](method, path, proxy.copies):
            reached.set()
        return None

    proxy.fault = hold
    process = pack.start("killed", via=proxy)
    assert following.wait(60), process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    go.set()
    proxy.settle()
    assert ("_larder/manifest.json" in pack.objects("killed")) == (moment == "the new manifest is put")
    again = pack("killed")
    assert again.code == 0, again.stderr
    assert pack.objects("killed") == pack.objects("undisturbed")
    assert not (volume / ".larder" / pack.folder()).exists(), "nothing is left to go on with"


def test_killed_while_sending(shard: StorePacker, proxy: Proxy, until: Until) -> None:
    small = "--shard-bytes=12000"
    assert shard("whole", small).code == 0
    go = threading.Event()

    def hold(method: str, path: str, number: int) -> str | None:
        if proxy.count("PUT", ".tar") <= 20 or go.is_set():
            return None
        go.wait(60)
        return "reset-request"

    proxy.fault = hold
    process = shard.start("killed", small, "--workers=2", via=proxy)
    until(lambda: proxy.count("PUT", ".tar") > 20 or process.poll() is not None, "some shards were sent")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    go.set()
    proxy.settle()
    assert process.returncode == -signal.SIGKILL
    assert "_larder/manifest.json" not in shard.objects("killed")
    sent = proxy.count("PUT", ".tar")
    result = shard("killed", small, "--workers=2", via=proxy)
    assert result.code == 0, result.stderr
    assert "continuing" in result.stderr
    total = len([path for path in shard.objects("whole") if path.endswith(".tar")])
    assert proxy.count("PUT", ".tar") < sent + total, "not everything was sent again"
    assert shard.objects("killed") == shard.objects("whole")


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("method", "part", "sent", "workers"),
    [
        pytest.param("PUT", ".tar", signal.SIGINT, "2", id="sending-2"),
        pytest.param("GET", ".jpg", signal.SIGTERM, "1", id="reading-1"),
        pytest.param("PUT", ".tar", signal.SIGINT, "1", id="sending-1", marks=pytest.mark.exhaustive),
        pytest.param("GET", ".jpg", signal.SIGTERM, "2", id="reading-2", marks=pytest.mark.exhaustive),
    ],
)
def test_interrupted_it_ends_at_once_and_goes_on(
    shard: StorePacker,
    proxy: Proxy,
    empty: Path,
    method: str,
    part: str,
    sent: signal.Signals,
    workers: str,
) -> None:
    """It ends whatever it waits for: here, a silent store."""
    shard.load_tree()
    held, go = threading.Semaphore(0), threading.Event()

    def hold(made: str, path: str, number: int) -> None:
        if made == method and part in path and proxy.count(method, part) > 2:
            held.release()
            go.wait(60)

    proxy.fault = hold
    flags = (f"--input=s3://{shard.bucket}/Food-11", f"--workers={workers}")
    process = shard.start("", *flags, via=proxy, volume=empty)
    try:
        assert held.acquire(timeout=60)
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=30)  # half of what the store is silent for
    finally:
        go.set()
        process.kill()
    assert process.returncode == 130
    assert "interrupted: cancelling running work" in stderr
    assert stderr.rstrip().endswith("interrupted: run the same command again to resume")
    assert shard("", *flags, via=proxy, volume=empty).code == 0
    assert shard.to_volume().code == 0
    assert shard.load("--task=check").code == 0


def test_a_failure_waits_for_nothing_else_that_was_asked(
    shard: StorePacker, proxy: Proxy, empty: Path, images: dict[str, bytes]
) -> None:
    """The store refuses one image, and doesn't answer for the others."""
    shard.load_tree()
    asked, go = threading.Event(), threading.Event()

    def hold(method: str, path: str, number: int) -> int | None:
        if path.endswith(min(images)):
            asked.wait(60)
            return 403
        if path.endswith(".jpg"):
            asked.set()
            go.wait(60)
        return None

    proxy.fault = hold
    flags = (shard.packing.size, "--workers=1", "--shuffle=none", f"--input=s3://{shard.bucket}/Food-11")
    process = shard.stage.start("shard", *flags, env=shard.settings(proxy), volume=empty)
    try:
        _, stderr = process.communicate(timeout=40)
    finally:
        go.set()
        process.kill()
    assert process.returncode == 2, stderr
    assert "access is denied" in stderr


def test_ctrl_c_while_workers_start_is_reported_once(shard: StorePacker, tree: Path, until: Until, held: Held) -> None:
    """A terminal sends the signal to all processes."""
    with held(tree / "training/class_00/0_0.jpg"):
        process = shard.start("x", "--workers=2")
        seen = psutil.Process(process.pid)
        until(
            lambda: any("forkserver" in word for child in seen.children() for word in child.cmdline()),
            "they are being started",
        )
        for one in [*seen.children(), seen]:
            one.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr and stderr.count("run the same command again to resume") == 1


def test_an_interrupted_multipart_upload_does_not_wait_for_a_silent_store(
    store: Store, bucket: str, proxy: Proxy, until: Until
) -> None:
    from larder.bucket import BucketPrefix
    from larder.store import BucketSettings

    def parts() -> Iterator[bytes]:
        yield bytes(5 << 20)
        raise KeyboardInterrupt

    go = threading.Event()

    def hold(method: str, path: str, number: int) -> None:
        if method == "DELETE":
            go.wait(60)

    proxy.fault = hold
    settings = BucketSettings.load("test", [], store.env | {"S3_BUCKET": bucket, "S3_ENDPOINT_URL": proxy.endpoint})
    with pytest.raises(KeyboardInterrupt):
        BucketPrefix(settings, "folder").write_parts("large.tar", parts())
    assert not go.is_set()
    go.set()
    until(lambda: not store.client.list_multipart_uploads(Bucket=bucket).get("Uploads"), "what was asked for is done")


@pytest.fixture
def begin_upload(store: Store, bucket: str) -> Any:
    """Begins a multipart upload, like one that was killed."""

    def begin(path: str) -> None:
        place = {"Bucket": bucket, "Key": path}
        upload = store.client.create_multipart_upload(**place)["UploadId"]
        store.client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"part")

    yield begin
    for item in store.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
        store.client.abort_multipart_upload(Bucket=bucket, Key=item["Key"], UploadId=item["UploadId"])


def test_parts_that_a_killed_run_has_left(shard: StorePacker, store: Store, bucket: str, begin_upload: Any) -> None:
    folder = shard.folder()
    foreign = [f"{folder}/training/another.tar", f"x/{folder}/_larder/incoming/training/shard-000000.tar"]
    ours = [f"{folder}/_larder/incoming/training/shard-000077.tar", f"{folder}/training/shard-000000.tar"]
    for path in foreign + ours:
        begin_upload(path)
    result = shard("")
    assert result.code == 0, result.stderr
    left = [item["Key"] for item in store.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]
    assert sorted(left) == sorted(foreign)


def test_a_store_that_lists_no_uploads(shard: StorePacker, proxy: Proxy) -> None:
    proxy.fault = lambda method, path, number: 403 if method == "GET" and "uploads" in path else None
    result = shard("", via=proxy)
    assert result.code == 0, result.stderr
    assert "may be left behind" in result.stderr
