"""Reservations of networks, which Chameleon's Blazar has and OpenStack's has not, with the same requests.

A network of the project is there from the begin of the lease to its end. At the end, subnets and the interfaces of
routers go with it, and routers stay. A storage network also has a subnet, a router of the operators, which has the
gateway's address, and access to all shares of the project.
"""

from __future__ import annotations

import json
from typing import Any

from blazar.db import api as db_api
from blazar.manager import exceptions
from blazar.plugins import base
from blazar.utils.openstack.neutron import BlazarNeutronClient

SEGMENTS = 3
STORAGE = "10.52.3.0/24"
KINDS = ({"$physical_network": "physnet1"}, {"$physical_network": "physnet1", "$usage_type": "storage"})
"""The networks that there are."""


def kind_of(conditions: str) -> dict[str, str] | None:
    """The first kind of network that meets conditions such as ["and", ["==", "$usage_type", "storage"], …]."""
    parsed = json.loads(conditions)
    wanted = {key: value for _, key, value in (parsed[1:] if parsed[0] == "and" else [parsed])}
    return next((kind for kind in KINDS if wanted.items() <= kind.items()), None)


class NetworkPlugin(base.BasePlugin):
    resource_type = "network"
    title = description = "Networks"

    def __init__(self) -> None:
        super().__init__()
        self._reserved: dict[str, dict[str, Any]] = {}

    def allocation_candidates(self, values: dict[str, Any]) -> list[str]:
        for name in ("network_name", "network_properties", "resource_properties"):
            if name not in values:
                raise exceptions.MissingParameter(param=name)
        if kind_of(values["resource_properties"]) is None or len(self._reserved) >= SEGMENTS:
            raise exceptions.NotEnoughHostsAvailable("Not enough networks available")
        return []

    def reserve_resource(self, reservation_id: str, values: dict[str, Any]) -> str:
        lease = db_api.lease_get(values["lease_id"])
        self._reserved[reservation_id] = {
            "name": values["network_name"],
            "description": values.get("network_description") or "",
            "project_id": lease["project_id"],
            "kind": kind_of(values["resource_properties"]),
        }
        return reservation_id

    def on_start(self, resource_id: str) -> None:
        reserved, neutron = self._reserved[resource_id], BlazarNeutronClient().neutron
        wanted = {key: reserved[key] for key in ("name", "description", "project_id")}
        reserved["id"] = neutron.create_network({"network": wanted})["network"]["id"]
        if "$usage_type" in reserved["kind"]:
            self._connect_to_storage(neutron, reserved)

    def _connect_to_storage(self, neutron: Any, reserved: dict[str, Any]) -> None:
        body = {"network_id": reserved["id"], "project_id": reserved["project_id"], "ip_version": 4, "cidr": STORAGE}
        subnet = neutron.create_subnet({"subnet": body | {"name": f"{reserved['name']}-subnet"}})["subnet"]["id"]
        router = neutron.create_router({"router": {"name": f"storage_router_{reserved['id']}"}})["router"]["id"]
        neutron.add_interface_router(router, {"subnet_id": subnet})
        manila = {
            "endpoint_filter": {"service_type": "sharev2", "region_name": "RegionOne"},
            "headers": {"X-OpenStack-Manila-API-Version": "2.45"},
        }
        session = neutron.httpclient.session
        query = f"/shares?all_tenants=1&project_id={reserved['project_id']}"
        for share in session.get(query, **manila).json()["shares"]:
            rule = {"access_type": "ip", "access_to": STORAGE, "access_level": "rw"}
            session.post(f"/shares/{share['id']}/action", json={"allow_access": rule}, **manila)

    def on_end(self, resource_id: str) -> None:
        neutron, id = BlazarNeutronClient().neutron, self._reserved.pop(resource_id, {}).get("id")
        if id is None or not neutron.list_networks(id=id)["networks"]:
            return
        for port in neutron.list_ports(network_id=id)["ports"]:
            if port["device_owner"] == "network:router_interface":
                neutron.remove_interface_router(port["device_id"], {"port_id": port["id"]})
            else:
                neutron.delete_port(port["id"])
        neutron.delete_network(id)

    def update_reservation(self, reservation_id: str, values: dict[str, Any]) -> None:
        pass

    def get(self, resource_id: str) -> dict[str, Any]:
        return {}

    def list_allocations(self, query: Any, detail: bool = False) -> list[Any]:
        return []

    def query_allocations(self, resource_id_list: Any, lease_id: Any = None, reservation_id: Any = None) -> Any:
        return {}
