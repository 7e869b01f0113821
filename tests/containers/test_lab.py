"""The commands of docs/lab.md, run in a fresh checkout."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from larder.cli.compose import LAB_SERVICES
from tests.conftest import make_store
from tests.markdown import blocks

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
BUCKET = "object-chi-netid"  # MinIO takes no capital letters, Ceph does
FILES = ("local", "load", "wds", "lit")
STORE, *LAB = [block.text.replace("object-chi-netID", BUCKET) for block in blocks("docs/lab.md", "sh")]


def test_every_file_has_a_block() -> None:
    assert [re.findall(r"compose/(\w+)\.yaml", block)[0] for block in LAB] == list(FILES)


def test_uninstall_knows_the_labs_names(run: Run) -> None:
    """The lab's containers stay, since it runs them without --rm."""
    names = set()
    for file in FILES:
        command = ("docker", "compose", "-f", f"compose/{file}.yaml", "--profile", "lab", "config", "--services")
        names |= set(run(*command, check=True).stdout.split())
    assert {name for name in names if "-" in name} == set(LAB_SERVICES)


@pytest.mark.parametrize("file", FILES)
def test_the_labs_names_stay_out_of_up(run: Run, file: str) -> None:
    """`docker compose up` would otherwise start a stage twice, under two names."""
    services = run("docker", "compose", "-f", f"compose/{file}.yaml", "config", "--services", check=True).stdout.split()
    assert not {name for name in services if "-" in name}


@pytest.mark.exhaustive
def test_the_lab_to_the_letter(run: Run, checkout: Path, own_project: dict[str, str]) -> None:
    """Run its service names as it does: without --rm, each file from its first stage, into a store on this machine."""
    (checkout / ".env").write_text("LARDER_SOURCE=sample\nLARDER_SAMPLE_IMAGES=66\nCOMPOSE_IGNORE_ORPHANS=true\n")
    settings = own_project | {"RUNNER": "compose"}
    run("bash", "-ec", STORE, folder=checkout, check=True, **settings)
    upload = [block.splitlines()[-1].replace("load-", "upload-") for block in LAB[2:]]
    again = [f"export RCLONE_CONTAINER={BUCKET}\n{command}" for command in upload]
    for script in (*LAB, *again):
        ended = run("bash", "-ec", script, folder=checkout, check=True, **own_project)
        assert "orphan" not in ended.stderr
    assert "up to date" in ended.stderr
    lines = (checkout / ".larder/s3-compose.env").read_text().splitlines()
    known = dict(line.split("=", 1) for line in lines)
    store = make_store(
        "minio",
        f"http://127.0.0.1:{own_project['LARDER_MINIO_PORT']}",
        known["AWS_ACCESS_KEY_ID"],
        known["AWS_SECRET_ACCESS_KEY"],
    )
    keys = {found["Key"] for found in store.client.list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert {key.split("/")[0] for key in keys} == {"Food-11", "Food-11-webdataset", "Food-11-litdata"}
    assert "Food-11-webdataset/training/shard-000000.tar" in keys
    assert any(key.startswith("Food-11/training/class_00/") for key in keys)
