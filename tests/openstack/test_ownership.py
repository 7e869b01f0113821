"""Ownership: other users' stacks, and adopted resources."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from provision.commands import EXIT_CHANGES_PENDING
from tests.conftest import wait_until
from tests.openstack.conftest import Site, Wire, owner
from tests.openstack.declarations import BOOT, KEYS, SERVER, VOLUME
from tests.openstack.projects import KEYPAIR, PUBLIC_KEY, connection

STACK = """
[server]
key = "laptop"
security_groups = ["allow-ssh"]
[[security_group]]
name = "allow-ssh"
ports = [22]
sources = ["192.0.2.7"]
[[volume]]
name = "block"
gib = 1
"""


@pytest.fixture
def classmate(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Makes another user of the same project the one who runs the commands."""
    name = f"{site.environ['OS_USERNAME']}-other"
    user = site.admin.identity.create_user(name=name, password="pw", default_project_id=site.project)
    project = site.admin.identity.get_project(site.project)
    site.admin.identity.assign_project_role_to_user(project, user, site.admin.identity.find_role("member"))
    theirs = connection(site.box, name, site.environ["OS_USERNAME"])

    def take_over() -> None:
        theirs.compute.create_keypair(name=KEYPAIR, public_key=PUBLIC_KEY)
        monkeypatch.setenv("OS_USERNAME", name)

    yield take_over
    site.admin.identity.delete_user(user)


@pytest.mark.others()  # with --adopt, each of them is a candidate
def test_stacks_of_two_users_with_the_same_name(site: Site, classmate: Callable[[], None]) -> None:
    site.declare(STACK)
    site.succeeds("up")
    first = site.things
    classmate()
    assert "no resource carries the mark" in site.succeeds("status")
    assert site.succeeds("down", "--yes") == "" and site.things == first
    site.succeeds("volume", "create", "block")
    (mine,) = set(site.things["volumes"]) - set(first["volumes"])
    refused = site.run("--adopt", "plan")
    assert refused.code == 3 and "belongs to the stack lab" in refused.err
    site.succeeds("up")
    assert mine in site.things["volumes"] and site.counts == {"servers": 2, "volumes": 2, "groups": 2}
    site.succeeds("down", "--yes", "--delete-data", "block")
    assert site.things == first


@pytest.mark.others()  # with --adopt, each of them is a candidate
def test_an_adopted_group_loses_only_what_we_gave_it(site: Site) -> None:
    network = site.cloud.network
    theirs = network.create_security_group(name="allow-ssh", description="of us all")
    kept = network.create_security_group_rule(
        security_group_id=theirs.id,
        direction="ingress",
        protocol="tcp",
        port_range_min=443,
        port_range_max=443,
        remote_ip_prefix="198.51.100.0/24",
        ether_type="IPv4",
    )
    site.declare(STACK)
    assert site.run("up").code == 3
    site.succeeds("--adopt", "up")
    assert len(network.get_security_group(theirs.id).security_group_rules) == 4  # two allow outgoing traffic
    assert site.run("plan").code == 0
    down = site.succeeds("down", "--yes")
    assert re.search(r"release +security group +allow-ssh", down)
    left = network.get_security_group(theirs.id)
    assert kept.id in [rule["id"] for rule in left.security_group_rules] and len(left.security_group_rules) == 3
    assert left.tags == [] and left.description == "of us all"
    assert site.counts == {"groups": 1, "volumes": 1}


