"""Run the system's OpenSSH as a subprocess.

The host key is recorded at first contact, before anyone logs in, and checked from then on. If the cloud's console log
shows the server's keys, the recorded key must be one of them. The ssh_config fragment that is written for a server can
be included in ~/.ssh/config. Our own commands read it first and then that file, so jump hosts and agents work.
"""

from __future__ import annotations

import os
import re
import resource
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from larder.errors import ConfigurationError, LarderError, ServiceError
from larder.machine import set_parent_death_signal
from larder.ssh_faults import SSH_FAILED, classify_failure, explain_failure
from provision import answers, host_keys
from provision.declaration import USER

CONNECT_SECONDS = 10
POLL_SECONDS = 1.0
TIMEOUT_EXITS = (124, 137)
"""Exit codes of `timeout` if the command was terminated or killed."""
CHECKOUT = "checkout"
"""The file in a state folder with the name of the folder that has larder on the server; `larder --on` reads it."""
MAX_OUTPUT_BYTES = 16 << 20
"""Limit of a remote command's output."""


@dataclass(frozen=True)
class SshAddress:
    """The address of a server's SSH, and the user that logs in."""

    host: str
    user: str
    port: int = 22
    key: Path | None = None
    """The private key; None lets OpenSSH choose: the agent, ~/.ssh/config, the default files."""
    options: tuple[str, ...] = ()
    """Further ssh_config options, each as "Name=value": "ControlMaster=auto", "ProxyJump=bastion"."""

    def __post_init__(self) -> None:
        """Raise ConfigurationError for values that ssh_config would misread, such as a further option."""
        faults = [
            f"the server's address {self.host!r} is neither an address nor a name"
            if not answers.is_host(self.host)
            else "",
            f"the user {self.user!r} is no user's name" if not re.fullmatch(USER, self.user) else "",
            f"the port {self.port} is none" if not 0 < self.port < 65536 else "",
            f"the key's path {str(self.key)!r} holds control characters"
            if self.key and not str(self.key).isprintable()
            else "",
            *(
                f"the option {option!r} isn't Name=value"
                for option in self.options
                if not re.fullmatch(r"[A-Za-z]+=[^\x00-\x1f\x7f]+", option)
            ),
        ]
        if faults := [fault for fault in faults if fault]:
            raise ConfigurationError.of_faults(faults, next_step="correct [server] in the declaration")


@dataclass(frozen=True)
class Completed:
    """The result of a remote command."""

    code: int
    stdout: str
    stderr: str


def require_free_local_port(port: int) -> None:
    """Raise ConfigurationError if a local port is in use."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise ConfigurationError(
            f"port {port} of this machine can't be used: {error.strerror}", next_step="choose another local port"
        ) from None


def with_timeout(argv: Sequence[str], seconds: float | None, root: bool = False) -> list[str]:
    """Return a command that the remote machine ends after `seconds`, even if the connection is lost meanwhile.

    `timeout` runs under sudo and not around it, since the user who logs in can't end root's processes.
    """
    limit = [] if seconds is None else ["timeout", "--kill-after=10", f"{seconds:.0f}"]
    return [*(["sudo", "-n"] if root else []), *limit, *argv]


def quoted(path: Path) -> str:
    """Return a path quoted for ssh_config."""
    return '"' + str(path).replace("%", "%%").replace('"', '\\"') + '"'


def write_private(path: Path, text: str) -> None:
    """Write a file with mode 0600, unless it has this text; OpenSSH refuses files that others may write.

    A killed run leaves the old file or the new one, never a part.
    """
    if path.exists() and path.read_text() == text:
        return
    new = path.with_name(f"{path.name}.new")
    new.touch(mode=0o600)
    new.chmod(0o600)
    new.write_text(text)
    os.replace(new, path)


def known_hosts_in(state_folder: Path) -> Path:
    """Return the file with a server's recorded host key."""
    return state_folder / "known_hosts"


def record_checkout(state_folder: Path, folder: str) -> None:
    """Record the folder on the server, below the user's home, in which `larder --on` finds larder; "" if unknown."""
    state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(state_folder / CHECKOUT, f"{folder}\n")


def forget_host_key(state_folder: Path) -> None:
    """Delete the recorded host key, for a server that was deleted or rebuilt and whose address is used again."""
    known_hosts_in(state_folder).unlink(missing_ok=True)


def _limit_files() -> None:
    """Run in a child before its program starts: limit its output files to MAX_OUTPUT_BYTES; exceeding that kills it."""
    set_parent_death_signal()
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_OUTPUT_BYTES, MAX_OUTPUT_BYTES))


