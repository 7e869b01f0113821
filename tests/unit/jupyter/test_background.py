"""JupyterLab in the background, where another server is in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from larder.errors import ResourceError
from larder.progress import Reporter
from services.jupyter import background
from services.jupyter.jupyter import print_url
from services.jupyter.settings import JupyterSettings
from tests.conftest import wait_until

REPORTER = Reporter("jupyter", "line")


class AnotherJupyter(BaseHTTPRequestHandler):
    """Answers like any Jupyter server."""

    def do_GET(self) -> None:
        body = json.dumps({"version": "2.21.1"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def settings(tmp_path: Path, port: int) -> JupyterSettings:
    (tmp_path / "token").write_text("a-token\n")
    given = {"token-file": tmp_path / "token", "home": tmp_path / "home", "workspace": tmp_path / "work", "port": port}
    return JupyterSettings.load("jupyter", [f"--{name}={value}" for name, value in given.items()], {})


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[int]:
    """A process that is recorded as the server on port 4242."""
    with subprocess.Popen([sys.executable, "-c", "input()", "jupyterlab"], stdin=subprocess.PIPE) as process:
        (tmp_path / "home").mkdir()
        chosen = settings(tmp_path, 4242)
        background.record_server(chosen, os.environ)
        background.jupyter_process(chosen).write_pid(process.pid)
        wait_until(lambda: background.find_running_server(chosen) is not None, "the process has its arguments")
        yield process.pid
        process.communicate(b"\n")


def test_another_jupyter_on_the_port_is_not_taken_for_ours(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), AnotherJupyter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chosen = settings(tmp_path, server.server_address[1])
        assert background.is_ready(chosen)
        with pytest.raises(ResourceError, match="is taken by") as caught:
            background.up(chosen, REPORTER)
        server.shutdown()
    assert "LARDER_JUPYTER_PORT" in caught.value.next_step
    assert not (tmp_path / "home" / "log").exists(), "nothing was started"


def test_a_server_that_runs_keeps_its_port(tmp_path: Path, ours: int, capsys: pytest.CaptureFixture[str]) -> None:
    running = background.find_running_server(settings(tmp_path, 4242))
    assert running and running[:3] == (ours, 4242, str(tmp_path / "work"))
    assert "already runs on port 4242" in background.up(settings(tmp_path, 4242), REPORTER).summary
    with pytest.raises(ResourceError, match="already runs on port 4242") as caught:
        background.up(settings(tmp_path, 4243), REPORTER)
    assert "`jupyter down`" in caught.value.next_step
    print_url(settings(tmp_path, 4243), REPORTER)
    assert capsys.readouterr().out == "http://127.0.0.1:4242/lab?token=a-token\n"


@pytest.mark.usefixtures("ours")
def test_a_server_that_runs_keeps_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = settings(tmp_path, 4242)
    with pytest.raises(ResourceError, match=f"runs, with {tmp_path / 'work'} as its workspace") as caught:
        background.up(chosen.model_copy(update={"workspace": tmp_path / "another"}), REPORTER)
    assert "`jupyter down`" in caught.value.next_step
    for name, value in (("LARDER_LOG", "json"), ("LARDER_REVISION", "1234"), ("COLUMNS", "80"), ("S3_PREFIX", "")):
        monkeypatch.setenv(name, value)
        assert "already runs" in background.up(chosen, REPORTER).summary, "this is none of its settings"
    monkeypatch.setenv("S3_BUCKET", "another")
    with pytest.raises(ResourceError, match="with other settings than these") as caught:
        background.up(chosen, REPORTER)
    assert "`jupyter down`" in caught.value.next_step
