"""Shares with real Manila: created, opened to the server, grown, kept, and deleted if named.

That a server mounts them is in test_host_guest.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import requests

from provision.commands import EXIT_CHANGES_PENDING
from tests.conftest import wait_until
from tests.openstack.conftest import ROOT, Site, Wire, kind_of, owner
from tests.openstack.declarations import SERVER, SHARE

pytestmark = pytest.mark.others()  # these tests make those that matter to shares
STACK = SERVER + "[floating_ip]\n" + SHARE


def addresses_of(site: Site) -> set[str]:
    """The addresses of the project's servers, as Neutron has them."""
    network = site.cloud.network
    fixed = {item["ip_address"] for port in network.ports(project_id=site.project) for item in port.fixed_ips}
    return fixed | {item.floating_ip_address for item in site.own("addresses")}


def make_share(site: Site, name: str = "photos", **body: Any) -> Any:
    """A share that someone else makes."""
    manila = site.cloud.shared_file_system
    made = manila.create_share(name=name, size=1, share_protocol="NFS", **body)
    wait_until(lambda: manila.get_share(made.id).status == "available", "the share is available")
    return made


def allow(site: Site, share: str, address: str, level: str = "rw") -> str:
    """An access rule that someone else makes."""
    rule = {"access_type": "ip", "access_to": address, "access_level": level}
    answer = site.cloud.shared_file_system.post(
        f"/shares/{share}/action", json={"allow_access": rule}, microversion="2.45"
    )
    wait_until(lambda: all(item["state"] == "active" for item in site.access_rules), "the rule is active")
    return str(answer.json()["access"]["id"])


def set_quota(site: Site, **quota: int) -> None:
    manila = site.admin.shared_file_system
    answer = manila.put(f"/quota-sets/{site.project}", json={"quota_set": quota}, microversion="2.62")
    assert answer.ok, answer.text


def reset_status(site: Site, id: str, status: str) -> None:
    """What a site's operator does."""
    body = {"reset_status": {"status": status}}
    answer = site.admin.shared_file_system.post(f"/shares/{id}/action", json=body, microversion="2.45")
    assert answer.ok, answer.text


def rule_in(request: Any) -> bytes:
    """The body of a request to add an access rule."""
    body = request.body or b""
    body = body.encode() if isinstance(body, str) else body
    return body if b"allow_access" in body else b""


def test_a_share_from_plan_to_deletion(site: Site) -> None:
    site.declare(STACK)
    planned = site.run("plan")
    assert planned.code == EXIT_CHANGES_PENDING and site.counts == {}
    assert re.search(r"create +share +photos +1 GiB", planned.out) and re.search(r"create +access +photos", planned.out)

    site.succeeds("up")
    made = {"servers": 1, "addresses": 1, "shares": 1, "access": 2}
    assert site.counts == made and site.run("plan").code == 0
    first = site.things
    site.succeeds("up")
    assert site.things == first

    share = site.cloud.shared_file_system.get_share(first["shares"][0])
    assert (share.metadata["larder:stack"], share.metadata["larder:part"]) == (owner(site), "photos")
    rules = site.access_rules
    assert {rule["access_to"] for rule in rules} == addresses_of(site)
    assert all((rule["access_type"], rule["access_level"], rule["state"]) == ("ip", "rw", "active") for rule in rules)
    assert all(rule["metadata"] == {"larder:stack": owner(site)} for rule in rules)

    shown = [thing for thing in json.loads(site.succeeds("status", "--json"))["things"] if thing["kind"] != "server"]
    assert sorted(thing["kind"] for thing in shown) == ["access", "access", "floating IP", "share"]
    steps = {step["kind"]: step for step in json.loads(site.run("plan", "--json").out)["steps"]}
    assert steps["share"]["action"] == steps["access"]["action"] == "keep"

    down = site.succeeds("down", "--yes")
    assert re.search(r"kept:\nshare +photos", down) and re.search(r"delete +access +photos for ", down)
    assert site.counts == {"shares": 1} and site.things["shares"] == first["shares"]
    site.succeeds("up")
    assert site.counts == made and site.things["shares"] == first["shares"]
    unnamed = site.run("down", "--yes", "--delete-data", "other")
    assert unnamed.code == 2 and "no volume, share or bucket" in unnamed.err and site.counts == made
    site.succeeds("down", "--yes", "--delete-data", "photos")
    assert site.counts == {}


