"""The way to a server: the system's OpenSSH as a subprocess.

The host key is recorded at first contact, before anybody logs in, and checked ever after; where the cloud's console log
shows the server's keys, only one of them is recorded. The ssh_config fragment that is written for a server can be
included in ~/.ssh/config; what we run reads it first and then that file, so jump hosts and agents work.
"""

from __future__ import annotations

import math
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
from typing import IO, NamedTuple

from larder.errors import ConfigurationError, LarderError, ServiceError
from larder.machine import end_with_parent
from provision import answers, host_keys
from provision.declaration import USER

CONNECT_SECONDS = 10
POLL_SECONDS = 1.0
SSH_FAILED = 255
TIMEOUT_EXITS = (124, 137)
"""Of `timeout`, when the command was ended, and when it had to be killed."""
MOST_BYTES = 16 << 20
"""Of what a command on the server may print."""


@dataclass(frozen=True)
class Address:
    """Where a server's SSH answers, and who logs in."""

    host: str
    user: str
    port: int = 22
    key: Path | None = None
    """The private key; None leaves the choice to OpenSSH: the agent, ~/.ssh/config, the usual files."""
    options: tuple[str, ...] = ()
    """More of ssh_config's options, each as "Name=value": "ControlMaster=auto", "ProxyJump=bastion"."""

    def __post_init__(self) -> None:
        """ConfigurationError for what ssh_config would take for something else, such as a further option."""
        faults = [
            f"the server's address {self.host!r} is neither an address nor a name"
            if not answers.is_host(self.host) else "",
            f"the user {self.user!r} is no user's name" if not re.fullmatch(USER, self.user) else "",
            f"the port {self.port} is none" if not 0 < self.port < 65536 else "",
            f"the key's path {str(self.key)!r} holds control characters"
            if self.key and not str(self.key).isprintable() else "",
            *(f"the option {option!r} isn't Name=value" for option in self.options
              if not re.fullmatch(r"[A-Za-z]+=[^\x00-\x1f\x7f]+", option)),
        ]  # fmt: skip
        if faults := [fault for fault in faults if fault]:
            raise ConfigurationError.of_faults(faults, next_step="correct [server] in the declaration")


@dataclass(frozen=True)
class Completed:
    """How a command on the server ended."""

    code: int
    stdout: str
    stderr: str


class Fault(NamedTuple):
    """A way in which a connection fails."""

    signs: str
    """A pattern of what OpenSSH says."""
    kind: type[LarderError]
    cause: str
    next_step: str
    patience_seconds: float = 0
    """How long it may pass by itself, on a server that starts."""


FAULTS = (
    Fault("IDENTIFICATION HAS CHANGED|Host key verification failed", ConfigurationError,
          "the server's host key is another one than at first contact",
          "if the server was rebuilt or its address belongs to a new server now, remove {known_hosts} and try again; "
          "if not, somebody may be in between: don't go on"),
    Fault("UNPROTECTED PRIVATE KEY|bad permissions", ConfigurationError, "others may read the private key",
          "chmod 600 {key}"),
    Fault("no such identity|Load key .*(invalid|error)", ConfigurationError,
          "the private key can't be read", "check the path {key}"),
    Fault("Bad configuration option|bad configuration options|keyword .* extra arguments", ConfigurationError,
          "OpenSSH doesn't understand the options", "correct them, or your ~/.ssh/config"),
    Fault("Permission denied|Too many authentication failures", ConfigurationError,
          "the server refused the key, or the user",
          "check that the server was made with this key pair ({key}), that its image has the user {address.user}, and "
          "that a key with a passphrase is in the agent (ssh-add)", 60),
    Fault("Could not resolve hostname", ConfigurationError, "the name of the server isn't known",
          "check the address {address.host}"),
    Fault("Connection refused", ServiceError, "nothing answers at the SSH port: the connection was refused",
          "wait until the server has started; look at its console if it stays so", math.inf),
    Fault("[Cc]onnection timed out|Operation timed out|No route to host|Network is unreachable", ServiceError,
          "no answer: the connection timed out",
          "check that the server runs, that it has this floating IP, and that its security group lets your address in",
          math.inf),
    Fault("Address already in use|cannot listen to port|Could not request local forwarding", ConfigurationError,
          "the local port is in use", "choose another local port"),
)  # fmt: skip
LOST = Fault(
    "", ServiceError, "the connection was lost",
    "run the same command again: its steps may be repeated, and it goes on where it was", math.inf,
)  # fmt: skip


def fault_of(said: str) -> Fault:
    """What OpenSSH's words mean; anything unknown is a lost connection."""
    return next((fault for fault in FAULTS if re.search(fault.signs, said)), LOST)


