"""The life of a stack: planned, created, kept and deleted, without touching anything of others."""

from __future__ import annotations

import configparser
import json
import stat

import pytest

from provision.commands import EXIT_CHANGES_PENDING
from tests.openstack.conftest import Site, owner, s3_of
from tests.openstack.declarations import BOOT, KEPT, MADE, SERVER, WHOLE


def test_a_stack_from_plan_to_down(site: Site) -> None:
    site.declare(WHOLE)
    (site.folder / ".env").write_text("# mine\nLARDER_SEED=7\nAWS_ACCESS_KEY_ID=old\n")
    planned = site.run("plan")
    assert planned.code == EXIT_CHANGES_PENDING and "create  server" in " ".join(planned.out.split("\n")).replace(
        "         ", "  "
    )
    assert site.counts == {}

    up = site.succeeds("up")
    assert site.counts == MADE
    assert site.run("plan").code == 0
    first = site.things
    site.succeeds("up")
    assert site.things == first

    server = site.cloud.compute.get_server(first["servers"][0])
    volume = site.cloud.block_storage.get_volume(first["volumes"][0])
    assert server.status == "ACTIVE" and server.metadata["larder:stack"] == owner(site) and server.id in up
    assert volume.attachments[0]["server_id"] == server.id and volume.metadata["larder:blank"] == "yes"
    sources = [rule.remote_ip_prefix for rule in site.rules]
    assert len(sources) == 1 and sources[0].endswith("/32")

    shown = json.loads(site.succeeds("status", "--json"))
    assert {thing["kind"] for thing in shown["things"]} == {
        "server",
        "volume",
        "floating IP",
        "security group",
        "bucket",
        "credentials",
    }

    assert "kept:" in site.succeeds("down", "--yes")
    assert site.counts == KEPT
    assert site.run("down", "--yes").code == 0

    site.succeeds("up")
    assert site.things["volumes"] == first["volumes"] and site.things["keys"] == first["keys"]
    site.cloud.object_store.upload_object("data", "a b/ü", data=b"x")
    site.succeeds("down", "--yes", "--delete-data", "block", "--delete-data", "data")
    site.succeeds("credentials", "revoke", "--yes")
    assert site.counts == {}
    assert (site.folder / ".env").read_text() == "# mine\nLARDER_SEED=7\n"


def test_credentials_work_and_are_shown_once(site: Site) -> None:
    site.declare('[bucket]\nname = "data"\n[credentials]\nrclone_config = "rclone.conf"\n')
    (site.folder / ".env").write_text("LARDER_SEED=7\n")
    (site.folder / "rclone.conf").write_text("[other]\ntype = local\n\n")
    site.succeeds("bucket", "create")
    shown = dict(line.split("=", 1) for line in site.succeeds("credentials", "create").splitlines())
    secret = shown["AWS_SECRET_ACCESS_KEY"]
    lines = (site.folder / ".env").read_text().splitlines()
    assert lines[0] == "LARDER_SEED=7" and f"AWS_SECRET_ACCESS_KEY={secret}" in lines
    remotes = configparser.ConfigParser()
    remotes.read(site.folder / "rclone.conf")
    assert remotes["other"]["type"] == "local" and remotes["larder"]["secret_access_key"] == secret
    for name in (".env", "rclone.conf"):
        assert stat.S_IMODE((site.folder / name).stat().st_mode) == 0o600

    s3_of(site).put_object(Bucket="data", Key="k", Body=b"x")
    assert site.cloud.object_store.download_object("k", "data") == b"x"

    assert secret not in site.succeeds("credentials", "create") and secret not in site.succeeds("credentials", "show")
    (site.folder / ".env").unlink()
    assert "lack" in site.succeeds("credentials", "show")
    site.succeeds("credentials", "create")
    assert f"AWS_SECRET_ACCESS_KEY={secret}" in (site.folder / ".env").read_text()
    (site.folder / ".env").chmod(0o644)
    assert site.run("plan").code == EXIT_CHANGES_PENDING
    site.succeeds("credentials", "create")
    assert stat.S_IMODE((site.folder / ".env").stat().st_mode) == 0o600
    assert site.run("bucket", "delete", "--yes").code == 3
    assert "1 objects deleted" in site.succeeds("bucket", "empty", "--yes")
    site.succeeds("bucket", "delete", "--yes")
    site.succeeds("credentials", "revoke", "--yes")
    assert site.counts == {}


