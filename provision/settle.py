"""Wait for what an interrupted run has asked for, so that it is neither created twice nor overlooked by `down`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from larder.errors import LarderError
from provision import (
    addresses,
    credentials,
    in_flight,
    lease_network,
    leases,
    networks,
    objects,
    servers,
    shares,
    volumes,
)
from provision.cloud_errors import RUN_AGAIN
from provision.clouds import WaitTimeoutError, poll_until
from provision.in_flight import Request
from provision.marks import Resource
from provision.stack import Stack

LISTERS: dict[str, Callable[[Stack], Iterable[Resource]]] = {
    "bucket": objects.list_ours,
    "credentials": credentials.list_ours,
    "floating IP": addresses.list_ours,
    "lease": lambda stack: (lease.resource for lease in leases.find_all(stack) if not lease.is_over),
    "router": lease_network.list_routers,
    "security group": networks.our_groups,
    "server": servers.list_ours,
    "share": shares.list_ours,
    "volume": volumes.list_ours,
}


def settle(stack: Stack) -> None:
    """Wait for what the last run left in flight, until the time limit for requests has passed since it was sent.

    A site that doesn't answer meanwhile is left to the command itself, which reports it.
    """
    request = in_flight.read(stack.state_folder)
    if request is None:
        return

    def is_there() -> bool | None:
        with suppress(LarderError):
            return _exists(stack, request) or None
        return None

    age_seconds = max(time.time() - request.sent_at, 0.0)
    seconds = max(stack.declaration.limits.request - age_seconds, 0.0)
    if not is_there() and seconds:
        stack.report(
            "waiting",
            f"an interrupted run asked for the {request} {age_seconds:.0f} s ago, and the cloud may still create it: "
            f"looking for it for {seconds:.0f} s",
        )
        with suppress(WaitTimeoutError):
            poll_until(stack.reporter, f"the {request} is there", is_there, seconds, RUN_AGAIN)
    in_flight.remove(stack.state_folder)


def _exists(stack: Stack, request: Request) -> bool:
    """Return whether the stack has what was asked for. It had none before, or it wouldn't have asked."""
    lister = LISTERS.get(request.kind)
    if lister is None:  # of another version of larder
        return True
    return any(request.name in ("", item.name) for item in lister(stack))
