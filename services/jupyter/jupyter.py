"""The jupyter stage: check the requirements, start JupyterLab, and print its address."""

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
from larder.next_step import StageRun
from larder.progress import Reporter, format_amount
from larder.stage import StageOutcome
from larder.terminal import print_escaped
from services.jupyter.background import (
    UP,
    down,
    find_running_server,
    is_ready,
    print_logs,
    record_server,
    require_free_port,
    up,
)
from services.jupyter.settings import JupyterSettings

ROOT = Path(__file__).parents[2]
NOTEBOOKS, COPIED_NOTEBOOKS = Path(__file__).parent / "notebooks", Path(".larder/handed-out.json")
SHARED_MEMORY, MIN_SHARED_BYTES = Path("/dev/shm"), 256 << 20
FOLDERS = {
    "FOOD11_DATA_DIR": "/mnt/Food-11",
    "LARDER_RESULTS": "results",
    "LARDER_MOUNT_DIR": ".larder/mount",
    "LARDER_CACHE_DIR": ".larder/cache",
}
"""Settings that name folders, with defaults. They are made absolute, since notebooks run in the workspace."""


def jupyter(settings: JupyterSettings, reporter: Reporter) -> StageOutcome:
    """Run the task that `settings.task` names."""
    tasks = {"serve": serve, "ready": check_ready, "url": print_url, "up": up, "down": down, "logs": print_logs}
    return tasks[settings.task](settings, reporter)


def serve(settings: JupyterSettings, reporter: Reporter) -> StageOutcome:
    """Replace this process by JupyterLab. Raises LarderError if a requirement is missing."""
    token = read_token(settings)
    _require_writable(settings.workspace)
    require_free_port(settings)
    copy_notebooks(NOTEBOOKS, settings.workspace, reporter)
    _warn_small_shared_memory(reporter)
    private_token_file = _write_token(settings.home, token)
    record_server(settings, os.environ)
    os.execve(sys.executable, command(settings), environment(settings, os.environ, private_token_file))


def check_ready(settings: JupyterSettings, _: Reporter) -> StageOutcome:
    """Raise ResourceError unless JupyterLab answers."""
    if not is_ready(settings):
        raise ResourceError(
            f"JupyterLab doesn't answer on port {settings.port}",
            next_step=f"run {UP}; {StageRun('jupyter', 'logs')} shows its log",
        )
    return StageOutcome(f"JupyterLab answers on port {settings.port}", "")


def print_url(settings: JupyterSettings, _: Reporter) -> StageOutcome:
    """Print the address with the token on stdout."""
    host = "127.0.0.1" if settings.bind.is_unspecified else str(settings.bind)
    server = find_running_server(settings)
    print_escaped(f"http://{host}:{server.port if server else settings.port}/lab?token={read_token(settings)}")
    return StageOutcome("it runs" if server else "it doesn't run", "" if server else str(UP))


def read_token(settings: JupyterSettings) -> str:
    """Return the token. Raises ConfigurationError if there is none: the port would be open to everyone."""
    try:
        token = settings.token_file.read_text().strip()
    except (FileNotFoundError, IsADirectoryError):
        token = ""
    if not token:
        raise ConfigurationError(
            f"{settings.token_file} holds no token, without which JupyterLab doesn't start",
            next_step="create one: (umask 077; openssl rand -hex 24 > .larder/jupyter-token)",
        )
    return token


