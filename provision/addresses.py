"""Floating IPs: the addresses at which servers are reached from outside.

A floating IP may be moved to another server by hand. It then serves that server, so it is neither taken back nor
deleted.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from openstack import exceptions as sdk

from larder.errors import InputError
from provision import leases, marks, servers
from provision.cloud_errors import RUN_AGAIN
from provision.clouds import WaitTimeoutError, create_once, poll_until
from provision.concurrency import withdraw_if_later
from provision.marks import Resource
from provision.reservations import ADDRESS
from provision.stack import Stack

PORT_SECONDS = 60.0
"""A server that runs has its port, unless somebody deleted it."""


def _address(stack: Stack, item: Any) -> Resource:
    location = f"at port {item.port_id}" if item.port_id else "unused"
    owner = marks.parse_owner(item)
    return Resource(
        "floating IP", item.floating_ip_address, item.id, item.status, location, owner == stack.owner, item, owner
    )


def list_ours(stack: Stack) -> list[Resource]:
    """Return the floating IPs that carry our mark."""
    with stack.translate_errors("list floating IPs"):
        listed = list(stack.api("network").ips(project_id=stack.clouds.compute.project_id))
    return [item for item in (_address(stack, ip) for ip in listed) if item.ours]


def find(stack: Stack) -> Resource | None:
    """Return our floating IP, or the one that our lease reserves, if there is one."""
    declared = stack.declaration.floating_ip
    if declared and declared.reserve:
        return _find_reserved(stack)
    return marks.select_one(list_ours(stack), stack.adopt)


def _find_reserved(stack: Stack) -> Resource | None:
    """Return the floating IP that Blazar created for the lease, in use by preference. It ends with the lease."""
    lease = leases.current(stack)
    ids = [item.id for item in lease.reservations if item.kind == ADDRESS] if lease else []
    tags = {f"reservation:{id}" for id in ids}
    with stack.translate_errors("look for the reserved floating IP"):
        listed = list(stack.api("network").ips(project_id=stack.clouds.compute.project_id)) if tags else []
    reserved = [_address(stack, item) for item in listed if tags & {*(item.tags or ())}]
    ours = {server.id for server in servers.list_ours(stack)} if len(reserved) > 1 else set()
    return min(reserved, key=lambda item: (_order(stack, item, ours), item.id), default=None)


def _order(stack: Stack, address: Resource, server_ids: Collection[str]) -> int:
    """Return 0 for an address at one of these servers, 1 for an unused one, 2 for one at another server."""
    if not address.raw.port_id:
        return 1
    return 2 if holder_elsewhere(stack, address, server_ids) else 0


def _nothing_reserved() -> InputError:
    return InputError(
        "the lease has no floating IP: it was created without one, or the address was deleted since",
        next_step="remove `reserve` from [floating_ip]; or run `down` and `up`, which create another lease",
    )


def ports_of(stack: Stack, server: Resource) -> list[str]:
    """Return the ids of a server's network ports."""
    with stack.translate_errors("look for the server's port"):
        return [str(port.id) for port in stack.api("network").ports(device_id=server.id)]


def _wait_for_ports(stack: Stack, server: Resource) -> list[str]:
    """Return the ids of a server's network ports. Nova creates them while the server is being built."""
    what = f"{server} has a network port"
    try:
        return poll_until(stack.reporter, what, lambda: ports_of(stack, server) or None, PORT_SECONDS, RUN_AGAIN)
    except WaitTimeoutError:
        raise InputError(
            f"{server} has no network port", next_step="run `up --replace`, which starts another one"
        ) from None


def holder_elsewhere(stack: Stack, address: Resource, server_ids: Collection[str]) -> str:
    """Return what holds a floating IP, if it is at none of these servers; else ""."""
    port_id = address.raw.port_id
    if not port_id:
        return ""
    with stack.translate_errors(f"look where the floating IP {address.name} is"):
        try:
            device = str(stack.api("network").get_port(port_id).device_id or "")
        except sdk.NotFoundException:  # a port of another project
            return f"port {port_id}"
    if device in server_ids:
        return ""
    return f"server {device}" if device else f"port {port_id}"


def require_here(stack: Stack, address: Resource, server_ids: Collection[str]) -> None:
    """Raise InputError if a floating IP is at a server that isn't one of these."""
    if holder := holder_elsewhere(stack, address, server_ids):
        raise InputError(
            f"{address} was moved to {holder}, which isn't this stack's",
            next_step="detach it from that first (`openstack floating ip unset --port`); or leave it: `down` "
            "removes only this stack's mark from it, and the next `up` gets another one",
        )


def assign(stack: Stack, address: Resource | None, server: Resource) -> Resource:
    """Assign our floating IP to the server's port, and create it if needed."""
    assert stack.declaration.floating_ip
    api, ports = stack.api("network"), _wait_for_ports(stack, server)
    port = ports[0]
    if address is not None:
        if address.raw.port_id in ports:
            return address
        require_here(stack, address, {server.id})
    elif stack.declaration.floating_ip.reserve:
        raise _nothing_reserved()
    with stack.translate_errors("give the server a floating IP"):
        if address is not None:
            return _address(stack, api.update_ip(address.id, port_id=port))
        pool = servers.find_network(stack, stack.declaration.floating_ip.network)
        created = create_once(
            stack.clouds.compute,
            "get a floating IP",
            lambda: _address(stack, api.create_ip(floating_network_id=pool.id, port_id=port, description=stack.mark)),
            lambda: find(stack),
            stack.note("floating IP"),
        )
    withdraw_if_later(stack, created, lambda: list_ours(stack), lambda: delete(stack, {server.id}, created))
    return created


def delete(stack: Stack, server_ids: Collection[str], address: Resource) -> None:
    """Delete a floating IP, unless it was moved to a server that isn't one of these."""
    with stack.translate_errors(f"look at the floating IP {address.name}"):
        try:
            now = _address(stack, stack.api("network").get_ip(address.id))
        except sdk.NotFoundException:  # deleted by an interrupted run
            return
    require_here(stack, now, server_ids)
    with stack.translate_errors(f"release the floating IP {address.name}"):
        stack.api("network").delete_ip(address.id)


def release(stack: Stack, address: Resource) -> None:
    """Remove our mark from a floating IP that serves someone else's server."""
    api = stack.api("network")
    with stack.translate_errors(f"remove the mark from the floating IP {address.name}"):
        if stack.mark in (address.raw.tags or ()):
            api.set_tags(address.raw, [tag for tag in address.raw.tags if tag != stack.mark])
        if address.raw.description == stack.mark:
            api.update_ip(address.id, description="")
