"""Commands killed by SIGKILL: the next run converges, creates nothing twice, and leaves nothing behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest

from tests.openstack.conftest import Site, s3_of
from tests.openstack.declarations import BOOT, KEYS, MADE, NODE, SERVER, SHARE, VOLUME, WHOLE
from tests.openstack.foreign import ALL
from tests.openstack.slow_cloud import slow_cloud

LEASE = "[lease]\nhours = 1\n"
ADDRESS = "[floating_ip]\n"
GROUP = '[[security_group]]\nname = "allow-ssh"\nports = [22]\n'
UP = ("up",)
DOWN = ("down", "--yes", "--delete-data", "block")
BUCKET = '[bucket]\nname = "data"\n'


# --- a request in flight ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_line", "declared", "again", "left"),
    [
        ("POST /security-groups", GROUP, UP, {"groups": 1}),
        ("POST /volumes", VOLUME, UP, {"volumes": 1}),
        ("POST /volumes", SERVER + BOOT.format("false"), UP, {"servers": 1, "volumes": 1}),
        ("POST /servers", SERVER, UP, {"servers": 1}),
        ("POST /leases", SERVER + LEASE, UP, {"servers": 1, "leases": 1}),
        ("POST /floatingips", SERVER + ADDRESS, UP, {"servers": 1, "addresses": 1}),
        ("POST /shares", SHARE, UP, {"shares": 1}),
        ("PUT /data", BUCKET, UP, {"buckets": 1}),
        ("POST /credentials", KEYS, UP, {"buckets": 1, "keys": 1}),
        ("POST /security-groups", GROUP, DOWN[:2], {}),
        ("POST /volumes", VOLUME, DOWN, {}),
        ("POST /servers", SERVER, DOWN[:2], {}),
        ("POST /leases", SERVER + LEASE, DOWN[:2], {}),
        ("POST /floatingips", SERVER + ADDRESS, DOWN[:2], {}),
        ("PUT /data", BUCKET, ("bucket", "delete", "--yes"), {}),
        ("POST /credentials", KEYS, ("credentials", "revoke", "--yes"), {"buckets": 1}),
    ],
)
def test_what_a_killed_run_has_in_flight_is_waited_for(
    site: Site, request_line: str, declared: str, again: tuple[str, ...], left: dict[str, int]
) -> None:
    """The request is on its way when its sender dies, and reaches the cloud while the next command looks around."""
    site.declare(declared)
    with slow_cloud(*request_line.split()) as cloud:
        first = site.start("up", environ=cloud.environ)
        assert cloud.arrived.wait(120), first.communicate()
        first.kill()
        first.wait()
        second, said = site.start(*again), ""
        for line in second.stderr:
            said += line
            if "an interrupted run asked for the" in line:
                cloud.released.set()
        cloud.released.set()
        said += "".join(second.communicate(timeout=120)[:1])
        assert second.returncode == 0 and "an interrupted run asked for the" in said, said
    assert cloud.statuses and cloud.statuses[0] < 300
    assert site.counts == left
    if again == UP:
        assert site.run("plan").code == 0


# --- killed at random moments -----------------------------------------------------------------------------------------

KILLS = int(os.environ.get("LARDER_TEST_KILLS", "5"))
"""Of each command; 20 of them take too long for every run of the tier."""


class Killer:
    """Kills commands at moments that are spread over the time of a whole one, and runs each again."""

    def __init__(self, site: Site) -> None:
        self.seed = int(os.environ.get("LARDER_TEST_SEED") or time.time())
        self.killed: dict[tuple[str, ...], int] = {}
        self._site = site
        self._moments = random.Random(self.seed)
        self._seconds: dict[tuple[str, ...], float] = {}

    def __str__(self) -> str:
        return f"LARDER_TEST_SEED={self.seed}; killed: {self.killed}"

    @property
    def is_done(self) -> bool:
        """Whether each command that has run was killed often enough."""
        return bool(self.killed) and min(self.killed.values()) >= KILLS

    def run(self, *words: str) -> str:
        """Kill a command at some moment, and run it to its end; the first time, only measure it. Return its output."""
        name = words[:2]
        if name not in self._seconds:
            return self._measure(name, words)
        process, begin = self._site.start(*words), time.monotonic()
        try:
            process.wait(self._moments.uniform(0, self._seconds[name]))
            self._seconds[name] = time.monotonic() - begin  # less than it took the first time: the machine is less busy
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.killed[name] += 1
        said, errors = process.communicate(timeout=60)
        assert process.returncode in (0, -signal.SIGKILL), (str(self), errors)
        if said and name == ("lease", "extend"):  # it had come to its end, and a second run would extend further
            return said
        ended = self._site.run(*words)
        assert ended.code == 0, (str(self), words, ended.err)
        return ended.out

    def _measure(self, name: tuple[str, ...], words: tuple[str, ...]) -> str:
        begin = time.monotonic()
        process = self._site.start(*words)
        said, errors = process.communicate(timeout=180)
        self._seconds[name], self.killed[name] = time.monotonic() - begin, 0
        assert process.returncode == 0, errors
        return said

    def expect(self, counts: dict[str, int]) -> None:
        """Fail unless the project has exactly these resources, and those of others are as they were."""
        assert self._site.counts == counts, (str(self), self._site.counts)


@pytest.fixture
def killer(site: Site) -> Iterator[Killer]:
    made = Killer(site)
    yield made
    print(made)  # pytest -rP shows it


def up_and_down(site: Site, killer: Killer, data: tuple[str, ...], made: dict[str, int], left: dict[str, int]) -> None:
    while not killer.is_done:
        killer.run("up")
        killer.expect(made)
        killer.run("down", "--yes", *data)
        killer.expect(left)


@pytest.mark.others(*ALL)
def test_killed_up_and_down(site: Site, killer: Killer) -> None:
    site.declare(WHOLE)
    up_and_down(site, killer, ("--delete-data", "block", "--delete-data", "data"), MADE, {"keys": 1})


@pytest.mark.others(*ALL)
def test_killed_up_and_down_with_a_lease(site: Site, killer: Killer) -> None:
    site.declare(SERVER + LEASE)
    up_and_down(site, killer, (), {"servers": 1, "leases": 1}, {})


@pytest.mark.others(*ALL)
def test_killed_up_and_down_with_a_node(site: Site, killer: Killer, only_node: None) -> None:
    site.declare(NODE)
    up_and_down(site, killer, (), {"servers": 1, "leases": 1}, {})


@pytest.mark.others(*ALL)
def test_killed_server_commands(site: Site, killer: Killer) -> None:
    site.declare(SERVER + ADDRESS + VOLUME + LEASE)
    site.succeeds("up")
    first = site.things
    while not killer.is_done:
        killer.run("server", "delete", "--yes")
        assert site.things == {**first, "servers": []}, str(killer)
        (server,) = killer.run("server", "create").split()
        assert site.things == {**first, "servers": [server]}, str(killer)
        assert site.cloud.block_storage.get_volume(first["volumes"][0]).attachments[0]["server_id"] == server
        address = site.cloud.network.get_ip(first["addresses"][0])
        assert site.cloud.network.get_port(address.port_id).device_id == server


@pytest.mark.others(*ALL)
def test_killed_volume_commands(site: Site, killer: Killer) -> None:
    site.declare(SERVER + VOLUME)
    site.succeeds("up")
    (server,) = site.things["servers"]
    site.succeeds("volume", "detach", "block", "--force")
    site.succeeds("volume", "delete", "block", "--yes")
    while not killer.is_done:
        (volume,) = killer.run("volume", "create", "block").split()
        assert site.things["volumes"] == [volume], str(killer)
        killer.run("volume", "attach", "block")
        seen = site.cloud.block_storage.get_volume(volume)
        assert [item["server_id"] for item in seen.attachments] == [server] and seen.status == "in-use", str(killer)
        killer.run("volume", "grow", "block", "--gib", "2")
        assert site.cloud.block_storage.get_volume(volume).size == 2, str(killer)
        killer.run("volume", "detach", "block", "--force")
        seen = site.cloud.block_storage.get_volume(volume)
        assert not seen.attachments and seen.status == "available", str(killer)
        killer.run("volume", "delete", "block", "--yes")
        assert site.things["volumes"] == [] and site.things["servers"] == [server], str(killer)


@pytest.mark.others(*ALL)
def test_killed_share_commands(site: Site, killer: Killer) -> None:
    site.declare(SHARE)
    while not killer.is_done:
        (share,) = killer.run("share", "create", "photos").split()
        assert site.things["shares"] == [share], str(killer)
        killer.run("share", "grow", "photos", "--gib", "2")
        seen = site.cloud.shared_file_system.get_share(share)
        assert (seen.size, seen.status) == (2, "available"), str(killer)
        killer.run("share", "delete", "photos", "--yes")
        assert site.things["shares"] == [], str(killer)


@pytest.mark.others(*ALL)
def test_killed_bucket_commands(site: Site, killer: Killer) -> None:
    site.declare(BUCKET)
    while not killer.is_done:
        killer.run("bucket", "create")
        assert site.things["buckets"] == ["data"], str(killer)
        for number in range(5):
            site.cloud.object_store.upload_object("data", f"k{number}", data=b"x")
        killer.run("bucket", "empty", "--yes")
        assert not list(site.cloud.object_store.objects("data")), str(killer)
        killer.run("bucket", "delete", "--yes")
        assert site.things["buckets"] == [], str(killer)


@pytest.mark.others(*ALL)
def test_killed_credentials_commands(site: Site, killer: Killer) -> None:
    site.declare(KEYS)
    site.succeeds("bucket", "create")
    env, remotes = site.folder / ".env", site.folder / "rclone.conf"
    env.write_text("LARDER_SEED=7\n")
    remotes.write_text("[other]\ntype = local\n\n")
    while not killer.is_done:
        killer.run("credentials", "create")
        killer.expect({"buckets": 1, "keys": 1})
        s3_of(site).put_object(Bucket="data", Key="k", Body=b"x")
        assert env.read_text().startswith("LARDER_SEED=7\n") and "[other]" in remotes.read_text(), str(killer)
        assert site.run("plan").code == 0, str(killer)
        killer.run("credentials", "revoke", "--yes")
        killer.expect({"buckets": 1})
        assert (env.read_text(), remotes.read_text()) == ("LARDER_SEED=7\n", "[other]\ntype = local\n\n"), str(killer)


@pytest.mark.others(*ALL)
def test_killed_lease_extend(site: Site, killer: Killer) -> None:
    site.declare(SERVER + LEASE)
    site.succeeds("up")
    end = datetime.fromisoformat(site.leases[0]["end_date"])
    while not killer.is_done:
        said = killer.run("lease", "extend", "1")
        end += timedelta(hours=1)
        assert datetime.fromisoformat(site.leases[0]["end_date"]) == end, (str(killer), said)
        assert f"ends {end:%Y-%m-%d %H:%M}" in said
    killer.expect({"servers": 1, "leases": 1})
