"""Run JupyterLab as a background process, for machines without a container engine."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

from larder.background import BackgroundProcess
from larder.errors import ResourceError
from larder.next_step import StageRun
from larder.ports import require_free
from larder.progress import Reporter
from larder.stage import StageOutcome
from larder.terminal import print_escaped
from services.jupyter.settings import JupyterSettings

UP, DOWN, URL = StageRun("jupyter", "up"), StageRun("jupyter", "down"), StageRun("jupyter", "url")
_START_SECONDS, _STOP_SECONDS = 60, 20
_SETTINGS = ("LARDER_", "FOOD11_", "S3_", "AWS_", "RCLONE_")
_IGNORED_SETTINGS = (
    "LARDER_LOG",
    "LARDER_JUPYTER_TASK",
    "LARDER_REVISION",
    "LARDER_FRONT_DOOR",
    "LARDER_REPEATED",
    "LARDER_HOST_FOLDERS",
)
"""Settings that may change while a server runs: they belong to a single command, or are the code's revision."""


class JupyterServer(NamedTuple):
    """A server in the background, with the settings it was started with."""

    pid: int
    port: int
    root: str
    settings: str
    """The digest of its settings."""


def up(settings: JupyterSettings, reporter: Reporter) -> StageOutcome:
    """Start the server unless it runs, and wait until it answers.

    Raises:
        ResourceError: If the port is taken, or the server runs with other settings.
        ServiceError: If it doesn't start, with the end of its log.
    """
    server = jupyter_process(settings)
    with server.exclusive():
        if (running := find_running_server(settings)) is not None:
            _require_same_settings(running, settings)
            return StageOutcome(f"JupyterLab already runs on port {running.port}", str(URL))
        require_free_port(settings)  # otherwise another Jupyter's answer could be taken for this one's
        process = server.start([sys.executable, "-m", "services.jupyter", "--task", "serve"])
        server.wait(process, lambda: "" if is_ready(settings) else "it doesn't answer", _START_SECONDS, reporter)
    return StageOutcome(f"JupyterLab answers on port {settings.port}", str(URL))


def record_server(settings: JupyterSettings, environ: Mapping[str, str]) -> None:
    """Record this process as the server with its settings, so that `up` can compare them."""
    jupyter_process(settings).write_pid(os.getpid())
    started = {"port": settings.port, "root": str(settings.workspace.resolve()), "settings": _digest(environ)}
    _settings_file(settings).write_text(json.dumps(started))


def down(settings: JupyterSettings, reporter: Reporter) -> StageOutcome:
    """Stop the server. Raises ResourceError if it doesn't stop."""
    server = jupyter_process(settings)
    with server.exclusive():
        ran = server.end(_STOP_SECONDS, reporter)
    if not ran:
        return StageOutcome("no JupyterLab runs in the background", "")
    return StageOutcome(f"JupyterLab is stopped; the work stays in {settings.workspace}", "")


def print_logs(settings: JupyterSettings, _: Reporter) -> StageOutcome:
    """Print the server's log on stdout."""
    log = jupyter_process(settings).log
    if log.exists():
        with log.open(errors="replace") as lines:
            for line in lines:
                print_escaped(line.rstrip("\n"))
    return StageOutcome(f"the log is {log}", "")


def is_ready(settings: JupyterSettings) -> bool:
    """Return whether a Jupyter server answers on the port."""
    host = "127.0.0.1" if settings.bind.is_unspecified else str(settings.bind)
    connection = HTTPConnection(host, settings.port, timeout=5)
    try:
        connection.request("GET", "/api")  # needs no token; returns the version
        return "version" in json.loads(connection.getresponse().read())
    except (OSError, HTTPException, ValueError):
        return False
    finally:
        connection.close()


def require_free_port(settings: JupyterSettings) -> None:
    """Raise ResourceError if another program listens on the port."""
    require_free(settings.port, "set LARDER_JUPYTER_PORT to another port")


def jupyter_process(settings: JupyterSettings) -> BackgroundProcess:
    """Return the background process; `serve` replaces itself by JupyterLab in it."""
    return BackgroundProcess("JupyterLab", settings.home, {"services.jupyter", "jupyterlab"})


def find_running_server(settings: JupyterSettings) -> JupyterServer | None:
    """Return the running server, or None."""
    pid = jupyter_process(settings).pid()
    try:
        return None if pid is None else JupyterServer(pid, **json.loads(_settings_file(settings).read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # it is about to start
        return None


def _require_same_settings(server: JupyterServer, settings: JupyterSettings) -> None:
    """Raise ResourceError if the running server has other settings."""
    if server.port != settings.port:
        raise ResourceError(
            f"JupyterLab already runs on port {server.port}",
            next_step=f"run {DOWN}, then start it on port {settings.port}",
        )
    if server.root != str(settings.workspace.resolve()):
        raise ResourceError(
            f"JupyterLab already runs, with {server.root} as its workspace",
            next_step=f"run {DOWN}, then start it with {settings.workspace}",
        )
    if server.settings != _digest(os.environ):
        raise ResourceError(
            "JupyterLab already runs, with other settings than these",
            next_step=f"run {DOWN}, then {UP}; or {URL} to go on as it is",
        )


def _digest(environ: Mapping[str, str]) -> str:
    """Return a digest of the settings in the environment. They include the store's keys, so only a digest is kept."""
    relevant = sorted((name, value) for name, value in environ.items() if value and name.startswith(_SETTINGS))
    return hashlib.sha256(repr([item for item in relevant if item[0] not in _IGNORED_SETTINGS]).encode()).hexdigest()


def _settings_file(settings: JupyterSettings) -> Path:
    return settings.home / "settings"