def check_free(port: int) -> None:
    """Refuse a local port that something listens on."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise ConfigurationError(
            f"port {port} of this machine can't be used: {error.strerror}", next_step="choose another local port"
        ) from None


def wrapped(argv: Sequence[str], seconds: float | None, root: bool = False) -> list[str]:
    """A command that its own machine ends after `seconds`, also when the connection was lost meanwhile.

    Under sudo and not around it: the user who logs in can't end what runs as root.
    """
    limit = [] if seconds is None else ["timeout", "--kill-after=10", f"{seconds:.0f}"]
    return [*(["sudo", "-n"] if root else []), *limit, *argv]


def quoted(path: Path) -> str:
    """A path as ssh_config takes it."""
    return '"' + str(path).replace("%", "%%").replace('"', '\\"') + '"'


def write_private(path: Path, text: str) -> None:
    """Write a file that only we may read, unless it is there already; OpenSSH refuses one that others may write."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
        path.chmod(0o600)


def known_hosts_in(state_folder: Path) -> Path:
    """Where a server's host key is recorded."""
    return state_folder / "known_hosts"


def forget_host_key(state_folder: Path) -> None:
    """Forget the recorded host key: for a server that was deleted or rebuilt, and its address used again."""
    known_hosts_in(state_folder).unlink(missing_ok=True)


def _limit_files() -> None:
    """In a child, before its program starts: what it writes to a file ends at MOST_BYTES, and itself with it."""
    end_with_parent()
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))


def _log() -> tempfile._TemporaryFileWrapper[str]:
    """A file for what OpenSSH says itself, among it words of the server's."""
    return tempfile.NamedTemporaryFile("r", errors="replace", prefix="larder-ssh-")


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


