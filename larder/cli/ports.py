"""Whether a port is free before a container is to publish it: compose would have replaced what runs by then."""

from __future__ import annotations

import errno
import socket

from larder.errors import ConfigurationError, ResourceError


def require_free(bind: str, port: str, name: str, command: str, published: str) -> None:
    """Raise an error when a port is another program's.

    Args:
        bind: The address to listen at.
        port: The port.
        name: The setting's name without its last word: `LARDER_JUPYTER` for `LARDER_JUPYTER_PORT`.
        command: The command that takes the setting, as the user types it.
        published: Where the container that is to be started is reached already; empty when it doesn't run.

    Raises:
        ConfigurationError: The address isn't this machine's.
        ResourceError: The port is taken.
    """
    if published.endswith(f":{port}"):
        return  # its own
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, int(port)))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise ConfigurationError(
                    f"{name}_BIND={bind} is not an address of this machine",
                    next_step=f"{command} {name}_BIND=127.0.0.1",
                ) from None
            if error.errno == errno.EADDRINUSE:
                raise ResourceError(
                    f"{name}_PORT={port} is taken by another program",
                    next_step=f"stop that, or {command} {name}_PORT={_free_port(int(port))}",
                ) from None
            if error.errno != errno.EACCES:  # Docker may take low ports, and we may not
                raise


def _free_port(taken: int) -> int:
    """Return a port above one that is taken; only a suggestion."""
    for port in range(taken + 1, min(taken + 50, 65536)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    return 8889
