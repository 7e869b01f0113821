"""Leases: created, extended, ended, and the error if there is no capacity."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest
import requests

from provision import leases
from provision.commands import EXIT_CHANGES_PENDING
from tests.conftest import wait_until
from tests.openstack.conftest import Site, Wire
from tests.openstack.declarations import SERVER, VOLUME


def test_leases(site: Site) -> None:
    site.declare(SERVER + "[lease]\nhours = 1\n")
    assert site.run("plan").code == EXIT_CHANGES_PENDING
    up = site.run("up")
    assert up.code == 0 and "the lease ends in" in up.err, up
    first = site.things
    assert site.counts == {"servers": 1, "leases": 1} and site.run("plan").code == 0
    before = site.leases[0]["end_date"]
    site.succeeds("lease", "extend", "2")
    assert site.leases[0]["end_date"] > before and "warning" not in site.run("status").err
    huge = site.run("lease", "extend", "-1")
    assert huge.code == 2

    # The lease ends meanwhile, and takes the server with it.
    site.cloud.session.delete(f"http://{site.box}:1234/v1/leases/{first['leases'][0]}")
    wait_until(lambda: not site.counts, "the lease has ended, and the server with it")
    assert site.run("plan").code == EXIT_CHANGES_PENDING
    site.succeeds("up")
    assert site.counts == {"servers": 1, "leases": 1} and site.things["leases"] != first["leases"]
    site.succeeds("down", "--yes")
    assert site.counts == {}


def test_a_lease_that_runs_is_kept_whatever_the_clock_here_shows(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.declare(SERVER + "[lease]\nhours = 1\n")
    site.succeeds("up")
    before = site.things

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + timedelta(hours=5)

    monkeypatch.setattr(leases, "datetime", Ahead)
    assert "ends in 0 minutes" in site.run("status").err and site.run("plan").code == 0
    site.succeeds("up")
    assert site.things == before


def test_no_room_for_a_lease(site: Site) -> None:
    huge = f"leasehuge-{site.project[:8]}"
    flavor = site.admin.compute.create_flavor(name=huge, ram=1 << 30, vcpus=1, disk=1)
    site.admin.compute.update_quota_set(site.project, ram=-1)
    site.declare(SERVER.replace("[server]", f'[server]\nflavor = "{huge}"') + "[lease]\nhours = 1\n" + VOLUME)
    ended = site.run("up")
    site.admin.compute.delete_flavor(flavor)
    assert ended.code == 3 and "no capacity" in ended.err and "smaller flavor" in ended.err, ended
    assert site.counts == {"volumes": 1}


def test_a_lease_that_is_too_long_is_refused_with_the_site_s_limit(site: Site) -> None:
    site.declare(SERVER + "[lease]\nhours = 200\n")
    ended = site.run("up")
    assert ended.code == 2 and "maximum lease duration of 604800 seconds" in ended.err, ended
    assert "run the same command again" not in ended.err and site.counts == {}
    site.declare(SERVER + "[lease]\nhours = 1\n")
    site.succeeds("up")
    ended = site.run("lease", "extend", "200")
    assert ended.code == 3 and "maximum lease duration of 604800 seconds" in ended.err, ended
    assert "a retry won't help" in ended.err


def test_a_lease_is_extended_once_although_the_answer_gets_lost(site: Site, wire: Wire) -> None:
    site.declare(SERVER + "[lease]\nhours = 1\n")
    site.succeeds("up")
    before = datetime.fromisoformat(site.leases[0]["end_date"])

    def lose(request: Any) -> Exception | None:
        return requests.exceptions.ConnectionError("lost") if request.method == "PUT" else None

    wire.after = lose
    assert f"ends {before + timedelta(hours=2):%Y-%m-%d %H:%M}" in site.succeeds("lease", "extend", "2")
    wire.after, wire.before = lambda request: None, lose
    ended = site.run("lease", "extend", "2")
    end = before + timedelta(hours=4)
    assert ended.code == 5 and f"extends the lease to {end:%Y-%m-%d %H:%M} UTC, not further" in ended.err, ended
    assert datetime.fromisoformat(site.leases[0]["end_date"]) == before + timedelta(hours=2)
    wire.before = lambda request: None
    for later in (end, end + timedelta(hours=2)):  # the first completes what was lost
        assert f"ends {later:%Y-%m-%d %H:%M}" in site.succeeds("lease", "extend", "2")


def test_doctor_tells_of_room_for_a_lease(
    site: Site, wire: Wire, answers: Callable[..., Callable[[Any], requests.Response]]
) -> None:
    lease = "[lease]\nhours = 2\n"
    site.declare(SERVER + lease)
    assert "this site doesn't tell" in site.succeeds("doctor")
    site.admin.identity.assign_project_role_to_user(site.project, site.user, site.admin.identity.find_role("admin"))
    assert "large enough" in site.succeeds("doctor")

    huge = f"room-{site.project[:8]}"
    flavor = site.admin.compute.create_flavor(name=huge, ram=1 << 30, vcpus=1, disk=1)
    site.declare(SERVER.replace("[server]", f'[server]\nflavor = "{huge}"') + lease)
    ended = site.run("doctor")
    site.admin.compute.delete_flavor(flavor)
    assert ended.code == 3 and "no capacity for the lease" in ended.out, ended

    site.declare(SERVER + lease)
    ids = [host["id"] for host in site.admin.session.get(f"http://{site.box}:1234/v1/os-hosts").json()["hosts"]]
    for hours, says in ((1, "reserved, in part"), (3, "there is capacity: 2 of 2 hosts")):
        start, end = (
            f"{datetime.now(UTC) + timedelta(hours=hours + more):%Y-%m-%dT%H:%M:00.000000}" for more in (0, 9)
        )
        held = [{"lease_id": "l", "id": "r", "start_date": start, "end_date": end}]
        given = answers(200, json.dumps({"allocations": [{"resource_id": id, "reservations": held} for id in ids]}))
        wire.before = lambda request, given=given: given(request) if "/allocations" in request.url else None
        assert says in site.succeeds("doctor")
