"""Sites that don't offer every service: noted once, and an error only if the declaration needs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from provision.commands import EXIT_CHANGES_PENDING
from tests.openstack.conftest import Site, Wire
from tests.openstack.declarations import BOOT, KEYS, SERVER, SHARE, VOLUME, WHOLE

TYPES = {
    "volumes": {"block-storage", "volumev3"},
    "shares": {"share", "sharev2"},
    "leases": {"reservation"},
    "buckets": {"object-store"},
    "images": {"image"},
    "networks": {"network"},
    "servers": {"compute"},
    "S3 keys": {"identity"},
}
"""The types of a service in the box's catalog."""


def without(*services: str) -> Callable[[Any, Any], None]:
    """Take services out of the catalog that Keystone sends with a token."""
    types = {kind for service in services for kind in TYPES[service]}

    def change(request: Any, answer: Any) -> None:
        if request.method == "POST" and request.url.endswith("/auth/tokens"):
            body = answer.json()
            body["token"]["catalog"] = [item for item in body["token"]["catalog"] if item["type"] not in types]
            answer._content = json.dumps(body).encode()

    return change


@pytest.fixture(params=["second region", "no Cinder anywhere"])
def bare_metal(request: pytest.FixtureRequest, site: Site, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site without volumes: a region of the box, or the first region without Cinder in the catalog at all."""
    if request.param == "second region":
        monkeypatch.setenv("OS_REGION_NAME", "RegionTwo")
    else:
        wire.change = without("volumes")
    return site


def test_a_server_lives_and_dies_where_there_are_no_volumes(bare_metal: Site) -> None:
    bare_metal.declare(SERVER + "[floating_ip]\n")
    assert "all but volumes" in bare_metal.succeeds("doctor") and bare_metal.run("plan").code == EXIT_CHANGES_PENDING
    up = bare_metal.run("up")
    assert up.code == 0 and up.err.count("offers no volumes") == 1, up
    assert bare_metal.counts == {"servers": 1, "addresses": 1} and bare_metal.run("plan").code == 0
    shown = bare_metal.run("status", "--json")
    assert shown.code == 0 and json.loads(shown.out)["unseen"] == [], shown
    assert "no volumes" in json.loads(shown.out)["not_offered"][0]
    bare_metal.declare(SERVER.replace("[server]", '[server]\nflavor = "m1.xlarge"'))
    bare_metal.succeeds("up", "--replace")
    down = bare_metal.run("down", "--yes")
    assert down.code == 0 and down.err.count("offers no volumes") == 1 and bare_metal.counts == {}, down


def test_shares_where_there_are_none_are_refused_before_anything_is_made(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_REGION_NAME", "RegionTwo")
    site.declare(SERVER + SHARE)
    for command in (["doctor"], ["plan"], ["up"], ["share", "list"], ["share", "create", "photos"]):
        ended = site.run(*command)
        said = ended.out + ended.err
        assert ended.code == 2 and said.count("offers no shares") == 1 and "'shared-file-system'" in said, ended
    assert site.counts == {}


@pytest.mark.parametrize("declared", [SERVER + VOLUME, SERVER + BOOT.format("true")], ids=["volume", "boot volume"])
def test_volumes_where_there_are_none_are_refused_before_anything_is_made(bare_metal: Site, declared: str) -> None:
    bare_metal.declare(declared)
    for command in ("doctor", "plan", "up"):
        ended = bare_metal.run(command)
        said = ended.out + ended.err
        assert ended.code == 2 and said.count("offers no volumes") == 1 and "'block-storage'" in said, ended
    assert bare_metal.counts == {}


def test_each_service_may_be_missing_from_the_catalog(site: Site, wire: Wire) -> None:
    site.declare(WHOLE + SHARE)
    site.succeeds("up")
    made = site.things
    for service in TYPES:
        wire.change = without(service)
        shown = site.run("status", "--json")
        assert shown.code == 0, shown
        assert json.loads(shown.out)["not_offered"] == [f"the cloud of OS_CLOUD or OS_* offers no {service}"]
        for command in ("doctor", "up"):
            ended = site.run(command)
            said = ended.out + ended.err
            assert said.count(f"offers no {service}") == (service != "leases" or command == "up"), ended
            assert ended.code == (0 if service == "leases" else 2), ended
        assert site.things == made
    wire.change = without(*TYPES)
    assert "no resource carries the mark" in site.run("status").out and site.run("down", "--yes").code == 0
    assert site.things == made
    wire.change = without("volumes", "leases", "images")
    site.succeeds("down", "--yes", "--delete-data", "data")
    assert site.counts == {"volumes": 1, "shares": 1, "keys": 1}


def test_keys_and_buckets_are_elsewhere(site: Site, wire: Wire) -> None:
    site.declare(KEYS)
    wire.change = without("servers", "networks", "images", "volumes", "shares", "leases")
    site.succeeds("up")
    site.succeeds("down", "--yes", "--delete-data", "data")
    site.succeeds("credentials", "revoke", "--yes")
    assert site.counts == {}
