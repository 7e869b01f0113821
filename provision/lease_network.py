"""The network that a lease reserves, as bare-metal sites of Chameleon offer it, with a subnet and a router.

Blazar creates the network when the lease begins, with our mark as its description, and deletes it with its subnet when
the lease ends. The router connects it to the network of floating IPs; it is ours, and outlives the lease.

Where the site gives the network a subnet and a router of its own, as Chameleon does with storage networks, that subnet
is used, and our router gets a free address in it.
"""

from __future__ import annotations

from typing import Any

from openstack import exceptions as sdk

from larder.errors import InputError
from provision import marks, servers
from provision.clouds import create_once
from provision.concurrency import withdraw_if_later
from provision.declaration import NetworkSpec
from provision.marks import Resource
from provision.stack import Stack

INTERFACE = "network:router_interface"


def find(stack: Stack, declared: NetworkSpec) -> Any | None:
    """Return the network that Blazar has created for our lease, or None."""
    with stack.translate_errors("look for the reserved network"):
        listed = list(stack.api("network").networks(name=declared.name, project_id=stack.clouds.compute.project_id))
    return next((item for item in listed if marks.parse_owner(item) == stack.owner), None)


def require_name_free(stack: Stack, declared: NetworkSpec) -> None:
    """Raise InputError if another network has the declared name: the server's network would be ambiguous."""
    with stack.translate_errors("look for networks of that name"):
        taken = list(stack.api("network").networks(name=declared.name))
    if taken:
        raise InputError(
            f"the name of the network {declared.name} is taken ({taken[0].id})",
            next_step="declare another name in [network]",
        )


def _subnet(stack: Stack, network: Any) -> Any | None:
    """Return the network's subnet: ours, or the one that the site gives a network with a use."""
    with stack.translate_errors("look for the subnet"):
        listed = list(stack.api("network").subnets(network_id=network.id))
    ours = [item for item in listed if marks.parse_owner(item) == stack.owner]
    return next(iter(ours or (listed if _has_use(stack) else ())), None)


def _has_use(stack: Stack) -> bool:
    """Return whether the declared network is of a kind to which the site gives subnet and router."""
    return stack.declaration.network is not None and stack.declaration.network.usage_type is not None


def list_routers(stack: Stack) -> list[Resource]:
    """Return the routers that carry our mark."""
    with stack.translate_errors("list routers"):
        try:
            listed = list(stack.api("network").routers(project_id=stack.clouds.compute.project_id))
        except sdk.NotFoundException:  # a site without routers
            return []
    routers = [
        Resource("router", item.name, item.id, item.status, "", True, item, marks.parse_owner(item)) for item in listed
    ]
    return [item for item in routers if item.owner == stack.owner]


def is_connected(stack: Stack, network: Any) -> bool:
    """Return whether the network has its subnet, and our router connects it."""
    subnet, routers = _subnet(stack, network), list_routers(stack)
    return subnet is not None and len(routers) == 1 and subnet.id in _subnets_at(stack, routers[0])


def ensure(stack: Stack, declared: NetworkSpec) -> None:
    """Create subnet and router of the reserved network, as far as they are missing."""
    network = find(stack, declared)
    if network is None:
        raise InputError(
            f"the lease has no network {declared.name}: it was created without one, or the network was deleted since",
            next_step="remove [network] from the declaration; or run `down` and `up`, which create another lease",
        )
    subnet = _subnet(stack, network) or _create_subnet(stack, declared, network)
    router = marks.select_one(list_routers(stack), stack.adopt) or _create_router(stack)
    if subnet.id not in _subnets_at(stack, router):
        stack.report("change", f"{router}: connect the network {declared.name}")
        _connect(stack, router, network, subnet)


def _connect(stack: Stack, router: Resource, network: Any, subnet: Any) -> None:
    """Connect a subnet to our router. In the site's subnet, its own router has the gateway's address."""
    api = stack.api("network")
    with stack.translate_errors("connect the network"):
        if marks.parse_owner(subnet) == stack.owner:
            api.add_interface_to_router(router.id, subnet=subnet.id)
            return
        port = _find_port(stack, network) or create_once(
            stack.clouds.compute,
            "create a port for the router",
            lambda: api.create_port(
                network_id=network.id, fixed_ips=[{"subnet_id": subnet.id}], name=stack.name, description=stack.mark
            ),
            lambda: _find_port(stack, network),
        )
        api.add_interface_to_router(router.id, port=port.id)


def _find_port(stack: Stack, network: Any) -> Any | None:
    """Return the port that an interrupted run has created for our router."""
    with stack.translate_errors("look for the router's port"):
        listed = list(stack.api("network").ports(network_id=network.id, name=stack.name))
    return next((item for item in listed if item.description == stack.mark and not item.device_id), None)


def _create_subnet(stack: Stack, declared: NetworkSpec, network: Any) -> Any:
    stack.report("create", f"subnet {declared.cidr} of the network {declared.name}")
    body = {"name": declared.name, "network_id": network.id, "ip_version": 4, "cidr": declared.cidr}
    return create_once(
        stack.clouds.compute,
        "create a subnet",
        lambda: stack.api("network").create_subnet(**body, description=stack.mark),
        lambda: _subnet(stack, network),
    )


def _create_router(stack: Stack) -> Resource:
    address = stack.declaration.floating_ip
    outside = servers.find_network(stack, address.network).id if address else None
    stack.report("create", f"router {stack.name}")
    gateway = {"external_gateway_info": {"network_id": outside}} if outside else {}

    def create() -> Resource:
        made = stack.api("network").create_router(name=stack.name, description=stack.mark, **gateway)
        return Resource("router", made.name, made.id, made.status, "", True, made, stack.owner)

    router = create_once(
        stack.clouds.compute,
        "create a router",
        create,
        lambda: marks.select_one(list_routers(stack), stack.adopt),
        stack.note("router"),
    )
    withdraw_if_later(stack, router, lambda: list_routers(stack), lambda: delete_router(stack, router))
    return router


def _interfaces(stack: Stack, router: Resource) -> list[Any]:
    with stack.translate_errors("look at the router"):
        return list(stack.api("network").ports(device_id=router.id, device_owner=INTERFACE))


def _subnets_at(stack: Stack, router: Resource) -> set[str]:
    return {address["subnet_id"] for port in _interfaces(stack, router) for address in port.fixed_ips}


def _is_ours(stack: Stack, subnet: Any) -> bool:
    """Return whether a subnet is ours, or the site's in our network."""
    if marks.parse_owner(subnet) == stack.owner or not _has_use(stack):
        return marks.parse_owner(subnet) == stack.owner
    with stack.translate_errors("look at the network of a subnet"):
        return marks.parse_owner(stack.api("network").get_network(subnet.network_id)) == stack.owner


def delete_router(stack: Stack, router: Resource) -> None:
    """Delete our router. Raises InputError if a subnet that isn't ours is connected to it."""
    api, subnet_ids = stack.api("network"), _subnets_at(stack, router)
    with stack.translate_errors("look at the router's subnets"):
        subnets = [api.get_subnet(id) for id in subnet_ids]
    for subnet in subnets:
        if not _is_ours(stack, subnet):
            raise InputError(
                f"the subnet {subnet.name} ({subnet.id}), which isn't this stack's, is connected to {router}",
                next_step="disconnect it first (`openstack router remove subnet`), then run this again",
            )
    with stack.translate_errors("delete the router"):
        for id in subnet_ids:
            api.remove_interface_from_router(router.id, subnet=id)
        api.delete_router(router.id)
