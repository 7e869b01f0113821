"""JupyterLab as a process in the background, for machines without a container engine."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

from larder.background import Background
from larder.errors import ResourceError
from larder.next_step import Run
from larder.ports import require_free
from larder.progress import Reporter
from larder.stage import Outcome
from larder.terminal import say
from services.jupyter.settings import JupyterSettings

UP, DOWN, URL = Run("jupyter", "up"), Run("jupyter", "down"), Run("jupyter", "url")
_START_SECONDS, _STOP_SECONDS = 60, 20
_SETTINGS = ("LARDER_", "FOOD11_", "S3_", "AWS_", "RCLONE_")
_FREE = ("LARDER_LOG", "LARDER_JUPYTER_TASK", "LARDER_REVISION", "LARDER_FRONT_DOOR")
"""What may change while a server runs: these are one command's, and a commit is no reason to stop."""


class Server(NamedTuple):
    """A server that runs in the background, and what it was started with."""

    pid: int
    port: int
    root: str
    settings: str
    """A digest."""


def up(settings: JupyterSettings, reporter: Reporter) -> Outcome:
    """Start it unless it runs, and wait until it answers.

    Raises ResourceError when it can't have the port or runs with other settings, ServiceError with the end of its log
    when it doesn't start.
    """
    server = background(settings)
    with server.alone():
        if (found := running(settings)) is not None:
            _require_same(found, settings)
            return Outcome(f"JupyterLab already runs on port {found.port}", str(URL))
        require_free_port(settings)  # another Jupyter's answer would be taken for ours
        process = server.start([sys.executable, "-m", "services.jupyter", "--task", "serve"])
        server.wait(process, lambda: "" if is_ready(settings) else "it doesn't answer", _START_SECONDS, reporter)
    return Outcome(f"JupyterLab answers on port {settings.port}", str(URL))


def note(settings: JupyterSettings, environ: Mapping[str, str]) -> None:
    """Note that this process becomes the server, and what with, so that `up` sees whether something else is wanted."""
    background(settings).note(os.getpid())
    started = {"port": settings.port, "root": str(settings.workspace.resolve()), "settings": _digest(environ)}
    _note(settings).write_text(json.dumps(started))


def down(settings: JupyterSettings, reporter: Reporter) -> Outcome:
    """Stop it. Raises ResourceError when it doesn't stop."""
    server = background(settings)
    with server.alone():
        ran = server.end(_STOP_SECONDS, reporter)
    if not ran:
        return Outcome("no JupyterLab runs in the background", "")
    return Outcome(f"JupyterLab is stopped; the work stays in {settings.workspace}", "")


def logs(settings: JupyterSettings, _: Reporter) -> Outcome:
    """Print its log, on stdout."""
    log = background(settings).log
    if log.exists():
        with log.open(errors="replace") as lines:
            for line in lines:
                say(line.rstrip("\n"))
    return Outcome(f"the log is {log}", "")


def is_ready(settings: JupyterSettings) -> bool:
    """Whether a Jupyter server answers on the port."""
    host = "127.0.0.1" if settings.bind.is_unspecified else str(settings.bind)
    connection = HTTPConnection(host, settings.port, timeout=5)
    try:
        connection.request("GET", "/api")  # open to all: it tells the version
        return "version" in json.loads(connection.getresponse().read())
    except (OSError, HTTPException, ValueError):
        return False
    finally:
        connection.close()


def require_free_port(settings: JupyterSettings) -> None:
    """Raises ResourceError when another program listens on the port."""
    require_free(settings.port, "set LARDER_JUPYTER_PORT to another port")


def background(settings: JupyterSettings) -> Background:
    """The process, which `serve` becomes JupyterLab in."""
    return Background("JupyterLab", settings.home, {"services.jupyter", "jupyterlab"})


def running(settings: JupyterSettings) -> Server | None:
    """The server that runs; None when it has ended."""
    pid = background(settings).pid()
    try:
        return None if pid is None else Server(pid, **json.loads(_note(settings).read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # it is about to start
        return None


def _require_same(server: Server, settings: JupyterSettings) -> None:
    """Raises ResourceError when the server that runs isn't the one that is wanted."""
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
            "JupyterLab already runs, with the settings that it was started with, and these are others",
            next_step=f"run {DOWN}, then {UP}; or {URL} to go on as it is",
        )


def _digest(environ: Mapping[str, str]) -> str:
    """Of the settings in the environment, which kernels inherit: they hold keys of the store, so only a digest."""
    ours = sorted((name, value) for name, value in environ.items() if value and name.startswith(_SETTINGS))
    return hashlib.sha256(repr([item for item in ours if item[0] not in _FREE]).encode()).hexdigest()


def _note(settings: JupyterSettings) -> Path:
    return settings.home / "settings"
