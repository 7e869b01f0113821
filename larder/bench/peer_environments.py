"""Environments of their own for arms whose libraries pin packages to other versions than larder's.

Each has a list of requirements in `environments/`: the library's, and what that imports, as far as larder has other
versions of it or none. All others, torch and larder among them, come from the Python that runs this, so that an
environment takes megabytes, not gigabytes. It lies beside them, below `sys.prefix`, and is removed with them.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from larder.errors import ServiceError, StorageError

_REQUIREMENTS = Path(__file__).parent / "environments"
NAMES = tuple(sorted(path.stem for path in _REQUIREMENTS.glob("*.txt")))
_STAMP = "larder-requirements.txt"
"""A copy of the requirements in an environment, written last."""
_PARENT = "larder-parent.pth"


def requirements_of(name: str) -> Path:
    """Return the file with the requirements of an environment."""
    return _REQUIREMENTS / f"{name}.txt"


def folder_of(name: str) -> Path:
    """Return the folder of an environment."""
    return Path(sys.prefix) / "share" / "larder" / "peers" / name


def python_of(name: str) -> Path | None:
    """Return the Python of an environment, or None if it is missing or has other requirements."""
    stamp = folder_of(name) / _STAMP
    is_current = stamp.is_file() and stamp.read_bytes() == _stamp_of(name)
    return folder_of(name) / "bin" / "python" if is_current else None


def version_of(distribution: str) -> str:
    """Return the version of a distribution in one of the environments, or an empty string."""
    for name in NAMES:
        if python_of(name):
            folders = [str(folder) for folder in folder_of(name).glob("lib/python*/site-packages")]
            for found in importlib.metadata.distributions(name=distribution, path=folders):
                return found.version
    return ""


def install(name: str) -> None:
    """Make an environment, with uv if it is there, else with pip.

    Raises:
        ServiceError: If a download fails.
        StorageError: If the folder can't be written.
    """
    folder = folder_of(name)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder} can't be written: {error.strerror}",
            next_step="install larder-data in a virtual environment that this user may write; for the runner that uses "
            "containers, whose images don't have these environments, run this with RUNNER=host",
        ) from error
    _run([sys.executable, "-m", "venv", "--without-pip", folder], name)
    python, wanted = folder / "bin" / "python", requirements_of(name)
    [packages] = folder.glob("lib/python*/site-packages")
    lines = (f"import site; site.addsitedir({path!r})\n" for path in _parent_folders())
    (packages / _PARENT).write_text("".join(lines))
    # --no-deps: the lists are complete, and torch is there already
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if uv:
        _run([uv, "pip", "install", "--no-config", "--quiet", "--no-deps", "--python", python, "-r", wanted], name)
    else:
        _run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "-r", wanted], name)
    (folder / _STAMP).write_bytes(_stamp_of(name))


def environ() -> dict[str, str]:
    """Return the environment variables for programs of an environment: PYTHONPATH would hide its packages."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def _stamp_of(name: str) -> bytes:
    return requirements_of(name).read_bytes() + "".join(f"# {path}\n" for path in _parent_folders()).encode()


def _parent_folders() -> list[str]:
    """Return the folders of this Python's packages, and of larder."""
    packages = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    return list(dict.fromkeys([*packages, str(Path(__file__).resolve().parents[2])]))


def _run(command: list[str | Path], name: str) -> None:
    with tempfile.TemporaryFile("w+") as log:
        try:
            subprocess.run(command, check=True, stdout=log, stderr=log)
        except (OSError, subprocess.CalledProcessError) as error:
            log.seek(0)
            lines = log.read().strip().splitlines()
            raise ServiceError(
                f"the environment of {name} can't be made: {lines[-1] if lines else error}",
                next_step="check that pip can download packages here, and run this again",
            ) from error
