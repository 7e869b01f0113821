"""Run a command of larder on a provisioned server (`larder --on NAME`), by SSH with the recorded host key.

`provision` keeps an ssh_config and the server's host key in `.larder/provision/NAME/`. The command runs in the checkout
there, with that checkout's `.env`. With a terminal it has one there, so that Ctrl-C and progress bars work as usual.
Without one, its output is streamed, and interrupts are sent over its standard input, which it doesn't read.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from larder.cli.process import INTERRUPTED, Call, as_shell_line
from larder.cli.setting_values import printable
from larder.errors import ConfigurationError, InputError, LarderError, ResourceError, ServiceError
from larder.ssh_faults import SSH_FAILED, explain_failure

PASSED_ON = ("NO_COLOR", "LARDER_LOG")
"""Variables that decide how the command prints, here as there."""
_DEFAULT_CHECKOUT = "larder"
_IMPATIENT = 3
"""Number of interrupts after which the connection is closed."""
_NO_LARDER, _NO_PYTHON = 97, 98
START = f"""
cd -- "$1" 2>/dev/null && [ -f larder/__main__.py ] || exit {_NO_LARDER}
command -v python3 >/dev/null || exit {_NO_PYTHON}
shift
exec "$@"
"""
"""Runs on the server, in the shell of every system."""
FORWARD = """
import os, signal, subprocess, sys, threading
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def forward():
    while True:
        interrupt = os.read(0, 1)
        child.send_signal(signal.SIGINT)
        if not interrupt:
            return
