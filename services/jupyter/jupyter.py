"""JupyterLab: what must be right before it starts, its command, and its address."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from larder.errors import ConfigurationError, ResourceError, StorageError
from larder.next_step import Run
from larder.progress import Reporter, amount
from larder.stage import Outcome
from larder.terminal import say
from services.jupyter.background import UP, down, is_ready, logs, note, require_free_port, running, up
from services.jupyter.settings import JupyterSettings

ROOT = Path(__file__).parents[2]
NOTEBOOKS, HANDED_OUT = Path(__file__).parent / "notebooks", Path(".larder/handed-out.json")
SHARED_MEMORY, LEAST_SHARED_BYTES = Path("/dev/shm"), 256 << 20
FOLDERS = {"FOOD11_DATA_DIR": "/mnt/Food-11", "LARDER_RESULTS": "results", "LARDER_MOUNT_DIR": ".larder/mount",
           "LARDER_CACHE_DIR": ".larder/cache"}  # fmt: skip
"""Settings that name folders, with their defaults. Notebooks run in the workspace, where a relative one misleads."""


def jupyter(settings: JupyterSettings, reporter: Reporter) -> Outcome:
    """Do what `settings.task` says."""
    tasks = {"serve": serve, "ready": ready, "url": url, "up": up, "down": down, "logs": logs}
    return tasks[settings.task](settings, reporter)


def serve(settings: JupyterSettings, reporter: Reporter) -> Outcome:
    """Become JupyterLab. Raises LarderError when it could not work."""
    token = read_token(settings)
    _require_writable(settings.workspace)
    require_free_port(settings)
    hand_out(NOTEBOOKS, settings.workspace, reporter)
    _look_at_shared_memory(reporter)
    kept = _keep(settings.home, token)
    note(settings, os.environ)
    os.execve(sys.executable, command(settings), environment(settings, os.environ, kept))


def ready(settings: JupyterSettings, _: Reporter) -> Outcome:
    """Raises ResourceError unless it answers."""
    if not is_ready(settings):
        raise ResourceError(
            f"JupyterLab doesn't answer on port {settings.port}",
            next_step=f"run {UP}; {Run('jupyter', 'logs')} shows its log",
        )
    return Outcome(f"JupyterLab answers on port {settings.port}", "")


def url(settings: JupyterSettings, _: Reporter) -> Outcome:
    """Print the address with the token, on stdout."""
    host = "127.0.0.1" if settings.bind.is_unspecified else str(settings.bind)
    server = running(settings)
    say(f"http://{host}:{server.port if server else settings.port}/lab?token={read_token(settings)}")
    return Outcome("it runs" if server else "it doesn't run", "" if server else str(UP))


def read_token(settings: JupyterSettings) -> str:
    """The token. Raises ConfigurationError without one: whoever reached the port could do anything."""
    try:
        token = settings.token_file.read_text().strip()
    except (FileNotFoundError, IsADirectoryError):
        token = ""
    if not token:
        raise ConfigurationError(
            f"{settings.token_file} holds no token, without which JupyterLab doesn't start",
            next_step="make one up: (umask 077; openssl rand -hex 24 > .larder/jupyter-token)",
        )
    return token


def hand_out(notebooks: Path, workspace: Path, reporter: Reporter) -> None:
    """Copy to the workspace the notebooks that it lacks, and new ones in the place of those that nobody has edited.

    A note in the workspace says what was handed out, so that an older release's notebook is known as unedited.
    """
    note = workspace / HANDED_OUT
    known, edited, renewed = _handed_out(note), [], []
    for notebook in sorted(notebooks.glob("*.ipynb")):
        name, place, ours = notebook.name, workspace / notebook.name, _cells(notebook)
        theirs = _cells(place) if place.exists() else None
        if theirs is not None and theirs not in (ours, known.get(name)):
            edited.append(name)
            continue
        if theirs != ours:
            _write(place, notebook.read_bytes())
            renewed += [name] if theirs is not None else []
        known[name] = ours
    note.parent.mkdir(exist_ok=True)
    _write(note, json.dumps(known, indent=2).encode())
    if renewed:
        reporter.event("renewed", f"{', '.join(renewed)} in the workspace: this release's now", notebooks=renewed)
    if edited:
        reporter.event(
            "kept", f"{', '.join(edited)} in the workspace: kept as edited; to have larder's own, rename yours and "
            "start again", notebooks=edited,
        )  # fmt: skip


def command(settings: JupyterSettings) -> list[str]:
    """JupyterLab's command line."""
    return [
        sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.ip={settings.bind}",
        f"--ServerApp.port={settings.port}", "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={settings.workspace.resolve()}",
        "--ServerApp.allow_root=True",  # only the host runner can be root: the image's user isn't
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None",
        "--Application.log_level=WARN",
    ]  # fmt: skip


def environment(settings: JupyterSettings, environ: Mapping[str, str], token_file: Path) -> dict[str, str]:
    """The server's environment, which kernels inherit: our code, and folders as absolute paths."""
    folders = {name: str(Path(environ.get(name) or default).resolve()) for name, default in FOLDERS.items()}
    own = {
        "PYTHONPATH": str(ROOT),
        "JUPYTER_TOKEN_FILE": str(token_file),
        "JUPYTER_RUNTIME_DIR": str((settings.home / "runtime").resolve()),
        # What a person sets in the menus is kept with the work.
        "JUPYTERLAB_SETTINGS_DIR": str((settings.workspace / ".jupyter" / "settings").resolve()),
        "JUPYTERLAB_WORKSPACES_DIR": str((settings.workspace / ".jupyter" / "workspaces").resolve()),
    }
    inherited = {name: value for name, value in environ.items() if name not in ("JUPYTER_TOKEN", "LARDER_LOG")}
    return inherited | folders | own


def _keep(home: Path, token: str) -> Path:
    """Write the token to a file of the server's own: it takes all of a file, an editor's newline at its end, too."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    place = home.resolve() / "token"
    place.unlink(missing_ok=True)
    with open(place, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(token)
    return place


def _handed_out(note: Path) -> dict[str, str]:
    """The digest of each notebook as it was handed out; none from a note that isn't there or isn't whole."""
    try:
        known = json.loads(note.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _cells(path: Path) -> str:
    """A digest of what a person writes in a notebook; running it only adds outputs. Empty when it is no notebook."""
    try:
        cells = [(cell["cell_type"], cell["source"]) for cell in json.loads(path.read_bytes())["cells"]]
    except (ValueError, KeyError, TypeError, IsADirectoryError):
        return ""
    whole = [(kind, source if isinstance(source, str) else "".join(source)) for kind, source in cells]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, also in the place of one that another user owns."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def _require_writable(workspace: Path) -> None:
    """Raises StorageError unless a file can be made in the workspace."""
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=workspace).close()
    except OSError as error:
        raise StorageError(
            f"user {os.getuid()} can't write to the workspace {workspace}: {error.strerror}",
            next_step="give that user the folder of LARDER_WORKSPACE (`sudo chown -R` it), or set LARDER_UID and "
            "LARDER_GID to its owner's ids",
        ) from error


def _look_at_shared_memory(reporter: Reporter) -> None:
    size = shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.exists() else LEAST_SHARED_BYTES
    if size < LEAST_SHARED_BYTES:
        reporter.event(
            "shared_memory", f"{SHARED_MEMORY} has {amount(size, 'B')}: loaders' workers hand batches over there, and "
            "will fail; set LARDER_SHM_SIZE (8gb is the default), then start JupyterLab again", bytes=size,
        )  # fmt: skip
