"""Leases of bare-metal nodes, GPU flavors and floating IPs; leases that begin later, and those of others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from provision.commands import EXIT_CHANGES_PENDING
from tests.conftest import wait_until
from tests.openstack.conftest import Site, Wire, kind_of
from tests.openstack.declarations import NODE, SERVER, SHARE
from tests.openstack.projects import new_project
from tests.openstack.services import container_at, docker

FLAVOR = SERVER.replace("[server]", '[server]\nflavor = "g1.h100.pci.1"') + "[lease]\nhours = 1\n"
RESERVED = "[floating_ip]\nreserve = true\n"
FORMAT = "%Y-%m-%d %H:%M"


pytestmark = pytest.mark.usefixtures("only_node")


@pytest.fixture
def other(box: str, admin: Any) -> Iterator[Any]:
    """Another project's connection."""
    with new_project(box, admin) as project:
        yield project.cloud


def node() -> dict[str, Any]:
    condition = '["==", "$node_type", "gpu_a100"]'
    return {
        "resource_type": "physical:host",
        "resource_properties": condition,
        "hypervisor_properties": "",
        "min": 1,
        "max": 1,
    }


def later(hours: float) -> datetime:
    return (datetime.now(UTC) + timedelta(hours=hours)).replace(second=0, microsecond=0)


def lease_by_hand(cloud: Any, box: str, *reservations: dict[str, Any], begin: float = 0, hours: float = 1) -> Any:
    """A lease as another tool creates it."""
    body = {
        "name": "by hand",
        "start_date": f"{later(begin):{FORMAT}}" if begin else "now",
        "end_date": f"{later(begin + hours):{FORMAT}}",
        "before_end_date": None,
        "events": [],
        "reservations": list(reservations),
    }
    return cloud.session.post(f"http://{box}:1234/v1/leases", json=body).json()["lease"]


def may_see_hosts(site: Site) -> None:
    site.admin.identity.assign_project_role_to_user(site.project, site.user, site.admin.identity.find_role("admin"))


def hosts_of(site: Site) -> list[str]:
    """Where the project's servers run, which only an operator sees."""
    return [site.operator.compute.get_server(id).hypervisor_hostname for id in site.things["servers"]]


def test_a_node_is_leased_used_and_given_back(site: Site) -> None:
    site.declare(NODE + RESERVED)
    planned = site.run("plan")
    assert planned.code == EXIT_CHANGES_PENDING and "this site doesn't tell" in planned.out, planned
    site.succeeds("up")
    assert site.counts == {"servers": 1, "leases": 1, "addresses": 1} and hosts_of(site) == ["gpu1"]
    (server,) = site.own("servers")
    assert server.flavor.original_name == "baremetal"
    (address,) = site.own("addresses")
    assert "blazar" in address.tags and address.floating_ip_address in site.run("plan").out
    first = site.things
    assert site.run("plan").code == 0 and "nothing to do" in site.run("up").err and site.things == first

    site.succeeds("server", "delete", "--yes")
    assert site.counts == {"leases": 1, "addresses": 1}
    site.succeeds("server", "create")
    assert hosts_of(site) == ["gpu1"] and site.things["addresses"] == first["addresses"]
    site.succeeds("lease", "extend", "1")
    site.succeeds("down", "--yes")
    assert site.counts == {}


@contextmanager
def disabled_node(site: Site) -> Iterator[None]:
    """Have Nova place nothing on the node."""
    compute = site.operator.compute
    (service,) = [item for item in compute.services(binary="nova-compute") if item.host == "gpu1"]
    compute.disable_service(service)
    try:
        yield
    finally:
        compute.enable_service(service)


def test_a_server_that_failed_on_its_lease_is_explained_and_replaced(site: Site) -> None:
    site.declare(NODE)
    with disabled_node(site):
        for _ in range(2):
            ended = site.run("up")
            assert ended.code == 5 and "No valid host" in ended.err and "--replace" in ended.err, ended
            assert site.counts == {"servers": 1, "leases": 1}
    failed = site.things
    planned = site.run("plan")
    assert planned.code == EXIT_CHANGES_PENDING and "it is in ERROR" in planned.out, planned
    ended = site.run("up")  # it could start now, but is never deleted unasked
    assert ended.code == 5 and "--replace" in ended.err and site.things == failed, ended
    site.succeeds("up", "--replace")
    assert site.things["leases"] == failed["leases"] and site.things["servers"] != failed["servers"]
    assert hosts_of(site) == ["gpu1"] and site.run("plan").code == 0
    site.succeeds("down", "--yes")
    assert site.counts == {}


