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
from tests.integration.conftest import Held, ReadObjects, Stage
from tests.integration.packing.conftest import MakeTree, Packing

pytestmark = pytest.mark.any_store

MOMENTS: dict[str, Callable[[str, str, int], bool]] = {
    "the manifest is withdrawn": lambda method, path, copies: method == "POST" and "delete" in path,
    "half of the packs are copied": lambda method, path, copies: copies == 3,
    "the new manifest is put": lambda method, path, copies: method == "PUT" and path.endswith("manifest.json"),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_replacement_that_is_killed_is_completed(
    stage: Stage,
    volume: Path,
    make_tree: MakeTree,
    images: dict[str, bytes],
    packing: Packing,
    bucket: str,
    env: dict[str, str],
    objects: ReadObjects,
    proxy: Proxy,
    moment: str,
) -> None:
    def pack(place: str) -> tuple[str, ...]:
        return packing.stage, packing.size, f"--dest=s3://{bucket}/{place}/{packing.folder}"

    make_tree(images)
    for place in ("undisturbed", "killed"):
        assert stage(*pack(place), env=env).code == 0
    fewer = dict(list(images.items())[:75])
    for path in images.keys() - fewer.keys():
        (volume / "Food-11" / path).unlink()
    make_tree(fewer)
    assert stage(*pack("undisturbed"), env=env).code == 0
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
    process = stage.start(*pack("killed"), env=env | {"S3_ENDPOINT_URL": proxy.endpoint})
    assert following.wait(60), process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    go.set()
    proxy.settle()
    left = objects(f"killed/{packing.folder}")
    assert ("_larder/manifest.json" in left) == (moment == "the new manifest is put")
    again = stage(*pack("killed"), env=env)
    assert again.code == 0, again.stderr
    assert objects(f"killed/{packing.folder}") == objects(f"undisturbed/{packing.folder}")
    assert not (volume / ".larder" / packing.folder).exists(), "nothing is left to go on with"


def test_killed_while_sending(
    stage: Stage, tree: Path, bucket: str, env: dict[str, str], proxy: Proxy, objects: ReadObjects, until: Until
) -> None:
    assert stage("shard", "--shard-bytes=12000", f"--dest=s3://{bucket}/whole/x", env=env).code == 0
    go = threading.Event()

    def hold(method: str, path: str, number: int) -> str | None:
        if proxy.count("PUT", ".tar") <= 20 or go.is_set():
            return None
        go.wait(60)
        return "reset-request"

    proxy.fault = hold
    flags = ("shard", "--shard-bytes=12000", "--workers=2", f"--dest=s3://{bucket}/killed/x")
    process = stage.start(*flags, env=env | {"S3_ENDPOINT_URL": proxy.endpoint})
    until(lambda: proxy.count("PUT", ".tar") > 20 or process.poll() is not None, "some shards were sent")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    go.set()
    proxy.settle()
    assert process.returncode == -signal.SIGKILL
    assert "_larder/manifest.json" not in objects("killed/x")
    sent = proxy.count("PUT", ".tar")
    result = stage(*flags, env=env | {"S3_ENDPOINT_URL": proxy.endpoint})
    assert result.code == 0, result.stderr
    assert "continuing" in result.stderr
    total = len([path for path in objects("whole/x") if path.endswith(".tar")])
    assert proxy.count("PUT", ".tar") < sent + total, "not everything was sent again"
    assert objects("killed/x") == objects("whole/x")


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
    stage: Stage,
    tree: Path,
    sharding: Packing,
    bucket: str,
    env: dict[str, str],
    objects: ReadObjects,
    proxy: Proxy,
    until: Until,
    tmp_path: Path,
    method: str,
    part: str,
    sent: signal.Signals,
    workers: str,
) -> None:
    """It ends whatever it waits for: here, a silent store."""
    assert stage("load", env=env).code == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    held, go = threading.Semaphore(0), threading.Event()

    def hold(made: str, path: str, number: int) -> None:
        if made == method and part in path and proxy.count(method, part) > 2:
            held.release()
            go.wait(60)

    proxy.fault = hold
    flags = (sharding.size, f"--input=s3://{bucket}/Food-11", f"--dest=s3://{bucket}/{sharding.folder}")
    settings = env | {"S3_ENDPOINT_URL": proxy.endpoint, "LARDER_WORKERS": workers}
    process = stage.start(sharding.stage, *flags, env=settings, volume=empty)
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
    assert stage(sharding.stage, *flags, env=settings, volume=empty).code == 0
    assert stage(sharding.stage, sharding.size, env=env).code == 0
    assert stage("load", f"--folder={sharding.folder}", "--task=check", env=env).code == 0


def test_a_failure_waits_for_nothing_else_that_was_asked(
    stage: Stage,
    tree: Path,
    sharding: Packing,
    bucket: str,
    env: dict[str, str],
    proxy: Proxy,
    tmp_path: Path,
    images: dict[str, bytes],
) -> None:
    """The store refuses one image, and doesn't answer for the others."""
    assert stage("load", env=env).code == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    others, go = threading.Event(), threading.Event()

    def hold(method: str, path: str, number: int) -> int | None:
        if path.endswith(min(images)):
            others.wait(60)
            return 403
        if path.endswith(".jpg"):
            others.set()
            go.wait(60)
        return None

    proxy.fault = hold
    flags = (sharding.size, "--workers=1", "--shuffle=none", f"--input=s3://{bucket}/Food-11")
    process = stage.start(sharding.stage, *flags, env=env | {"S3_ENDPOINT_URL": proxy.endpoint}, volume=empty)
    try:
        _, stderr = process.communicate(timeout=40)
    finally:
        go.set()
        process.kill()
    assert process.returncode == 2, stderr
    assert "access is denied" in stderr


def test_ctrl_c_while_workers_start_is_reported_once(
    stage: Stage, tree: Path, bucket: str, env: dict[str, str], until: Until, held: Held
) -> None:
    """A terminal sends the signal to all processes."""
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
    """Begins an upload in parts, as one that SIGKILL ended leaves it."""

    def begin(path: str) -> None:
        place = {"Bucket": bucket, "Key": path}
        upload = store.client.create_multipart_upload(**place)["UploadId"]
        store.client.upload_part(**place, UploadId=upload, PartNumber=1, Body=b"part")

    yield begin
    for item in store.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
        store.client.abort_multipart_upload(Bucket=bucket, Key=item["Key"], UploadId=item["UploadId"])


def test_parts_that_a_killed_run_has_left(
    stage: Stage, tree: Path, sharding: Packing, bucket: str, env: dict[str, str], store: Store, begin_upload: Any
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
    stage: Stage, tree: Path, sharding: Packing, bucket: str, env: dict[str, str], proxy: Proxy
) -> None:
    proxy.fault = lambda method, path, number: 403 if method == "GET" and "uploads" in path else None
    dest = f"--dest=s3://{bucket}/{sharding.folder}"
    result = stage(sharding.stage, sharding.size, dest, env=env | {"S3_ENDPOINT_URL": proxy.endpoint})
    assert result.code == 0, result.stderr
    assert "may be left behind" in result.stderr
