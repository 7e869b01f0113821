"""The server is replaced, and the rest kept; machines read what is planned and what is there."""

from __future__ import annotations

import json

from provision.commands import EXIT_CHANGES_PENDING
from tests.openstack.conftest import Site
from tests.openstack.declarations import BOOT, SERVER, VOLUME, WHOLE

LEASE = "[lease]\nhours = 1\n"


def test_a_server_is_deleted_and_created_again_on_lease_address_and_volumes(site: Site) -> None:
    site.declare(WHOLE + LEASE)
    assert site.run("server", "delete", "--yes").code == 0
    site.succeeds("up")
    first = site.things
    refused = site.run("server", "delete")
    assert refused.code == 2 and "lease, address and volumes stay" in refused.err and site.things == first
    site.succeeds("server", "delete", "--yes")
    assert site.things == {**first, "servers": []}
    assert site.run("plan").code == EXIT_CHANGES_PENDING
    created = site.succeeds("server", "create").strip()
    second = site.things
    assert second == {**first, "servers": [created]} and created not in first["servers"]
    (volume,), (address,) = site.own("volumes"), site.own("addresses")
    assert volume.attachments[0]["server_id"] == created
    assert site.cloud.network.get_port(address.port_id).device_id == created
    assert site.succeeds("server", "create").strip() == created and site.run("plan").code == 0


def test_server_create_leaves_bucket_and_keys_alone(site: Site) -> None:
    site.declare(WHOLE)
    site.succeeds("server", "create")
    assert site.counts == {"servers": 1, "volumes": 1, "addresses": 1, "groups": 1}
    site.declare(WHOLE.replace("[server]", '[server]\nflavor = "m1.xlarge"'))
    refused = site.run("server", "create")
    assert refused.code == 3 and "its flavor is m1.medium, not m1.xlarge" in refused.err, refused


def test_an_adopted_server_is_not_deleted(site: Site) -> None:
    site.declare(SERVER)
    site.succeeds("up")
    (server,) = site.things["servers"]
    site.cloud.compute.delete_server_metadata(site.cloud.compute.get_server(server), ["larder:stack"])
    assert site.run("server", "delete", "--yes").code == 3
    site.succeeds("--adopt", "up")
    refused = site.run("server", "delete", "--yes")
    assert refused.code == 3 and "created by someone else" in refused.err and site.things["servers"] == [server]


def test_plan_up_and_status_for_machines(site: Site) -> None:
    site.declare(SERVER + VOLUME)
    planned = site.run("plan", "--json")
    shown = json.loads(planned.out)
    assert planned.code == EXIT_CHANGES_PENDING and shown["stack"] == "lab"
    assert [(step["action"], step["kind"], step["name"]) for step in shown["steps"]] == [
        ("create", "volume", "block"),
        ("create", "server", "lab"),
        ("create", "attachment", "block"),
    ]
    assert shown["summary"] == {"create": 3, "change": 0, "delete": 0}
    assert "3 to create, 0 to change, 0 to delete" in site.run("plan").out

    up = json.loads(site.succeeds("up", "--json"))
    assert up["steps"] == shown["steps"] and up["summary"] == shown["summary"]
    assert {thing["kind"]: thing["id"] for thing in up["things"]} == {
        "server": site.things["servers"][0],
        "volume": site.things["volumes"][0],
    }
    status = json.loads(site.succeeds("status", "--json"))
    assert status["things"] == up["things"] and status["stack"] == "lab"
    same = site.run("plan", "--json")
    assert same.code == 0 and json.loads(same.out)["summary"] == {"create": 0, "change": 0, "delete": 0}

    site.declare(SERVER.replace("[server]", '[server]\nflavor = "m1.xlarge"') + VOLUME.replace("gib = 1", "gib = 2"))
    changed = site.run("plan", "--json")
    steps = {step["kind"]: step for step in json.loads(changed.out)["steps"]}
    assert changed.code == EXIT_CHANGES_PENDING
    assert steps["volume"]["changes"] == [{"what": "gib", "old": "1", "new": "2"}]
    assert steps["server"]["action"] == "replace"
    assert steps["server"]["changes"] == [{"what": "flavor", "old": "m1.medium", "new": "m1.xlarge"}]
    assert "2 to create, 1 to change, 1 to delete" in site.run("plan").out
    site.declare(SERVER + BOOT.format("true") + VOLUME)
    assert "its flavor" not in site.run("plan").out and "it starts from its image" in site.run("plan").out