def test_an_adopted_server_goes_on_running(site: Site, wire: Wire, answers: Callable[..., Any]) -> None:
    site.declare(STACK)
    site.succeeds("up")
    (server,) = site.things["servers"]
    site.cloud.compute.delete_server_metadata(site.cloud.compute.get_server(server), ["larder:stack"])
    assert "--adopt" in site.run("up").err
    site.succeeds("--adopt", "up")
    assert site.cloud.compute.get_server(server).metadata["larder:stack"] == owner(site)
    site.declare(STACK.replace('"laptop"', '"laptop"\nflavor = "m1.xlarge"'))
    replaced = site.run("up", "--replace")
    assert replaced.code == 3 and "created by someone else" in replaced.err and site.things["servers"] == [server]

    broken = answers(503, "busy")
    wire.before = lambda request: (
        broken(request) if request.method == "DELETE" and "larder:adopted" in request.url else None
    )
    assert site.run("down", "--yes").code == 5  # cut between the two marks
    wire.before = lambda request: None
    site.succeeds("down", "--yes")
    assert "larder:stack" not in site.cloud.compute.get_server(server).metadata and site.things["servers"] == [server]
    assert site.counts == {"servers": 1, "volumes": 1}


def test_a_lease_stays_while_a_server_of_somebody_else_runs_on_it(site: Site) -> None:
    site.declare(SERVER + "[lease]\nhours = 1\n")
    site.succeeds("up")
    (server,) = site.things["servers"]
    site.cloud.compute.delete_server_metadata(site.cloud.compute.get_server(server), ["larder:stack"])
    ended = site.run("down", "--yes")
    assert ended.code == 5 and server in ended.err and "isn't this stack's" in ended.err, ended
    assert site.counts == {"servers": 1, "leases": 1}
    site.cloud.compute.delete_server(server)
    wait_until(lambda: not site.things["servers"], "it is gone")
    site.succeeds("down", "--yes")
    assert site.counts == {}


def test_a_floating_ip_that_was_moved_to_another_server_stays_there(
    site: Site, wire: Wire, answers: Callable[..., Any]
) -> None:
    site.declare(SERVER + "[floating_ip]\n")
    site.succeeds("up")
    (address,) = site.things["addresses"]
    image, flavor = site.cloud.image.find_image("CC-Ubuntu24.04"), site.cloud.compute.find_flavor("m1.medium")
    network = site.cloud.network.find_network("sharednet1")
    other = site.cloud.compute.create_server(
        name="other", image_id=image.id, flavor_id=flavor.id, networks=[{"uuid": network.id}]
    )
    wait_until(lambda: list(site.cloud.network.ports(device_id=other.id)), "the other server has its port")
    (port,) = site.cloud.network.ports(device_id=other.id)
    site.cloud.network.update_ip(address, port_id=port.id)
    for command in ("plan", "up"):
        ended = site.run(command)
        assert ended.code == 3 and f"was moved to server {other.id}" in ended.err, ended
    assert site.cloud.network.get_ip(address).port_id == port.id

    broken = answers(500, "broken")
    wire.before = lambda request: broken(request) if "8774" in request.url else None
    assert site.run("down", "--yes").code == 5
    wire.before = lambda request: None
    assert site.cloud.network.get_ip(address).description != ""
    assert re.search(rf"release +floating IP .*which was moved to server {other.id}", site.succeeds("down", "--yes"))
    left = site.cloud.network.get_ip(address)
    assert left.port_id == port.id and left.description == "" and site.things["servers"] == [other.id]
    assert site.run("down", "--yes").code == 0 and site.counts["addresses"] == 1


def test_a_server_is_never_replaced_without_being_asked(site: Site) -> None:
    site.declare(STACK)
    site.succeeds("up")
    (server,) = site.things["servers"]
    for more in ("[lease]\nhours = 1\n", BOOT.format("false")):
        site.declare(STACK + more)
        assert re.search(r"replace +server", site.run("plan").out)
        refused = site.run("up")
        assert refused.code == 3 and "--replace" in refused.err and "root disk" in refused.err
        assert site.things["servers"] == [server] and not site.leases
    site.declare(STACK)
    site.cloud.compute.stop_server(server)
    wait_until(lambda: site.cloud.compute.get_server(server).status == "SHUTOFF", "it has stopped")
    assert re.search(r"change +server .*start it", site.run("plan").out)
    site.succeeds("up")
    assert site.cloud.compute.get_server(server).status == "ACTIVE" and site.things["servers"] == [server]