threading.Thread(target=forward, daemon=True).start()
code = child.wait()
sys.exit(code if code >= 0 else 128 - code)
"""
"""Runs on the server, in its Python: each byte on standard input, and its end, interrupts the command."""


class Server(NamedTuple):
    """A provisioned server, as `provision` has recorded it.

    Attributes:
        name: Name of the stack.
        folder: Its state folder.
        checkout: The folder below the user's home in which larder is.
    """

    name: str
    folder: Path
    checkout: str

    @property
    def alias(self) -> str:
        """Its name in the ssh_config."""
        return f"larder-{self.name}"

    def option(self, name: str) -> str:
        """Return the value of an option in the ssh_config, or ""."""
        text = (self.folder / "ssh_config").read_text(encoding="utf-8", errors="replace")
        match = re.search(rf'^\s*{name} "?(.*?)"?$', text, re.MULTILINE)
        return match[1] if match else ""


def find_servers(environ: Mapping[str, str], here: Path, root: Path) -> dict[str, Server]:
    """Return the servers whose host key is recorded in the current folder or in the checkout, by name."""
    home = environ.get("LARDER_HOME") or ".larder"
    servers: dict[str, Server] = {}
    for place in (here, root):
        for config in sorted((place / home / "provision").glob("*/config")):
            folder = config.parent
            if all((folder / name).is_file() for name in ("known_hosts", "ssh_config")):
                servers.setdefault(folder.name, Server(folder.name, folder, _checkout(folder)))
    return servers


def _checkout(folder: Path) -> str:
    try:
        return (folder / "checkout").read_text(encoding="utf-8").strip() or _DEFAULT_CHECKOUT
    except (OSError, UnicodeDecodeError):
        return _DEFAULT_CHECKOUT


def find_server(name: str, environ: Mapping[str, str], here: Path, root: Path, invocation: str) -> Server:
    """Return the server of a stack. Raises InputError if none of that name is known here."""
    servers = find_servers(environ, here, root)
    if name in servers:
        return servers[name]
    near = difflib.get_close_matches(name, servers, n=1)
    known = f"known here: {', '.join(servers)}" if servers else "none is known here"
    raise InputError(
        f"no provisioned server {printable(name)} ({known})" + (f"; did you mean {near[0]}?" if near else ""),
        next_step=f"run `{invocation} provision up`, or `{invocation} provision ssh true` if the server exists, in the "
        "folder with its declaration; the name is the declaration's",
    )


def build_call(server: Server, words: Sequence[str], environ: Mapping[str, str], terminal: bool, log: str = "") -> Call:
    """Return the call that runs a command of larder on a server.

    Args:
        server: The server.
        words: The command line of larder.
        environ: The user's environment.
        terminal: Whether the command gets a terminal there.
        log: The file for OpenSSH's own messages; empty leaves them on stderr.
    """
    variables = [f"{name}={environ[name]}" for name in PASSED_ON if environ.get(name)]
    forward = () if terminal else ("python3", "-I", "-c", FORWARD)
    command = (*(("env", *variables) if variables else ()), *forward, "python3", "-m", "larder", *words)
    remote = shlex.join(("sh", "-c", START, "larder", server.checkout, *command))
    how = ("-t",) if terminal else ("-T", "-o", "BatchMode=yes")
    messages = ("-E", log) if log else ()
    return Call(("ssh", "-F", str(server.folder / "config"), *how, *messages, server.alias, remote))


def run(name: str, words: Sequence[str], environ: Mapping[str, str], invocation: str, dry_run: bool = False) -> int:
    """Run a command of larder on a server, stream its output, and return its exit code.

    Args:
        name: Name of the stack.
        words: The command line of larder.
        environ: The user's environment.
        invocation: How the user started larder.
        dry_run: Whether to print the call instead of running it.

    Raises:
        InputError: If the server is unknown here, or has no larder.
        ConfigurationError: If it refuses the key, or its host key differs.
        ServiceError: If it can't be reached.
    """
    if not words:
        raise ConfigurationError("--on needs a command", next_step=f"for example: {invocation} --on {name} status")
    server = find_server(name, environ, Path.cwd(), Path(__file__).resolve().parents[2], invocation)
    terminal = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    if dry_run:
        print(as_shell_line(build_call(server, words, environ, terminal)))
        return 0
    with tempfile.NamedTemporaryFile("r", errors="replace", prefix="larder-ssh-") as log:
        code = _run(build_call(server, words, environ, terminal, log.name), environ, terminal)
        if code in (SSH_FAILED, _NO_LARDER, _NO_PYTHON):
            raise _explain(server, code, log.read(), invocation)
    return code


def _run(call: Call, environ: Mapping[str, str], terminal: bool) -> int:
    """Run OpenSSH and return its exit code. Interrupts are sent to the server; after the third, it is ended."""
    # Without a terminal there, Ctrl-C must not end OpenSSH, which has to pass it on.
    stdin = None if terminal else subprocess.PIPE
    try:
        child = subprocess.Popen(call.argv, stdin=stdin, env=dict(environ), start_new_session=not terminal)
    except FileNotFoundError:
        raise ResourceError("ssh is not installed", next_step="install OpenSSH's client (openssh-client)") from None
    interrupts = 0
    while True:
        try:
            code = child.wait()
        except KeyboardInterrupt:
            interrupts += 1
            if child.stdin is None or interrupts == _IMPATIENT:
                child.terminate()
            else:
                _send_interrupt(child.stdin.fileno())
        else:
            return INTERRUPTED if code < 0 or (interrupts and code == SSH_FAILED) else code


def _send_interrupt(pipe: int) -> None:
    with suppress(BrokenPipeError):  # it has just ended
        os.write(pipe, b"\3")


def _explain(server: Server, code: int, message: str, invocation: str) -> LarderError:
    if code == _NO_LARDER:
        return InputError(
            f"{server.name} has no larder in ~/{server.checkout}",
            next_step="declare larder's address as [host] repository and run "
            f"`{invocation} provision up`; or clone it there: ssh -F {server.folder / 'config'} {server.alias}",
        )
    if code == _NO_PYTHON:
        return InputError(f"{server.name} has no python3", next_step="install it there (sudo apt-get install python3)")
    error = explain_failure(
        message,
        "before the command ended",
        server=server.name,
        known_hosts=server.folder / "known_hosts",
        key=server.option("IdentityFile") or "your usual keys",
        user=server.option("User"),
        host=server.option("HostName"),
    )
    if isinstance(error, ServiceError):
        look = f"`{invocation} provision status` shows whether the server is there"
        return ServiceError(error.what, next_step=f"{error.next_step}; {look}")
    return error
