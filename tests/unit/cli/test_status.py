"""`larder status` shows what exists, and creates nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from larder import __version__
from larder.cli import inventory
from tests.unit.cli.engine import Machine, put_artifact


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("runner", ["compose", "host"])
def test_nothing_is_there_and_nothing_is_made(machine: Machine, runner: str) -> None:
    before = machine.written()
    ended = machine.larder("status", f"RUNNER={runner}")
    assert ended.returncode == 0, ended.stderr
    assert f"Runner      {runner}" in ended.stdout
    assert "No volume   food11_local_baseline, food11-webdataset_wds_out, food11-litdata_lit_out" in ended.stdout
    assert "Store       none" in ended.stdout
    assert "Next:" not in ended.stdout
    assert machine.written() == before
    read_only = {("version",), ("compose", "version"), ("image", "ls"), ("volume", "ls"), ("ps", "--all")}
    assert all(tuple(call[:2]) in read_only or tuple(call[:1]) in read_only for call in machine.engine.calls)


def test_status_reports_an_engine_without_permission(machine: Machine) -> None:
    machine.engine.bin.joinpath("docker").write_text("#!/bin/sh\necho permission denied >&2; exit 1\n")
    ended = machine.larder("status")
    assert ended.returncode == 0
    assert "Runner      host" in ended.stdout
    assert "Docker is installed, but you may not use it" in ended.stdout
    assert ended.stderr == ""


def host_volumes(machine: Machine, *, stale: bool) -> None:
    volumes = machine.root / ".larder" / "volumes"
    raw = put_artifact(volumes / "food11_local_baseline", "raw", "raw")
    tree = put_artifact(volumes / "food11_local_baseline", "Food-11", "tree", raw)
    made_from = "of another tree" if stale else tree
    put_artifact(volumes / "food11-webdataset_wds_out", "Food-11-webdataset", "webdataset", made_from)


@pytest.mark.parametrize("stale", [False, True], ids=["current", "stale"])
def test_volumes_of_the_host_runner(machine: Machine, stale: bool) -> None:
    host_volumes(machine, stale=stale)
    ended = machine.larder("status", "RUNNER=host")
    assert "Volume      food11_local_baseline: 3.0 MB" in ended.stdout, "a tree's files are links to the raw data's"
    assert "Food-11-webdataset: webdataset, 3 files, 3.0 MB; manifest " in ended.stdout
    assert "No volume   food11-litdata_lit_out" in ended.stdout
    assert ("OUT OF DATE: the tree data have changed since" in ended.stdout) == stale
    assert ended.stdout.endswith("Next: python3 -m larder etl-wds RUNNER=host\n") == stale


def test_the_next_step_uses_the_user_s_front_door(machine: Machine) -> None:
    host_volumes(machine, stale=True)
    ended = machine.larder("status", LARDER_FRONT_DOOR="make", RUNNER="host")
    assert ended.stdout.endswith("Next: make etl-wds\n")


def docker_volume(machine: Machine, tmp_path: Path, image: str) -> None:
    put_artifact(tmp_path / "volume", "raw", "raw")
    there = inventory.as_json({"/volumes/food11_local_baseline": inventory.read_volume(tmp_path / "volume")})
    machine.engine.answer("volume", "ls", text="food11_local_baseline\nsomebodys\n")
    machine.engine.answer("image", "ls", text=f"{image}\n")
    machine.engine.answer("run", text=there)


def test_volumes_of_the_engine_are_looked_into_by_one_container(machine: Machine, tmp_path: Path) -> None:
    docker_volume(machine, tmp_path, f"larder-extract:{__version__}")
    ended = machine.larder("status")
    assert "Volume      food11_local_baseline: 3.0 MB" in ended.stdout
    (run,) = (call for call in machine.engine.calls if call[0] == "run")
    assert run[:5] == ["run", "--rm", "--network", "none", "--read-only"]
    assert [word for word in run if ":/volumes/" in word] == ["food11_local_baseline:/volumes/food11_local_baseline:ro"]


@pytest.mark.parametrize("image", ["larder-load:0.0.1", "debian:bookworm-slim"])
def test_without_an_image_sizes_are_unknown(machine: Machine, tmp_path: Path, image: str) -> None:
    docker_volume(machine, tmp_path, image)
    ended = machine.larder("status")
    assert "Volume      food11_local_baseline: contents and size unknown" in ended.stdout
    assert not [call for call in machine.engine.calls if call[0] in ("run", "build")]


def test_the_store_of_the_settings_is_named_without_its_keys(machine: Machine) -> None:
    (machine.root / ".env").write_text(
        "S3_ENDPOINT_URL=https://store.example\nS3_BUCKET=photos\nAWS_ACCESS_KEY_ID=key-id\n"
        "AWS_SECRET_ACCESS_KEY=top-secret\n"
    )
    ended = machine.larder("status", "RUNNER=host")
    assert "Store       https://store.example, bucket photos: contents unknown" in ended.stdout
    assert "key-id" not in ended.stdout + ended.stderr
    assert "top-secret" not in ended.stdout + ended.stderr


def test_a_store_on_this_machine_that_is_stopped(machine: Machine) -> None:
    (machine.root / ".larder").mkdir()
    (machine.root / ".larder" / "s3-compose.env").write_text("S3_BUCKET=larder\n")
    ended = machine.larder("status")
    assert ": stopped; contents unknown" in ended.stdout
    assert not [call for call in machine.engine.calls if "run" in call]


def test_what_the_store_holds_is_asked_in_a_container_without_volumes(machine: Machine, tmp_path: Path) -> None:
    put_artifact(tmp_path / "bucket", "Food-11-webdataset", "webdataset", "of another tree")
    (machine.root / ".larder").mkdir()
    (machine.root / ".larder" / "s3-compose.env").write_text("S3_BUCKET=larder\n")
    machine.engine.answer("image", "ls", text=f"larder-s3:{__version__}\n")
    machine.engine.answer("ps", text="1\tlarder-minio-1\tminio\trunning\t127.0.0.1:9000->9000/tcp\n")
    machine.engine.answer(
        "compose",
        having="larder.cli.inventory",
        text=inventory.as_json({"store": inventory.read_volume(tmp_path / "bucket")}),
    )
    ended = machine.larder("status")
    assert "Food-11-webdataset: webdataset, 3 files" in ended.stdout
    assert "unknown whether it is up to date: the tree data it was made from are not here" in ended.stdout
    (run,) = (call for call in machine.engine.calls if "larder.cli.inventory" in call)
    at = run.index("run")
    assert run[at - 1] == "compose/s3.yaml"
    assert run[at : at + 6] == ["run", "--entrypoint", "python", "--rm", "--no-deps", "s3"]


def test_jupyterlab_in_a_container(machine: Machine) -> None:
    machine.engine.answer("ps", text="1\tlarder-jupyter-1\tjupyter\trunning\t127.0.0.1:8888->8888/tcp\n")
    assert "JupyterLab  runs on port 8888" in machine.larder("status").stdout


def test_records_by_arm_and_which_measured_other_data(machine: Machine) -> None:
    host_volumes(machine, stale=False)
    results = machine.root / "results"
    results.mkdir()
    for number, digest in enumerate(("newer", "older")):
        record = {"arm": "imagefolder_local", "dataset": {"manifest_sha256": digest}}
        path = results / f"imagefolder_local-{number}.json"
        path.write_text(json.dumps(record))
        os.utime(path, (1_000_000_000 - number, 1_000_000_000 - number))
    for number, text in enumerate(("{", "[]", "{}", '{"arm": "x", "dataset": []}')):
        (results / f"{number}.json").write_text(text)
    ended = machine.larder("status", "RUNNER=host")
    assert "Records     2 in results/" in ended.stdout
    assert "imagefolder_local: 2, the newest of 2001-09-09" in ended.stdout
    assert "OUT OF DATE: it measured other data" in ended.stdout
    assert "bench ARM=imagefolder_local RUNNER=host\n" in ended.stdout, "what measures again"


def test_a_record_of_the_demo_is_up_to_date(machine: Machine) -> None:
    volume = machine.root / ".larder" / "volumes" / "food11_demo"
    digest = put_artifact(volume, "Food-11", "tree", put_artifact(volume, "raw", "raw"))
    (machine.root / "results").mkdir()
    record = {"arm": "imagefolder_local", "dataset": {"manifest_sha256": digest}}
    (machine.root / "results" / "imagefolder_local-1.json").write_text(json.dumps(record))
    ended = machine.larder("status", "RUNNER=host")
    assert "imagefolder_local: 1, the newest of" in ended.stdout
    assert "OUT OF DATE" not in ended.stdout and "Next:" not in ended.stdout


def test_names_from_volumes_cannot_drive_a_terminal(machine: Machine) -> None:
    volume = machine.root / ".larder" / "volumes" / "food11_local_baseline"
    put_artifact(volume, "raw\x1b[2J", "raw")
    ended = machine.larder("status", "RUNNER=host")
    assert "\x1b" not in ended.stdout
    assert "raw\\x1b[2J" in ended.stdout
