"""Resources of others in the project, which no command may change.

Of each kind there is one with the same name as the stack's own and the mark of another user's stack, where names may
occur twice, and one without any mark.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from provision import marks
from tests.conftest import wait_until

OTHER = marks.make_owner("lab", "another user")
MARK = marks.format_mark(OTHER)
VOLATILE = ("updated_at", "location", "links", "progress", "launched_at", "revision_number", "computed")
"""What changes by itself."""
OPERATORS_ONLY = ("host", "is_distributed", "is_ha")
"""What a project's user sees only after a test has made them operator, too."""
HEADERS = ("X-Container-", "X-Storage-Policy")
CHEAP = ("volumes", "addresses", "groups", "routers", "buckets", "keys", "keypairs")
ALL = (*CHEAP, "servers", "leases", "shares")

Attributes = dict[str, Any]


@dataclass
class Foreign:
    """Resources of others at a site, with their attributes at the beginning."""

    cloud: Any = None
    box: str = ""
    project: str = ""
    user: str = ""
    ids: dict[str, list[str]] = field(default_factory=dict)
    """By kind, as in `Site.things`."""
    before: dict[str, Attributes] = field(default_factory=dict)

    def put(self, kinds: tuple[str, ...]) -> None:
        """Create resources of these kinds, and wait until they are ready."""
        with ThreadPoolExecutor(4) as pool:
            made = {kind: pool.submit(MAKERS[kind], self) for kind in kinds}
            self.ids |= {kind: future.result() for kind, future in made.items()}
        wait_until(self.are_ready, "the resources of others are ready", 60)
        self.before = self.inventory()

    def inventory(self) -> dict[str, Attributes]:
        """Return the attributes that a command could change, by kind and id; those of what is gone are empty."""
        found: dict[str, Attributes] = {}
        for kind, ids in self.ids.items():
            listed = LISTERS[kind](self) if ids else {}
            found |= {f"{kind} {id}": listed.get(id, {}) for id in ids}
        return found

    def are_ready(self) -> bool:
        """Return whether servers run and volumes are available, so that nothing changes by itself any more."""
        waited = [kind for kind in ("servers", "volumes", "shares") if self.ids.get(kind)]
        listed = {id: item for kind in waited for id, item in LISTERS[kind](self).items()}
        return all(listed[id]["status"] in ("ACTIVE", "available") for kind in waited for id in self.ids[kind])

    def check(self) -> None:
        """Fail if anything differs from the beginning."""
        now = self.inventory()
        changed = {name: _differences(old, now[name]) for name, old in self.before.items() if old != now[name]}
        assert not changed, f"resources of others have changed: {changed}"


def _differences(old: Attributes, new: Attributes) -> dict[str, tuple[Any, Any]]:
    return {key: (old.get(key), new.get(key)) for key in {*old, *new} if old.get(key) != new.get(key)}


def _dict(item: Any) -> Attributes:
    return {key: value for key, value in item.to_dict(computed=False).items() if key not in VOLATILE + OPERATORS_ONLY}


