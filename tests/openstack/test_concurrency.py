"""Two runs of one stack at the same time, on two machines: there is one of each in the end."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import wait_until
from tests.openstack.conftest import Site, Wire
from tests.openstack.declarations import BOOT, KEYS, MADE, SERVER, SHARE, VOLUME, WHOLE

LEASE = "[lease]\nhours = 1\n"


GROUP = '[[security_group]]\nname = "allow-ssh"\nports = [22]\n'


@pytest.mark.parametrize(
    ("path", "declared", "withdraws", "made"),
    [
        ("/security-groups", GROUP, True, {"groups": 1}),
        ("/volumes", VOLUME, True, {"volumes": 1}),
        ("/shares", SHARE, True, {"shares": 1}),
        ("/leases", SERVER + LEASE, True, {"leases": 1, "servers": 1}),
        ("/servers", WHOLE, True, MADE),
        ("/servers", SERVER + LEASE, True, {"leases": 1, "servers": 1}),
        # These can exist only once: the second request is refused, and the run goes on with what the other made.
        ("/servers", SERVER + BOOT.format("false"), False, {"servers": 1, "volumes": 1}),
        ("/floatingips", SERVER + "[floating_ip]\n", False, {"servers": 1, "addresses": 1}),
        ("/credentials", KEYS, False, {"buckets": 1, "keys": 1}),
        ("/data", KEYS, False, {"buckets": 1, "keys": 1}),
        ("/action", SERVER + SHARE, False, {"servers": 1, "shares": 1, "access": 1}),  # the access rule
    ],
    ids=(
        *("group", "volume", "share", "lease", "server of a whole stack", "server on a lease"),
        *("boot volume", "address", "credentials", "bucket", "access rule"),
    ),
)
def test_the_later_of_two_runs_withdraws_what_it_made(
    site: Site,
    wire: Wire,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    declared: str,
    withdraws: bool,
    made: dict[str, int],
) -> None:
    """The other machine's run takes place between our look and our request."""
    site.declare(declared)
    others: list[str] = []

    def other_machine(request: Any) -> None:
        if others or request.method not in ("POST", "PUT") or not request.url.split("?")[0].endswith(path):
            return
        others.append(path)
        monkeypatch.setenv("LARDER_HOME", str(site.folder / "other"))
        run = site.start("up")
        said = run.communicate(timeout=180)
        assert run.returncode == 0, said
        monkeypatch.setenv("LARDER_HOME", str(site.folder / "mine"))

    monkeypatch.setenv("LARDER_HOME", str(site.folder / "mine"))
    wire.before = other_machine
    ended = site.run("up")
    assert others == [path] and site.counts == made
    if withdraws:
        assert ended.code == 3 and "another run created" in ended.err and "deleted its own" in ended.err, ended
    else:
        assert ended.code == 0, ended
    assert site.run("plan").code == 0
    site.succeeds("up")
    assert site.counts == made


def test_two_runs_that_start_together_make_one_of_each(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.declare(WHOLE)
    runs = []
    for machine in ("a", "b"):
        monkeypatch.setenv("LARDER_HOME", str(site.folder / machine))
        runs.append(site.start("up"))
    said = [run.communicate(timeout=180) for run in runs]
    assert {run.returncode for run in runs} <= {0, 3}, said
    site.succeeds("up")
    assert all(count == 1 for count in site.counts.values()) and site.run("plan").code == 0, site.counts


def test_a_second_run_on_this_machine_is_refused(site: Site) -> None:
    site.declare(WHOLE + LEASE)
    first = site.start("up")
    lock = site.folder / ".larder/provision/lab/lock"
    wait_until(lambda: lock.exists() and "process" in lock.read_text(), "the first run has the lock")
    refused = site.run("up")
    assert refused.code == 3 and f"process {first.pid}" in refused.err and "wait until" in refused.err, refused
    assert first.wait(180) == 0, first.communicate()
    site.succeeds("up")
    assert all(count == 1 for count in site.counts.values())
