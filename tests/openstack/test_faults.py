"""What a cloud refuses, and what goes wrong on the way: each fault is named with the next step, and nothing leaks."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from tests.openstack.conftest import Site, Wire, owner
from tests.openstack.test_life import KEPT, MADE, WHOLE

SERVER = '[server]\nkey = "laptop"\nsecurity_groups = ["default"]\n'
VOLUME = '[[volume]]\nname = "block"\ngib = 1\n'


@pytest.mark.parametrize(
    ("variables", "declared", "code", "says"),
    [
        ({"OS_PASSWORD": "wrong"}, SERVER, 2, "the password is wrong"),
        ({"OS_REGION_NAME": "Elsewhere"}, SERVER, 2, "RegionOne"),
        ({"OS_AUTH_URL": "http://127.0.0.1:9/v3"}, SERVER, 5, "no connection"),
        ({"OS_CLOUD": "nowhere"}, SERVER, 2, "clouds.yaml"),
        ({}, SERVER.replace("[server]", '[server]\nimage = "Debian"'), 3, "there are: CC-Ubuntu24.04"),
        ({}, SERVER.replace("[server]", '[server]\nflavor = "m9"'), 3, "m1.medium"),
        ({}, SERVER.replace("[server]", '[server]\nnetwork = "mine"'), 3, "sharednet1"),
        ({}, SERVER.replace("laptop", "desktop"), 3, "there are: laptop"),
        ({}, SERVER.replace("default", "allow-all"), 3, "security group 'allow-all'"),
    ],
    ids=["password", "region", "address", "cloud", "image", "flavor", "network", "key", "security group"],
)
def test_what_is_missing_is_named_before_anything_is_made(
    site: Site, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], declared: str, code: int, says: str
) -> None:
    site.declare(declared + VOLUME)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for command in ("up", "doctor"):
        ended = site.run(command)
        assert ended.code == code and says in ended.out + ended.err, ended
        assert "next step" in ended.out + ended.err
    assert site.counts == {}


def test_doctor_says_what_is_in_order(site: Site) -> None:
    site.declare(WHOLE + "[lease]\nhours = 1\n")
    said = site.succeeds("doctor")
    assert "by password" in said and "fault" not in said and "quota" in said
    assert site.counts == {}


@pytest.mark.parametrize("kind", ["restricted", "expired"])
def test_application_credentials(site: Site, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    expires = datetime.now(UTC) + timedelta(seconds=3 if kind == "expired" else 3600)
    made = site.cloud.identity.create_application_credential(
        site.user, name="c", expires_at=expires.strftime("%Y-%m-%dT%H:%M:%S.000000")
    )
    kept = ("OS_AUTH_URL", "OS_REGION_NAME")
    for name in [name for name in os.environ if name.startswith("OS_") and name not in kept]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OS_AUTH_TYPE", "v3applicationcredential")
    monkeypatch.setenv("OS_APPLICATION_CREDENTIAL_ID", made.id)
    monkeypatch.setenv("OS_APPLICATION_CREDENTIAL_SECRET", made.secret)
    site.declare('[bucket]\nname = "data"\n[credentials]\nrclone_config = "rclone.conf"\n')
    if kind == "expired":
        time.sleep(max(0.0, (expires - datetime.now(UTC)).total_seconds()) + 1)
        ended = site.run("up")
        assert ended.code == 2 and "expired" in ended.err
    else:
        ended = site.run("credentials", "create")
        assert ended.code == 2 and "restricted" in ended.err and "unrestricted" in ended.err
        assert "application credential" in site.run("doctor").out
    assert not (site.folder / ".env").exists() and site.counts == {}


def test_quota(site: Site) -> None:
    site.declare(SERVER + VOLUME.replace("gib = 1", "gib = 5"))
    site.admin.block_storage.update_quota_set(site.project, gigabytes=2)
    for command in ("doctor", "up"):
        ended = site.run(command)
        assert ended.code == 3 and "quota" in ended.out + ended.err, ended
    assert site.counts == {}
    site.admin.block_storage.update_quota_set(site.project, gigabytes=10)
    site.admin.compute.update_quota_set(site.project, cores=1)
    ended = site.run("up")
    assert ended.code == 3 and "quota" in ended.err and site.counts == {"volumes": 1}
    site.admin.compute.update_quota_set(site.project, cores=8)
    site.succeeds("up")
    assert site.counts == {"servers": 1, "volumes": 1}


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


def test_a_security_group_of_others_is_used_and_never_changed(site: Site) -> None:
    site.declare(SERVER.replace("default", "allow-ssh") + '[[security_group]]\nname = "allow-ssh"\nports = [22]\n')
    group = site.cloud.network.create_security_group(name="allow-ssh")
    ended = site.run("up")
    assert ended.code == 3 and group.id in ended.err and site.counts == {"groups": 1}
    site.cloud.network.create_security_group_rule(
        security_group_id=group.id, direction="ingress", protocol="tcp", port_range_min=22, port_range_max=22,
        remote_ip_prefix="192.0.2.7/32", ether_type="IPv4",
    )  # fmt: skip
    site.succeeds("--caller", "192.0.2.7", "up")
    assert site.run("--caller", "192.0.2.7", "plan").code == 0
    site.succeeds("down", "--yes")
    assert site.counts == {"groups": 1}


def test_a_caller_that_moved_is_let_in_and_the_old_address_shut_out(site: Site) -> None:
    site.declare('[[security_group]]\nname = "allow-ssh"\nports = [22, 8888]\n')
    site.succeeds("--caller", "192.0.2.7", "up")
    planned = site.run("--caller", "198.51.100.0/24", "plan")
    assert planned.code == 2 and "shut out 22 from 192.0.2.7/32" in planned.out
    site.succeeds("--caller", "198.51.100.0/24", "up")
    rules = site.cloud.network.security_group_rules(project_id=site.project, direction="ingress", protocol="tcp")
    assert {(rule.port_range_min, rule.remote_ip_prefix) for rule in rules} == {
        (22, "198.51.100.0/24"), (8888, "198.51.100.0/24")
    }  # fmt: skip


def test_two_servers_with_our_mark(site: Site) -> None:
    site.declare(SERVER)
    site.succeeds("up")
    first = site.things["servers"][0]
    image, flavor = site.cloud.image.find_image("CC-Ubuntu24.04"), site.cloud.compute.find_flavor("m1.medium")
    second = site.cloud.compute.create_server(
        name="copy", image_id=image.id, flavor_id=flavor.id, metadata={"larder:stack": owner(site)},
        networks=[{"uuid": site.cloud.network.find_network("sharednet1").id}],
    )  # fmt: skip
    ended = site.run("up")
    assert ended.code == 3 and first in ended.err and second.id in ended.err
    site.succeeds("down", "--yes")
    assert site.counts == {}


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
    assert site.run("plan").code == 2
    site.succeeds("up", "--replace")
    assert site.counts == {"servers": 1} and site.run("plan").code == 0

    site.admin.compute.reset_server_state(site.things["servers"][0], "error")
    failed = site.run("up")
    assert failed.code == 5 and "end of its console" in failed.err, failed
    site.succeeds("down", "--yes")
    assert site.counts == {}
    site.admin.compute.delete_flavor(flavor)


def test_a_volume_that_is_stuck(site: Site) -> None:
    site.declare(SERVER + VOLUME + "[limits]\nvolume = 2\n")
    id = site.succeeds("volume", "create", "block").strip()
    site.admin.block_storage.reset_volume_status(id, status="attaching")
    stuck = site.run("up")
    assert stuck.code == 5 and "not after 2 s: it is attaching" in stuck.err and id in stuck.err
    site.admin.block_storage.reset_volume_status(id, status="error")
    failed = site.run("up")
    assert failed.code == 5 and "is in error" in failed.err
    kept = site.run("down", "--yes", "--delete-data", "block")
    assert kept.code == 5 and id in kept.err and site.counts == {"volumes": 1}
    site.admin.block_storage.reset_volume_status(id, status="available")
    site.succeeds("down", "--yes", "--delete-data", "block")
    assert site.counts == {}


def test_leases(site: Site) -> None:
    site.declare(SERVER + "[lease]\nhours = 1\n")
    assert site.run("plan").code == 2
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
    end = time.monotonic() + 60
    while site.counts and time.monotonic() < end:
        time.sleep(0.2)
    assert site.run("plan").code == 2
    site.succeeds("up")
    assert site.counts == {"servers": 1, "leases": 1} and site.things["leases"] != first["leases"]
    site.succeeds("down", "--yes")
    assert site.counts == {}


def test_no_room_for_a_lease(site: Site) -> None:
    huge = f"leasehuge-{site.project[:8]}"
    flavor = site.admin.compute.create_flavor(name=huge, ram=1 << 30, vcpus=1, disk=1)
    site.declare(SERVER.replace("[server]", f'[server]\nflavor = "{huge}"') + "[lease]\nhours = 1\n" + VOLUME)
    ended = site.run("up")
    site.admin.compute.delete_flavor(flavor)
    assert ended.code == 3 and "no room" in ended.err and "smaller flavor" in ended.err, ended
    assert site.counts == {"volumes": 1}


def _kind(request: Any) -> str:
    """What a request is about, without ids."""
    words = [word for word in request.url.split("?")[0].split("/")[3:] if len(word) < 30]
    return f"{request.method} {'/'.join(words)} {(request.body or b'')[:30]!r}"


@pytest.mark.parametrize("moment", ["request", "answer"])
def test_connections_lost_at_every_step(site: Site, wire: Wire, moment: str) -> None:
    """The first of each kind of request that changes something gets lost, or its answer does."""
    site.declare(f"{WHOLE}[limits]\nvolume = 20\nserver = 60\n")  # what never came is waited for in vain
    lost: set[str] = set()

    def lose(request: Any) -> Exception | None:
        if request.method in ("GET", "HEAD") or _kind(request) in lost or "/auth/tokens" in request.url:
            return None
        lost.add(_kind(request))
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


def test_interrupted_at_random_moments(site: Site) -> None:
    """Ctrl-C while `up` works, while `down` works, again and again: nothing is doubled, nothing is left."""
    site.declare(WHOLE)
    chance = random.Random(7)
    ends = set()
    for words in (("up",), ("down", "--yes", "--delete-data", "block", "--delete-data", "data")):
        for _ in range(4):
            process = site.start(*words)
            try:
                process.wait(2 + 6 * chance.random())
            except Exception:
                process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=120)[0]
            assert process.returncode in (0, 130, -signal.SIGINT), said
            ends.add(process.returncode)
            if words[0] == "up":
                assert all(count == 1 for count in site.counts.values()), site.counts
            if process.returncode == 0:
                break
        site.succeeds(*words)
        assert site.counts == (MADE if words[0] == "up" else {"keys": 1})
    assert 130 in ends


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
    assert ended.code == 5 and f"`status` whether the lease ends at {end:%Y-%m-%d %H:%M}" in ended.err, ended
    assert datetime.fromisoformat(site.leases[0]["end_date"]) == before + timedelta(hours=2)


KEYS = '[bucket]\nname = "data"\n[credentials]\nrclone_config = "rclone.conf"\n'


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


def test_credentials_of_others_may_hold_anything(site: Site) -> None:
    site.declare(KEYS)
    for blob in ("[]", '"text"', "{}", '{"access": "a"}'):
        body = {"type": "cert", "user_id": site.user, "project_id": site.project, "blob": blob}
        made = site.cloud.identity.post("/credentials", json={"credential": body}).json()["credential"]
        # Keystone checks what it is given as EC2's, but not what becomes it. What is no JSON it can't list itself.
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
    assert ended.code == 3 and "somebody else" in ended.err, ended
    headers = site.cloud.object_store.head("/data").headers
    assert headers["X-Container-Meta-Owner"] == "them" and "X-Container-Meta-Larder-Stack" not in headers
    assert "--adopt" in site.run("up").err and site.run("--adopt", "up").code == 0
    assert site.cloud.object_store.head("/data").headers["X-Container-Meta-Larder-Stack"] == owner(site)


BOOT = "[server.boot_volume]\ngib = 3\ndelete_on_termination = {}\n"
GROUP = '[[security_group]]\nname = "allow-ssh"\nports = [22]\n'


@pytest.mark.parametrize(
    ("declared", "service", "quota", "says"),
    [
        (SERVER + BOOT.format("true"), "block_storage", {"gigabytes": 2}, "2 GiB of volumes left, 3 needed"),
        (SERVER + BOOT.format("false"), "block_storage", {"volumes": 0}, "0 volumes left, 1 needed"),
        (SERVER + "[floating_ip]\n", "network", {"floating_ips": 0}, "0 floating IPs left, 1 needed"),
        (GROUP, "network", {"security_groups": 1}, "0 security groups left, 1 needed"),
    ],
    ids=["boot volume", "boot volume that stays", "floating IP", "security group"],
)
def test_doctor_counts_what_up_would_make(
    site: Site, declared: str, service: str, quota: dict[str, int], says: str
) -> None:
    site.declare(declared)
    api = getattr(site.admin, service)
    limit = api.update_quota_set if service == "block_storage" else api.update_quota
    limit(site.project, **quota)
    ended = site.run("doctor")
    assert ended.code == 3 and says in ended.out, ended
    limit(site.project, **dict.fromkeys(quota, -1))
    assert "without limit" in site.succeeds("doctor")
    limit(site.project, **{name: count + 3 for name, count in quota.items()})
    site.succeeds("up")
    overdrawn = service == "network"  # Cinder takes no quota below what is used
    limit(site.project, **{name: count if overdrawn else count + 1 for name, count in quota.items()})
    assert "quota is too small" not in site.run("doctor").out  # since it needs nothing more


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
    assert ended.code == 3 and "no room for the lease" in ended.out, ended

    site.declare(SERVER + lease)
    for hours, says in ((1, "reserved, in part"), (3, "there is room: 1 of 1 hosts")):
        start, end = (
            f"{datetime.now(UTC) + timedelta(hours=hours + more):%Y-%m-%dT%H:%M:00.000000}" for more in (0, 9)
        )
        held = [{"lease_id": "l", "id": "r", "start_date": start, "end_date": end}]
        given = answers(200, json.dumps({"allocations": [{"resource_id": "1", "reservations": held}]}))
        wire.before = lambda request, given=given: given(request) if "/allocations" in request.url else None
        assert says in site.succeeds("doctor")
