"""Every command in the README, run in a fresh checkout as a new user would."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
import zstandard
from PIL import Image

from tests.conftest import Store

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

# Stands in for the public archive, and keeps everything small.
IMAGES, TRAINING = 110, 67
DOT_ENV = f"""\
LARDER_SOURCE=sample
LARDER_SAMPLE_IMAGES={IMAGES}
LARDER_BATCH_SIZE=16
LARDER_WARMUP_BATCHES=1
LARDER_EPOCHS=2
"""


def blocks() -> list[list[str]]:
    """Return the lines of the README's shell blocks, without comments."""
    texts = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [[line.split("  #")[0].strip() for line in block.splitlines() if line.strip()] for block in texts]


FIRST, DATA, BY_HAND, STORE, RAY, LAB, LOOK, LIBRARY, CLOUD = blocks()


def test_the_first_commands_are_two() -> None:
    assert FIRST == ["make demo", "make test"]


def files_as_food11() -> dict[str, bytes]:
    return {f"{split}/{c}_{c}.jpg": _jpeg(c) for split in ("training", "validation", "evaluation") for c in range(11)}


def files_in_folders() -> dict[str, bytes]:
    return {f"{name}/{n}.jpg": _jpeg(n) for name in ("bread", "soup") for n in range(30)}


def _jpeg(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64 + number, 48), (20 * number % 256, 90, 40)).save(stream, "JPEG")
    return stream.getvalue()


def _write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    path.chmod(0o644)


def _tar_zst(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return zstandard.compress(stream.getvalue())


def test_make_demo(run: Run, checkout: Path) -> None:
    (checkout / ".env").write_text(DOT_ENV)
    ended = run("make", "demo", folder=checkout, check=True)
    assert "runner: compose" in ended.stderr
    assert "imgs/s" in ended.stdout
    assert ended.stdout.splitlines()[-1] == f"The records are in {checkout}/results/"
    record = json.loads(next((checkout / "results").glob("*.json")).read_text())
    assert record["dataset"]["samples"]["training"] == TRAINING
    assert record["provenance"]["in_container"]


def test_make_test_is_there(run: Run, checkout: Path) -> None:
    dry = ("python3", "-m", "larder", "--dry-run", "test")
    assert "tests/unit" in run(*dry, folder=checkout, check=True).stdout


def test_data_and_a_measurement(run: Run, checkout: Path) -> None:
    """Run the command without a source, then the one that needs a tree. Other sources have volumes of their own."""
    (checkout / ".env").write_text(DOT_ENV)
    commands = [command for command in DATA if "LARDER_SOURCE" not in command]
    assert [command.split()[1] for command in commands] == ["etl-local", "bench"]
    _run_each(run, checkout, commands, RUNNER="compose")


@pytest.mark.exhaustive
def test_stage_by_stage(run: Run, checkout: Path) -> None:
    (checkout / ".env").write_text(DOT_ENV)
    assert [command.split("--build ")[1].split()[0] for command in BY_HAND] == ["extract", "transform", "bench"]
    _run_each(run, checkout, BY_HAND)


@pytest.mark.exhaustive
@pytest.mark.parametrize("command", [command for command in DATA if "LARDER_SOURCE" in command])
def test_a_source(run: Run, checkout: Path, minio: dict[str, Any], command: str) -> None:
    (checkout / ".env").write_text(DOT_ENV)
    _write_zip(checkout / "photos.zip", files_in_folders() if "imagefolder " in command + " " else files_as_food11())
    settings = {
        "S3_ENDPOINT_URL": minio["published"],
        "AWS_ACCESS_KEY_ID": minio["key"],
        "AWS_SECRET_ACCESS_KEY": minio["secret"],
        "RUNNER": "compose",
    }
    if "s3://" in command:
        keys = {name.lower(): settings[name] for name in settings if name.startswith("AWS")}
        client = boto3.client("s3", endpoint_url=minio["endpoint"], region_name="us-east-1", **keys)
        if not any(bucket["Name"] == "bucket" for bucket in client.list_buckets()["Buckets"]):
            client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="photos.tar.zst", Body=_tar_zst(files_as_food11()))
    _run_each(run, checkout, [command], **settings)


