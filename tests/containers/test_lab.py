"""The commands of docs/lab.md, run in a fresh checkout."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Store

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
BUCKET = "object-chi-netid-lab"  # MinIO takes no capital letters, Ceph does
FILES = ("local", "load", "wds", "lit")


def blocks() -> list[str]:
    text = (ROOT / "docs/lab.md").read_text().replace("object-chi-netID", BUCKET)
    return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)


def test_every_file_has_a_block() -> None:
    assert [re.findall(r"compose/(\w+)\.yaml", block)[0] for block in blocks()] == list(FILES)


@pytest.mark.parametrize("file", FILES)
def test_the_labs_names_stay_out_of_up(run: Run, file: str) -> None:
    """`docker compose up` would otherwise start a stage twice, under two names."""
    services = run("docker", "compose", "-f", f"compose/{file}.yaml", "config", "--services", check=True).stdout.split()
    assert not {name for name in services if "-" in name}


@pytest.mark.exhaustive
def test_the_lab_to_the_letter(
    run: Run, checkout: Path, own_project: dict[str, str], minio: dict[str, Any], minio_server: Store
) -> None:
    """Its service names, as it runs them: without --rm, each file from its first stage."""
    store = {"S3_ENDPOINT_URL": "published", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    lines = ["LARDER_SOURCE=sample", "LARDER_SAMPLE_IMAGES=66", "COMPOSE_IGNORE_ORPHANS=true"]
    lines += [f"{name}={minio[key]}" for name, key in store.items()]
    (checkout / ".env").write_text("\n".join(lines))
    minio_server.client.create_bucket(Bucket=BUCKET)
    upload = [block.splitlines()[-1].replace("load-", "upload-") for block in blocks()[2:]]
    again = [f"export RCLONE_CONTAINER={BUCKET}\n{command}" for command in upload]
    for script in (*blocks(), *again):
        ended = run("bash", "-ec", script, folder=checkout, check=True, **own_project)
        assert "orphan" not in ended.stderr
    assert "up to date" in ended.stderr
    keys = {found["Key"] for found in minio_server.client.list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert {key.split("/")[0] for key in keys} == {"Food-11", "Food-11-webdataset", "Food-11-litdata"}
    assert "Food-11-webdataset/training/shard-000000.tar" in keys
    assert any(key.startswith("Food-11/training/class_00/") for key in keys)
