"""Check that a port is free before compose publishes it: compose fails only after replacing what runs."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from larder.errors import ConfigurationError, ResourceError


def require_publishable_port(bind: str, port: str, name: str, command: Callable[[str], str], published: str) -> None:
    """Raise an error if another program uses a port.

    Args:
        bind: The address to listen on.
        port: The port.
        name: The setting's name without its last word: `LARDER_JUPYTER` for `LARDER_JUPYTER_PORT`.
        command: Returns the command that has the setting as the user types it, with a setting of its own.
        published: Address of the container if it already runs; empty if it doesn't.

    Raises:
        ConfigurationError: If the address isn't this machine's.
        ResourceError: If the port is taken.
    """
    if published.endswith(f":{port}"):
        return  # used by the same container
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, int(port)))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise ConfigurationError(
                    f"{name}_BIND={bind} is not an address of this machine",
                    next_step=command(f"{name}_BIND=127.0.0.1"),
                ) from None
            if error.errno == errno.EADDRINUSE:
                raise ResourceError(
                    f"{name}_PORT={port} is taken by another program",
                    next_step=f"stop that program, or {command(f'{name}_PORT={_free_port(int(port))}')}",
                ) from None
            if error.errno != errno.EACCES:  # Docker may bind low ports even if we may not
                raise


def is_open(port: int) -> bool:
    """Return whether a program listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port(taken: int) -> int:
    """Suggest a port above a taken one that is free now."""
    return next((port for port in range(taken + 1, min(taken + 50, 65536)) if not is_open(port)), 8889)