def test_share_commands(site: Site) -> None:
    site.declare(SERVER + SHARE)
    assert "no share carries the mark" in site.succeeds("share", "list")
    missing = site.run("share", "grow", "photos")
    assert missing.code == 3 and "doesn't exist yet" in missing.err
    id = site.succeeds("share", "create", "photos").strip()
    assert site.succeeds("share", "create", "photos").strip() == id
    assert site.run("share", "mount", "photos").code == 3  # it declares no mount point
    site.succeeds("up")
    listed = site.succeeds("share", "list")
    assert id in listed and re.search(r"access +photos for 10\.9\.", listed) and site.counts["access"] == 1
    assert "2 GiB" in site.succeeds("share", "grow", "photos", "--gib", "2")
    assert site.cloud.shared_file_system.get_share(id).size == 2
    shrunk = site.run("share", "grow", "photos", "--gib", "1")
    assert shrunk.code == 3 and "aren't shrunk" in shrunk.err
    refused = site.run("share", "delete", "photos", "--yes")
    assert refused.code == 3 and "`share unmount` first" in refused.err and site.counts["shares"] == 1
    site.succeeds("share", "unmount", "photos")
    assert site.counts == {"servers": 1, "shares": 1} and site.run("plan").code == EXIT_CHANGES_PENDING
    theirs = allow(site, id, "192.0.2.7")
    asked = site.run("share", "delete", "photos")
    assert asked.code == 2 and "which 192.0.2.7 may use, too" in asked.err and "not confirmed" in asked.err
    assert [rule["id"] for rule in site.access_rules] == [theirs]
    assert site.run("share", "delete", "photos", typed="photos\n").code == 0
    assert site.counts == {"servers": 1}
    unknown = site.run("share", "create", "photo")
    assert unknown.code == 2 and "declared: photos" in unknown.err


def test_a_share_grows_as_declared(site: Site) -> None:
    site.declare(SHARE)
    site.succeeds("up")
    site.declare(SHARE.replace("gib = 1", "gib = 3"))
    planned = json.loads(site.run("plan", "--json").out)
    assert planned["steps"][0]["changes"] == [{"what": "gib", "old": "1", "new": "3"}]
    site.succeeds("up")
    (share,) = site.cloud.shared_file_system.shares()
    assert share.size == 3 and share.status == "available" and site.run("plan").code == 0
    site.declare(SHARE)
    assert site.run("plan").code == 0  # it has more than declared, as with volumes


def test_a_new_server_gets_the_access_of_the_former_one(site: Site) -> None:
    site.declare(SERVER + SHARE)
    site.succeeds("up")
    (share,) = site.things["shares"]
    theirs = allow(site, share, "192.0.2.7")
    site.succeeds("server", "delete", "--yes")
    assert [rule["id"] for rule in site.access_rules] == [theirs], "the address may be someone else's now"
    site.succeeds("server", "create")
    assert {rule["access_to"] for rule in site.access_rules} == addresses_of(site) | {"192.0.2.7"}
    site.declare(SERVER.replace("[server]", '[server]\nflavor = "m1.xlarge"') + SHARE)
    site.succeeds("up", "--replace")
    assert {rule["access_to"] for rule in site.access_rules} == addresses_of(site) | {"192.0.2.7"}
    assert site.things["shares"] == [share] and site.run("plan").code == 0
    site.succeeds("down", "--yes")
    assert [rule["id"] for rule in site.access_rules] == [theirs] and site.counts == {"shares": 1, "access": 1}


def test_a_rule_of_ours_for_a_former_address_is_replaced(site: Site) -> None:
    site.declare(SERVER + SHARE)
    site.succeeds("up")
    site.declare(STACK)
    planned = site.run("plan")
    assert planned.code == EXIT_CHANGES_PENDING
    site.succeeds("up")
    assert site.counts["access"] == 2
    (address,) = site.own("addresses")
    site.cloud.network.delete_ip(address.id)
    site.declare(SERVER + SHARE)
    planned = site.run("plan")
    assert re.search(rf"change +access +photos +no longer for {address.floating_ip_address}", planned.out), planned
    site.succeeds("up")
    assert {rule["access_to"] for rule in site.access_rules} == addresses_of(site) and site.counts["access"] == 1