@contextmanager
def stopped_node(site: Site) -> Iterator[None]:
    """Stop the node's nova-compute for some seconds, so that a server there stays in BUILD."""
    box = container_at(site.box)
    docker("exec", box, "pkill", "-STOP", "--full", "^/usr/bin/python3 .*/gpu1.conf$")
    try:
        yield
    finally:
        docker("exec", box, "pkill", "-CONT", "--full", "^/usr/bin/python3 .*/gpu1.conf$")


@pytest.mark.parametrize(
    ("again", "left"),
    [
        (("up",), {"servers": 1, "leases": 1}),
        (("down", "--yes"), {}),
        (("server", "delete", "--yes"), {"leases": 1}),
    ],
)
def test_a_command_after_one_killed_while_its_server_was_built(
    site: Site, again: tuple[str, ...], left: dict[str, int]
) -> None:
    site.declare(NODE)
    in_flight = site.folder / ".larder/provision/lab/in-flight.json"
    with stopped_node(site):
        first = site.start("up")
        wait_until(lambda: site.things["servers"] and not in_flight.exists(), "Nova has answered that it builds one")
        first.kill()
        assert first.wait() < 0
        (built,) = site.own("servers")
        assert built.status == "BUILD", built
        second = site.start(*again)
        waits = any("the server lab" in line and "waiting for" in line for line in second.stderr)
        # Nova deletes at once what no host has begun to build.
        assert waits == (again == ("up",))
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0 and site.counts == left, (out, err)
    if again == ("up",):
        assert site.things["servers"] == [built.id]
    site.succeeds("up")
    assert site.counts == {"servers": 1, "leases": 1} and site.run("plan").code == 0


NETWORK = '[network]\nname = "lab-net"\n'
CONNECTED = {"servers": 1, "leases": 1, "addresses": 1, "networks": 1, "routers": 1}


def test_a_node_in_a_network_of_its_own(site: Site, wire: Wire) -> None:
    site.declare(NODE + RESERVED + NETWORK)
    assert "lab-net" in site.run("plan").out and "reserved with the lease" in site.succeeds("doctor")
    site.succeeds("up")
    assert site.counts == CONNECTED and site.run("plan").code == 0
    (address,) = site.own("addresses")
    assert address.fixed_ip_address.startswith("192.168.100.")
    first = site.things

    (router,) = site.things["routers"]
    (network,) = site.things["networks"]
    subnet = site.cloud.network.create_subnet(network_id=network, ip_version=4, cidr="10.77.0.0/24", name="theirs")
    site.cloud.network.add_interface_to_router(router, subnet=subnet.id)
    ended = site.run("down", "--yes")
    assert ended.code == 5 and f"theirs ({subnet.id})" in ended.err and site.counts == {"routers": 1}, ended
    # The lease's end took the network, with all that was in it.
    site.succeeds("up")
    assert site.counts == CONNECTED and site.things["routers"] == first["routers"]
    site.cloud.network.create_network(name="lab-net-2")
    site.succeeds("down", "--yes")
    assert site.counts == {"networks": 1}
    site.declare(NODE + NETWORK.replace("lab-net", "lab-net-2"))
    taken = site.run("up")
    assert taken.code == 3 and "lab-net-2 is taken" in taken.err and site.counts == {"networks": 1}, taken
    site.declare(NODE + '[network]\nname = "lab-net"\nphysical_network = "exogeni"\n')
    refused = site.run("up")
    assert refused.code == 3 and "not enough networks available" in refused.err, refused


def test_a_node_in_a_storage_network_has_access_to_shares(site: Site) -> None:
    """The site gives the network subnet, router and access, as Chameleon does; larder adds its router and no rules."""
    site.declare(NODE + RESERVED + NETWORK + 'usage_type = "storage"\n' + SHARE)
    site.succeeds("up")
    connected = CONNECTED | {"shares": 1, "access": 1}
    assert site.counts == connected and site.run("plan").code == 0
    assert [(rule["access_to"], rule["metadata"]) for rule in site.access_rules] == [("10.52.3.0/24", {})]
    (address,) = site.own("addresses")
    assert address.fixed_ip_address.startswith("10.52.3.") and address.router_id == site.things["routers"][0]
    first = site.things
    site.succeeds("up")
    assert site.things == first
    site.succeeds("down", "--yes")
    assert site.counts == {"shares": 1, "access": 1} and site.things["access"] == first["access"]
    site.succeeds("down", "--yes", "--delete-data", "photos")
    assert site.counts == {}


