"""Explain OpenSSH's messages: cause, next step, and the kind of error."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from larder.errors import ConfigurationError, LarderError, ServiceError

SSH_FAILED = 255
"""OpenSSH's exit code if it failed itself, and not the command on the server."""


class SshFailure(NamedTuple):
    """A kind of connection failure."""

    signs: str
    """A pattern for OpenSSH's messages."""
    kind: type[LarderError]
    cause: str
    next_step: str
    patience_seconds: float = 0
    """How long to retry, since the failure may be temporary on a starting server."""


SSH_FAILURES = (
    SshFailure(
        "IDENTIFICATION HAS CHANGED|Host key verification failed",
        ConfigurationError,
        "the server's host key is another one than at first contact",
        "if the server was rebuilt or its address belongs to a new server now, remove {known_hosts} and try again; "
        "if not, somebody may be in between: don't go on",
    ),
    SshFailure(
        "UNPROTECTED PRIVATE KEY|bad permissions",
        ConfigurationError,
        "others may read the private key",
        "chmod 600 {key}",
    ),
    SshFailure(
        "no such identity|Load key .*(invalid|error)",
        ConfigurationError,
        "the private key can't be read",
        "check the path {key}",
    ),
    SshFailure(
        "Bad configuration option|bad configuration options|keyword .* extra arguments",
        ConfigurationError,
        "OpenSSH doesn't understand the options",
        "correct them, or your ~/.ssh/config",
    ),
    SshFailure(
        "Permission denied|Too many authentication failures",
        ConfigurationError,
        "the server refused the key, or the user",
        "check that the server was created with this key pair ({key}), that its image has the user {user}, "
        "and that a key with a passphrase is in the agent (ssh-add)",
        60,
    ),
    SshFailure(
        "Could not resolve hostname",
        ConfigurationError,
        "the name of the server isn't known",
        "check the address {host}",
    ),
    SshFailure(
        "Connection refused",
        ServiceError,
        "nothing answers at the SSH port: the connection was refused",
        "wait until the server has started; look at its console if it stays so",
        math.inf,
    ),
    SshFailure(
        "[Cc]onnection timed out|Operation timed out|No route to host|Network is unreachable",
        ServiceError,
        "no answer: the connection timed out",
        "check that the server runs, that it has this floating IP, and that its security group lets your address in",
        math.inf,
    ),
    SshFailure(
        "Address already in use|cannot listen to port|Could not request local forwarding",
        ConfigurationError,
        "the local port is in use",
        "choose another local port",
    ),
)
CONNECTION_LOST = SshFailure(
    "",
    ServiceError,
    "the connection was lost",
    "run the same command again: its steps may be repeated, and it goes on where it was",
    math.inf,
)


def classify_failure(message: str) -> SshFailure:
    """Return the kind of failure for OpenSSH's messages; unknown ones count as a lost connection."""
    return next((fault for fault in SSH_FAILURES if re.search(fault.signs, message)), CONNECTION_LOST)


def explain_failure(
    message: str, when: str, *, server: str, known_hosts: object, key: object, user: str, host: str
) -> LarderError:
    """Return the error for OpenSSH's messages.

    Args:
        message: What OpenSSH said.
        when: The moment, in words: "at first contact".
        server: The server, as users know it.
        known_hosts: The file with its recorded host key.
        key: The private key, or words for it.
        user: The user that logs in.
        host: The server's address.
    """
    fault = classify_failure(message)
    lines = [line.strip() for line in message.splitlines() if line.strip(" @") and "Permanently added" not in line]
    words = " ".join(lines)[-300:]
    next_step = fault.next_step.format(known_hosts=known_hosts, key=key, user=user, host=host)
    return fault.kind(f"{server}: {fault.cause}, {when}{f' ({words})' if words else ''}", next_step=next_step)
