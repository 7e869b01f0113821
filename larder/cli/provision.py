"""Run `provision` in a container, on machines with Docker whose Python is too old for it, or lacks the module venv.

The image has the packages and OpenSSH. The code is the checkout's. The user's folder is mounted at its own path, for
clouds.yaml, SSH keys and rclone's configuration, and so are the current folder and an SSH agent's socket.

This module needs only Python 3.9.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from larder import __version__
from larder.cli.process import Call
from larder.cli.runner import detect_container_engine
from larder.cli.settings import ResolvedSettings
from larder.cli.virtualenv import VirtualEnvironment, find_python
from larder.errors import ConfigurationError

IMAGE = f"larder-provision:{__version__}"
PASSWD = Path(".larder", "provision", ".passwd")
"""The file, in the checkout, that tells OpenSSH in the container the user's name and folder."""
PASSED_ON = ("NO_COLOR", "TERM", "SSH_AUTH_SOCK", "LARDER_CALLER", "LARDER_HOME", "LARDER_LOG", "LARDER_FRONT_DOOR")
"""Variables that the container has, too, besides those of OpenStack's clients and of proxies."""
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
_FILES = ("OS_CLIENT_CONFIG_FILE", "OS_CACERT", "OS_CERT", "OS_KEY", "SSH_AUTH_SOCK", "LARDER_HOME")
"""Variables that name a file or a folder."""


def needs_container(settings: ResolvedSettings) -> bool:
    """Return whether a container must run it: RUNNER=compose, or no Python fits and an engine answers."""
    runner = settings.get("RUNNER")
    if runner:
        return runner == "compose"
    if VirtualEnvironment(settings.root).python.exists():
        return False
    try:
        find_python()
    except ConfigurationError:
        return detect_container_engine(settings.environ).state == "ready"
    return False


def build_call(settings: ResolvedSettings) -> Call:
    """Return the call that builds the image, which takes a second if it exists."""
    base = settings.get("BASE_IMAGE")
    arguments = [f"--build-arg=BASE_IMAGE={base}"] if base else []
    words = ("--quiet", "--file", "services/Dockerfile", "--target", "provision", "--build-arg=STAGE=provision")
    return Call(("docker", "build", *words, *arguments, "--tag", IMAGE, str(settings.root)), to_stderr=True)


def run_call(root: Path, here: Path, words: Sequence[str], environ: Mapping[str, str]) -> Call:
    """Return the call that runs provision.

    Args:
        root: The checkout.
        here: The current folder, which has the declaration.
        words: The command line of provision.
        environ: The user's environment. Variables are passed on by name, so that the call has no secrets.
    """
    home = Path(environ.get("HOME") or "/root")
    names = sorted(name for name in environ if _is_passed_on(name))
    terminal = ("--tty",) if sys.stdin.isatty() and sys.stdout.isatty() else ()
    argv = (
        *("docker", "run", "--rm", "--interactive", *terminal),
        *("--network", "host"),  # the machine's own address, and the tunnel's port, are this machine's
        *("--user", f"{os.getuid()}:{os.getgid()}"),
        *(f"--volume={path}:{path}" for path in _mounted(root, here, home, environ)),
        f"--volume={root / PASSWD}:/etc/passwd:ro",
        *("--workdir", str(here), "--env", f"HOME={home}", "--env", f"PYTHONPATH={root}"),
        *(word for name in names for word in ("--env", name)),
        IMAGE,
        *("python", "-m", "provision", *words),
    )
    return Call(argv, folder=here)


def write_passwd(root: Path, environ: Mapping[str, str]) -> None:
    """Write the list of users for the container: OpenSSH refuses users that have no entry."""
    path = root / PASSWD
    path.parent.mkdir(parents=True, exist_ok=True)
    user, home = environ.get("USER") or "user", environ.get("HOME") or "/root"
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(f"{user}:x:{os.getuid()}:{os.getgid()}::{home}:/bin/sh\n", encoding="utf-8")
    os.replace(new, path)


def _is_passed_on(name: str) -> bool:
    return name in PASSED_ON or name.startswith("OS_") or name.lower() in _PROXIES


def _mounted(root: Path, here: Path, home: Path, environ: Mapping[str, str]) -> list[Path]:
    """Return the folders and files to mount, without those inside of another one."""
    named = [here / environ[name] for name in _FILES if environ.get(name)]
    paths = sorted({root, here, home, *(path for path in named if path.exists())})
    return [path for path in paths if not any(other in path.parents for other in paths)]