def _named(name: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return the names and descriptions of what others made."""
    return (name, MARK), ("theirs", "of us all")


def _volumes(foreign: Foreign) -> list[str]:
    create = foreign.cloud.block_storage.create_volume
    theirs = {marks.STACK: OTHER, marks.PART: "block", marks.BLANK: "yes"}
    return [create(name="block", size=1, metadata=theirs).id, create(name="theirs", size=1, metadata={"a": "b"}).id]


def _shares(foreign: Foreign) -> list[str]:
    create = foreign.cloud.shared_file_system.create_share
    theirs = {marks.STACK: OTHER, marks.PART: "photos"}
    return [
        create(name=name, size=1, share_protocol="NFS", metadata=data).id
        for name, data in (("photos", theirs), ("theirs", {"a": "b"}))
    ]


def _addresses(foreign: Foreign) -> list[str]:
    public = foreign.cloud.network.find_network("public")
    create = foreign.cloud.network.create_ip
    return [create(floating_network_id=public.id, description=text).id for text in (MARK, "of us all")]


def _groups(foreign: Foreign) -> list[str]:
    network = foreign.cloud.network
    groups = [network.create_security_group(name=name, description=text) for name, text in _named("allow-ssh")]
    for group in groups:
        network.create_security_group_rule(
            security_group_id=group.id, direction="ingress", protocol="tcp", port_range_min=443, port_range_max=443
        )
    return [group.id for group in groups]


def _routers(foreign: Foreign) -> list[str]:
    return [foreign.cloud.network.create_router(name=name, description=text).id for name, text in _named("lab")]


def _buckets(foreign: Foreign) -> list[str]:
    for name, headers in (("data-theirs", {f"X-Container-Meta-{marks.HEADER}": OTHER}), ("theirs", {})):
        foreign.cloud.object_store.put(f"/{name}", headers=headers).raise_for_status()
        foreign.cloud.object_store.upload_object(name, "k", data=b"theirs")
    return ["data-theirs", "theirs"]


def _keys(foreign: Foreign) -> list[str]:
    blob = json.dumps({"access": f"{int(foreign.user[:8], 16):032x}", "secret": "0" * 32})
    body = {"type": "ec2", "user_id": foreign.user, "project_id": foreign.project, "blob": blob}
    answer = foreign.cloud.identity.post("/credentials", json={"credential": body})
    return [answer.json()["credential"]["id"]]


def _keypairs(foreign: Foreign) -> list[str]:
    return [foreign.cloud.compute.create_keypair(name="theirs").name]


def _servers(foreign: Foreign) -> list[str]:
    compute = foreign.cloud.compute
    image = foreign.cloud.image.find_image("CC-Ubuntu24.04").id
    flavor, network = compute.find_flavor("m1.medium").id, foreign.cloud.network.find_network("sharednet1").id
    body = {"image_id": image, "flavor_id": flavor, "networks": [{"uuid": network}]}
    theirs = {marks.STACK: OTHER, marks.IMAGE: "CC-Ubuntu24.04"}
    return [
        compute.create_server(name=name, metadata=data, **body).id for name, data in (("lab", theirs), ("theirs", {}))
    ]


def _leases(foreign: Foreign) -> list[str]:
    """Leases of tomorrow, which take no capacity from tests."""
    flavor = foreign.cloud.compute.find_flavor("m1.medium").id
    wanted = {"resource_type": "flavor:instance", "flavor_id": flavor, "amount": 1, "affinity": None}
    begin = datetime.now(UTC) + timedelta(days=1)
    body = {
        "start_date": f"{begin:%Y-%m-%d %H:%M}",
        "end_date": f"{begin + timedelta(hours=1):%Y-%m-%d %H:%M}",
        "before_end_date": None,
        "events": [],
        "reservations": [wanted],
    }
    url = f"http://{foreign.box}:1234/v1/leases"
    names = (marks.lease_name(OTHER), "theirs")
    return [foreign.cloud.session.post(url, json={"name": name, **body}).json()["lease"]["id"] for name in names]


MAKERS: Mapping[str, Callable[[Foreign], list[str]]] = {
    "volumes": _volumes,
    "shares": _shares,
    "addresses": _addresses,
    "groups": _groups,
    "routers": _routers,
    "buckets": _buckets,
    "keys": _keys,
    "keypairs": _keypairs,
    "servers": _servers,
    "leases": _leases,
}


def _bucket(foreign: Foreign, name: str) -> Attributes:
    answer = foreign.cloud.object_store.get(f"/{name}", params={"format": "json"})
    headers = {key: value for key, value in answer.headers.items() if key.startswith(HEADERS)}
    return {**headers, "objects": answer.text}


def _lease_fields(foreign: Foreign) -> dict[str, Attributes]:
    listed = foreign.cloud.session.get(f"http://{foreign.box}:1234/v1/leases").json()["leases"]
    return {item["id"]: {key: value for key, value in item.items() if key not in VOLATILE} for item in listed}


LISTERS: Mapping[str, Callable[[Foreign], dict[str, Attributes]]] = {
    "volumes": lambda foreign: {item.id: _dict(item) for item in foreign.cloud.block_storage.volumes()},
    "shares": lambda foreign: {item.id: _dict(item) for item in foreign.cloud.shared_file_system.shares()},
    "addresses": lambda foreign: {
        item.id: _dict(item) for item in foreign.cloud.network.ips(project_id=foreign.project)
    },
    "groups": lambda foreign: {
        item.id: _dict(item) for item in foreign.cloud.network.security_groups(project_id=foreign.project)
    },
    "routers": lambda foreign: {
        item.id: _dict(item) for item in foreign.cloud.network.routers(project_id=foreign.project)
    },
    "buckets": lambda foreign: {name: _bucket(foreign, name) for name in foreign.ids["buckets"]},
    "keys": lambda foreign: {
        item["id"]: item
        for item in foreign.cloud.identity.get(f"/credentials?user_id={foreign.user}").json()["credentials"]
    },
    "keypairs": lambda foreign: {item.name: _dict(item) for item in foreign.cloud.compute.keypairs()},
    "servers": lambda foreign: {item.id: _dict(item) for item in foreign.cloud.compute.servers()},
    "leases": _lease_fields,
}
