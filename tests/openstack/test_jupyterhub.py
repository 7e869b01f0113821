"""In a JupyterHub, as Chameleon runs it: its access token is the login at two sites, and it isn't one's computer."""

from __future__ import annotations

import pytest

from tests.openstack.conftest import Site, s3_of
from tests.openstack.declarations import KEYS, SERVER, VOLUME
from tests.openstack.federation import Front

GROUP = '[[security_group]]\nname = "allow-ssh"\nports = [22]\n'


def sites(fronts: list[Front]) -> str:
    places = [f'{{ auth_url = "{front.address}/v3", region = "RegionOne" }}' for front in fronts]
    return f"[sites]\ncompute = {places[0]}\nobjects = {places[1]}\n"


def logins(front: Front) -> int:
    return sum("/OS-FEDERATION/" in path for path in front.seen)


def test_one_login_serves_two_sites(site: Site, fronts: list[Front]) -> None:
    site.declare(sites(fronts) + SERVER + VOLUME + KEYS)
    said = site.succeeds("doctor")
    assert all(f"log in (the cloud at {front.address}/v3, region RegionOne)" in said for front in fronts), said
    site.succeeds("up")
    assert site.counts == {"servers": 1, "volumes": 1, "buckets": 1, "keys": 1}
    s3_of(site).put_object(Bucket="data", Key="k", Body=b"x")
    assert site.run("plan").code == 0
    assert [logins(front) for front in fronts] == [3, 3]  # one for each command
    site.succeeds("down", "--yes", "--delete-data", "block", "--delete-data", "data")
    site.succeeds("credentials", "revoke", "--yes")
    assert site.counts == {}


@pytest.mark.parametrize("page", [False, True], ids=["refused", "login page"])
def test_an_expired_token_needs_a_new_login(site: Site, fronts: list[Front], page: bool) -> None:
    site.declare(sites(fronts) + SERVER)
    for front in fronts:
        front.users.clear()
        front.leads_to_a_page = page
    for command in ("doctor", "up", "status"):
        ended = site.run(command)
        said = ended.out + ended.err
        assert ended.code == 2 and "expired" in said and "Hub Control Panel" in said, ended
        assert "first" not in said and "run the same command again" not in said
    assert site.counts == {}


def test_the_hub_renews_an_expired_token(site: Site, fronts: list[Front], hub: Front) -> None:
    site.declare(sites(fronts) + SERVER)
    for front in fronts:
        front.users = {"second": site.environ["OS_USERNAME"]}
    hub.hub_users["own"]["auth_state"]["access_token"] = "second"
    assert "fault  " not in site.succeeds("doctor")
    hub.hub_users.clear()
    ended = site.run("status")
    assert ended.code == 2 and "the JupyterHub gives no new one: HTTP Error 403" in ended.err, ended


def test_a_login_without_a_project_names_the_projects(
    site: Site, fronts: list[Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    site.declare(sites(fronts) + SERVER)
    monkeypatch.delenv("OS_PROJECT_NAME")
    body = {"user": {"default_project_id": None}}  # Chameleon's users have none; openstacksdk doesn't send None
    site.admin.identity.patch(f"/users/{site.user}", json=body).raise_for_status()
    ended = site.run("up")
    assert ended.code == 2 and f"has: {site.environ['OS_PROJECT_NAME']}" in ended.err, ended
    assert "set OS_PROJECT_NAME" in ended.err


def test_at_a_hub_nobody_is_admitted_who_is_not_named(
    site: Site, fronts: list[Front], hub: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.declare(sites(fronts) + SERVER + GROUP)
    monkeypatch.delenv("LARDER_CALLER")
    for command in ("doctor", "up"):
        ended = site.run(command)
        assert ended.code == 2 and "LARDER_CALLER=here,192.0.2.7" in ended.out + ended.err, ended
    assert site.counts == {}
    monkeypatch.setenv("LARDER_CALLER", "here,192.0.2.7")
    site.succeeds("up")
    (group,) = map(site.cloud.network.get_security_group, site.things["groups"])
    sources = {rule["remote_ip_prefix"] for rule in group.security_group_rules if rule["direction"] == "ingress"}
    assert sources == {"127.0.0.1/32", "192.0.2.7/32"}
    assert site.run("plan").code == 0
