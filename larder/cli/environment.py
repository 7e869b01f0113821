"""The host runner's virtual environment, .venv: it gets what a command needs, and nothing else.

Packages come from uv.lock with their hashes. uv installs them, in a tenth of pip's time. pip does where uv gets no
answer, since on some machines only pip knows an index.

torch isn't in the lock: its index decides whether it is built for CPUs or for CUDA. TORCH_INDEX_URL names one.
Otherwise TORCH_BACKEND (cpu, cu130, …; default: auto, which looks for a GPU) chooses one of PyTorch's own. Where that
gives no answer, the default index has CUDA wheels, which run on CPUs, too.

This module needs nothing but Python 3.9: it runs before anything is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from larder.cli.console import say
from larder.cli.lock import LOCK, pin
from larder.errors import ConfigurationError, ServiceError

Announce = Callable[[str], None]
NEEDS_TORCH = frozenset({"optimize", "bench", "jupyter", "dev"})
PYTHONS = ("python3.14", "python3.13", "python3.12", "python3.11")
OLDEST = (3, 11)
HASHED = ("--require-hashes", "--no-deps")
"""For a list from the lock: it is complete, so nothing needs to be looked for."""
EXPORT = ("--frozen", "--offline", "--quiet", "--no-emit-project", "--no-header", "--no-annotate")
UV_INSTALL = ("pip", "install", "--no-config", "--quiet", "--python")
MEGABYTES = {
    "extract": 50, "transform": 10, "load": 50, "index": 160, "shard": 100, "optimize": 130, "verify": 120, "s3": 20,
    "mount": 50, "bench": 60, "jupyter": 120, "provision": 15, "server": 50, "uv": 20, "dev": 450,
}  # fmt: skip
"""What each group downloads into an empty .venv, without torch; many share packages. Measured on Linux, x86-64."""


def ensure(root: Path, stages: Iterable[str], environ: Mapping[str, str], announce: Announce = say) -> Path:
    """Install what some stages need into root/.venv, unless it is there.

    It may run several times at once: one installs, the others wait. After an interruption, run it again.

    Args:
        root: The checkout.
        stages: Names of stages, provision, or dev: all of them, and the tools of development.
        environ: The environment; TORCH_INDEX_URL and TORCH_BACKEND are read from it.
        announce: Takes a line for people, before anything takes time.

    Returns:
        The environment's Python.

    Raises:
        ConfigurationError: If no Python fits, if it lacks venv, or if pyproject.toml has no such group.
        ServiceError: If a download fails.
    """
    wanted = groups_of(stages)
    venv = Environment(root)
    if not venv.lacks(wanted):
        return venv.python
    with _only_one(root / ".venv.lock", announce):
        lacking = venv.lacks(wanted)  # another run may have installed it just now
        if not lacking:
            return venv.python
        announce(_plan(lacking, environ))
        venv.make()
        venv.install_locked([group for group in lacking if group != "torch"])
        if "torch" in lacking:
            venv.install_torch(environ, announce)
    return venv.python


def groups_of(stages: Iterable[str]) -> list[str]:
    """Return the dependency groups that stages need on the host, torch last."""
    named = set(stages)
    if "dev" in named:
        return ["dev", "torch"]
    with_store = named | ({"server"} if "s3" in named else set())  # without an engine, s3 starts the embedded one
    return [*sorted(with_store), *(["torch"] if NEEDS_TORCH & named else [])]


class Environment:
    """A checkout's .venv."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".venv"
        self.python = self.folder / "bin" / "python"
        self._uv = self.folder / "bin" / "uv"
        self._stamps = self.folder / "installed"

    def lacks(self, groups: Sequence[str]) -> list[str]:
        """Return the groups of which the lock's state isn't installed."""
        there = self.python.exists()
        return [name for name in groups if not (there and self._is_installed(name))]

    def make(self) -> None:
        """Make the environment, or repair it where an interruption or another Python has left it without pip."""
        if _succeeds([self.python, "-m", "pip", "--version"]):
            return
        base = find_python()
        if self.folder.exists() and not self.folder.is_symlink():
            shutil.rmtree(self.folder)
        _run([base, "-m", "venv", self.folder])

    def install_locked(self, groups: Sequence[str]) -> None:
        """Install groups from the lock."""
        if not groups:
            return
        if not self._is_installed("uv"):
            self._pip_install([*HASHED, "--quiet", "-r", self._list(pin(self._lock(), "uv"))])
            self._stamp("uv")
        chosen = [word for group in groups for word in ("--only-group", group)]
        exported = subprocess.run(
            [self._uv, "export", "--directory", self.root, *EXPORT, *chosen],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if exported.returncode:
            raise ConfigurationError(
                f"{LOCK} and pyproject.toml don't have what {', '.join(groups)} needs: {_last_line(exported.stderr)}",
                next_step="git checkout pyproject.toml uv.lock, or make lock where you have changed them",
            )
        file = self._list(exported.stdout)
        if not self._uv_install([*HASHED, "-r", file]):
            self._pip_install([*HASHED, "--quiet", "-r", file])
        for group in groups:
            self._stamp(group)

    def install_torch(self, environ: Mapping[str, str], announce: Announce) -> None:
        """Install torch and torchvision, by the index of the user's choice."""
        pins = torch_pins(self.root)
        index = environ.get("TORCH_INDEX_URL")
        backend = ["--torch-backend", environ.get("TORCH_BACKEND") or "auto"]
        if index:
            self._pip_install(["--index-url", index, *pins])
        elif self._uv_install([*backend, "--dry-run", *pins]):
            _run([self._uv, *UV_INSTALL, self.python, *backend, *pins], cwd=self.folder)
        else:
            announce("PyTorch's own index doesn't answer: taking torch from the default index (CUDA, about 3 GB)")
            self._pip_install(pins)
        self._stamp("torch")

    def _uv_install(self, what: Sequence[str]) -> bool:
        """Install by uv. Returns False if that fails, as it does at once where its index doesn't answer."""
        patience = {"UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "1", "UV_SYSTEM_CERTS": "1"}
        # Not in the checkout: its pyproject.toml keeps torch out of the lock, and of all else that uv does there.
        return _succeeds([self._uv, *UV_INSTALL, self.python, *what], env={**patience, **os.environ}, cwd=self.folder)

    def _pip_install(self, what: Sequence[str]) -> None:
        _run([self.python, "-m", "pip", "install", "--disable-pip-version-check", *what])

    def _list(self, requirements: str) -> str:
        """Write a list of requirements for pip and uv. Nobody else does at the same time."""
        path = self.folder / "requirements.txt"
        path.write_text(requirements, encoding="utf-8")
        return str(path)

    def _lock(self) -> str:
        return (self.root / LOCK).read_text(encoding="utf-8")

    def _digest(self, name: str) -> str:
        """What a group's state depends on: the lock, or torch's own pins."""
        text = " ".join(torch_pins(self.root)) if name == "torch" else self._lock()
        return hashlib.sha256(text.encode()).hexdigest()

    def _is_installed(self, name: str) -> bool:
        stamps = [name] if name in ("torch", "dev") else [name, "dev"]
        digest = self._digest(name)
        return any(_read(self._stamps / stamp) == digest for stamp in stamps)

    def _stamp(self, name: str) -> None:
        self._stamps.mkdir(exist_ok=True)
        new = self._stamps / f"{name}.new"
        new.write_text(self._digest(name), encoding="utf-8")
        os.replace(new, self._stamps / name)


def torch_pins(root: Path) -> list[str]:
    """Return the versions of torch and torchvision that images and .venv have, as requirements."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    group = re.search(r'^torch = \["(torch==[^"]+)", "(torchvision==[^"]+)"\]', text, re.MULTILINE)
    if group is None:
        raise ConfigurationError("pyproject.toml pins no torch", next_step="git checkout pyproject.toml")
    return list(group.groups())


def find_python() -> str:
    """Return a Python that is new enough: this one, or another on the PATH.

    Raises:
        ConfigurationError: If there is none, or none with venv.
    """
    fits = f"import sys; sys.exit(sys.version_info < {OLDEST})"
    found = [name for name in (sys.executable, *PYTHONS) if name and _succeeds([name, "-c", fits])]
    if not found:
        raise ConfigurationError(
            f"the host runner needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}",
            next_step="install python3.11 or newer beside it, or Docker, which needs none",
        )
    complete = [name for name in found if _succeeds([name, "-c", "import ensurepip, venv"])]
    if not complete:
        raise ConfigurationError(
            f"{found[0]} lacks the module venv", next_step="install it (Debian, Ubuntu: sudo apt install python3-venv)"
        )
    return complete[0]


def has_nvidia_gpu() -> bool:
    """Return whether this machine shows an NVIDIA GPU."""
    return bool(shutil.which("nvidia-smi")) or any(Path("/dev").glob("nvidia[0-9]*"))


def _plan(lacking: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return what is about to be downloaded, and how much."""
    megabytes = max([MEGABYTES.get(name, 50) for name in lacking if name != "torch"], default=0)
    size = f"about {megabytes + MEGABYTES['uv']} MB" if megabytes else ""
    if "torch" in lacking:
        size = ", ".join(filter(None, [size, f"torch: {_torch_size(environ)}"]))
    return f"installing into .venv/, once: {', '.join(lacking)} ({size})"


def _torch_size(environ: Mapping[str, str]) -> str:
    backend = environ.get("TORCH_BACKEND") or "auto"
    if environ.get("TORCH_INDEX_URL"):
        return "what TORCH_INDEX_URL has"
    if backend == "cpu" or (backend == "auto" and not has_nvidia_gpu()):
        return "about 200 MB, for CPUs"
    return "about 3 GB, for GPUs"


@contextmanager
def _only_one(path: Path, announce: Announce) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            announce("another command is installing into .venv/: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: Sequence[str | Path], cwd: Path | None = None) -> None:
    """Run a command, with its output on stderr.

    Raises:
        ServiceError: If it fails, which for an installation is the network's fault but for rare cases.
    """
    ended = subprocess.run(command, stdout=sys.stderr.fileno(), stdin=subprocess.DEVNULL, check=False, cwd=cwd)
    if ended.returncode:
        raise ServiceError(
            f"installing into .venv/ failed with exit code {ended.returncode}; the lines above say why",
            next_step="check the network, the proxy settings and the disk, then run the same command again",
        )


def _succeeds(command: Sequence[str | Path], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> bool:
    try:
        ended = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False, env=env, cwd=cwd)
    except OSError:
        return False
    return ended.returncode == 0


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