def test_a_rule_of_others_that_covers_the_server_is_enough(site: Site, wire: Wire, answers: Callable[..., Any]) -> None:
    """As at Chameleon, where the lease of a storage network gives access after some minutes, and members may not."""
    made: list[str] = []
    forbidden = answers(403, '{"forbidden": {"code": 403, "message": "Policy doesn\'t allow share:allow_access"}}')
    wire.before = lambda request: forbidden(request) if b"larder:stack" in rule_in(request) else None
    site.declare(SERVER + SHARE)
    site.succeeds("share", "create", "photos")
    site.declare(SERVER + SHARE + "[limits]\nshare = 1\n")
    refused = site.run("up")
    assert refused.code == 2 and "Policy doesn't allow" in refused.err and 'usage_type = "storage"' in refused.err
    site.declare(SERVER + SHARE)
    operator = threading.Thread(target=lambda: made.append(allow(site, site.things["shares"][0], "10.9.0.0/16")))

    def forbid(request: Any) -> Any:
        if b"larder:stack" not in rule_in(request):
            return None
        operator.start()
        return forbidden(request)

    wire.before = forbid
    ended = site.run("up")
    operator.join()
    assert ended.code == 0 and "grants access to share photos" in ended.err and "waiting for that" in ended.err, ended
    (theirs,) = made
    assert [rule["id"] for rule in site.access_rules] == [theirs] and site.run("plan").code == 0
    site.succeeds("down", "--yes")
    assert [rule["id"] for rule in site.access_rules] == [theirs]
    wire.before = lambda request: None


def test_a_rule_of_others_for_reading_is_not_enough(site: Site) -> None:
    site.declare(SERVER + SHARE)
    site.succeeds("share", "create", "photos")
    allow(site, site.things["shares"][0], "10.9.0.0/16", "ro")
    site.succeeds("up")
    assert site.counts["access"] == 2


def test_names_of_others(site: Site) -> None:
    theirs = make_share(site)
    site.declare(SERVER + SHARE)
    for command in (["plan"], ["up"], ["share", "create", "photos"]):
        ended = site.run(*command)
        assert ended.code == 3 and theirs.id in ended.err and "--adopt" in ended.err, ended
    assert site.succeeds("down", "--yes") == "" and site.counts == {"shares": 1}
    assert site.cloud.shared_file_system.get_share(theirs.id).metadata == {}
    allow(site, theirs.id, "192.0.2.7")

    other = make_share(site)
    two = site.run("--adopt", "up")
    assert two.code == 3 and theirs.id in two.err and other.id in two.err
    site.cloud.shared_file_system.delete_share(other.id)
    wait_until(lambda: site.counts["shares"] == 1, "the other one is gone")

    assert re.search(r"adopt +share", site.run("--adopt", "plan").out)
    site.succeeds("--adopt", "up")
    adopted = site.cloud.shared_file_system.get_share(theirs.id)
    assert adopted.metadata == {"larder:stack": owner(site), "larder:part": "photos", "larder:adopted": "yes"}
    assert site.counts == {"servers": 1, "shares": 1, "access": 2} and site.run("plan").code == 0
    site.succeeds("down", "--yes")
    assert site.counts == {"shares": 1, "access": 1} and site.access_rules[0]["access_to"] == "192.0.2.7"


def test_a_share_with_the_mark_of_another_stack_stays_theirs(site: Site) -> None:
    theirs = make_share(site, metadata={"larder:stack": "other@12345678", "larder:part": "photos"})
    site.declare(SHARE)
    refused = site.run("--adopt", "up")
    assert refused.code == 3 and "belongs to the stack other" in refused.err
    site.succeeds("up")
    assert site.counts == {"shares": 2}
    site.succeeds("down", "--yes", "--delete-data", "photos")
    assert site.things["shares"] == [theirs.id]


def test_public_shares_of_other_projects_are_not_ours(site: Site, wire: Wire) -> None:
    """Some sites list them, too, whatever mark they carry."""
    theirs = make_share(site, metadata={"larder:stack": owner(site), "larder:part": "photos"})

    def change(request: Any, answer: Any) -> None:
        if request.method == "GET" and "/shares/detail" in request.url:
            answer._content = answer.text.replace(site.project, "f" * 32).encode()

    wire.change = change
    site.declare(SHARE)
    assert "no resource carries the mark" in site.succeeds("status")
    assert re.search(r"create +share", site.run("plan").out)
    wire.change = lambda request, answer: None
    assert site.things["shares"] == [theirs.id]


