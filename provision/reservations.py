"""What a lease reserves: a flavor or a bare-metal node for the server, and a floating IP."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from keystoneauth1 import exceptions as ksa

from larder.errors import InputError
from provision import answers
from provision.cloud_errors import reason_of

PHYSICAL = "physical:host"
FLAVOR = "flavor:instance"
ADDRESS = "virtual:floatingip"
NETWORK = "network"
COMPUTE = (PHYSICAL, FLAVOR, "virtual:instance")
"""Kinds of reservations that a server runs on."""
NOT_ENOUGH = re.compile(r"not enough [\w .-]+ available", re.IGNORECASE)
"""Blazar's reason if hosts or floating IPs are reserved by others."""
UNSUPPORTED = re.compile(r"the (\S+) resource type is not supported", re.IGNORECASE)
"""Blazar's reason if a site doesn't reserve such a thing, also as a server error."""


@dataclass(frozen=True)
class Reservation:
    """One of the reservations of a lease."""

    id: str
    kind: str
    properties: str = ""
    """Blazar's condition on the hosts: ["==", "$node_type", "gpu_a100"]."""

    @classmethod
    def parse(cls, item: Any) -> Reservation:
        """Return a reservation of Blazar's answer."""
        properties = item.get("resource_properties") if item.get("resource_type") == PHYSICAL else ""
        id = answers.validate_identifier(item["id"], "the id of a reservation")
        return cls(id, str(item.get("resource_type") or ""), str(properties or ""))


class NoCapacityError(InputError):
    """What a lease needs is reserved by others."""


def requests(node_type: str | None, flavor_id: str, address_network_id: str | None) -> list[dict[str, Any]]:
    """Return the reservations of a lease, as Blazar takes them: of a node or a flavor, and of a floating IP."""
    if node_type:
        wanted = [_node(node_type)]
    else:
        wanted = [{"resource_type": FLAVOR, "flavor_id": flavor_id, "amount": 1, "affinity": None}]
    if address_network_id:
        wanted.append({"resource_type": ADDRESS, "network_id": address_network_id, "amount": 1})
    return wanted


def network(name: str, description: str, physical_network: str, usage_type: str | None = None) -> dict[str, Any]:
    """Return the reservation of a network, as Chameleon's Blazar takes it."""
    conditions: list[Any] = ["==", "$physical_network", physical_network]
    if usage_type:
        conditions = ["and", conditions, ["==", "$usage_type", usage_type]]
    return {
        "resource_type": NETWORK,
        "network_name": name,
        "network_description": description,
        "network_properties": "",
        "resource_properties": json.dumps(conditions),
    }


def _node(node_type: str) -> dict[str, Any]:
    return {
        "resource_type": PHYSICAL,
        "resource_properties": json.dumps(["==", "$node_type", node_type]),
        "hypervisor_properties": "",
        "min": 1,
        "max": 1,
    }


def refusal(error: ksa.HttpError) -> Exception:
    """Return the error for a refused lease. Blazar reports a lack of hosts as a server error (500)."""
    reason = reason_of(error)
    if unsupported := UNSUPPORTED.search(reason):
        return InputError(
            f"this site reserves nothing of the kind {unsupported[1]}",
            next_step="remove what needs it from the declaration, or name another site: "
            f"[lease] node_type needs {PHYSICAL}, a lease without it {FLAVOR}, [floating_ip] reserve {ADDRESS}, "
            f"[network] {NETWORK}",
        )
    found = NOT_ENOUGH.search(reason)
    if found is None:
        return error
    return NoCapacityError(
        f"there is no capacity for the lease: {found[0].lower()}",
        next_step="ask for a smaller flavor or fewer hours, check the site's calendar of leases, or try later",
    )
