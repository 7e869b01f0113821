"""Projects of the box. A test has one for itself, and the next test gets it as soon as nothing of the first is left.

To create a project, with a user and the resources of others, takes longer than most tests.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import openstack
from openstack.exceptions import SDKException

from provision.servers import GONE
from tests.openstack.foreign import Foreign

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE2b1pYSHlGJmRPqmRTtoWZ3bMPhJpuK8Ff3T1bWnZkh tests"
KEYPAIR = "laptop"
SHARES = "2.45"
"""The version of Manila's interface that lists access rules."""


def connection(box: str, user: str, project: str, region: str = "RegionOne") -> Any:
    return openstack.connect(
        load_envvars=False,
        load_yaml_config=False,
        auth_url=f"http://{box}:5000/v3",
        user_domain_name="Default",
        project_domain_name="Default",
        username=user,
        password="pw",
        project_name=project,
        region_name=region,
    )


def credentials_of(cloud: Any, user: str) -> list[Any]:
    """The credentials of one user. An operator would see those of all, or an error if one is deleted meanwhile."""
    found: list[Any] = cloud.identity.get(f"/credentials?user_id={user}").json()["credentials"]
    return found


def leases_of(cloud: Any, box: str) -> list[Any]:
    """The leases of a connection's own project. (To an admin, even of one, Blazar lists those of all projects.)"""
    found: list[Any] = cloud.session.get(f"http://{box}:1234/v1/leases").json()["leases"]
    return [lease for lease in found if lease["project_id"] == cloud.current_project_id]


def access_rules(cloud: Any) -> list[Any]:
    """The access rules of the project's shares."""
    manila = cloud.shared_file_system
    return [
        rule
        for share in manila.shares()
        for rule in manila.get(f"/share-access-rules?share_id={share.id}", microversion=SHARES).json()["access_list"]
    ]


def things_of(cloud: Any, box: str, project: str, user: str) -> dict[str, list[str]]:
    """The ids of everything in a project, as the cloud has it."""

    def in_network(collection: str) -> list[Any]:
        # Neutron takes long to decide about each field whether this user may see it.
        answer = cloud.network.get(f"/{collection}?project_id={project}&fields=id&fields=name")
        found: list[Any] = next(iter(answer.json().values()))
        return found

    return {
        "leases": [item["id"] for item in leases_of(cloud, box)],
        # Nova still lists a deleted server for a moment, as deleted.
        "servers": [item.id for item in cloud.compute.servers() if item.status not in GONE],
        "addresses": [item["id"] for item in in_network("floatingips")],
        "volumes": [item.id for item in cloud.block_storage.volumes()],
        "shares": [item.id for item in cloud.shared_file_system.shares()],
        "access": [rule["id"] for rule in access_rules(cloud)],
        "routers": [item["id"] for item in in_network("routers")],
        "networks": [item["id"] for item in in_network("networks")],
        "groups": [item["id"] for item in in_network("security-groups") if item["name"] != "default"],
        "buckets": [item.name for item in cloud.object_store.containers()],
        "keys": [item["id"] for item in credentials_of(cloud, user)],
    }  # fmt: skip


def _delete_router(cloud: Any, id: str) -> None:
    for port in cloud.network.ports(device_id=id):
        for address in port.fixed_ips:
            cloud.network.remove_interface_from_router(id, subnet_id=address["subnet_id"])
    cloud.network.delete_router(id)


def _delete_bucket(cloud: Any, name: str) -> None:
    for item in cloud.object_store.objects(name):
        cloud.object_store.delete_object(item.name, container=name)
    cloud.object_store.delete_container(name)


DELETERS: Mapping[str, Callable[[Any, str], object]] = {
    "servers": lambda cloud, id: cloud.compute.delete_server(id),
    "addresses": lambda cloud, id: cloud.network.delete_ip(id),
    "volumes": lambda cloud, id: cloud.block_storage.delete_volume(id),
    "shares": lambda cloud, id: cloud.shared_file_system.delete_share(id),
    "routers": _delete_router,
    "networks": lambda cloud, id: cloud.network.delete_network(id),
    "groups": lambda cloud, id: cloud.network.delete_security_group(id),
    "buckets": _delete_bucket,
    "keys": lambda cloud, id: cloud.identity.delete(f"/credentials/{id}"),
    "keypairs": lambda cloud, id: cloud.compute.delete_keypair(id),
    "logins": lambda cloud, id: cloud.identity.delete_application_credential(cloud.current_user_id, id),
}
"""By kind, as in `things_of`, in the order in which they can be deleted."""