def test_down_does_what_it_can_when_a_site_does_not_answer(site: Site, wire: Wire, answers: Callable[..., Any]) -> None:
    site.declare(STACK + '[bucket]\nname = "data"\n')
    site.succeeds("up")
    broken = answers(500, "broken")
    wire.before = lambda request: broken(request) if ":8080" in request.url else None
    ended = site.run("down", "--yes")
    assert ended.code == 5 and "buckets" in ended.err, ended.err
    shown = site.run("status")
    assert shown.code == 5 and "some resources could not be listed" in shown.err and "block" in shown.out
    wire.before = lambda request: None
    assert site.counts == {"volumes": 1, "buckets": 1}
    site.succeeds("down", "--yes")


def test_changed_security_groups_of_a_running_server(site: Site) -> None:
    site.declare(STACK.replace('["allow-ssh"]', '["default"]'))
    site.succeeds("up")
    (server,) = site.things["servers"]
    site.declare(STACK)
    planned = site.run("plan")
    assert planned.code == EXIT_CHANGES_PENDING and re.search(r"change +server .*security groups", planned.out)
    site.succeeds("up")
    (port,) = site.cloud.network.ports(device_id=server)
    groups = [site.cloud.network.get_security_group(id).name for id in port.security_group_ids]
    assert groups == ["allow-ssh"] and site.things["servers"] == [server] and site.run("plan").code == 0


@pytest.mark.others()  # with --adopt, each of them is a candidate
def test_names_of_others(site: Site) -> None:
    site.declare(SERVER + VOLUME + '[bucket]\nname = "data"\n')
    theirs = site.cloud.block_storage.create_volume(name="block", size=1)
    site.cloud.block_storage.wait_for_status(theirs, "available", interval=0.3, wait=60)
    for command in ("plan", "up", "volume"):
        ended = site.run(command, *(["create", "block"] if command == "volume" else []))
        assert ended.code == 3 and theirs.id in ended.err and "--adopt" in ended.err
    assert site.succeeds("down", "--yes") == "" and site.counts == {"volumes": 1}

    other = site.cloud.block_storage.create_volume(name="block", size=1)
    two = site.run("--adopt", "up")
    assert two.code == 3 and theirs.id in two.err and other.id in two.err
    site.cloud.block_storage.wait_for_status(other, "available", interval=0.3, wait=60)
    site.cloud.block_storage.delete_volume(other.id)
    site.cloud.block_storage.wait_for_delete(other, interval=0.3, wait=60)

    site.cloud.object_store.create_container("data")
    site.cloud.object_store.upload_object("data", "k", data=b"x")
    site.succeeds("--adopt", "up")
    adopted = site.cloud.block_storage.get_volume(theirs.id)
    assert (adopted.metadata["larder:stack"], adopted.metadata["larder:blank"]) == (owner(site), "no")
    assert site.counts == {"servers": 1, "volumes": 1, "buckets": 1}
    assert site.cloud.object_store.download_object("k", "data") == b"x"
    site.succeeds("down", "--yes")
    assert site.counts == {"volumes": 1, "buckets": 1}


@pytest.mark.others()  # with --adopt, each of them is a candidate
@pytest.mark.parametrize(
    ("declared", "name"), [(VOLUME, "block"), (BOOT.format("false"), "lab-boot")], ids=["volume", "boot volume"]
)
def test_a_volume_that_a_server_of_others_uses_is_not_adopted(site: Site, declared: str, name: str) -> None:
    storage, compute = site.cloud.block_storage, site.cloud.compute
    volume = storage.create_volume(name=name, size=3)
    storage.wait_for_status(volume, "available", interval=0.3, wait=60)
    server = compute.create_server(
        name="theirs",
        image_id=site.cloud.image.find_image("CC-Ubuntu24.04").id,
        flavor_id=compute.find_flavor("m1.medium").id,
        networks=[{"uuid": site.cloud.network.find_network("sharednet1").id}],
    )
    compute.wait_for_server(server, interval=0.3)
    compute.create_volume_attachment(server.id, volume_id=volume.id)
    storage.wait_for_status(volume, "in-use", interval=0.3, wait=60)
    site.declare(SERVER + declared)
    ended = site.run("--adopt", "up")
    assert ended.code == 3 and server.id in ended.err and "detach it there first" in ended.err, ended
    assert "larder:stack" not in storage.get_volume(volume.id).metadata
    assert site.counts == {"servers": 1, "volumes": 1}


