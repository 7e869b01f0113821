"""Commands for JupyterLab."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from larder.cli import ports, store
from larder.cli.app import App, Failed
from larder.cli.compose import Compose
from larder.cli.console import say, tell
from larder.cli.mounts import mount_of
from larder.cli.process import Call
from larder.cli.settings import Settings, is_port, shown
from larder.errors import ConfigurationError, StorageError

_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"


def up(app: App, _: Sequence[str]) -> None:
    """Start JupyterLab, and print its address."""
    _require_address(app.settings)
    token(app)
    if isinstance(app.runner, Compose) and not app.dry_run:
        _require_free_port(app, app.runner)
    app.prepare("jupyter")
    settings = app.settings
    app.make_folders(settings.results, settings.mount_dir, settings.cache_dir)
    if isinstance(app.runner, Compose):
        _start_container(app, app.runner)
    else:
        app.run(app.runner.up("jupyter"))
    if not app.dry_run:
        url(app, ())


def token(app: App, _: Sequence[str] = ()) -> None:
    """Make the workspace and the token, unless they are there."""
    settings = app.settings
    if not app.dry_run:
        _make_workspace(settings)
        app.choose_runner()
        _give_workspace(app)
        make_token(app)
    elif not ((app.root / settings.workspace).is_dir() and (app.root / settings.token_file).is_file()):
        own = settings.given_of("RUNNER", "LARDER_HOME", "LARDER_WORKSPACE", "LARDER_UID", "LARDER_GID")
        app.print_call(Call(("python3", "-m", "larder", "jupyter-token"), own))


def _require_address(settings: Settings) -> None:
    """Raise ConfigurationError for an address or a port that can't be one."""
    bind, port = settings.get("LARDER_JUPYTER_BIND", "127.0.0.1"), settings.get("LARDER_JUPYTER_PORT", "8888")
    if not re.fullmatch(rf"{_BYTE}(\.{_BYTE}){{3}}", bind):
        raise ConfigurationError(
            f"LARDER_JUPYTER_BIND={shown(bind)} is not an IPv4 address", next_step="127.0.0.1 is for this machine alone"
        )
    if not is_port(port):
        raise ConfigurationError(
            f"LARDER_JUPYTER_PORT={shown(port)} is not a port",
            next_step="choose one from 1 to 65535; 8888 is the default",
        )


def _make_workspace(settings: Settings) -> None:
    """Make the workspace. Raises StorageError, with what helps."""
    workspace = settings.root / settings.workspace
    try:
        workspace.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        other = "set LARDER_WORKSPACE to another folder"
        if error.errno == errno.EACCES:
            owner = f"-o {settings.uid} -g {settings.gid}"
            other = f"sudo install -d {owner} {shlex.quote(str(settings.workspace))}; or {other}"
        elif error.errno in (errno.EEXIST, errno.ENOTDIR):
            other = f"move away what is in its place; or {other}"
        raise StorageError(
            f"the workspace {settings.workspace} can't be made: {error.strerror}", next_step=other
        ) from None


def _give_workspace(app: App) -> None:
    """Give an empty workspace to the container's user; one with something in it stays whose it is."""
    workspace = app.root / app.settings.workspace
    filled = any(item.name != ".gitkeep" for item in workspace.iterdir())
    if app.is_compose and not os.geteuid() and not filled and workspace.stat().st_uid == 0:
        os.chown(workspace, int(app.settings.uid), int(app.settings.gid))


def make_token(app: App) -> None:
    """Make up the token, once, for its owner alone; the container's user must read it."""
    path = app.root / app.settings.token_file
    store.write_once(path, secrets.token_hex(24) + "\n")
    if app.is_compose and not os.geteuid():
        os.chown(path, int(app.settings.uid), int(app.settings.gid))


def _start_container(app: App, runner: Compose) -> None:
    """Start the container, and show what it says."""
    start = _seeing_later_mounts(app, runner.up("jupyter"))
    if app.dry_run:
        return app.run(start)
    code, _, said = app.output(start)
    if code:
        log = app.output(runner.query("jupyter", "logs", "--no-log-prefix", "--tail", "15", "jupyter"))[1].rstrip()
        say(*log.splitlines(), *([] if "next step" in log else said.splitlines()[-3:]))
        app.output(runner.down("jupyter"))
        raise Failed(code)
    for line in app.output(runner.logs("jupyter"))[1].splitlines():
        if line.startswith("jupyter: "):
            say(line)
    return None


def _seeing_later_mounts(app: App, call: Call) -> Call:
    """Let the server see what is mounted after its start, where the folder lies on a shared mount."""
    found = mount_of(Path(os.path.realpath(app.root / app.settings.mount_dir)))
    follows = found is not None and (found.shared or found.slave)
    return replace(call, env={**call.env, "MOUNT_PROPAGATION": "rslave"}) if follows else call


def _require_free_port(app: App, runner: Compose) -> None:
    """Raise an error when the port is another program's, before anything that runs is touched."""
    bind, port = app.settings.get("LARDER_JUPYTER_BIND", "127.0.0.1"), app.settings.get("LARDER_JUPYTER_PORT", "8888")
    ports.require_free(bind, port, "LARDER_JUPYTER", app.name("jupyter"), _published(app, runner))


def _published(app: App, runner: Compose) -> str:
    """Return where JupyterLab's container is reached, or an empty text when none runs."""
    return app.output(runner.query("jupyter", "port", "jupyter", "8888"))[1].strip()


def url(app: App, _: Sequence[str]) -> None:
    """Print the address, with the token."""
    if not isinstance(app.runner, Compose):
        return app.run(app.stage("jupyter", "jupyter", "--task", "url"))
    if app.dry_run:
        return app.run(app.runner.query("jupyter", "port", "jupyter", "8888"))
    place = _published(app, app.runner)
    if not place:
        say("JupyterLab isn't running", f"  next step: {app.name('jupyter')}")
        raise Failed(1)
    place = re.sub(r"^0\.0\.0\.0:", "127.0.0.1:", place.splitlines()[0])
    token = (app.root / app.settings.token_file).read_text("utf-8").strip()
    tell(f"http://{place}/lab?token={token}")
    return None


def logs(app: App, _: Sequence[str]) -> None:
    """Print the log."""
    app.run(app.runner.logs("jupyter"))


def down(app: App, _: Sequence[str]) -> None:
    """Stop it."""
    app.run(app.runner.down("jupyter"))
