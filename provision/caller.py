"""The networks that `caller` in a security group stands for: this machine's address, or what the user names."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import urllib.request
from http.client import HTTPException
from threading import Thread
from urllib.parse import urlsplit

from larder.errors import ConfigurationError
from larder.terminal import escape
from provision import answers, hub
from provision.declaration import parse_network
from provision.stack import Stack
from provision.web import NoRedirect

SECONDS = 10
MAX_BYTES = 100
HERE = "here"
"""Stands for this machine's own address in --caller and LARDER_CALLER."""
NAME_CALLER = "give it as --caller 192.0.2.7 or LARDER_CALLER, or write sources into [[security_group]]"


def parse_callers(text: str) -> tuple[str, ...]:
    """Return the networks in `here,192.0.2.7`, with HERE as it is. Raises ValueError if one is invalid."""
    words = [word.strip() for word in text.split(",")]
    try:
        return tuple(word if word == HERE else parse_network(word) for word in words)
    except ValueError as error:
        raise ValueError(f"{error}, nor {HERE!r}, this machine's own") from None


def find_networks(stack: Stack) -> set[str]:
    """Return the networks that `caller` stands for.

    The user's choice (--caller, LARDER_CALLER) takes precedence. A JupyterHub isn't the user's computer, so it asks who
    else may connect. Otherwise it is this machine's address.
    """
    if not stack.known_callers:
        chosen = stack.callers or (_ask_who_else(stack) if hub.is_hub(os.environ) else (HERE,))
        stack.known_callers.update(own_network(stack) if item == HERE else item for item in chosen)
    return set(stack.known_callers)


def _ask_who_else(stack: Stack) -> tuple[str, ...]:
    """Ask which addresses may connect besides this hub's. Raises ConfigurationError if nobody can answer."""
    service = stack.declaration.caller_service
    if not _can_ask():
        raise ConfigurationError(
            "this is a server of a JupyterHub and not your computer, so it is unknown which addresses may connect",
            next_step="set LARDER_CALLER=here to admit this hub alone, from which `up` connects; or "
            f"LARDER_CALLER=here,192.0.2.7 with your computer's address, which {service} shows in its browser",
        )
    question = (
        f"This hub, {own_network(stack)}, may connect. Who else: your computer's address, which {service} shows in its "
        "browser, or nothing? "
    )
    sys.stderr.write(escape(question))
    sys.stderr.flush()
    answer = sys.stdin.readline().strip()
    try:
        chosen = parse_callers(f"{HERE},{answer}" if answer else HERE)
    except ValueError as error:
        raise ConfigurationError(str(error), next_step="run this again, or set LARDER_CALLER=here,192.0.2.7") from None
    stack.report("note", f"LARDER_CALLER={','.join(chosen)} answers this question from now on")
    return chosen


def _can_ask() -> bool:
    """Return whether someone can answer. In a notebook nobody can, although IPython gives its commands a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty() and "JPY_PARENT_PID" not in os.environ


def own_network(stack: Stack) -> str:
    """Return this machine's address as seen from the cloud, as a network.

    It is the address on the route to the cloud, if that is public or the cloud is in a private network, too. Behind a
    router, `caller_service` is asked. IPv4 is preferred over IPv6, since floating IPs are IPv4 and can't be reached
    from an IPv6 address.
    """
    address = urlsplit(stack.clouds.compute.connection.config.get_auth_args()["auth_url"])
    port = address.port or 443
    try:
        addresses = socket.getaddrinfo(address.hostname, port, type=socket.SOCK_DGRAM)
        family, _, _, _, target = min(addresses, key=lambda address: address[0] != socket.AF_INET)
        with socket.socket(family, socket.SOCK_DGRAM) as way:
            way.connect(target)  # UDP: selects the route, and sends nothing
            own = ipaddress.ip_address(way.getsockname()[0])
        if own.is_global or ipaddress.ip_address(target[0]).is_private:
            return str(ipaddress.ip_network(own))
        return parse_network(_ask_public_address(stack.declaration.caller_service))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"this machine's address, as seen from the cloud, can't be determined: {error}", next_step=NAME_CALLER
        ) from error


def _ask_public_address(service: str) -> str:
    """Ask a web service for this machine's public address. The service may answer anything, and take any time."""
    outcome: list[bytes | Exception] = []

    def ask() -> None:
        try:
            with urllib.request.build_opener(NoRedirect()).open(service, timeout=SECONDS) as answer:
                outcome.append(answer.read(MAX_BYTES + 1))
        except (OSError, ValueError, HTTPException) as error:
            outcome.append(error)

    # In a thread, since a socket's timeout restarts with each byte.
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if not outcome:
        raise TimeoutError(f"{service} didn't answer within {SECONDS} s")
    if isinstance(outcome[0], Exception):
        raise OSError(f"{service}: {outcome[0]}")
    if len(outcome[0]) > MAX_BYTES:
        raise ValueError(f"{service} answers with more than an address")
    text = outcome[0].decode("ascii", errors="replace").strip()
    return answers.validate_public_address(text, f"the request for this machine's address to {service}", NAME_CALLER)
