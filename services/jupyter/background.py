"""JupyterLab as a process in the background, for machines without a container engine."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

from larder.errors import ResourceError, ServiceError
from larder.ports import holder, is_free
from larder.progress import Reporter
from larder.stage import Outcome
from services.jupyter.settings import JupyterSettings

_START_SECONDS, _STOP_SECONDS, _PAUSE_SECONDS = 60, 20, 0.2
_LOG_LINES = 15
_SETTINGS = ("LARDER_", "FOOD11_", "S3_", "AWS_", "RCLONE_")
_FREE = ("LARDER_LOG", "LARDER_JUPYTER_TASK", "LARDER_REVISION")
"""What may change while a server runs: these are one command's, and a commit is no reason to stop."""


class Server(NamedTuple):
    """A server that runs in the background."""

    pid: int
    port: int
    root: str


def up(settings: JupyterSettings, reporter: Reporter) -> Outcome:
    """Start it unless it runs, and wait until it answers.

    Raises ResourceError when it can't have the port or runs with other settings, ServiceError with the end of its log
    when it doesn't start.
    """
    if (server := running(settings)) is not None:
        _require_same(server, settings)
        return Outcome(f"JupyterLab already runs on port {server.port}", "make jupyter-url")
    require_free_port(settings)  # another Jupyter's answer would be taken for ours
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _log(settings).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.jupyter", "--task", "serve"], stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, start_new_session=True,  # a terminal's Ctrl-C isn't for it
        )  # fmt: skip
    with reporter.task("waiting for JupyterLab", None, "seconds") as task:
        begin = said = time.monotonic()
        while not is_ready(settings):
            if process.poll() is not None or time.monotonic() - begin > _START_SECONDS:
                process.kill()
                raise ServiceError(
                    f"JupyterLab didn't start:\n{_end_of_log(settings)}", next_step=f"see {_log(settings)}"
                )
            time.sleep(_PAUSE_SECONDS)
            if time.monotonic() - said >= 1:
                said += 1
                task.advance()
    return Outcome(f"JupyterLab answers on port {settings.port}", "make jupyter-url")


def note_settings(settings: JupyterSettings, environ: Mapping[str, str]) -> None:
    """Note what the server is started with, so that `up` sees whether something else is wanted."""
    _note(settings).write_text(_digest(environ))


def down(settings: JupyterSettings, _: Reporter) -> Outcome:
    """Stop it. Raises ResourceError when it doesn't stop."""
    server = running(settings)
    if server is None:
        return Outcome("no JupyterLab runs in the background", "")
    os.kill(server.pid, signal.SIGTERM)
    end = time.monotonic() + _STOP_SECONDS
    while running(settings) is not None:
        if time.monotonic() > end:
            raise ResourceError(
                f"JupyterLab (process {server.pid}) did not stop in {_STOP_SECONDS} s",
                next_step=f"`kill -9 {server.pid}` ends it at once",
            )
        time.sleep(_PAUSE_SECONDS)
    return Outcome(f"JupyterLab is stopped; the work stays in {settings.workspace}", "")


def logs(settings: JupyterSettings, _: Reporter) -> Outcome:
    """Print its log, on stdout."""
    if _log(settings).exists():
        print(_log(settings).read_text(errors="replace"), end="", flush=True)
    return Outcome(f"the log is {_log(settings)}", "")


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
    if not is_free(settings.port):
        raise ResourceError(
            f"port {settings.port} is taken by {holder(settings.port)}",
            next_step="stop that, or set LARDER_JUPYTER_PORT to another port",
        )


def running(settings: JupyterSettings) -> Server | None:
    """The server by its own notes (jupyter_server's `jpserver-<pid>.json`); None when it has ended."""
    for note in (settings.home / "runtime").glob("jpserver-*.json"):
        pid = int(note.stem.rpartition("-")[2])
        try:
            if b"jupyterlab" in Path(f"/proc/{pid}/cmdline").read_bytes():
                written = json.loads(note.read_text())
                return Server(pid, int(written["port"]), written["root_dir"])
        except OSError:  # it was killed before it could tidy up
            note.unlink(missing_ok=True)
    return None


def _require_same(server: Server, settings: JupyterSettings) -> None:
    """Raises ResourceError when the server that runs isn't the one that is wanted."""
    if server.port != settings.port:
        raise ResourceError(
            f"JupyterLab already runs on port {server.port}",
            next_step=f"`make jupyter-down` stops it; then start it on port {settings.port}",
        )
    if server.root != str(settings.workspace.resolve()):
        raise ResourceError(
            f"JupyterLab already runs, with {server.root} as its workspace",
            next_step=f"`make jupyter-down` stops it; then start it with {settings.workspace}",
        )
    if not _note(settings).exists() or _note(settings).read_text() != _digest(os.environ):
        raise ResourceError(
            "JupyterLab already runs, with the settings that it was started with, and these are others",
            next_step="`make jupyter-down` first, then `make jupyter`; or `make jupyter-url` to go on as it is",
        )


def _digest(environ: Mapping[str, str]) -> str:
    """Of the settings in the environment, which kernels inherit: they hold keys of the store, so only a digest."""
    ours = sorted((name, value) for name, value in environ.items() if value and name.startswith(_SETTINGS))
    return hashlib.sha256(repr([item for item in ours if item[0] not in _FREE]).encode()).hexdigest()


def _note(settings: JupyterSettings) -> Path:
    return settings.home / "settings"


def _log(settings: JupyterSettings) -> Path:
    return settings.home / "log"


def _end_of_log(settings: JupyterSettings) -> str:
    return "\n".join(_log(settings).read_text(errors="replace").splitlines()[-_LOG_LINES:])
