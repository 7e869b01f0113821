"""What a cloud refuses, and what goes wrong on the way: each fault is named with the next step, and nothing leaks."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from typing import Any

import pytest
import requests

from provision.commands import EXIT_CHANGES_PENDING
from tests.openstack.conftest import Site, Wire, kind_of
from tests.openstack.declarations import KEPT, KEYS, MADE, SERVER, VOLUME, WHOLE


def test_a_caller_that_moved_is_let_in_and_the_old_address_shut_out(site: Site) -> None:
    site.declare('[[security_group]]\nname = "allow-ssh"\nports = [22, 8888]\n')
    site.succeeds("--caller", "192.0.2.7", "up")
    planned = site.run("--caller", "198.51.100.0/24", "plan")
    assert planned.code == EXIT_CHANGES_PENDING and "shut out 22 from 192.0.2.7/32" in planned.out
    site.succeeds("--caller", "198.51.100.0/24", "up")
    assert {(rule.port_range_min, rule.remote_ip_prefix) for rule in site.rules} == {
        (22, "198.51.100.0/24"),
        (8888, "198.51.100.0/24"),
    }


def test_a_server_in_error_is_explained_and_replaced_when_asked(site: Site) -> None:
    huge = f"huge-{site.project[:8]}"
    flavor = site.admin.compute.create_flavor(name=huge, ram=1 << 30, vcpus=1, disk=1)
    site.admin.compute.update_quota_set(site.project, ram=-1)
    site.declare(SERVER.replace("[server]", f'[server]\nflavor = "{huge}"'))
    for _ in range(2):
        ended = site.run("up")
        assert ended.code == 5 and "No valid host" in ended.err and "--replace" in ended.err, ended
    assert site.counts == {"servers": 1}
    assert "in ERROR" in site.run("status").err
    site.declare(SERVER)
    assert site.run("plan").code == EXIT_CHANGES_PENDING
    site.succeeds("up", "--replace")
    assert site.counts == {"servers": 1} and site.run("plan").code == 0

    site.admin.compute.reset_server_state(site.things["servers"][0], "error")
    failed = site.run("up")
    assert failed.code == 5 and "end of its console" in failed.err, failed
    site.succeeds("down", "--yes")
    assert site.counts == {}
    site.admin.compute.delete_flavor(flavor)


def test_a_volume_that_is_stuck(site: Site) -> None:
    site.declare(SERVER + VOLUME)
    id = site.succeeds("volume", "create", "block").strip()
    site.admin.block_storage.reset_volume_status(id, status="attaching")
    site.declare(SERVER + VOLUME + "[limits]\nvolume = 2\n")
    stuck = site.run("up")
    site.declare(SERVER + VOLUME)
    assert stuck.code == 5 and "not after 2 s: it is attaching" in stuck.err and id in stuck.err
    site.admin.block_storage.reset_volume_status(id, status="error")
    failed = site.run("up")
    assert failed.code == 5 and "is in error" in failed.err
    kept = site.run("down", "--yes", "--delete-data", "block")
    assert kept.code == 5 and id in kept.err and site.counts == {"volumes": 1}
    site.admin.block_storage.reset_volume_status(id, status="available")
    site.succeeds("down", "--yes", "--delete-data", "block")
    assert site.counts == {}


@pytest.mark.others()  # the answer that it changes has one volume
def test_a_volume_that_an_interrupted_run_is_deleting_is_waited_for(
    site: Site, wire: Wire, answers: Callable[..., Any]
) -> None:
    site.declare(VOLUME)
    id = site.succeeds("volume", "create", "block").strip()
    listed = site.cloud.block_storage.get("/volumes/detail").text
    assert listed.count('"status": "available"') == 1
    being_deleted = answers(200, listed.replace('"status": "available"', '"status": "deleting"'))
    looks = 0

    def look(request: Any) -> Any:
        nonlocal looks
        if request.method != "GET" or "/volumes/detail" not in request.url:
            return None
        looks += 1
        if looks == 1:  # the first of `down`; the second is that of its waiting
            return being_deleted(request)
        wire.before = lambda request: None
        site.admin.block_storage.delete_volume(id)
        return None

    wire.before = look
    site.succeeds("down", "--yes", "--delete-data", "block")
    assert looks == 2 and site.counts == {}
    assert len(wire.made("DELETE")) == 1, "the one of the run before"


LEASED = {"servers": 1, "leases": 1, "addresses": 1}


@pytest.mark.parametrize("moment", ["request", "answer"])
def test_connections_lost_at_every_step(site: Site, wire: Wire, moment: str) -> None:
    """Of each kind of changing request, the first one or its answer gets lost."""
    site.declare(f"{WHOLE}[limits]\nvolume = 20\nserver = 60\nrequest = 5\n")  # what never came is waited for in vain
    lost: set[str] = set()

    def lose(request: Any) -> Exception | None:
        if request.method in ("GET", "HEAD") or kind_of(request) in lost or "/auth/tokens" in request.url:
            return None
        lost.add(kind_of(request))
        return requests.exceptions.ConnectionError("lost")

    def until_done(*words: str) -> None:
        for _ in range(30):
            setattr(wire, "before" if moment == "request" else "after", lose)
            ended = site.run(*words)
            wire.before = wire.after = lambda request: None
            if ended.code == 0:
                return
            assert ended.code == 5 and "next step" in ended.err, ended
        pytest.fail("not done after 30 runs")

    until_done("up")
    assert site.counts == MADE and site.run("plan").code == 0
    until_done("down", "--yes")
    assert site.counts == KEPT and len(lost) >= 10
    until_done("down", "--yes", "--delete-data", "block", "--delete-data", "data")
    until_done("credentials", "revoke", "--yes")
    assert site.counts == {}


def test_reading_is_repeated_and_making_is_not(
    site: Site, wire: Wire, answers: Callable[..., Callable[[Any], requests.Response]]
) -> None:
    site.declare(VOLUME)
    failing = {"GET": 2, "POST": 1}

    def fail(request: Any) -> requests.Response | None:
        if "8776" not in request.url or not failing.get(request.method):
            return None
        failing[request.method] -= 1
        return answers(503, "busy")(request)

    wire.before = fail
    ended = site.run("up")
    assert ended.code == 5 and "503" in ended.err and failing == {"GET": 0, "POST": 0}
    assert len(wire.made("POST")) == 1
    site.succeeds("up")
    assert site.counts == {"volumes": 1}


def test_a_bulk_delete_that_fails_in_part(
    site: Site, wire: Wire, answers: Callable[..., Callable[[Any], requests.Response]]
) -> None:
    site.declare('[bucket]\nname = "data"\n')
    site.succeeds("up")
    for number in range(3):
        site.cloud.object_store.upload_object("data", f"k{number}", data=b"x")
    body = '{"Response Status": "400 Bad Request", "Number Deleted": 2, "Errors": [["data/k1", "503 Unavailable"]]}'
    wire.before = lambda request: answers(200, body)(request) if "bulk-delete" in request.url else None
    ended = site.run("bucket", "empty", "--yes")
    assert ended.code == 5 and "k1: 503 Unavailable" in ended.err
    wire.before = lambda request: answers(405, "no")(request) if "bulk-delete" in request.url else None
    assert "3 objects deleted" in site.succeeds("bucket", "empty", "--yes")
    wire.before = lambda request: None
    site.succeeds("down", "--yes", "--delete-data", "data")
    assert site.counts == {}


@pytest.mark.parametrize(
    ("declared", "data", "made", "left"),
    [
        (WHOLE, ("--delete-data", "block", "--delete-data", "data"), MADE, {"keys": 1}),
        (SERVER + "[lease]\nhours = 1\n[floating_ip]\nreserve = true\n", (), LEASED, {}),
    ],
    ids=["whole", "lease"],
)
def test_interrupted_at_random_moments(
    site: Site, declared: str, data: tuple[str, ...], made: dict[str, int], left: dict[str, int]
) -> None:
    """Press Ctrl-C again and again during `up` and `down`: nothing is created twice, and nothing is left."""
    site.declare(declared)
    chance = random.Random(7)
    ends = set()
    for words in (("up",), ("down", "--yes", *data)):
        for _ in range(4):
            process = site.start(*words)
            try:
                process.wait(2 + 6 * chance.random())
            except Exception:
                process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=120)
            assert process.returncode in (0, 130, -signal.SIGINT), said
            ends.add(process.returncode)
            if words[0] == "up":
                assert all(count == 1 for count in site.counts.values()), site.counts
            if process.returncode == 0:
                break
        site.succeeds(*words)
        assert site.counts == (made if words[0] == "up" else left)
    assert 130 in ends


def test_revoking_goes_on_where_it_failed(
    site: Site, wire: Wire, answers: Callable[..., Callable[[Any], requests.Response]]
) -> None:
    site.declare(KEYS)
    env, remotes = site.folder / ".env", site.folder / "rclone.conf"
    env.write_text("LARDER_SEED=7\n")
    site.succeeds("credentials", "create")
    before = env.read_text(), remotes.read_text()

    wire.before = lambda request: answers(503, "busy")(request) if request.method == "DELETE" else None
    assert site.run("credentials", "revoke", "--yes").code == 5
    assert (env.read_text(), remotes.read_text()) == before and site.counts == {"keys": 1}
    wire.before = lambda request: None

    remotes.write_text("RCLONE_ENCRYPT_V0:\nx\n")
    assert site.run("credentials", "revoke", "--yes").code == 2
    assert site.counts == {} and env.read_text() == before[0]
    remotes.write_text(before[1])
    site.succeeds("credentials", "revoke", "--yes")
    assert env.read_text() == "LARDER_SEED=7\n" and "larder" not in remotes.read_text()
    assert "no S3 keys" in site.run("credentials", "revoke", "--yes").err
