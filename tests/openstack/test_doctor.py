"""doctor names what a site lacks or refuses, with the next step, before anything is created."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from openstack.exceptions import BadRequestException

from tests.conftest import wait_until
from tests.openstack.conftest import Site
from tests.openstack.declarations import BOOT, SERVER, VOLUME, WHOLE


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


def test_doctor_looks_for_our_address_where_a_group_lets_it_in(site: Site) -> None:
    for sources, looks in (('["caller", "192.0.2.7"]', True), ('["192.0.2.7"]', False)):
        site.declare(f"{GROUP}sources = {sources}\n")
        assert ("who may connect" in site.succeeds("doctor")) == looks


def application_credential(site: Site, *seconds: int) -> Any:
    """One that expires after the first of these times; if a busy Keystone refuses that as past, after the next."""
    expires = datetime.now(UTC) + timedelta(seconds=seconds[0])
    try:
        return site.cloud.identity.create_application_credential(
            site.user, name="c", expires_at=expires.strftime("%Y-%m-%dT%H:%M:%S.000000")
        )
    except BadRequestException:
        if len(seconds) == 1:
            raise
        return application_credential(site, *seconds[1:])


@pytest.mark.parametrize("kind", ["restricted", "expired"])
def test_application_credentials(site: Site, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    made = application_credential(site, *((3, 10, 40) if kind == "expired" else (3600,)))
    kept = ("OS_AUTH_URL", "OS_REGION_NAME")
    for name in [name for name in os.environ if name.startswith("OS_") and name not in kept]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OS_AUTH_TYPE", "v3applicationcredential")
    monkeypatch.setenv("OS_APPLICATION_CREDENTIAL_ID", made.id)
    monkeypatch.setenv("OS_APPLICATION_CREDENTIAL_SECRET", made.secret)
    site.declare('[bucket]\nname = "data"\n[credentials]\nrclone_config = "rclone.conf"\n')
    if kind == "expired":
        wait_until(lambda: "expired" in site.run("doctor").out, "Keystone refuses the credential")
        ended = site.run("up")
        assert ended.code == 2 and "expired" in ended.err
    else:
        ended = site.run("credentials", "create")
        assert ended.code == 2 and "restricted" in ended.err and "unrestricted" in ended.err
        assert "application credential" in site.run("doctor").out
    assert not (site.folder / ".env").exists() and site.counts == {}


def test_a_token_that_ends_needs_a_new_login(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Jupyter at Chameleon, whose environment has a token in place of a password."""
    site.declare(SERVER)
    token = site.cloud.session.get_token()
    for name in ("OS_USERNAME", "OS_PASSWORD", "OS_USER_DOMAIN_NAME"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("OS_AUTH_TYPE", "v3token")
    monkeypatch.setenv("OS_TOKEN", token)
    assert "token" in site.succeeds("doctor")
    site.admin.session.delete(f"http://{site.box}:5000/v3/auth/tokens", headers={"X-Subject-Token": token})
    for command in ("doctor", "up", "status"):
        ended = site.run(command)
        said = ended.out + ended.err
        assert ended.code == 2 and "token" in said and "expired" in said, ended
        assert "run the same command again" not in said and "password is wrong" not in said


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
    assert ended.code == 3 and "quota" in ended.err and site.counts == {}
    site.admin.compute.update_quota_set(site.project, cores=8)
    site.succeeds("up")
    assert site.counts == {"servers": 1, "volumes": 1}


def _small_quota(site: Site) -> str:
    site.admin.compute.update_quota_set(site.project, cores=1)
    return ""


def _unknown_volume_type(site: Site) -> str:
    return '[[volume]]\nname = "fast"\ngib = 1\ntype = "nvme"\n'


def _unknown_boot_volume_type(site: Site) -> str:
    return BOOT.format("true") + 'type = "nvme"\n'


def _two_groups_of_a_name(site: Site) -> str:
    for _ in range(2):
        site.cloud.network.create_security_group(name="both")
    return 'security_groups = ["default", "both"]\n'


def _taken_volume_name(site: Site) -> str:
    taken = site.cloud.block_storage.create_volume(name="taken", size=1)
    site.cloud.block_storage.wait_for_status(taken, "available", interval=0.3, wait=60)
    return '[[volume]]\nname = "taken"\ngib = 1\n'


def _missing_private_key(site: Site) -> str:
    return 'private_key = "/nowhere/id"\n'


def _image_for_a_larger_disk(site: Site) -> str:
    site.cloud.image.create_image(
        name="large", data=b"x", disk_format="raw", container_format="bare", min_disk=50, validate_checksum=False
    )
    return 'image = "large"\n'


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (_small_quota, "1 cores left, 2 needed"),
        (_unknown_volume_type, "there is no volume type 'nvme'; there are: __DEFAULT__, ceph-ssd"),
        (_unknown_boot_volume_type, "there is no volume type 'nvme'"),
        (_two_groups_of_a_name, "2 security groups have this name"),
        (_taken_volume_name, "name is taken"),
        (_missing_private_key, "no private key /nowhere/id"),
        (_image_for_a_larger_disk, "a root disk of 1 GB, 50 needed"),
    ],
)
def test_no_lease_is_made_for_what_is_refused_later(site: Site, prepare: Callable[[Site], str], says: str) -> None:
    more = prepare(site)
    head, tail = ("", more) if more.startswith("[") else (more, "")
    groups = head or 'security_groups = ["default"]\n'
    server = f'[server]\nkey = "laptop"\n{groups}'
    site.declare(f"{server}{tail}[lease]\nhours = 1\n{GROUP}{VOLUME}")
    before = site.counts
    ended = site.run("up")
    assert ended.code == 3 and says in ended.err, ended
    assert site.counts == before
    for image in site.cloud.image.images(owner=site.project):
        site.cloud.image.delete_image(image)


GROUP = '[[security_group]]\nname = "allow-ssh"\nports = [22]\n'


@pytest.mark.others()  # they would count in the quota
@pytest.mark.parametrize(
    ("declared", "service", "quota", "says"),
    [
        (SERVER + BOOT.format("true"), "block_storage", {"gigabytes": 2}, "2 GiB of volumes left, 3 needed"),
        (SERVER + BOOT.format("false"), "block_storage", {"volumes": 0}, "0 volumes left, 1 needed"),
        (SERVER + "[floating_ip]\n", "network", {"floating_ips": 0}, "0 floating IPs left, 1 needed"),
        (GROUP, "network", {"security_groups": 1}, "0 security groups left, 1 needed"),
        (GROUP, "network", {"security_group_rules": 6}, "2 rules of security groups left, 3 needed"),
    ],
    ids=["boot volume", "boot volume that stays", "floating IP", "security group", "rules"],
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
