"""Create the host runner's virtual environment, .venv, with only the packages that a command needs.

Tests with another Python have a separate environment, such as .venv-3.13, without torch.

Packages come from uv.lock, with their hashes. uv installs them in a tenth of pip's time. pip is the fallback if uv gets
no answer, since on some machines only pip is configured with an index.

torch isn't in the lock, since its index determines whether it is built for CPUs or for CUDA. TORCH_INDEX_URL names an
index. Otherwise TORCH_BACKEND (cpu, cu130, …; default: auto, which looks for a GPU) chooses one of PyTorch's own. If
that doesn't answer, the default index has CUDA wheels, which also run on CPUs.

This module needs only Python 3.9: it runs before anything is installed.
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

from larder.cli.console import print_message
from larder.cli.lock import LOCK, pin
from larder.cli.setting_specs import PYTHONS
from larder.errors import ConfigurationError, ServiceError

Announce = Callable[[str], None]
NEEDS_TORCH = frozenset({"optimize", "bench", "jupyter", "dev"})
NEEDS_KERNEL = frozenset({"bench", "jupyter", "dev"})
KERNEL = Path("larder", "stream", "jpeg_crop.c")
OLDEST = (3, 11)
HASHED = ("--require-hashes", "--no-deps")
"""Options for a list from the lock, which includes all dependencies."""
EXPORT = ("--frozen", "--offline", "--quiet", "--no-emit-project", "--no-header", "--no-annotate")
UV_INSTALL = ("pip", "install", "--no-config", "--quiet", "--python")
MEGABYTES = {
    "extract": 50,
    "transform": 10,
    "load": 50,
    "index": 160,
    "shard": 100,
    "optimize": 130,
    "verify": 120,
    "s3": 20,
    "mount": 50,
    "bench": 60,
    "jupyter": 120,
    "provision": 15,
    "server": 50,
    "uv": 20,
    "dev": 500,
}
"""Download size of each group into an empty .venv, without torch; many share packages. Measured on Linux, x86-64."""


def ensure(root: Path, stages: Iterable[str], environ: Mapping[str, str], announce: Announce = print_message) -> Path:
    """Install what some stages need into root/.venv, unless it is installed.

    Concurrent calls are safe: one installs, the others wait. After an interruption, run it again.

    Args:
        root: The checkout.
        stages: Names of stages, provision, or dev: all of them, and the development tools.
        environ: The environment; TORCH_INDEX_URL and TORCH_BACKEND are read from it.
        announce: Prints a message before anything that takes time.

    Returns:
        The environment's Python.

    Raises:
        ConfigurationError: If no Python is suitable, it lacks venv, or pyproject.toml has no such group.
        ServiceError: If a download fails.
    """
    return _install(VirtualEnvironment(root), groups_of(stages), environ, announce)


def ensure_for_python(root: Path, version: str, environ: Mapping[str, str], announce: Announce = print_message) -> Path:
    """Install the development tools, without torch, into root/.venv-<version> with another Python.

    Args:
        root: The checkout, whose .venv has uv.
        version: The version of Python: one of PYTHONS.
        environ: The environment; PATH and PYENV_ROOT are read from it.
        announce: Prints a message before anything that takes time.

    Returns:
        The environment's Python.

    Raises:
        ConfigurationError: If there is no such Python, and uv can't download one.
        ServiceError: If a download fails.
    """
    return _install(VirtualEnvironment(root, version), ["dev"], environ, announce)


def _install(venv: VirtualEnvironment, groups: Sequence[str], environ: Mapping[str, str], announce: Announce) -> Path:
    if not venv.missing_groups(groups) and not venv.lacks_kernel(groups):
        return venv.python
    with _exclusive_lock(venv.root / ".venv.lock", announce):
        missing = venv.missing_groups(groups)  # another run may have installed it meanwhile
        if missing:
            announce(_describe_installation(venv.folder, missing, environ))
            venv.make(environ)
            venv.install_locked([group for group in missing if group != "torch"])
        if "torch" in missing:
            venv.install_torch(environ, announce)
        if venv.lacks_kernel(groups):
            venv.build_kernel(announce)
    return venv.python


def groups_of(stages: Iterable[str]) -> list[str]:
    """Return the dependency groups that stages need on the host, torch last."""
    named = set(stages)
    if "dev" in named:
        return ["dev", "torch"]
    with_store = named | ({"server"} if "s3" in named else set())  # without an engine, s3 starts the embedded one
    return [*sorted(with_store), *(["torch"] if NEEDS_TORCH & named else [])]


class VirtualEnvironment:
    """A checkout's .venv, or the one for another version of Python."""

    def __init__(self, root: Path, version: str = "") -> None:
        self.root, self._version = root, version
        self.folder = root / (f".venv-{version}" if version else ".venv")
        self.python = self.folder / "bin" / "python"
        self._uv = self.folder / "bin" / "uv"
        self._stamps = self.folder / "installed"

    def missing_groups(self, groups: Sequence[str]) -> list[str]:
        """Return the groups that aren't installed in the lock's current state."""
        exists = self.python.exists()
        return [name for name in groups if not (exists and self._is_installed(name))]

    def make(self, environ: Mapping[str, str]) -> None:
        """Create the environment. Recreate it if an interruption or another Python has left it without pip."""
        if _succeeds([self.python, "-m", "pip", "--version"]):
            return
        base = (
            find_python_version(self._version, VirtualEnvironment(self.root)._uv, environ)
            if self._version
            else find_python()
        )
        if self.folder.exists() and not self.folder.is_symlink():
            shutil.rmtree(self.folder)
        _run([base, "-m", "venv", self.folder])

    def install_locked(self, groups: Sequence[str]) -> None:
        """Install groups from the lock."""
        if not groups:
            return
        if not self._is_installed("uv"):
            self._pip_install([*HASHED, "--quiet", "-r", self._write_requirements(pin(self._lock(), "uv"))])
            self._stamp("uv")
        chosen = [word for group in groups for word in ("--only-group", group)]
        exported = subprocess.run(
            [self._uv, "export", "--directory", self.root, *EXPORT, *chosen],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if exported.returncode:
            raise ConfigurationError(
                f"{LOCK} and pyproject.toml don't have what {', '.join(groups)} needs: {_last_line(exported.stderr)}",
                next_step="git checkout pyproject.toml uv.lock, or `make lock` if you have changed them",
            )
        file = self._write_requirements(exported.stdout)
        if not self._uv_install([*HASHED, "-r", file]):
            self._pip_install([*HASHED, "--quiet", "-r", file])
        for group in groups:
            self._stamp(group)

    def install_torch(self, environ: Mapping[str, str], announce: Announce) -> None:
        """Install torch and torchvision from the user's choice of index."""
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

    def lacks_kernel(self, groups: Iterable[str]) -> bool:
        """Return whether the groups need the JPEG kernel, and this version of it hasn't been compiled, or tried."""
        source = self.root / KERNEL
        needed = source.is_file() and not NEEDS_KERNEL.isdisjoint(groups)
        return needed and _read(self._stamps / "kernel") != self._digest("kernel")

    def build_kernel(self, announce: Announce) -> None:
        """Compile the JPEG kernel in the checkout. Without a compiler, Pillow decodes: say so once."""
        script = (self.root / KERNEL).with_name("build.py")
        ended = subprocess.run(
            [self.python, script], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        if ended.returncode:
            announce(
                f"{ended.stderr.strip()}\nlarder.stream decodes with Pillow instead, at less than half the speed. To "
                f"change that, install a C compiler and libjpeg-turbo (Debian: gcc libjpeg62-turbo-dev), then run "
                f"python3 {script.relative_to(self.root)}"
            )
        self._stamp("kernel")

    def _uv_install(self, what: Sequence[str]) -> bool:
        """Install with uv. Return False if that fails, which it does quickly if the index doesn't answer."""
        timeouts = {"UV_HTTP_TIMEOUT": "10", "UV_HTTP_RETRIES": "1", "UV_SYSTEM_CERTS": "1"}
        # Not in the checkout: its pyproject.toml excludes torch from the lock and from everything that uv does there.
        return _succeeds([self._uv, *UV_INSTALL, self.python, *what], env={**timeouts, **os.environ}, cwd=self.folder)

    def _pip_install(self, what: Sequence[str]) -> None:
        _run([self.python, "-m", "pip", "install", "--disable-pip-version-check", *what])

    def _write_requirements(self, requirements: str) -> str:
        """Write a list of requirements for pip and uv. The caller holds the lock, so nobody else writes it."""
        path = self.folder / "requirements.txt"
        path.write_text(requirements, encoding="utf-8")
        return str(path)

    def _lock(self) -> str:
        return (self.root / LOCK).read_text(encoding="utf-8")

    def _digest(self, name: str) -> str:
        """Return the digest of what a group's state depends on: the lock, torch's own pins, or the kernel's source."""
        if name == "kernel":
            sources = sorted((self.root / KERNEL).parent.glob("jpeg_*.[ch]"))
            text = "".join(source.read_text(encoding="utf-8") for source in sources)
        else:
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
    """Return the pinned versions of torch and torchvision, as requirements."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    group = re.search(r'^torch = \["(torch==[^"]+)", "(torchvision==[^"]+)"\]', text, re.MULTILINE)
    if group is None:
        raise ConfigurationError("pyproject.toml doesn't pin torch", next_step="git checkout pyproject.toml")
    return list(group.groups())


def find_python() -> str:
    """Return a Python that is new enough: this one, or one on the PATH.

    Raises:
        ConfigurationError: If there is none, or none with venv.
    """
    fits = f"import sys; sys.exit(sys.version_info < {OLDEST})"
    names = [sys.executable, *(f"python{version}" for version in PYTHONS)]
    fitting = [name for name in names if name and _succeeds([name, "-c", fits])]
    if not fitting:
        raise ConfigurationError(
            f"the host runner needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}",
            next_step="install python3.11 or newer beside it, or Docker, which needs none",
        )
    complete = [name for name in fitting if _succeeds([name, "-c", "import ensurepip, venv"])]
    if not complete:
        raise ConfigurationError(
            f"{fitting[0]} lacks the module venv",
            next_step="install it (Debian, Ubuntu: sudo apt install python3-venv)",
        )
    return complete[0]


def find_python_version(version: str, uv: Path, environ: Mapping[str, str]) -> str:
    """Return a Python of a version: from the PATH, from pyenv, or from uv, which downloads it if necessary.

    Raises:
        ConfigurationError: If there is none, and uv can't download one.
    """
    pyenv = Path(environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders = [environ.get("PATH", os.defpath), *map(str, pyenv.glob(f"versions/{version}.*/bin"))]
    env = {"UV_SYSTEM_CERTS": "1", **environ, "PATH": os.pathsep.join(folders)}
    find = [str(uv), "python", "find", "--no-project", "--no-config", "--system", version]
    result = _capture(find, env)
    if result.returncode:
        fetched = _capture([str(uv), "python", "install", "--no-config", version], env)
        result = _capture(find, env)
        if result.returncode:
            raise ConfigurationError(
                f"there is no Python {version}, and uv can't download it: {_last_line(fetched.stderr)}",
                next_step=f"install python{version} with its module venv, then run the same command again",
            )
    return result.stdout.strip()


def _capture(command: Sequence[str], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def has_nvidia_gpu() -> bool:
    """Return whether this machine has an NVIDIA GPU."""
    return bool(shutil.which("nvidia-smi")) or any(Path("/dev").glob("nvidia[0-9]*"))


def _describe_installation(folder: Path, missing: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return a message on what will be downloaded, and how much."""
    megabytes = max([MEGABYTES.get(name, 50) for name in missing if name != "torch"], default=0)
    size = f"about {megabytes + MEGABYTES['uv']} MB" if megabytes else ""
    if "torch" in missing:
        size = ", ".join(filter(None, [size, f"torch: {_torch_size(environ)}"]))
    return f"installing into {folder.name}/, once: {', '.join(missing)} ({size})"


def _torch_size(environ: Mapping[str, str]) -> str:
    backend = environ.get("TORCH_BACKEND") or "auto"
    if environ.get("TORCH_INDEX_URL"):
        return "what TORCH_INDEX_URL has"
    if backend == "cpu" or (backend == "auto" and not has_nvidia_gpu()):
        return "about 200 MB, for CPUs"
    return "about 3 GB, for GPUs"


@contextmanager
def _exclusive_lock(path: Path, announce: Announce) -> Iterator[None]:
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            announce("another command is installing packages: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: Sequence[str | Path], cwd: Path | None = None) -> None:
    """Run a command, with its output on stderr.

    Raises:
        ServiceError: If it fails; for an installation, the network is nearly always the cause.
    """
    result = subprocess.run(command, stdout=sys.stderr.fileno(), stdin=subprocess.DEVNULL, check=False, cwd=cwd)
    if result.returncode:
        raise ServiceError(
            f"the installation failed with exit code {result.returncode}; the lines above say why",
            next_step="check the network, the proxy settings and the disk, then run the same command again",
        )


def _succeeds(command: Sequence[str | Path], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> bool:
    try:
        result = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False, env=env, cwd=cwd)
    except OSError:
        return False
    return result.returncode == 0


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1].strip()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