@pytest.mark.parametrize("delete_on_termination", ["true", "false"])
def test_a_boot_volume_has_the_declared_type(site: Site, delete_on_termination: str) -> None:
    site.declare(SERVER + BOOT.format(delete_on_termination) + 'type = "__DEFAULT__"\n')
    site.succeeds("up")
    (volume,) = site.own("volumes")
    assert volume.volume_type == "__DEFAULT__"  # the site's default is ceph-ssd


def test_volume_commands(site: Site) -> None:
    site.declare('[server]\nkey = "laptop"\nsecurity_groups = ["default"]\n[[volume]]\nname = "block"\ngib = 1\n')
    id = site.succeeds("volume", "create", "block").strip()
    assert site.run("volume", "attach", "block").code == 3  # no server yet
    site.succeeds("up")
    assert id in site.succeeds("volume", "list") and site.cloud.block_storage.get_volume(id).status == "in-use"
    assert site.run("volume", "delete", "block", "--yes").code == 3  # attached
    site.succeeds("volume", "grow", "block", "--gib", "2")
    assert site.cloud.block_storage.get_volume(id).size == 2
    shrunk = site.run("volume", "grow", "block", "--gib", "1")
    assert shrunk.code == 3 and "can't shrink" in shrunk.err
    unseen = site.run("volume", "detach", "block")  # no machine behind this server answers
    assert unseen.code == 3 and "it is unknown whether" in unseen.err and "--force" in unseen.err
    site.succeeds("volume", "detach", "block", "--force")
    site.succeeds("volume", "detach", "block")
    site.succeeds("volume", "grow", "block", "--gib", "3")
    site.succeeds("volume", "attach", "block")
    site.succeeds("volume", "detach", "block", "--force")
    refused = site.run("volume", "delete", "block")
    assert refused.code == 2 and "not confirmed" in refused.err and site.counts["volumes"] == 1
    assert site.run("volume", "delete", "block", typed="block\n").code == 0
    assert site.counts == {"servers": 1}
    unknown = site.run("volume", "create", "blok")
    assert unknown.code == 2 and "declared: block" in unknown.err


def test_boot_volume_that_outlives_the_server(site: Site) -> None:
    declared = (
        '[server]\nkey = "laptop"\nsecurity_groups = ["default"]\n'
        "[server.boot_volume]\ngib = 2\ndelete_on_termination = {}\n"
    )
    site.declare(declared.format("false"))
    site.succeeds("up")
    first = site.things
    assert site.run("plan").code == 0
    site.succeeds("down", "--yes")
    assert site.counts == {"volumes": 1} and site.things["volumes"] == first["volumes"]
    site.succeeds("up")
    assert site.things["volumes"] == first["volumes"]

    second = site.things["servers"]
    site.declare(declared.format("false").replace('"laptop"', '"laptop"\nflavor = "m1.xlarge"'))
    refused = site.run("up")
    assert refused.code == 3 and "--replace" in refused.err and "root disk" not in refused.err
    site.succeeds("up", "--replace")
    assert site.things["servers"] != second and site.things["volumes"] == first["volumes"]
    site.succeeds("down", "--yes", "--delete-data", "lab-boot")
    assert site.counts == {}
    site.declare(declared.format("true"))
    site.succeeds("up")
    assert site.counts == {"servers": 1, "volumes": 1} and site.run("plan").code == 0
    site.succeeds("down", "--yes")
    assert site.counts == {}