def copy_notebooks(notebooks: Path, workspace: Path, reporter: Reporter) -> None:
    """Copy missing notebooks to the workspace, and replace or remove those of other releases that nobody has edited.

    A file in the workspace records the copies, so that an unedited notebook of an older release is recognized.
    """
    record = workspace / COPIED_NOTEBOOKS
    known, edited, renewed = _read_record(record), [], []
    for notebook in sorted(notebooks.glob("*.ipynb")):
        name, target, shipped = notebook.name, workspace / notebook.name, _digest_cells(notebook)
        present = _digest_cells(target) if target.exists() else None
        if present is not None and present not in (shipped, known.get(name)):
            edited.append(name)
            continue
        if present != shipped:
            _write(target, notebook.read_bytes())
            renewed += [name] if present is not None else []
        known[name] = shipped
    gone = [name for name in known if not (notebooks / name).exists()]
    for name in gone:
        if _digest_cells(workspace / name) == known.pop(name):
            (workspace / name).unlink()
    record.parent.mkdir(exist_ok=True)
    _write(record, json.dumps(known, indent=2).encode())
    if gone:
        reporter.event(
            "gone", f"{', '.join(gone)}: not in this release; removed from the workspace unless edited", notebooks=gone
        )
    if renewed:
        reporter.event("renewed", f"{', '.join(renewed)} in the workspace: this release's now", notebooks=renewed)
    if edited:
        reporter.event(
            "kept",
            f"{', '.join(edited)} in the workspace: kept as edited; to have larder's own, rename yours and start again",
            notebooks=edited,
        )


def command(settings: JupyterSettings) -> list[str]:
    """Return JupyterLab's command line."""
    return [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        f"--ServerApp.ip={settings.bind}",
        f"--ServerApp.port={settings.port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={settings.workspace.resolve()}",
        "--ServerApp.allow_root=True",  # only the host runner can be root: the image's user isn't
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.news_url=None",
        "--Application.log_level=WARN",
    ]


def environment(settings: JupyterSettings, environ: Mapping[str, str], token_file: Path) -> dict[str, str]:
    """Return the server's environment, which kernels inherit: larder's code, and folders as absolute paths."""
    folders = {name: str(Path(environ.get(name) or default).resolve()) for name, default in FOLDERS.items()}
    own = {
        "PYTHONPATH": str(ROOT),
        "JUPYTER_TOKEN_FILE": str(token_file),
        "JUPYTER_RUNTIME_DIR": str((settings.home / "runtime").resolve()),
        # Settings made in the menus are kept in the workspace.
        "JUPYTERLAB_SETTINGS_DIR": str((settings.workspace / ".jupyter" / "settings").resolve()),
        "JUPYTERLAB_WORKSPACES_DIR": str((settings.workspace / ".jupyter" / "workspaces").resolve()),
    }
    inherited = {name: value for name, value in environ.items() if name not in ("JUPYTER_TOKEN", "LARDER_LOG")}
    return inherited | folders | own


def _write_token(home: Path, token: str) -> Path:
    """Write the token to a private file without a final newline: the server would take it as part of the token."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = home.resolve() / "token"
    target.unlink(missing_ok=True)
    with open(target, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(token)
    return target


def _read_record(record: Path) -> dict[str, str]:
    """Return the digest of each copied notebook; empty if the record is missing or damaged."""
    try:
        known = json.loads(record.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _digest_cells(path: Path) -> str:
    """Return a digest of a notebook's cells without outputs, or "" if it is no notebook."""
    try:
        cells = [(cell["cell_type"], cell["source"]) for cell in json.loads(path.read_bytes())["cells"]]
    except (ValueError, KeyError, TypeError, IsADirectoryError, FileNotFoundError):
        return ""
    joined = [(kind, source if isinstance(source, str) else "".join(source)) for kind, source in cells]
    return hashlib.sha256(json.dumps(joined).encode()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Write a file atomically. This also replaces a file that another user owns."""
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def _require_writable(workspace: Path) -> None:
    """Raise StorageError unless a file can be created in the workspace."""
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=workspace).close()
    except OSError as error:
        raise StorageError(
            f"user {os.getuid()} can't write to the workspace {workspace}: {error.strerror}",
            next_step="give that user the folder of LARDER_WORKSPACE (`sudo chown -R` it), or set LARDER_UID and "
            "LARDER_GID to its owner's ids",
        ) from error


def _warn_small_shared_memory(reporter: Reporter) -> None:
    size = shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.exists() else MIN_SHARED_BYTES
    if size < MIN_SHARED_BYTES:
        reporter.event(
            "shared_memory",
            f"{SHARED_MEMORY} has {format_amount(size, 'B')}: loaders' workers hand batches over there, and "
            "will fail; set LARDER_SHM_SIZE (8gb is the default), then start JupyterLab again",
            bytes=size,
        )