class Project:
    """A project and a user of the same name, who is a member of it."""

    def __init__(self, box: str, admin: Any) -> None:
        """Create both."""
        self.name = f"t{uuid.uuid4().hex[:8]}"
        self._box, self._identity = box, admin.identity
        domain = self._identity.find_domain("Default").id
        project = self._identity.create_project(name=self.name, domain_id=domain)
        self._user = self._identity.create_user(
            name=self.name, password="pw", domain_id=domain, default_project_id=project.id
        )
        self._identity.assign_project_role_to_user(project, self._user, self._identity.find_role("member"))
        self.id: str = project.id
        self.user: str = self._user.id
        self.cloud = connection(box, self.name, self.name)
        self.foreign = Foreign(self.cloud, box, self.id, self.user)
        self.is_clear = True

    def furnish(self, kinds: tuple[str, ...]) -> None:
        """Create a key pair, and resources of others of these kinds."""
        self.cloud.compute.create_keypair(name=KEYPAIR, public_key=PUBLIC_KEY)
        self.foreign.put(kinds)
        self.foreign.ids["keypairs"] = [KEYPAIR, *self.foreign.ids.get("keypairs", ())]

    def clear(self) -> bool:
        """Delete all but the resources of others. Return whether there was nothing else: deletion takes its time."""
        cloud = self.cloud
        found = things_of(cloud, self._box, self.id, self.user)
        del found["access"]  # goes with its share
        found["keypairs"] = [item.name for item in cloud.compute.keypairs()]
        found["logins"] = [item.id for item in cloud.identity.application_credentials(cloud.current_user_id)]
        left = {kind: set(ids) - set(self.foreign.ids.get(kind, ())) for kind, ids in found.items()}
        for id in left["leases"]:
            self._end_lease(id)
        for kind in DELETERS:
            self._delete(kind, left[kind])
        self.is_clear = not any(left.values())
        return self.is_clear

    def remove(self) -> None:
        """Delete the project, and what would take room from other tests: servers, volumes, shares and addresses."""
        cloud = self.cloud
        for lease in leases_of(cloud, self._box):
            self._end_lease(lease["id"])
        self._delete("servers", [item.id for item in cloud.compute.servers(details=False)])
        self._delete("addresses", [item.id for item in cloud.network.ips(project_id=self.id)])
        end = time.monotonic() + 30
        while list(cloud.compute.servers(details=False)) and time.monotonic() < end:
            time.sleep(0.2)
        self._delete("volumes", [item.id for item in cloud.block_storage.volumes()])
        self._delete("shares", [item.id for item in cloud.shared_file_system.shares()])
        self._identity.delete_user(self._user)
        self._identity.delete_project(self.id)

    def _end_lease(self, id: str) -> None:
        self.cloud.session.delete(f"http://{self._box}:1234/v1/leases/{id}", raise_exc=False)

    def _delete(self, kind: str, ids: Iterable[str]) -> None:
        for id in ids:
            with suppress(SDKException):  # in use by what is being deleted, or gone with it
                DELETERS[kind](self.cloud, id)


@contextmanager
def new_project(box: str, admin: Any) -> Iterator[Project]:
    """Create a project. Remove it afterwards."""
    project = Project(box, admin)
    yield project
    project.remove()


class Projects:
    """The projects of a process that runs tests, with resources of others in them."""

    def __init__(self, box: str, admin: Any) -> None:
        self._box, self._admin = box, admin
        self._free: defaultdict[tuple[str, ...], deque[Project]] = defaultdict(deque)

    def lend(self, kinds: tuple[str, ...]) -> Project:
        """Return a project with nothing but resources of others, of these kinds."""
        free = self._free[kinds]
        for _ in range(len(free)):
            project = free.popleft()
            if project.is_clear or project.clear():
                return project
            free.append(project)
        project = Project(self._box, self._admin)
        project.furnish(kinds)
        return project

    def give_back(self, kinds: tuple[str, ...], project: Project) -> None:
        """Take a project back for other tests."""
        project.clear()
        self._free[kinds].append(project)

    def close(self) -> None:
        """Remove all of them."""
        for projects in self._free.values():
            for project in projects:
                project.remove()
