"""The pipeline in containers: its volume, its failures, its signals, and a real S3 server."""

from __future__ import annotations

import io
import json
import subprocess
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest

from larder import __version__
from tests.conftest import Until

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
SAMPLE = ("--source", "sample", "--sample-images", "120")
DIGEST = "cd /mnt && sha256sum {0}/_larder/manifest.json {0}/_larder/index.jsonl && ls -A1 .larder"


def archive(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, data in files.items():
            target.writestr(name, data)
    return stream.getvalue()


def jpeg(side: int = 32) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (side, side), (side % 256, 90, 40)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A small archive with Food-11's layout, under a name with a space."""
    splits = ("training", "validation", "evaluation")
    path = tmp_path / "my photos.zip"
    path.write_bytes(archive({f"Food-11/{split}/{c}_{c}.jpg": jpeg(20 + c) for split in splits for c in range(11)}))
    path.chmod(0o644)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # the container's user must reach it
    return path


def test_from_a_sample_to_a_record(stage: Run, tmp_path: Path, in_volume: Callable[[str], str]) -> None:
    stage("extract", *SAMPLE, check=True)
    stage("transform", check=True)
    tmp_path.chmod(0o777)
    flags = ("--arm", "imagefolder_local", "--batch-size", "8", "--warmup-batches", "1")
    ended = stage("bench", *flags, check=True, LARDER_RESULTS=str(tmp_path))
    assert "imgs/s" in ended.stdout
    record = json.loads(next(tmp_path.glob("imagefolder_local-*.json")).read_text())
    assert record["arm"] == "imagefolder_local"
    assert record["imgs/s"] > 0
    look = "ls; find -name '*.jpg' | wc -l; stat -c %u:%h training/class_00/0_0.jpg"
    listed = in_volume(f"cd /mnt/Food-11 && {look}").split()
    assert listed == ["_larder", "evaluation", "training", "validation", "120", "1000:2"]


def test_a_second_run_has_nothing_to_do(stage: Run, in_volume: Callable[[str], str]) -> None:
    for _ in range(2):
        ended = [stage("extract", *SAMPLE, check=True), stage("transform", check=True)]
    assert all("up to date" in one.stderr for one in ended)
    assert in_volume("ls /mnt").split() == ["Food-11", "raw"]


def test_the_exit_code_of_a_stage_is_that_of_the_command(stage: Run, photos: Path) -> None:
    assert stage("transform").returncode == 3  # nothing extracted yet
    mount = ("-v", f"{photos}:/source/a.zip:ro")
    stage("extract", "--source", "/source/a.zip", options=mount, check=True)
    assert stage("transform", "--recipe", "imagefolder").returncode == 3


def runs_or_ended(run: Run, container: str, process: subprocess.Popen[bytes]) -> bool:
    """Return whether a container runs, or the process that starts it has ended."""
    running = run("docker", "inspect", "-f", "{{.State.Running}}", container).stdout == "true\n"
    return running or process.poll() is not None


@pytest.mark.exhaustive
def test_killed_containers_leave_nothing_half_done(
    stage: Run, run: Run, in_volume: Callable[[str], str], environment: dict[str, str], until: Until
) -> None:
    command, kills = ["docker", "compose", "-f", "compose/local.yaml", "run", "--rm", "--name"], 0
    for number, seconds in enumerate((0.3, 0.8, 1.3)):
        name = f"{environment['LARDER_DATA_VOLUME']}_{number}"
        started = subprocess.Popen(
            [*command, name, "extract", *SAMPLE], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
        )
        until(partial(runs_or_ended, run, name, started), "the container runs, or has ended already")
        time.sleep(seconds)  # the moment of death, not a wait for something
        kills += run("docker", "kill", name).returncode == 0
        started.wait(timeout=60)
    assert kills, "all three had ended before"
    stage("extract", *SAMPLE, check=True)
    after_kills = in_volume(DIGEST.format("raw"))
    stage("extract", *SAMPLE, "--force", check=True)
    assert in_volume(DIGEST.format("raw")) == after_kills


def test_docker_stop_ends_a_stage_with_130(run: Run, environment: dict[str, str], until: Until) -> None:
    name = f"{environment['LARDER_DATA_VOLUME']}_stop"
    command = ["docker", "compose", "-f", "compose/local.yaml", "run", "--rm", "--name", name, "extract"]
    started = subprocess.Popen(
        [*command, "--source", "sample"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    until(lambda: len(run("docker", "top", name).stdout.splitlines()) > 2, "its workers are there: it is at work")
    run("docker", "stop", "-t", "60", name, check=True)
    _, stderr = started.communicate(timeout=60)
    assert started.returncode == 130, stderr
    assert "run the same command again" in stderr


def test_a_read_only_volume_is_named(run: Run, stage: Run, data_volume: str) -> None:
    stage("extract", *SAMPLE, check=True)
    command = ("docker", "run", "--rm", "-v", f"{data_volume}:/mnt:ro")
    ended = run(*command, f"larder-transform:{__version__}")
    assert ended.returncode == 3
    assert "read-only" in ended.stderr
    assert "mount it writable" in ended.stderr
    still = run(*command, f"larder-extract:{__version__}", *SAMPLE, check=True)  # what needs no writing works
    assert "up to date" in still.stderr


def test_a_full_disk_is_named_and_loses_nothing(run: Run, stage: Run, data_volume: str) -> None:
    options = "size=14m,uid=1000,gid=1000,mode=0755"
    command = ["docker", "volume", "create", "-d", "local", "-o", "type=tmpfs", "-o", "device=tmpfs"]
    run(*command, "-o", f"o={options}", data_volume, check=True)
    mount = ("-v", f"{data_volume}:/mnt", "--entrypoint", "sleep")  # a tmpfs lives while somebody mounts it
    holder = run("docker", "run", "-d", *mount, f"larder-extract:{__version__}", "600", check=True)
    try:
        stage("extract", "--source", "sample", "--sample-images", "60", check=True)
        ended = stage("extract", "--source", "sample", "--sample-images", "190")
        assert ended.returncode == 3
        assert "disk" in ended.stderr or "free" in ended.stderr
        again = stage("extract", "--source", "sample", "--sample-images", "60", check=True)
        assert "up to date" in again.stderr
    finally:
        run("docker", "rm", "-f", holder.stdout.strip(), check=True)


def test_from_an_s3_url(run: Run, data_volume: str, minio: dict[str, Any], photos: Path) -> None:
    keys = {"aws_access_key_id": minio["key"], "aws_secret_access_key": minio["secret"]}
    client = boto3.client("s3", endpoint_url=minio["endpoint"], region_name="us-east-1", **keys)
    client.create_bucket(Bucket="sources")
    client.upload_file(str(photos), "sources", "sets/my photos.zip")
    settings = {"S3_ENDPOINT_URL": minio["endpoint"]} | {name.upper(): value for name, value in keys.items()}
    handed = [word for name in settings for word in ("-e", name)]

    def extract(source: str, **changed: str) -> subprocess.CompletedProcess[str]:
        container = ("docker", "run", "--rm", "-v", f"{data_volume}:/mnt", *handed, f"larder-extract:{__version__}")
        return run(*container, "--source", source, **(settings | changed))

    assert "33 files" in extract("s3://sources/sets/my photos.zip").stderr
    refused = extract("s3://sources/other.zip", AWS_SECRET_ACCESS_KEY="not-the-secret")
    assert refused.returncode == 2
    assert "not-the-secret" not in refused.stderr + refused.stdout
    assert extract("s3://sources/other.zip").returncode == 3


def test_make_hands_a_local_archive_into_the_container(run: Run, checkout: Path, photos: Path) -> None:
    (checkout / photos.name).write_bytes(photos.read_bytes())
    ended = run("make", "etl-local", f"LARDER_SOURCE={photos.name}", "RUNNER=compose", folder=checkout, check=True)
    assert "33 files" in ended.stderr
    assert "33 images in 11 classes" in ended.stderr


def test_an_error_names_the_container_that_uses_a_volume(run: Run, stage: Run, data_volume: str, until: Until) -> None:
    stage("extract", "--source=sample", "--sample-images=40", check=True)
    hold = ("docker", "run", "--detach", "-v", f"{data_volume}:/mnt", "--entrypoint=flock")
    holder = run(*hold, f"larder-extract:{__version__}", "/mnt/.larder/lock", "sleep", "600", check=True).stdout.strip()
    try:
        probe = ("docker", "exec", holder, "flock", "--nonblock", "--conflict-exit-code=9", "/mnt/.larder/lock", "true")
        until(lambda: run(*probe).returncode == 9, "it holds the volume")
        refused = stage("extract", "--source=sample", "--sample-images=40", "--force")
        assert refused.returncode == 3
        assert f"another run is using the volume {data_volume} (/mnt)" in refused.stderr
        assert f"docker ps --filter volume={data_volume}" in refused.stderr
    finally:
        run("docker", "rm", "--force", holder, check=True)  # ends when it is gone: then the volume is free
