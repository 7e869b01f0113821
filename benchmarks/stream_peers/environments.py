"""Make the virtual environments of contestants that don't run in larder's.

Run `python -m benchmarks.stream_peers.environments [NAME ...]`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import WORK

_HERE = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in _HERE.glob("*.txt")))
_STAMP = "larder-requirements.txt"
"""A copy of the requirements in an environment, written last."""


def python_of(name: str) -> Path | None:
    """Return the Python that runs a contestant, or None if its environment is missing or has other requirements."""
    if name not in NAMES:
        return Path(sys.executable)
    stamp = _environment(name) / _STAMP
    is_current = stamp.is_file() and stamp.read_bytes() == _requirements(name).read_bytes()
    return _environment(name) / "bin" / "python" if is_current else None


def install_command(name: str) -> str:
    """Return the command that makes a contestant's environment."""
    return f"{os.path.relpath(sys.executable)} -m {__spec__.name} {name}"


def install(name: str) -> None:
    """Make a contestant's environment. uv shares the files of packages between environments, pip copies them."""
    shutil.rmtree(_environment(name), ignore_errors=True)
    _environment(name).parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", _environment(name)], check=True)
    python, wanted = _environment(name) / "bin" / "python", _requirements(name)
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if uv:
        # --no-config: larder's own pyproject.toml leaves torch out
        subprocess.run([uv, "pip", "install", "--no-config", "--python", python, "-r", wanted], check=True)
    else:
        subprocess.run([python, "-m", "ensurepip"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-r", wanted], check=True)
    shutil.copyfile(wanted, _environment(name) / _STAMP)


def _environment(name: str) -> Path:
    return WORK / "peers" / name


def _requirements(name: str) -> Path:
    return _HERE / f"{name}.txt"


def main() -> None:
    """Install what is named; by default what is missing."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: those missing")
    names = parser.parse_args().names
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no such environment: {', '.join(unknown)}")
    for name in names or [name for name in NAMES if python_of(name) is None]:
        install(name)


if __name__ == "__main__":
    main()
