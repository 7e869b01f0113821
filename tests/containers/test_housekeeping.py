"""`larder status`, `doctor` and `uninstall` on a real engine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from larder import __version__
from tests.containers.conftest import ROOT, Run

SAMPLE = {"LARDER_SOURCE": "sample", "LARDER_SAMPLE_IMAGES": "40"}


@pytest.fixture
def second(own_project: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The settings of a second checkout, which must not remove the first one's images."""
    register = tmp_path / "state" / "larder" / "checkouts.json"
    register.parent.mkdir(parents=True)
    register.write_text(json.dumps({"larder": str(ROOT)}))
    folders = {"XDG_STATE_HOME": str(tmp_path / "state"), "LARDER_RESULTS": str(tmp_path / "results")}
    return {**own_project, **folders, "RUNNER": "compose"}


def listed(kind: str, project: str) -> list[str]:
    """List what the engine has of a project."""
    every = ["--all"] if kind == "container" else []
    label = f"label=com.docker.compose.project={project}"
    return subprocess.check_output(["docker", kind, "ls", *every, "--quiet", "--filter", label], text=True).split()


def test_status_sees_what_lies_in_volumes_and_what_is_out_of_date(
    run: Run, stage: Run, second: dict[str, str], data_volume: str
) -> None:
    larder = ("python3", "-m", "larder")
    assert f"No volume   {data_volume}, " in run(*larder, "status", check=True, **second).stdout
    for name in ("extract", "transform", "shard"):
        stage(name, check=True, **SAMPLE, **second)
    stdout = run(*larder, "status", check=True, **second).stdout
    assert f"Volume      {data_volume}: " in stdout
    assert "Food-11: tree, 40 files, " in stdout
    assert "Food-11-webdataset: webdataset, 3 files, " in stdout
    assert f"No volume   {data_volume}_lit" in stdout
    assert "OUT OF DATE" not in stdout
    for name in ("extract", "transform"):
        stage(name, check=True, LARDER_FORCE="true", **{**SAMPLE, **second, "LARDER_SAMPLE_IMAGES": "50"})
    stdout = run(*larder, "status", check=True, **second).stdout
    assert "OUT OF DATE: the tree data have changed since" in stdout
    assert stdout.endswith("Next: python3 -m larder etl-wds\n")
    assert listed("container", second["COMPOSE_PROJECT_NAME"]) == []


def test_doctor_finds_an_engine_that_works(run: Run, second: dict[str, str]) -> None:
    ended = run("python3", "-m", "larder", "doctor", check=True, **second)
    assert "engine                   ok     Docker " in ended.stdout
    assert "compose                  ok     version " in ended.stdout


@pytest.fixture
def foreign(data_volume: str) -> Iterator[str]:
    """A container of another program that uses the data volume."""
    name = f"{data_volume}-training"
    yield name
    subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True)


@pytest.mark.exhaustive
def test_uninstall_removes_what_the_checkout_has_made(
    run: Run, stage: Run, checkout: Path, second: dict[str, str], data_volume: str, foreign: str
) -> None:
    project = second["COMPOSE_PROJECT_NAME"]
    larder = ("python3", "-m", "larder")
    stage("extract", check=True, **SAMPLE, **second)
    run(*larder, "s3-up", folder=checkout, check=True, **second)
    stdout = run(*larder, "status", folder=checkout, check=True, **second).stdout
    assert "Store       on this machine, keys in .larder/s3-compose.env\n              nothing of Food-11" in stdout
    assert (
        f"{second['LARDER_MINIO_PORT']} is used by larder itself"
        in run(*larder, "doctor", folder=checkout, **second).stdout
    )
    (checkout / "results" / "mine.json").touch()

    image = f"larder-extract:{__version__}"
    user = ("docker", "run", "--detach", "--name", foreign, "-v", f"{data_volume}:/mnt", "--entrypoint", "sleep", image)
    run(*user, "600", check=True)
    refused = run(*larder, "uninstall", "YES=1", folder=checkout, **second)
    assert refused.returncode == 3
    assert f"{data_volume} is used by {foreign}" in refused.stderr
    run("docker", "rm", "--force", foreign, check=True)

    before = {kind: listed(kind, project) for kind in ("container", "network", "volume")}
    assert all(before.values())
    asked = run(*larder, "uninstall", folder=checkout, **second)
    assert asked.returncode == 1
    assert f"{data_volume}" in asked.stdout
    assert "MAY BE THE ONLY COPY" in asked.stdout
    assert {kind: listed(kind, project) for kind in before} == before

    run(*larder, "uninstall", "YES=1", folder=checkout, check=True, **second)
    assert {kind: listed(kind, project) for kind in before} == {kind: [] for kind in before}
    assert not (checkout / ".larder").exists()
    assert (checkout / "results" / "mine.json").exists()
    assert run("docker", "image", "inspect", image).returncode == 0