def test_a_security_group_of_others_is_used_and_never_changed(site: Site) -> None:
    site.declare(SERVER.replace("default", "allow-ssh") + '[[security_group]]\nname = "allow-ssh"\nports = [22]\n')
    group = site.cloud.network.create_security_group(name="allow-ssh")
    ended = site.run("up")
    assert ended.code == 3 and group.id in ended.err and site.counts == {"groups": 1}
    site.cloud.network.create_security_group_rule(
        security_group_id=group.id,
        direction="ingress",
        protocol="tcp",
        port_range_min=22,
        port_range_max=22,
        remote_ip_prefix="192.0.2.7/32",
        ether_type="IPv4",
    )
    site.succeeds("--caller", "192.0.2.7", "up")
    assert site.run("--caller", "192.0.2.7", "plan").code == 0
    site.succeeds("down", "--yes")
    assert site.counts == {"groups": 1}


def test_two_servers_with_our_mark(site: Site) -> None:
    site.declare(SERVER)
    site.succeeds("up")
    first = site.things["servers"][0]
    image, flavor = site.cloud.image.find_image("CC-Ubuntu24.04"), site.cloud.compute.find_flavor("m1.medium")
    second = site.cloud.compute.create_server(
        name="copy",
        image_id=image.id,
        flavor_id=flavor.id,
        metadata={"larder:stack": owner(site)},
        networks=[{"uuid": site.cloud.network.find_network("sharednet1").id}],
    )
    ended = site.run("up")
    assert ended.code == 3 and first in ended.err and second.id in ended.err
    site.succeeds("down", "--yes")
    assert site.counts == {}


def test_credentials_of_others_may_hold_anything(site: Site) -> None:
    site.declare(KEYS)
    for blob in ("[]", '"text"', "{}", '{"access": "a"}'):
        body = {"type": "cert", "user_id": site.user, "project_id": site.project, "blob": blob}
        made = site.cloud.identity.post("/credentials", json={"credential": body}).json()["credential"]
        # Keystone checks credentials that are created as EC2's, but not those that are changed into them. They must be
        # JSON, since it can't list others.
        changed = site.cloud.identity.patch(f"/credentials/{made['id']}", json={"credential": {"type": "ec2"}})
        assert changed.status_code == 200, changed.text
    theirs = site.counts["keys"]
    site.succeeds("credentials", "create")
    site.succeeds("credentials", "revoke", "--yes")
    assert site.counts == {"keys": theirs}


def test_a_bucket_that_somebody_else_makes_meanwhile_stays_theirs(site: Site, wire: Wire) -> None:
    site.declare('[bucket]\nname = "data"\n')

    def theirs_first(request: Any) -> None:
        if request.method == "PUT":
            wire.before = lambda request: None
            site.cloud.object_store.create_container("data", metadata={"owner": "them"})

    wire.before = theirs_first
    ended = site.run("up")
    assert ended.code == 3 and "someone else" in ended.err, ended
    headers = site.cloud.object_store.head("/data").headers
    assert headers["X-Container-Meta-Owner"] == "them" and "X-Container-Meta-Larder-Stack" not in headers
    assert "--adopt" in site.run("up").err and site.run("--adopt", "up").code == 0
    assert site.cloud.object_store.head("/data").headers["X-Container-Meta-Larder-Stack"] == owner(site)
