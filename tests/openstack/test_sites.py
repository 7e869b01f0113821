"""Two sites at once: machines and volumes at one, bucket and keys at the other, as with Chameleon's KVM and CHI@TACC.

Here they are two projects of one cloud, which know nothing of each other.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.openstack.conftest import Site, owner, s3_of
from tests.openstack.declarations import KEYS, SERVER, VOLUME
from tests.openstack.foreign import Foreign
from tests.openstack.projects import new_project

SITES = '[sites]\ncompute = { cloud = "kvm" }\nobjects = { cloud = "chi", region = "RegionOne" }\n'


@pytest.fixture
def chi(site: Site, box: str, admin: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The second site, where the buckets are; `site` is the first. Only clouds.yaml names the two."""
    with new_project(box, admin) as project:
        auths = {
            cloud: {
                "auth_url": f"http://{box}:5000/v3",
                "username": who,
                "password": "pw",
                "project_name": who,
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            }
            for cloud, who in (("kvm", site.environ["OS_USERNAME"]), ("chi", project.name))
        }
        clouds = {cloud: {"auth": auth} for cloud, auth in auths.items()}
        path = site.folder / "clouds.yaml"
        path.write_text(json.dumps({"clouds": clouds}))  # which is YAML, too
        for variable in (item for item in site.environ if item.startswith("OS_")):
            monkeypatch.delenv(variable)
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(path))  # the SDK looks into the folder that it was imported in
        yield dataclasses.replace(
            site, project=project.id, user=project.user, cloud=project.cloud, environ={}, foreign=Foreign(), started=[]
        )


def test_each_thing_is_at_its_site_and_nowhere_else(site: Site, chi: Site) -> None:
    site.declare(SITES + SERVER + VOLUME + KEYS)
    said = site.succeeds("doctor")
    assert f"({site.project})" in said and f"({chi.project})" in said
    site.succeeds("up")
    assert site.counts == {"servers": 1, "volumes": 1} and chi.counts == {"buckets": 1, "keys": 1}
    assert site.run("plan").code == 0
    (server,), (volume,) = site.things["servers"], site.things["volumes"]
    shown = {thing["id"]: thing["kind"] for thing in json.loads(site.succeeds("status", "--json"))["things"]}
    assert shown == {server: "server", volume: "volume", "data": "bucket", chi.things["keys"][0]: "credentials"}

    s3_of(site).put_object(Bucket="data", Key="k", Body=b"x")
    assert chi.cloud.object_store.download_object("k", "data") == b"x"

    site.succeeds("down", "--yes", "--delete-data", "block", "--delete-data", "data")
    site.succeeds("credentials", "revoke", "--yes")
    assert site.counts == {} and chi.counts == {}


def test_what_has_the_name_at_the_other_site_is_nobodys_candidate(site: Site, chi: Site) -> None:
    site.declare(SITES + SERVER + VOLUME + KEYS)
    site.cloud.object_store.create_container("data", metadata={"larder-stack": owner(chi)})
    theirs = chi.cloud.block_storage.create_volume(name="block", size=1, metadata={"larder:stack": owner(site)})
    chi.cloud.block_storage.wait_for_status(theirs, "available", interval=0.3, wait=60)
    site.succeeds("up")
    assert site.counts == {"servers": 1, "volumes": 1, "buckets": 1}
    assert chi.counts == {"volumes": 1, "buckets": 1, "keys": 1}
    site.succeeds("down", "--yes", "--delete-data", "block", "--delete-data", "data")
    assert site.counts == {"buckets": 1} and chi.counts == {"volumes": 1, "keys": 1}
    assert chi.things["volumes"] == [theirs.id]


def test_a_site_that_refuses_the_login_does_not_keep_the_other_s_server(site: Site, chi: Site) -> None:
    site.declare(SITES + SERVER + KEYS)
    site.succeeds("up")
    path = site.folder / "clouds.yaml"
    clouds = json.loads(path.read_text())
    clouds["clouds"]["chi"]["auth"]["password"] = "wrong"
    path.write_text(json.dumps(clouds))
    shown = site.run("status")
    assert shown.code == 5 and "server" in shown.out and "buckets: cloud chi" in shown.err, shown
    down = site.run("down", "--yes")
    assert down.code == 5 and "not listed: buckets: cloud chi" in down.err, down
    assert site.counts == {} and chi.counts == {"buckets": 1, "keys": 1}


def test_only_the_compute_site_named(site: Site, chi: Site) -> None:
    """As in the examples, the compute site also has the buckets, and no other login is tried."""
    site.declare('[sites]\ncompute = { cloud = "kvm" }\n' + SERVER + VOLUME)
    site.succeeds("up")
    assert site.counts == {"servers": 1, "volumes": 1} and chi.counts == {}
    site.succeeds("status")
    site.succeeds("down", "--yes", "--delete-data", "block")