class Ssh:
    """One server; `known_hosts` and the ssh_config fragment lie in `state_folder`, its own."""

    def __init__(
        self, address: Address, state_folder: Path, vouched: Callable[[], frozenset[str]] = frozenset
    ) -> None:  # fmt: skip
        """`vouched` is asked at first contact for the fingerprints of the server's keys; none trusts what it shows."""
        self.address = address
        self._vouched = vouched
        self.state_folder = state_folder.absolute()
        self.alias = "larder-" + re.sub(r"[^A-Za-z0-9._-]+", "-", self.state_folder.name)
        """The server's name in the fragment."""
        self.fragment = self.state_folder / "ssh_config"
        self.known_hosts = known_hosts_in(self.state_folder)
        self._seen = self.state_folder / "known_hosts.seen"
        self._config = self.state_folder / "config"

    def wait(self, seconds: float) -> None:
        """Wait until the server lets us in; raises with the cause when it hasn't after `seconds`."""
        begin = time.monotonic()
        while True:
            left = max(CONNECT_SECONDS, begin + seconds - time.monotonic())
            code, said, _, _ = self._attempt(wrapped(["true"], left), b"", left)
            if code == 0:
                return
            fault = fault_of(said)
            if time.monotonic() - begin >= min(seconds, fault.patience_seconds):
                raise self._error(fault, said, f"after {time.monotonic() - begin:.0f} s")
            time.sleep(POLL_SECONDS)

    def run(
        self, argv: Sequence[str], *, called: str = "", stdin: bytes = b"", seconds: float = 600, root: bool = False,
        cut: bool = True,
    ) -> Completed:  # fmt: skip
        """Run a command there, by sudo as `root` where that is needed; returns how it ended, whatever its exit code is.

        Errors name it as it is `called`, by default by its words.
        What isn't done after `seconds` is ended there, unless it must not be `cut`: then only the waiting ends.
        Raises ServiceError when the connection fails or is lost, or when the command isn't done after `seconds`;
        ConfigurationError when the key is refused or the server's own key is another one than before.
        """
        code, said, stdout, stderr = self._attempt(wrapped(argv, seconds if cut else None, root), stdin, seconds)
        called = called or shlex.join(argv)[:80]
        if code in TIMEOUT_EXITS:
            raise ServiceError(
                f"{self}: `{called}` was not done after {seconds:.0f} s"
                + ("" if cut else ", and is at work there still"),
                next_step="run the same command again: what was done stays, and it goes on from there",
            )
        if code == -signal.SIGXFSZ:
            raise ServiceError(f"{self}: `{called}` printed more than {MOST_BYTES >> 20} MiB",
                               next_step="log in and see what it does there")  # fmt: skip
        if code == SSH_FAILED or code < 0:  # or OpenSSH was killed
            raise self._error(fault_of(said), said, f"while `{called}` was to run")
        return Completed(code, stdout.decode(errors="replace"), stderr.decode(errors="replace"))

    def _attempt(self, remote: Sequence[str], stdin: bytes, seconds: float) -> tuple[int, str, bytes, bytes]:
        """Exit code, what OpenSSH itself said, and the command's stdout and stderr."""
        self.write_fragment()
        said = self._meet()
        if said is not None:
            return SSH_FAILED, said, b"", b""
        with _log() as log, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            command = self._command("-o", "BatchMode=yes", "-T", "-E", log.name)
            try:
                ended = subprocess.run(
                    [*command, shlex.join(remote)], input=stdin, stdout=stdout, stderr=stderr, check=False,
                    timeout=seconds + 2 * CONNECT_SECONDS, preexec_fn=_limit_files,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return TIMEOUT_EXITS[0], log.read(), b"", b""
            return ended.returncode, log.read(), _content(stdout), _content(stderr)

    def _meet(self) -> str | None:
        """At first contact, record the server's host key. What OpenSSH said where it got to see none, else None.

        Nobody logs in before the key is recorded. Raises ConfigurationError where none of the keys that are vouched for
        is the one that the server shows.
        """
        if self.known_hosts.exists():
            return None
        self._seen.unlink(missing_ok=True)
        options = ("StrictHostKeyChecking=accept-new", f"UserKnownHostsFile={quoted(self._seen)}", "BatchMode=yes",
                   "PreferredAuthentications=none", "ControlMaster=no", "ControlPath=none")  # fmt: skip
        words = [word for option in options for word in ("-o", option)]
        with _log() as log:
            try:
                subprocess.run(
                    [*self._command(*words, "-T", "-E", log.name), "true"], stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=3 * CONNECT_SECONDS,
                    preexec_fn=_limit_files,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                return "Connection timed out"
            if not self._seen.exists():
                return log.read()
        shown = host_keys.in_known_hosts(self._seen.read_text(errors="replace"))
        self._check_vouched(shown)
        os.replace(self._seen, self.known_hosts)  # only now: until then nobody logs in
        return None

    def _check_vouched(self, shown: frozenset[str]) -> None:
        vouched = self._vouched()
        if vouched and not shown & vouched:
            raise ConfigurationError(
                f"{self}: the server shows the host key {', '.join(sorted(shown)) or '(unreadable)'}, and the cloud's "
                f"console log has other ones for it ({', '.join(sorted(vouched))}): another machine answers at this "
                "address, or somebody is in between. Nobody logged in",
                next_step="check in the site's web interface that the address is this server's, and what its console "
                "shows; don't go on while they differ",
            )

    def _error(self, fault: Fault, said: str, when: str) -> LarderError:
        lines = [line.strip() for line in said.splitlines() if line.strip(" @") and "Permanently added" not in line]
        words = " ".join(lines)[-300:]
        next_step = fault.next_step.format(known_hosts=self.known_hosts, key=self.address.key or "your usual keys",
                                           address=self.address)  # fmt: skip
        return fault.kind(f"{self}: {fault.cause}, {when}{f' ({words})' if words else ''}", next_step=next_step)

    def interactive(self, argv: Sequence[str] = ()) -> int:
        """A shell there, or a command with a terminal, for a person; returns its exit code.

        The words are OpenSSH's, which joins them by spaces for the shell of the server.
        """
        self._get_ready()
        return subprocess.call([*self._command("-t"), *argv])

    def _get_ready(self) -> None:
        """Write the fragment, and see to it that the host key is recorded; raises where the server can't be reached."""
        self.write_fragment()
        said = self._meet()
        if said is not None:
            raise self._error(fault_of(said), said, "at first contact")

    def tunnel(self, local_port: int, remote_port: int) -> int:
        """Lead 127.0.0.1:`local_port` here to the loopback port `remote_port` there, until Ctrl-C.

        Returns 0 when it was ended; raises when it can't be made, or the connection is lost.
        """
        check_free(local_port)
        self._get_ready()
        forward = f"127.0.0.1:{local_port}:127.0.0.1:{remote_port}"
        with _log() as log:
            flags = ("-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes", "-N", "-L", forward, "-E", log.name)
            with subprocess.Popen(self._command(*flags), preexec_fn=end_with_parent) as process:
                try:
                    code = process.wait()
                except KeyboardInterrupt:
                    process.terminate()
                    return 0
            if code == SSH_FAILED:
                said = log.read()
                raise self._error(fault_of(said), said, "in the tunnel")
        return code

    def write_fragment(self) -> None:
        """Write the ssh_config fragment, and the file that leads OpenSSH to it."""
        self.state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self.fragment, self._fragment_text())
        write_private(self._config, f"Include {quoted(self.fragment)}\nHost *\nInclude ~/.ssh/config\n")

    def _fragment_text(self) -> str:
        key = [f"IdentityFile {quoted(self.address.key.absolute())}", "IdentitiesOnly yes"] if self.address.key else []
        more = [" ".join(option.split("=", 1)) for option in self.address.options]
        lines = [
            *more, f"HostName {self.address.host}", f"User {self.address.user}", f"Port {self.address.port}", *key,
            f"UserKnownHostsFile {quoted(self.known_hosts)}", "GlobalKnownHostsFile /dev/null", "CheckHostIP no",
            f"HostKeyAlias {self.alias}", "StrictHostKeyChecking yes", "VerifyHostKeyDNS no", "UpdateHostKeys no",
            f"ConnectTimeout {CONNECT_SECONDS}", "ServerAliveInterval 10", "ServerAliveCountMax 3",
        ]  # fmt: skip
        head = f"# `Include` this in ~/.ssh/config, and `ssh {self.alias}` works by hand."
        return "\n".join([head, f"Host {self.alias}", *(f"    {line}" for line in lines), ""])

    def _command(self, *flags: str) -> list[str]:
        return ["ssh", "-F", str(self._config), *flags, self.alias]

    def __str__(self) -> str:
        return f"{self.address.user}@{self.address.host}:{self.address.port}"
