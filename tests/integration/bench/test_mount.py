"""ImageFolder over real mounts by rclone of real stores."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from larder.bench import rclone_metrics
from tests.conftest import Proxy, Store
from tests.integration.bench.conftest import ArmRun, Mount, MountBucket, RunArm, RunBench

ARM = "imagefolder_rclone_mount"
TRAINING = "team/food/Food-11/training"
HarmMount = Callable[[Store, str, Mount], None]


@pytest.fixture
def run(run_bench: RunBench, loaded: dict[str, str], tmp_path: Path) -> RunArm:
    """Run the arm over a mount: its exit code, output and record."""

    def run(folder: str, *flags: str, **environ: str) -> ArmRun:
        code, out, err = run_bench("--arm", ARM, *flags, **(loaded | {"LARDER_MOUNT_DIR": str(folder)} | environ))
        records = sorted((tmp_path / "results").glob("*.json"))
        return code, out, err, json.loads(records[-1].read_text()) if records else None

    return run


def test_each_pass_reads_the_network_again_and_reports_the_bytes(
    run: RunArm, mount: MountBucket, store: Store, proxy: Proxy, loaded: dict[str, str]
) -> None:
    mounted = mount(proxy.endpoint, loaded)
    code, out, err, record = run(mounted.folder, "--warmup-batches", "5")  # all images, before the same ones again
    assert code == 0, err
    assert record["dataset"]["artifact"] == "objects"
    whole = record["dataset"]["bytes"]["training"]
    assert record["images"] == 40
    assert record["network_bytes"] == whole
    assert 40 <= record["network_requests"] <= 2 * 40 + 10  # a GET each, at most a HEAD each, and listings
    assert ["requests", str(record["network_requests"])] in [line.split() for line in out.splitlines()]
    assert proxy.count("GET", ".jpg") == 80
    # rclone's total is what went over the wire.
    total = rclone_metrics.read_traffic(mounted.folder / ".rclone.sock")
    assert total.requests == len(proxy.requests)
    reported, sent = total.bytes, proxy.body_bytes_sent
    listings = sent - reported
    assert 2 * whole < reported < sent
    assert listings < 0.2 * sent
    secrets = {store.secret_key, store.access_key}
    assert not any(secret in text for secret in secrets for text in (out, err, json.dumps(record)))


def test_rclone_retries_after_resets_and_bursts_of_503(
    run: RunArm, mount: MountBucket, proxy: Proxy, loaded: dict[str, str]
) -> None:

    def fault(method: str, path: str, number: int) -> int | str | None:
        if method != "GET" or not path.endswith(".jpg"):
            return None
        return 503 if number % 13 == 0 else "reset-response" if number % 17 == 0 else None

    proxy.fault = fault
    mounted = mount(proxy.endpoint, loaded)
    code, _, err, record = run(mounted.folder, "--warmup-batches", "0")
    assert code == 0, err
    assert proxy.count("GET", ".jpg") > 40
    assert record["network_bytes"] >= record["dataset"]["bytes"]["training"]


def plain_folder(folder: Path, loaded: dict[str, str]) -> None:
    (folder / loaded["S3_BUCKET"]).mkdir(parents=True)


def nothing(folder: Path, loaded: dict[str, str]) -> None:
    pass


@pytest.mark.parametrize(
    ("prepare", "environ", "code", "parts"),
    [
        pytest.param(nothing, {}, 3, ["nothing is mounted at", "make mount"], id="no-folder"),
        pytest.param(plain_folder, {}, 3, ["it is a plain folder", "make mount"], id="plain-folder"),
        pytest.param(nothing, {"S3_BUCKET": ""}, 2, ["S3_BUCKET is not set"], id="bucket-not-set"),
    ],
)
def test_without_a_mount(
    run: RunArm,
    tmp_path: Path,
    loaded: dict[str, str],
    prepare: Callable[[Path, dict[str, str]], None],
    environ: Mapping[str, str],
    code: int,
    parts: list[str],
) -> None:
    folder = tmp_path / "elsewhere"
    prepare(folder, loaded)
    returned, out, err, record = run(folder, **environ)
    assert (returned, out, record) == (code, "", None), err
    assert all(part in err for part in parts), err
    assert "Traceback" not in err


def drop_manifest(store: Store, bucket: str, mounted: Mount) -> None:
    store.client.delete_object(Bucket=bucket, Key="team/food/Food-11/_larder/manifest.json")


def drop_image(store: Store, bucket: str, mounted: Mount) -> None:
    store.client.delete_object(Bucket=bucket, Key=f"{TRAINING}/class_00/0.jpg")


def add_image(store: Store, bucket: str, mounted: Mount) -> None:
    store.client.put_object(Bucket=bucket, Key=f"{TRAINING}/class_00/extra.jpg", Body=b"x")


def corrupt_image(store: Store, bucket: str, mounted: Mount) -> None:
    store.client.put_object(Bucket=bucket, Key=f"{TRAINING}/class_00/0.jpg", Body=b"x")


def kill_rclone(store: Store, bucket: str, mounted: Mount) -> None:
    mounted.kill()


def drop_socket(store: Store, bucket: str, mounted: Mount) -> None:
    (mounted.folder / ".rclone.sock").unlink()


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("harm", "code", "parts"),
    [
        pytest.param(drop_manifest, 3, ["holds no finished data", "run `make etl-load`"], id="no-manifest"),
        pytest.param(drop_image, 3, ["39 images", "says 40", "class_00/0.jpg is missing", "etl-load"], id="deleted"),
        pytest.param(add_image, 3, ["41 images", "says 40", "make etl-load"], id="one-too-many"),
        pytest.param(
            corrupt_image, 3, ["class_00/0.jpg can't be read", "make etl-load LARDER_FORCE=true"], id="corrupt"
        ),
        pytest.param(kill_rclone, 5, ["is dead: Transport endpoint is not connected", "make mount"], id="dead"),
        pytest.param(drop_socket, 5, ["rclone doesn't report its traffic", "make mount"], id="no-metrics"),
    ],
)
@pytest.mark.usefixtures("own_copy")
def test_errors_name_a_remedy(
    run: RunArm, mount: MountBucket, store: Store, loaded: dict[str, str], harm: HarmMount, code: int, parts: list[str]
) -> None:
    mounted = mount(store.endpoint, loaded)
    harm(store, loaded["S3_BUCKET"], mounted)
    returned, out, err, record = run(mounted.folder)
    assert (returned, out, record) == (code, "", None), err
    assert all(part in err for part in parts), err
    assert "Traceback" not in err


def test_rclone_killed_in_the_middle_of_a_run(
    run: RunArm, mount: MountBucket, proxy: Proxy, loaded: dict[str, str]
) -> None:
    mounted = mount(proxy.endpoint, loaded)

    def fault(method: str, path: str, number: int) -> int | str | None:
        if method == "GET" and proxy.count("GET", ".jpg") >= 20:  # not ==: two requests at once may both be counted
            mounted.rclone.kill()
        return None

    proxy.fault = fault
    code, out, err, record = run(mounted.folder, "--warmup-batches", "0")
    assert (code, out, record) == (5, "", None), err
    assert "is dead: Transport endpoint is not connected" in err
    assert "make mount" in err
    assert "Traceback" not in err


def test_the_store_fails_for_good_in_the_middle_of_a_run(
    run: RunArm, mount: MountBucket, proxy: Proxy, loaded: dict[str, str]
) -> None:
    proxy.fault = lambda method, path, number: 500 if method == "GET" and "/class_01/" in path else None
    mounted = mount(proxy.endpoint, loaded, "--low-level-retries=1")
    code, out, err, record = run(mounted.folder)
    assert (code, out, record) == (5, "", None), err
    assert "can't be read: OSError: [Errno 5] Input/output error" in err
    assert "make s3-check" in err
    assert "Traceback" not in err
