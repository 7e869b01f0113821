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

from larder.cli import local_store, ports
from larder.cli.app import App, CallFailedError
from larder.cli.compose import ComposeRunner
from larder.cli.console import print_message, print_result
from larder.cli.mounts import mount_of
from larder.cli.process import Call
from larder.cli.setting_values import is_port, printable
from larder.cli.settings import ResolvedSettings
from larder.errors import ConfigurationError, StorageError

_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"


def up(app: App, _: Sequence[str]) -> None:
    """Start JupyterLab, and print its address."""
    _require_address(app.settings)
    token(app)
    if isinstance(app.runner, ComposeRunner) and not app.dry_run:
        _require_free_port(app, app.runner)
    app.prepare("jupyter")
    settings = app.settings
    if settings.store and not local_store.find_bucket(settings):
        print_message("S3_BUCKET is not set, nor RCLONE_CONTAINER: the notebooks will find no bucket")
    app.make_folders(settings.results, settings.mount_dir, settings.cache_dir)
    if isinstance(app.runner, ComposeRunner):
        _start_container(app, app.runner)
    else:
        app.run(app.runner.up("jupyter"))
    if not app.dry_run:
        url(app, ())


def token(app: App, _: Sequence[str] = ()) -> None:
    """Create the workspace and the token, unless they exist."""
    settings = app.settings
    if not app.dry_run:
        _make_workspace(settings)
        app.choose_runner()
        _give_workspace(app)
        make_token(app)
    elif not ((app.root / settings.workspace).is_dir() and (app.root / settings.token_file).is_file()):
        own = settings.given_of("RUNNER", "LARDER_HOME", "LARDER_WORKSPACE", "LARDER_UID", "LARDER_GID")
        app.print_call(Call(("python3", "-m", "larder", "jupyter-token"), own))


def _require_address(settings: ResolvedSettings) -> None:
    """Raise ConfigurationError for an invalid address or port."""
    bind, port = settings.get("LARDER_JUPYTER_BIND", "127.0.0.1"), settings.get("LARDER_JUPYTER_PORT", "8888")
    if not re.fullmatch(rf"{_BYTE}(\.{_BYTE}){{3}}", bind):
        raise ConfigurationError(
            f"LARDER_JUPYTER_BIND={printable(bind)} is not an IPv4 address",
            next_step="127.0.0.1 is for this machine alone",
        )
    if not is_port(port):
        raise ConfigurationError(
            f"LARDER_JUPYTER_PORT={printable(port)} is not a port",
            next_step="choose one from 1 to 65535; 8888 is the default",
        )


def _make_workspace(settings: ResolvedSettings) -> None:
    """Create the workspace. Raise StorageError if that fails."""
    workspace = settings.root / settings.workspace
    try:
        workspace.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "set LARDER_WORKSPACE to another folder"
        if error.errno == errno.EACCES:
            owner = f"-o {settings.uid} -g {settings.gid}"
            hint = f"sudo install -d {owner} {shlex.quote(str(settings.workspace))}; or {hint}"
        elif error.errno in (errno.EEXIST, errno.ENOTDIR):
            hint = f"move away what is in its place; or {hint}"
        raise StorageError(
            f"the workspace {settings.workspace} can't be made: {error.strerror}", next_step=hint
        ) from None


def _give_workspace(app: App) -> None:
    """Give an empty workspace to the container's user; one with content keeps its owner."""
    workspace = app.root / app.settings.workspace
    has_content = any(item.name != ".gitkeep" for item in workspace.iterdir())
    if app.is_compose and not os.geteuid() and not has_content and workspace.stat().st_uid == 0:
        os.chown(workspace, int(app.settings.uid), int(app.settings.gid))


def make_token(app: App) -> None:
    """Create the token once, readable only by its owner: the container's user."""
    path = app.root / app.settings.token_file
    local_store.write_once(path, secrets.token_hex(24) + "\n")
    if app.is_compose and not os.geteuid():
        os.chown(path, int(app.settings.uid), int(app.settings.gid))


def _start_container(app: App, runner: ComposeRunner) -> None:
    """Start the container and print its messages."""
    start = _with_mount_propagation(app, runner.up("jupyter"))
    if app.dry_run:
        return app.run(start)
    print_message("starting JupyterLab")
    code, _, errors = app.capture(start)
    if code:
        log = app.capture(runner.query("jupyter", "logs", "--no-log-prefix", "--tail", "15", "jupyter"))[1].rstrip()
        print_message(*log.splitlines(), *([] if "next step" in log else errors.splitlines()[-3:]))
        app.capture(runner.down("jupyter"))
        raise CallFailedError(code)
    for line in app.capture(runner.logs("jupyter"))[1].splitlines():
        if line.startswith("jupyter: "):
            print_message(line)
    return None


def _with_mount_propagation(app: App, call: Call) -> Call:
    """Make later mounts visible to the server, if the folder is on a shared mount."""
    mount = mount_of(Path(os.path.realpath(app.root / app.settings.mount_dir)))
    propagates = mount is not None and (mount.shared or mount.slave)
    return replace(call, env={**call.env, "MOUNT_PROPAGATION": "rslave"}) if propagates else call


def _require_free_port(app: App, runner: ComposeRunner) -> None:
    """Raise an error if another program uses the port, before replacing a running container."""
    bind, port = app.settings.get("LARDER_JUPYTER_BIND", "127.0.0.1"), app.settings.get("LARDER_JUPYTER_PORT", "8888")
    published = _published_address(app, runner)
    ports.require_publishable_port(
        bind, port, "LARDER_JUPYTER", lambda setting: app.typed_command(f"jupyter {setting}"), published
    )


def _published_address(app: App, runner: ComposeRunner) -> str:
    """Return the address of JupyterLab's container; "" if none runs."""
    return app.capture(runner.query("jupyter", "port", "jupyter", "8888"))[1].strip()


def url(app: App, _: Sequence[str]) -> None:
    """Print the address, with the token."""
    if not isinstance(app.runner, ComposeRunner):
        return app.run(app.stage_call("jupyter", "jupyter", "--task", "url"))
    if app.dry_run:
        return app.run(app.runner.query("jupyter", "port", "jupyter", "8888"))
    address = _published_address(app, app.runner)
    if not address:
        print_message("JupyterLab isn't running", f"  next step: {app.typed_command('jupyter')}")
        raise CallFailedError(1)
    address = re.sub(r"^0\.0\.0\.0:", "127.0.0.1:", address.splitlines()[0])
    token = (app.root / app.settings.token_file).read_text("utf-8").strip()
    print_result(f"http://{address}/lab?token={token}")
    return None


def logs(app: App, _: Sequence[str]) -> None:
    """Print JupyterLab's log."""
    app.run(app.runner.logs("jupyter"))


def down(app: App, _: Sequence[str]) -> None:
    """Stop JupyterLab."""
    app.run(app.runner.down("jupyter"))
