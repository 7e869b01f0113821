"""Ctrl-C and leftovers, with a real engine: a checkout whose load stage only waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import wait_until
from tests.unit.cli.conftest import copy_front_door

STAGE = """\
name: larder
services:
  load:
    image: "debian:bookworm-slim"
    entrypoint: [bash, -c, "trap 'exit 130' INT TERM; for n in {1..300}; do sleep 0.1; done"]
"""
OTHER = 'name: larder\nservices:\n  s3: {image: "debian:bookworm-slim", entrypoint: ["true"]}\n'


class Checkout:
    """A checkout with its own compose project."""

    def __init__(self, root: Path) -> None:
        self.root, self.project = copy_front_door(root), f"larder-test-{uuid.uuid4().hex[:8]}"
        (root / "compose" / "load.yaml").write_text(STAGE)
        (root / "compose" / "s3.yaml").write_text(OTHER)
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST") if name in os.environ}
        self.environ = kept | {"COMPOSE_PROJECT_NAME": self.project, "RUNNER": "compose"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "larder", *words],
            cwd=self.root,
            env=self.environ,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def containers(self, *options: str) -> list[str]:
        label = f"label=com.docker.compose.project={self.project}"
        return subprocess.check_output(["docker", "ps", "--quiet", "--filter", label, *options], text=True).split()


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Checkout]:
    checkout = Checkout(tmp_path / "larder")
    yield checkout
    if left := checkout.containers("--all"):
        subprocess.run(["docker", "rm", "--force", *left], check=True, capture_output=True)
    subprocess.run(["docker", "network", "rm", f"{checkout.project}_default"], check=False, capture_output=True)


def runs_compose(process: subprocess.Popen[str]) -> bool:
    """Return whether the front door has started `docker compose run`."""
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            words = child.cmdline()
        except psutil.NoSuchProcess:
            continue
        if "compose" in words and "run" in words:
            return True
    return False


@pytest.mark.one_in(2)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    "seconds", [0.0, 0.3, *(pytest.param(seconds, marks=pytest.mark.exhaustive) for seconds in (0.1, 0.6))]
)
def test_a_container_that_starts_is_ended(waiting: Checkout, number: signal.Signals, seconds: float) -> None:
    process = waiting.start("etl-load")
    wait_until(lambda: runs_compose(process), "compose starts a container")
    time.sleep(seconds)  # so that the signal arrives at another point of the start
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert waiting.containers("--all") == []


@pytest.mark.one_in(2)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_container_that_runs_is_ended(waiting: Checkout, number: signal.Signals) -> None:
    process = waiting.start("etl-load")
    wait_until(lambda: bool(waiting.containers()), "the container runs")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert waiting.containers("--all") == []


def test_a_container_left_over_is_no_orphan(waiting: Checkout) -> None:
    """As `docker compose run` without `--rm` leaves one."""
    left = ["docker", "compose", "-f", "compose/s3.yaml", "run", "s3"]
    subprocess.run(left, cwd=waiting.root, env=waiting.environ, check=True, capture_output=True)
    assert len(waiting.containers("--all")) == 1
    process = waiting.start("etl-load")
    wait_until(lambda: bool(waiting.containers()), "the container runs")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "orphan" not in err