def test_a_server_of_somebody_else_keeps_the_lease_of_a_node(site: Site) -> None:
    site.declare(NODE)
    site.succeeds("up")
    (server,) = site.things["servers"]
    site.cloud.compute.delete_server_metadata(site.cloud.compute.get_server(server), ["larder:stack"])
    site.cloud.compute.delete_server_metadata(site.cloud.compute.get_server(server), ["larder:reservation"])
    ended = site.run("down", "--yes")
    assert ended.code == 5 and server in ended.err and "isn't this stack's" in ended.err, ended
    assert site.counts == {"servers": 1, "leases": 1}


def test_a_flavor_with_a_gpu(site: Site, other: Any) -> None:
    site.declare(FLAVOR)
    site.succeeds("up")
    assert site.counts == {"servers": 1, "leases": 1} and hosts_of(site) == ["kvm1"] and site.run("plan").code == 0
    flavor = other.compute.find_flavor("g1.h100.pci.1")
    wanted = {"resource_type": "flavor:instance", "flavor_id": flavor.id, "amount": 1, "affinity": None}
    refused = other.session.post(
        f"http://{site.box}:1234/v1/leases",
        json={"name": "x", "start_date": "now", "end_date": f"{later(1):{FORMAT}}", "reservations": [wanted]},
        raise_exc=False,
    )
    assert "Not enough hosts available" in refused.text
    site.declare(NODE)
    for command in ("plan", "up"):
        ended = site.run(command)
        assert ended.code == 3 and "flavor:instance" in ended.err and "run `down`" in ended.err, ended
    site.succeeds("down", "--yes")
    assert site.counts == {}


def test_a_node_that_others_reserve_is_leased_for_later(site: Site, other: Any) -> None:
    theirs = lease_by_hand(other, site.box, node(), hours=2)
    site.declare(NODE)
    refused = site.run("up")
    assert refused.code == 3 and "not enough hosts available" in refused.err and site.counts == {}, refused
    may_see_hosts(site)
    end = datetime.fromisoformat(theirs["end_date"])
    free = f"one is free for 1 h from {end:{FORMAT}} UTC on"
    for command in ("doctor", "up"):
        ended = site.run(command)
        assert ended.code == 3 and free in ended.out + ended.err, ended
        assert f'start = "{end:{FORMAT}}"' in ended.out + ended.err
    assert free in site.run("plan").out

    begin = end + timedelta(hours=1)
    site.declare(f'{NODE}start = "{begin:{FORMAT}}"\n{RESERVED}')
    assert "there is capacity: 1 of 1 nodes of the type gpu_a100" in site.succeeds("doctor")
    for _ in range(2):
        ended = site.run("up")
        assert ended.code == EXIT_CHANGES_PENDING, ended
        assert f"begins {begin:{FORMAT}} UTC, in" in ended.err and "run `up` again then" in ended.err
    assert site.counts == {"leases": 1} and site.leases[0]["status"] == "PENDING"
    assert site.run("server", "create").code == EXIT_CHANGES_PENDING
    site.declare(f'{NODE}start = "{end + timedelta(hours=2):{FORMAT}}"\n{RESERVED}')
    assert "change" in site.run("plan").out and site.run("up").code == EXIT_CHANGES_PENDING
    assert datetime.fromisoformat(site.leases[0]["start_date"]) == end + timedelta(hours=2)

    site.declare(NODE + RESERVED)  # at once, as soon as the others' lease is over
    moved = site.run("up")
    assert moved.code == 3 and "not enough hosts available" in moved.err, moved
    assert datetime.fromisoformat(site.leases[0]["start_date"]) == end + timedelta(hours=2)
    other.session.delete(f"http://{site.box}:1234/v1/leases/{theirs['id']}")
    site.succeeds("up")
    assert site.counts == {"servers": 1, "leases": 1, "addresses": 1} and site.run("plan").code == 0
    site.succeeds("down", "--yes")
    assert site.counts == {}


def test_what_was_not_declared_right(site: Site) -> None:
    may_see_hosts(site)
    site.declare(NODE.replace("gpu_a100", "gpu_b200"))
    for command in ("doctor", "plan", "up"):
        ended = site.run(command)
        assert ended.code == 3 and "node type 'gpu_b200'; there are: gpu_a100" in ended.out + ended.err, ended
    site.declare(NODE + 'start = "2020-01-01 09:00"\n')
    for command in ("doctor", "plan", "up"):
        ended = site.run(command)
        assert ended.code == 2 and "start has passed" in ended.out + ended.err, ended
    assert site.counts == {}


