"""A stage on a Ray cluster of containers, one of which is killed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from larder import __version__
from tests.conftest import Until

Run = Callable[..., "subprocess.CompletedProcess[str]"]
CLUSTER = ("docker", "compose", "-f", "compose/ray.yaml")
DIGESTS = "cd /mnt/Food-11-webdataset && find . -type f ! -name run.json -exec sha256sum {} + | sort -k 2"
FLAGS = ("--shard-samples=1", "--force")


@pytest.fixture
def on_ray(run: Run, own_project: dict[str, str]) -> Iterator[dict[str, str]]:
    """A head and two workers. Yields the settings of a stage that uses them."""
    run(*CLUSTER, "up", "-d", "--wait", check=True, **own_project)
    yield own_project | {"LARDER_ENGINE": "ray", "RAY_ADDRESS": "ray-head:6379"}
    run(*CLUSTER, "kill", **own_project)  # at once: nobody waits for their goodbye


@pytest.mark.exhaustive
def test_a_killed_worker_does_not_change_the_bytes(
    run: Run, stage: Run, data_volume: str, on_ray: dict[str, str], environment: dict[str, str], until: Until
) -> None:
    stage("extract", "--source=sample", "--sample-images=300", check=True)
    stage("transform", check=True)
    stage("shard", *FLAGS, check=True)
    local = packed(data_volume, DIGESTS)
    assert local.count("shard-") > 50

    [worker, other] = run(*CLUSTER, "ps", "--quiet", "ray-worker", check=True, **on_ray).stdout.split()
    run("docker", "update", "--cpus=0.3", worker, check=True)  # so that it never lacks work that is under way
    command = ("docker", "compose", "-f", "compose/wds.yaml", "run", "--rm", "shard", *FLAGS)
    with subprocess.Popen(command, env=environment | on_ray, stderr=subprocess.PIPE, text=True) as process:
        done = ("docker", "exec", other, "sh", "-c", "ls /mnt/.larder/Food-11-webdataset/new/* | grep -c tar")
        until(lambda: int(run(*done).stdout or 0) > 2, "some shards are written", 300)
        run("docker", "kill", worker, check=True)
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert "the Ray cluster at ray-head:6379 has" in stderr
    assert packed(data_volume, DIGESTS) == local


def packed(data_volume: str, script: str) -> str:
    """Run a command that reads the shards, and return its output."""
    image = f"larder-extract:{__version__}"
    command = ["docker", "run", "--rm", "-v", f"{data_volume}_wds:/mnt:ro", "--entrypoint=sh", image]
    return subprocess.run([*command, "-c", script], check=True, capture_output=True, text=True).stdout
