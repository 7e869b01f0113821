"""Every command of the README and of docs/stages.md, run in a fresh checkout as a new user would."""

from __future__ import annotations

import io
import json
import subprocess
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import Store
from tests.markdown import blocks

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

# Stands in for the public archive, and keeps everything small.
IMAGES, TRAINING = 110, 67
SMALL = """\
LARDER_BATCH_SIZE=16
LARDER_WARMUP_BATCHES=1
LARDER_EPOCHS=2
"""
DOT_ENV = f"{SMALL}LARDER_SOURCE=sample\nLARDER_SAMPLE_IMAGES={IMAGES}\n"


def commands_of(page: str) -> list[list[str]]:
    """Return the commands of a page's shell blocks."""
    return [block.commands for block in blocks(page, "sh")]


FIRST, PHOTOS, BUCKET, LIBRARY, CLOUD = commands_of("README.md")
STORE, RAY, LOOK, BY_HAND = commands_of("docs/stages.md")
[CHAMELEON] = [block.commands for block in blocks("docs/operations.md", "sh") if "s3-check" in block.text]


def test_the_first_commands_are_two() -> None:
    assert FIRST == ["make demo", "make test"]


def photos() -> dict[str, bytes]:
    """Return photographs as people have them: in `train` and `val`, with spaces in the names of classes."""
    classes = {"train": 30, "val": 8}
    return {
        f"{split}/{name}/{n}.jpg": photo(n)
        for split, count in classes.items()
        for name in ("fried rice", "soup")
        for n in range(count)
    }


def photo(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (64 + number, 48), (20 * number % 256, 90, 40)).save(stream, "JPEG")
    return stream.getvalue()


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    path.chmod(0o644)


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


@pytest.mark.exhaustive
def test_stage_by_stage(run: Run, checkout: Path) -> None:
    (checkout / ".env").write_text(DOT_ENV)
    assert [command.split("--build ")[1].split()[0] for command in BY_HAND] == ["extract", "transform", "bench"]
    _run_each(run, checkout, BY_HAND)


@pytest.mark.exhaustive
def test_my_photos(run: Run, checkout: Path, own_project: dict[str, str]) -> None:
    settings = own_project | {"RUNNER": "compose"}
    (checkout / ".env").write_text(SMALL)
    write_zip(checkout / "photos.zip", photos())
    try:
        _run_each(run, checkout, PHOTOS, **settings)
    finally:
        run("make", "clean-s3", "YES=1", folder=checkout, **settings)
    records = [json.loads(path.read_text()) for path in (checkout / "results").glob("*.json")]
    assert {record["arm"]: record["images"] for record in records} == {"imagefolder_local": 60, "stream": 60}


def test_my_bucket(run: Run, checkout: Path, minio: dict[str, Any], minio_server: Store) -> None:
    """Photos that are in a bucket, and one that is broken: the shards hold the others, by the classes' own names."""
    bucket = f"my-bucket-{uuid.uuid4().hex[:8]}"
    store = {"S3_ENDPOINT_URL": "published", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    settings = "".join(f"{name}={minio[key]}\n" for name, key in store.items())
    (checkout / ".env").write_text(f"{SMALL}S3_BUCKET={bucket}\nLARDER_DATASET=photos\n{settings}")
    minio_server.client.create_bucket(Bucket=bucket)
    for name, data in photos().items():
        minio_server.client.put_object(Bucket=bucket, Key=f"originals/{name}", Body=data)
    minio_server.client.put_object(Bucket=bucket, Key="originals/train/soup/broken.jpg", Body=photo(1)[:-20])
    check, index, pack = (command.replace("my-bucket", bucket) for command in BUCKET)
    broken = run("bash", "-c", index, folder=checkout, RUNNER="compose")
    assert "rejected 'train/soup/broken.jpg'" in broken.stderr
    assert "leave them out with LARDER_MAX_REJECTS=1" in broken.stderr
    _run_each(run, checkout, [check, f"{index} LARDER_MAX_REJECTS=1", pack], RUNNER="compose")
    found = minio_server.client.get_object(Bucket=bucket, Key="photos-webdataset/_larder/manifest.json")
    manifest = json.load(found["Body"])
    assert manifest["classes"] == ["fried rice", "soup"]
    assert {name: split["samples"] for name, split in manifest["splits"].items()} == {"training": 60, "validation": 16}


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
def test_chameleons_commands(run: Run, checkout: Path, minio: dict[str, Any], minio_server: Store) -> None:
    keys = {"S3_ENDPOINT_URL": "published", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    (checkout / ".env").write_text(DOT_ENV + "".join(f"{name}={minio[key]}\n" for name, key in keys.items()))
    run("make", "etl-local", folder=checkout, check=True, RUNNER="compose")
    minio_server.client.create_bucket(Bucket="object-chi-netid")  # MinIO takes no capital letters, Ceph does
    commands = "\n".join(CHAMELEON).replace("netID", "netid")
    ended = run("bash", "-ec", commands, folder=checkout, check=True)
    assert f"{IMAGES} objects in s3://object-chi-netid/Food-11: {IMAGES} sent" in ended.stderr
    assert "up to date" in run("bash", "-ec", commands, folder=checkout, check=True).stderr


def test_the_clouds_commands_are_there(run: Run) -> None:
    """tests/openstack runs them against a cloud."""
    copy, *commands = CLOUD
    assert (ROOT / copy.split()[1]).is_file()
    for command in commands:
        run(*command.split(), "--help", check=True)