def test_a_lease_of_others_is_used_and_left_alone(site: Site) -> None:
    public = site.cloud.network.find_network("public")
    address = {"resource_type": "virtual:floatingip", "network_id": public.id, "amount": 1}
    lease = lease_by_hand(site.cloud, site.box, node(), address)
    server = SERVER.replace("[server]", '[server]\nflavor = "baremetal"') + RESERVED
    for name in (lease["id"], lease["reservations"][0]["id"], "by hand"):
        site.declare(f'{server}[lease]\nuse = "{name}"\n')
        assert "by hand" in site.run("plan").out
    site.succeeds("up")
    assert site.counts == {"servers": 1, "leases": 1, "addresses": 1} and hosts_of(site) == ["gpu1"]
    assert "used, never deleted" in site.run("status").out and site.run("plan").code == 0
    assert "extend it where it was created" in site.run("status").err
    extended = site.run("lease", "extend", "1")
    assert extended.code == 3 and "never changed" in extended.err, extended
    before = site.things["leases"], site.things["addresses"]
    down = site.run("down", "--yes")
    assert down.code == 0 and lease["id"] in down.out, down  # as kept
    assert site.counts == {"leases": 1, "addresses": 1}
    assert (site.things["leases"], site.things["addresses"]) == before
    site.cloud.session.delete(f"http://{site.box}:1234/v1/leases/{lease['id']}")
    wait_until(lambda: not site.counts, "the lease has ended, and its address with it")
    gone = site.run("up")
    assert gone.code == 3 and "no lease that runs or will begin" in gone.err, gone
    assert site.run("down", "--yes").code == 0


def test_a_lease_to_use_must_be_clear(site: Site) -> None:
    server = SERVER.replace("[server]", '[server]\nflavor = "baremetal"')
    first, second = (lease_by_hand(site.cloud, site.box, node(), begin=begin) for begin in (10, 20))
    site.declare(f'{server}[lease]\nuse = "by hand"\n')
    ended = site.run("up")
    assert ended.code == 3 and first["id"] in ended.err and second["id"] in ended.err, ended
    site.declare(f'{server}[lease]\nuse = "{first["id"]}"\n')
    assert site.run("up").code == EXIT_CHANGES_PENDING  # it begins later
    flavor = site.cloud.compute.find_flavor("m1.medium")
    wanted = {"resource_type": "flavor:instance", "flavor_id": flavor.id, "amount": 1, "affinity": None}
    both = lease_by_hand(site.cloud, site.box, wanted, node(), begin=30)
    site.declare(f'{server}[lease]\nuse = "{both["id"]}"\n')
    ended = site.run("plan")
    ids = [item["id"] for item in both["reservations"]]
    assert ended.code == 3 and "2 reservations for servers" in ended.err and all(id in ended.err for id in ids), ended
    site.declare(f'{server}[lease]\nuse = "{ids[0]}"\n')
    assert "by hand" in site.run("plan").out
    assert site.counts == {"leases": 3}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_interrupted_or_cut_off_at_every_change(site: Site, wire: Wire, moment: str) -> None:
    """Of each kind of changing request, the first is interrupted before it is sent, or its answer gets lost."""
    begun = lease_by_hand(site.cloud, site.box, node(), begin=40)  # somebody's in the same project
    site.declare(NODE + RESERVED + NETWORK + "[limits]\nrequest = 10\n")  # what was never sent is waited for in vain
    seen: set[str] = set()

    def disturb(request: Any) -> Exception | None:
        kind = kind_of(request)
        if request.method in ("GET", "HEAD") or "/auth/tokens" in request.url or kind in seen:
            return None
        seen.add(kind)
        if moment == "after":
            return requests.exceptions.ConnectionError("lost")
        raise KeyboardInterrupt

    for words in (("up",), ("down", "--yes")):
        for _ in range(20):
            setattr(wire, moment, disturb)
            ended = site.run(*words)
            setattr(wire, moment, lambda request: None)
            counts = {kind: count for kind, count in site.counts.items() if kind != "leases"}
            assert all(count == 1 for count in counts.values()) and site.counts["leases"] <= 2, site.counts
            assert begun["id"] in site.things["leases"] and ended.code in (0, 5, 130), ended
            if ended.code == 0:
                break
        assert site.counts == (CONNECTED | {"leases": 2} if words == ("up",) else {"leases": 1})
    assert len(seen) >= 5 and site.things["leases"] == [begun["id"]]