def _log() -> tempfile._TemporaryFileWrapper[str]:
    """Return a file for OpenSSH's own messages, which may include text from the server."""
    return tempfile.NamedTemporaryFile("r", errors="replace", prefix="larder-ssh-")


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


class SshClient:
    """A server's SSH client. `state_folder` holds the server's `known_hosts` and ssh_config fragment."""

    def __init__(
        self, address: SshAddress, state_folder: Path, trusted: Callable[[], frozenset[str]] = frozenset
    ) -> None:
        """`trusted` returns the trusted fingerprints at first contact; if it returns none, any key is trusted."""
        self.address = address
        self._trusted_fingerprints = trusted
        self.state_folder = state_folder.absolute()
        self.alias = "larder-" + re.sub(r"[^A-Za-z0-9._-]+", "-", self.state_folder.name)
        """The server's host name in the fragment."""
        self.fragment = self.state_folder / "ssh_config"
        self.known_hosts = known_hosts_in(self.state_folder)
        self._first_contact_hosts = self.state_folder / "known_hosts.seen"
        self._config = self.state_folder / "config"

    def wait_for_login(self, seconds: float) -> None:
        """Wait until we can log in. Raises an error with the cause after `seconds`."""
        begin = time.monotonic()
        while True:
            left = max(CONNECT_SECONDS, begin + seconds - time.monotonic())
            code, message, _, _ = self._attempt(with_timeout(["true"], left), b"", left)
            if code == 0:
                return
            fault = classify_failure(message)
            if time.monotonic() - begin >= min(seconds, fault.patience_seconds):
                raise self._error(message, f"after {time.monotonic() - begin:.0f} s")
            time.sleep(POLL_SECONDS)

    def run(
        self,
        argv: Sequence[str],
        *,
        label: str = "",
        stdin: bytes = b"",
        seconds: float = 600,
        root: bool = False,
        cut: bool = True,
    ) -> Completed:
        """Run a command on the server, with sudo if `root` is set, and return its result, whatever its exit code.

        Errors name the command by `label`, by default its words. If it takes longer than `seconds`, it is ended on the
        server, unless `cut` is false: then only the waiting ends.

        Raises:
            ServiceError: If the connection fails or is lost, or the command takes longer than `seconds`.
            ConfigurationError: If the key is refused, or the server's own key has changed.
        """
        code, message, stdout, stderr = self._attempt(
            with_timeout(argv, seconds if cut else None, root), stdin, seconds
        )
        label = label or shlex.join(argv)[:80]
        if code in TIMEOUT_EXITS:
            raise ServiceError(
                f"{self}: `{label}` did not end within {seconds:.0f} s" + ("" if cut else ", and still runs there"),
                next_step="run the same command again: it resumes",
            )
        if code == -signal.SIGXFSZ:
            raise ServiceError(
                f"{self}: `{label}` printed more than {MAX_OUTPUT_BYTES >> 20} MiB",
                next_step="log in and check what it does",
            )
        if code == SSH_FAILED or code < 0:  # or OpenSSH itself was killed
            raise self._error(message, f"while starting `{label}`")
        return Completed(code, stdout.decode(errors="replace"), stderr.decode(errors="replace"))

    def _attempt(self, remote: Sequence[str], stdin: bytes, seconds: float) -> tuple[int, str, bytes, bytes]:
        """Return the exit code, OpenSSH's own messages, and the command's stdout and stderr."""
        self.write_fragment()
        message = self._record_host_key()
        if message is not None:
            return SSH_FAILED, message, b"", b""
        with _log() as log, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            command = self._command("-o", "BatchMode=yes", "-T", "-E", log.name)
            try:
                ended = subprocess.run(
                    [*command, shlex.join(remote)],
                    input=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    check=False,
                    timeout=seconds + 2 * CONNECT_SECONDS,
                    preexec_fn=_limit_files,
                )
            except subprocess.TimeoutExpired:
                return TIMEOUT_EXITS[0], log.read(), b"", b""
            return ended.returncode, log.read(), _content(stdout), _content(stderr)

    def _record_host_key(self) -> str | None:
        """At first contact, record the server's host key. Return OpenSSH's messages if it received no key, else None.

        Nobody logs in before the key is recorded. Raises ConfigurationError if the server's key isn't one of the
        trusted ones.
        """
        if self.known_hosts.exists():
            return None
        self._first_contact_hosts.unlink(missing_ok=True)
        known_hosts = f"UserKnownHostsFile={quoted(self._first_contact_hosts)}"
        options = (
            "StrictHostKeyChecking=accept-new",
            known_hosts,
            "BatchMode=yes",
            "PreferredAuthentications=none",
            "ControlMaster=no",
            "ControlPath=none",
        )
        words = [word for option in options for word in ("-o", option)]
        with _log() as log:
            try:
                subprocess.run(
                    [*self._command(*words, "-T", "-E", log.name), "true"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    check=False,
                    timeout=3 * CONNECT_SECONDS,
                    preexec_fn=_limit_files,
                )
            except subprocess.TimeoutExpired:
                return "Connection timed out"
            if not self._first_contact_hosts.exists():
                return log.read()
        shown = host_keys.read_known_hosts_fingerprints(self._first_contact_hosts.read_text(errors="replace"))
        self._require_trusted(shown)
        os.replace(self._first_contact_hosts, self.known_hosts)  # only now, so that nobody logs in before
        return None

    def _require_trusted(self, shown: frozenset[str]) -> None:
        trusted = self._trusted_fingerprints()
        if trusted and not shown & trusted:
            raise ConfigurationError(
                f"{self}: the server shows the host key {', '.join(sorted(shown)) or '(unreadable)'}, and the cloud's "
                f"console log has other ones for it ({', '.join(sorted(trusted))}): another machine answers at this "
                "address, or the connection is intercepted. Nobody logged in",
                next_step="check in the site's web interface that the address is this server's, and what its console "
                "shows; don't continue while they differ",
            )

    def _error(self, message: str, when: str) -> LarderError:
        return explain_failure(
            message,
            when,
            server=str(self),
            known_hosts=self.known_hosts,
            key=self.address.key or "your usual keys",
            user=self.address.user,
            host=self.address.host,
        )

    def interactive(self, argv: Sequence[str] = ()) -> int:
        """Run a shell, or a command with a terminal, on the server and return its exit code.

        As with OpenSSH, the words are joined by spaces for the server's shell.
        """
        self._get_ready()
        return subprocess.call([*self._command("-t"), *argv])

    def _get_ready(self) -> None:
        """Write the fragment and record the host key. Raises an error if the server can't be reached."""
        self.write_fragment()
        message = self._record_host_key()
        if message is not None:
            raise self._error(message, "at first contact")

    def tunnel(self, local_port: int, remote_port: int) -> int:
        """Forward 127.0.0.1:`local_port` here to the loopback port `remote_port` on the server, until Ctrl-C.

        Returns 0 after Ctrl-C. Raises an error if forwarding fails or the connection is lost.
        """
        require_free_local_port(local_port)
        self._get_ready()
        forward = f"127.0.0.1:{local_port}:127.0.0.1:{remote_port}"
        with _log() as log:
            flags = ("-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-N", "-L", forward, "-E", log.name)
            with subprocess.Popen(self._command(*flags), preexec_fn=set_parent_death_signal) as process:
                try:
                    code = process.wait()
                except KeyboardInterrupt:
                    process.terminate()
                    return 0
            if code == SSH_FAILED:
                message = log.read()
                raise self._error(message, "in the tunnel")
        return code

    def write_fragment(self) -> None:
        """Write the ssh_config fragment, and the configuration that includes it."""
        self.state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self.fragment, self._fragment_text())
        write_private(self._config, f"Include {quoted(self.fragment)}\nHost *\nInclude ~/.ssh/config\n")

    def _fragment_text(self) -> str:
        key = [f"IdentityFile {quoted(self.address.key.absolute())}", "IdentitiesOnly yes"] if self.address.key else []
        more = [" ".join(option.split("=", 1)) for option in self.address.options]
        lines = [
            *more,
            f"HostName {self.address.host}",
            f"User {self.address.user}",
            f"Port {self.address.port}",
            *key,
            f"UserKnownHostsFile {quoted(self.known_hosts)}",
            "GlobalKnownHostsFile /dev/null",
            "CheckHostIP no",
            f"HostKeyAlias {self.alias}",
            "StrictHostKeyChecking yes",
            "VerifyHostKeyDNS no",
            "UpdateHostKeys no",
            f"ConnectTimeout {CONNECT_SECONDS}",
            "ServerAliveInterval 10",
            "ServerAliveCountMax 3",
        ]
        head = f"# `Include` this in ~/.ssh/config, and `ssh {self.alias}` works by hand."
        return "\n".join([head, f"Host {self.alias}", *(f"    {line}" for line in lines), ""])

    def _command(self, *flags: str) -> list[str]:
        return ["ssh", "-F", str(self._config), *flags, self.alias]

    def __str__(self) -> str:
        return f"{self.address.user}@{self.address.host}:{self.address.port}"
