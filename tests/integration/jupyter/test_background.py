"""JupyterLab without a container engine: a process in the background."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from larder.ports import is_free
from tests.conftest import free_ports, wait_until

Task = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def port() -> int:
    """A free port."""
    return free_ports(1)[0]


@pytest.fixture
def task(tmp_path: Path, port: int) -> Iterator[Task]:
    """Runs `python -m services.jupyter --task …`; ends with `down`."""
    (tmp_path / "token").write_text("a-token\n")
    settings = {
        "LARDER_WORKSPACE": str(tmp_path / "work"),
        "LARDER_JUPYTER_TOKEN_FILE": str(tmp_path / "token"),
        "LARDER_JUPYTER_DIR": str(tmp_path / "jupyter"),
        "LARDER_JUPYTER_PORT": str(port),
        "LARDER_LOG": "line",
        "LARDER_FRONT_DOOR": "make",
    }
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | settings

    def run(name: str, **changed: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "services.jupyter", "--task", name]
        return subprocess.run(command, env=environ | changed, capture_output=True, text=True, check=False, timeout=300)

    yield run
    run("down")


def status(address: str) -> int:
    try:
        return int(urlopen(address, timeout=60).status)
    except HTTPError as error:
        return error.code


def test_it_starts_once_and_stops(task: Task, tmp_path: Path, port: int) -> None:
    started = task("up")
    assert started.returncode == 0, started.stderr
    assert "already runs" in task("up").stderr
    for changed in ({"LARDER_WORKSPACE": str(tmp_path / "another")}, {"S3_BUCKET": "another"}):
        refused = task("up", **changed)
        assert refused.returncode == 3
        assert "make jupyter-down" in refused.stderr
    assert task("url").stdout == f"http://127.0.0.1:{port}/lab?token=a-token\n"
    assert status(f"http://127.0.0.1:{port}/api/contents?token=a-token") == 200
    assert status(f"http://127.0.0.1:{port}/api/contents?token=b-token") == 403
    assert (tmp_path / "work" / "1-images.ipynb").exists()
    assert task("ready").returncode == 0
    assert task("down").returncode == 0
    assert task("ready").returncode == 3
    assert "no JupyterLab runs" in task("down").stderr


def test_a_port_that_is_taken(task: Task, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        failed = task("up")
    assert failed.returncode == 3
    assert f"port {port} is taken by" in failed.stderr
    assert "LARDER_JUPYTER_PORT" in failed.stderr


def test_a_server_that_was_killed_is_no_server(task: Task, tmp_path: Path, port: int) -> None:
    assert task("up").returncode == 0
    os.kill(int((tmp_path / "jupyter" / "pid").read_text()), 9)
    wait_until(lambda: is_free(port), "it has ended")
    assert task("up").returncode == 0, "it starts again"
    assert task("ready").returncode == 0
