"""Reservations of networks, which Chameleon's Blazar has and OpenStack's has not, with the same requests.

A network of the project is there from the begin of the lease to its end. At the end, subnets and the interfaces of
routers go with it, and routers stay.
"""

from __future__ import annotations

from typing import Any

from blazar.db import api as db_api
from blazar.manager import exceptions
from blazar.plugins import base
from blazar.utils.openstack.neutron import BlazarNeutronClient

SEGMENTS = 3


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
        if "physnet1" not in values["resource_properties"] or len(self._reserved) >= SEGMENTS:
            raise exceptions.NotEnoughHostsAvailable("Not enough networks available")
        return []

    def reserve_resource(self, reservation_id: str, values: dict[str, Any]) -> str:
        lease = db_api.lease_get(values["lease_id"])
        self._reserved[reservation_id] = {
            "name": values["network_name"],
            "description": values.get("network_description") or "",
            "project_id": lease["project_id"],
        }
        return reservation_id

    def on_start(self, resource_id: str) -> None:
        made = BlazarNeutronClient().neutron.create_network({"network": self._reserved[resource_id]})
        self._reserved[resource_id]["id"] = made["network"]["id"]

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
