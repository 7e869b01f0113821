"""The way to a server: the system's OpenSSH as a subprocess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Address:
    """Where a server's SSH answers, and who logs in."""

    host: str
    user: str
    port: int = 22
    key: Path | None = None
    """The private key; None leaves the choice to OpenSSH: the agent, ~/.ssh/config, the usual files."""
    options: tuple[str, ...] = ()
    """More of ssh_config's options, each as "Name=value"."""


@dataclass(frozen=True)
class Completed:
    """How a command on the server ended."""

    code: int
    stdout: str
    stderr: str


class Ssh:
    """One server; `known_hosts` and the ssh_config fragment lie in `state_folder`, its own."""

    def __init__(self, address: Address, state_folder: Path) -> None:
        self.address = address
        self.state_folder = state_folder

    def wait(self, seconds: float) -> None:
        """Wait until the server lets us in; ServiceError with the cause when it hasn't after `seconds`."""
        raise NotImplementedError

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", seconds: float = 600) -> Completed:
        """Run a command there and return how it ended, whatever its exit code is.

        Raises ServiceError when the connection fails or is lost, or when the command isn't done after `seconds`.
        """
        raise NotImplementedError

    def interactive(self, argv: Sequence[str] = ()) -> int:
        """A shell there, or a command with a terminal, for a person; returns its exit code."""
        raise NotImplementedError

    def tunnel(self, local_port: int, remote_port: int) -> int:
        """Lead 127.0.0.1:`local_port` here to the loopback port `remote_port` there, until Ctrl-C."""
        raise NotImplementedError

    def forget_host_key(self) -> None:
        """Forget the recorded host key: for a server that was deleted or rebuilt, and its address used again."""
        raise NotImplementedError