def test_a_share_that_fails_says_why(site: Site) -> None:
    """There is no room for it: Manila notices that after it has accepted it."""
    set_quota(site, gigabytes=-1, per_share_gigabytes=-1)
    site.declare(SHARE.replace("gib = 1", "gib = 90000"))
    for _ in range(2):
        ended = site.run("up")
        assert ended.code == 5 and "is in error" in ended.err and "No storage could be allocated" in ended.err, ended
    assert site.counts == {"shares": 1} and "`share delete photos`" in ended.err
    assert re.search(r"share +photos +\S+ +error", site.run("status").out)
    site.succeeds("share", "delete", "photos", "--yes")
    site.declare(SHARE)
    site.succeeds("up")
    (id,) = site.things["shares"]
    reset_status(site, id, "error_deleting")
    failed = site.run("down", "--yes", "--delete-data", "photos")
    assert failed.code == 5 and id in failed.err and "error_deleting" in failed.err, failed
    assert site.counts == {"shares": 1}
    reset_status(site, id, "available")
    site.succeeds("down", "--yes", "--delete-data", "photos")
    assert site.counts == {}


def test_a_refusal_of_manila_is_shown_with_its_reason(site: Site) -> None:
    site.declare(SHARE + 'type = "nvme"\n')
    for command in ("plan", "up"):
        ended = site.run(command)
        assert ended.code == 3 and "there is no share type 'nvme'; there are: default" in ended.err, ended
    site.declare(SHARE + 'type = "default"\n')
    site.succeeds("up")
    assert site.run("plan").code == 0


def test_the_quota_of_shares(site: Site) -> None:
    site.declare(SHARE.replace("gib = 1", "gib = 5"))
    for quota, says in (
        ({"gigabytes": 2}, "2 GiB of shares left, 5 needed"),
        ({"gigabytes": 9, "shares": 0}, "0 shares left, 1 needed"),
    ):
        set_quota(site, **quota)
        for command in ("doctor", "up"):
            ended = site.run(command)
            assert ended.code == 3 and says in ended.out + ended.err, ended
    assert site.counts == {}
    set_quota(site, shares=1)
    site.succeeds("up")
    assert "quota is too small" not in site.run("doctor").out
    site.declare(SHARE.replace("gib = 1", "gib = 10"))
    grown = site.run("up")
    assert grown.code == 3 and "4 GiB of shares left, 5 needed" in grown.err


@pytest.mark.parametrize("moment", ["request", "answer"])
def test_connections_lost_at_every_step(site: Site, wire: Wire, moment: str) -> None:
    """Of each kind of changing request to Manila, the first one or its answer gets lost."""
    site.declare(SERVER + SHARE + "[limits]\nshare = 20\n")
    lost: set[str] = set()

    def lose(request: Any) -> Exception | None:
        if request.method == "GET" or ":8786" not in request.url or kind_of(request) in lost:
            return None
        lost.add(kind_of(request))
        return requests.exceptions.ConnectionError("lost")

    def until_done(*words: str) -> None:
        for _ in range(10):
            setattr(wire, "before" if moment == "request" else "after", lose)
            ended = site.run(*words)
            wire.before = wire.after = lambda request: None
            if ended.code == 0:
                return
            assert ended.code == 5 and "next step" in ended.err, ended
        pytest.fail("not done after 10 runs")

    until_done("up")
    assert site.counts == {"servers": 1, "shares": 1, "access": 1} and site.run("plan").code == 0
    site.declare(SERVER + SHARE.replace("gib = 1", "gib = 2"))
    until_done("up")
    assert site.cloud.shared_file_system.get_share(site.things["shares"][0]).size == 2
    until_done("down", "--yes", "--delete-data", "photos")
    assert site.counts == {} and len(lost) == 5, lost


@pytest.mark.parametrize("moment", ["/shares", "allow_access", "deny_access", "DELETE"])
def test_killed_in_the_middle_it_resumes(site: Site, moment: str) -> None:
    """SIGKILL right after Manila has taken a request, whose answer nobody reads."""
    site.declare(SERVER + SHARE)
    words = ("up",) if moment in ("/shares", "allow_access") else ("down", "--yes", "--delete-data", "photos")
    if words[0] == "down":
        site.succeeds("up")
    argv = [sys.executable, "-c", KILLER, moment, *words]
    killed = subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed
    site.succeeds(*words)
    assert site.counts == ({"servers": 1, "shares": 1, "access": 1} if words[0] == "up" else {})
    assert words[0] == "down" or site.run("plan").code == 0


KILLER = """
import os, signal, sys
from requests.adapters import HTTPAdapter
from provision.__main__ import main
moment, *words = sys.argv[1:]
send = HTTPAdapter.send
def sends(self, request, *args, **options):
    answer = send(self, request, *args, **options)
    what = f"{request.method} {request.url} {request.body or ''}"
    if request.method != "GET" and ":8786" in request.url and moment in what:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
HTTPAdapter.send = sends
sys.exit(main(words))
"""
"""Runs a command, and kills it as soon as the request that the first word names was answered."""