def _run_each(run: Run, checkout: Path, commands: list[str], **settings: str) -> None:
    for command in commands:
        ended = run("bash", "-c", command, folder=checkout, check=True, **settings)
        assert "orphan" not in ended.stderr, command


@pytest.mark.exhaustive
def test_into_a_store_and_back(run: Run, checkout: Path, own_project: dict[str, str], shared_folder: Path) -> None:
    (checkout / ".env").write_text(DOT_ENV)
    settings = own_project | {"RUNNER": "compose", "LARDER_MOUNT_DIR": str(shared_folder / "readme")}
    run("make", "etl-local", folder=checkout, check=True, **settings)
    try:
        cleaned = STORE.index("make clean YES=1")
        for command in (*STORE[:cleaned], *RAY, *LOOK, "make jupyter-down", *STORE[cleaned:]):
            ended = run("bash", "-c", command, folder=checkout, check=True, **settings)
            assert "orphan" not in ended.stderr, command
        records = [json.loads(path.read_text()) for path in (checkout / "results").glob("*.json")]
        [training] = [record for record in records if record.get("kind") == "train"]
        assert [epoch["images"] for epoch in training["epochs"]] == [TRAINING] * 2
        records = [record for record in records if record is not training]
        requests = {record["arm"]: record["network_requests"] for record in records}
        assert set(requests) == {
            "remote_one_sample",
            "imagefolder_rclone_mount",
            "webdataset",
            "stream",
            "litdata_streaming",
        }
        assert {record["dataset"]["samples"]["training"] for record in records} == {TRAINING}
        assert all(record["network_bytes"] > 0 for record in records)
        assert min(requests["remote_one_sample"], requests["imagefolder_rclone_mount"]) >= TRAINING
        assert (requests["webdataset"], requests["litdata_streaming"]) == (2, None)
        [shards] = [record for record in records if record["arm"] == "webdataset"]
        assert shards["settings"]["webdataset_loader"] == "larder"
        assert shards["network_bytes"] > shards["dataset"]["bytes"]["training"]
    finally:
        run("make", "unmount", folder=checkout, **settings)
        run("make", "clean-s3", "YES=1", folder=checkout, **settings)


@pytest.mark.exhaustive
def test_the_labs_commands(run: Run, checkout: Path, minio: dict[str, Any], minio_server: Store) -> None:
    keys = {"S3_ENDPOINT_URL": "published", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    (checkout / ".env").write_text(DOT_ENV + "".join(f"{name}={minio[key]}\n" for name, key in keys.items()))
    run("make", "etl-local", folder=checkout, check=True, RUNNER="compose")
    minio_server.client.create_bucket(Bucket="object-chi-netid")  # MinIO takes no capital letters, Ceph does
    commands = "\n".join(LAB).replace("netID", "netid")
    ended = run("bash", "-ec", commands, folder=checkout, check=True)
    assert f"{IMAGES} objects in s3://object-chi-netid/Food-11: {IMAGES} sent" in ended.stderr
    assert "up to date" in run("bash", "-ec", commands, folder=checkout, check=True).stderr


def test_the_library_is_installed_with_extras_that_exist() -> None:
    """tests/integration installs the wheel, and runs the script."""
    [install] = LIBRARY
    [extras] = re.findall(r"^pip install '\.\[(.+)\]'$", install)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= set(known)


def test_the_clouds_commands_are_there(run: Run) -> None:
    """tests/openstack runs them against a cloud."""
    copy, *commands = CLOUD
    assert (ROOT / copy.split()[1]).is_file()
    for command in commands:
        run(*command.split(), "--help", check=True)
