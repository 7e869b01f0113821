"""Buckets and S3 keys on Ceph's object gateway (16.2), which Chameleon's object store is.

Its Swift API doesn't show all that a bucket holds: only its S3 API has older versions, delete markers and unfinished
uploads.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from provision.commands import EXIT_CHANGES_PENDING
from tests.openstack.conftest import Ended, Site, Wire, owner, s3_of
from tests.openstack.declarations import KEYS
from tests.openstack.projects import connection
from tests.openstack.rgw import Gateway, new_region

BUCKET = '[bucket]\nname = "data"\n'
PART = bytes(5 << 20)
"""The smallest part that S3 takes, unless it is the last."""
CONTROL = "control\x01\x1f"
ODD = (
    "a b/ü+&<>'\"%41",
    "~-_.!*()[]{}|\\^`$@=:;,?#",
    "tab\tnewline\nreturn\rend",
    CONTROL,
    "/at the start//twice/",
    "日本/" + "c" * 200,
    "_under/_score",
)
"""Keys with characters that XML, JSON, addresses, or RGW's own names of versions treat specially."""


@dataclass(frozen=True)
class Store:
    """A project whose objects are at the gateway, and whose servers would be elsewhere."""

    site: Site
    gateway: Gateway

    def declare(self, text: str, region: str = "") -> None:
        auth_url, region = self.site.environ["OS_AUTH_URL"], region or self.gateway.region
        self.site.declare(f'[sites]\nobjects = {{ auth_url = "{auth_url}", region = "{region}" }}\n{text}')

    def run(self, *words: str) -> Ended:
        return self.site.run(*words)

    def succeeds(self, *words: str) -> str:
        return self.site.succeeds(*words)

    @property
    def swift(self) -> Any:
        user = self.site.environ["OS_USERNAME"]
        return connection(self.site.box, user, user, self.gateway.region).object_store

    @property
    def buckets(self) -> list[str]:
        return [item.name for item in self.swift.containers()]

    @property
    def headers(self) -> Any:
        return self.swift.head("/data").headers


@pytest.fixture
def store(site: Site, gateway: Gateway) -> Store:
    site.is_reusable = False  # its objects at the gateway are left
    return Store(site, gateway)


def make_versioned(s3: Any) -> None:
    s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})


def upload_parts(s3: Any, key: str, *bodies: bytes, finish: bool) -> None:
    id = s3.create_multipart_upload(Bucket="data", Key=key)["UploadId"]
    parts = [
        {
            "PartNumber": number,
            "ETag": s3.upload_part(Bucket="data", Key=key, UploadId=id, PartNumber=number, Body=body)["ETag"],
        }
        for number, body in enumerate(bodies, 1)
    ]
    if finish:
        s3.complete_multipart_upload(Bucket="data", Key=key, UploadId=id, MultipartUpload={"Parts": parts})


def fill(s3: Any) -> None:
    """An object from before the versions, versions, a delete marker, a finished upload, and an unfinished one."""
    s3.put_object(Bucket="data", Key="before", Body=b"1")
    make_versioned(s3)
    for body in (b"one", b"two", b"three"):
        s3.put_object(Bucket="data", Key="k", Body=body)
    s3.put_object(Bucket="data", Key="gone", Body=b"x")
    s3.delete_object(Bucket="data", Key="gone")
    upload_parts(s3, "finished", PART, b"end", finish=True)
    upload_parts(s3, "unfinished", PART, b"end", finish=False)


def test_a_bucket_from_create_to_delete(store: Store) -> None:
    store.declare(KEYS)
    store.succeeds("doctor")
    assert store.run("plan").code == EXIT_CHANGES_PENDING
    store.succeeds("bucket", "create")
    assert store.buckets == ["data"] and store.headers["X-Container-Meta-Larder-Stack"] == owner(store.site)
    store.succeeds("credentials", "create")
    assert store.run("plan").code == 0
    s3 = s3_of(store.site)
    assert s3._endpoint.host == store.gateway.address
    s3.put_object(Bucket="data", Key="by S3", Body=b"12")
    store.swift.upload_object("data", "by Swift", data=b"345")
    assert store.swift.download_object("by S3", "data") == b"12"
    assert s3.get_object(Bucket="data", Key="by Swift")["Body"].read() == b"345"
    rclone = [str(Path(sys.executable).with_name("rclone")), "--config", "rclone.conf"]  # the section that larder wrote
    assert subprocess.check_output([*rclone, "lsf", "larder:data"], text=True).split("\n") == ["by S3", "by Swift", ""]
    assert "2 objects, 5 bytes" in store.succeeds("status")
    refused = store.run("bucket", "delete", "--yes")
    assert refused.code == 3 and "2 objects, 5 bytes" in refused.err, refused
    assert store.succeeds("bucket", "empty", "--yes").strip() == "2 objects deleted"
    assert store.succeeds("bucket", "empty", "--yes").strip() == "0 objects deleted"
    store.succeeds("bucket", "delete", "--yes")
    assert store.buckets == [] and "there is no bucket" in store.run("bucket", "delete", "--yes").err


def test_keys_are_revoked_and_created_again(store: Store) -> None:
    store.declare(KEYS)
    store.succeeds("bucket", "create")
    store.succeeds("credentials", "create")
    unused = s3_of(store.site)
    revoked = store.run("credentials", "revoke", "--yes")
    assert revoked.code == 0 and "for a few minutes" in revoked.err, revoked  # five, if they were used before
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        unused.list_buckets()
    store.succeeds("credentials", "create")
    assert [item["Name"] for item in s3_of(store.site).list_buckets()["Buckets"]] == ["data"]


def test_versions_markers_and_uploads_are_seen_and_deleted(store: Store) -> None:
    store.declare(KEYS)
    store.succeeds("up")
    fill(s3_of(store.site))
    shown = store.succeeds("status")
    assert "3 older versions with 7 bytes, 1 delete marker" in shown, shown
    assert f"1 unfinished upload with {len(PART) + 3} bytes" in shown, shown
    refused = store.run("bucket", "delete", "--yes")
    assert refused.code == 3 and "is not empty" in refused.err and "`bucket empty`" in refused.err, refused
    emptied = store.succeeds("bucket", "empty", "--yes")
    assert "8 versions, delete markers and unfinished uploads" in emptied, emptied
    assert "0 objects, 0 bytes\n" in store.succeeds("status")
    assert store.succeeds("bucket", "empty", "--yes").strip() == "0 objects deleted"
    store.succeeds("bucket", "delete", "--yes")
    assert store.buckets == []


def test_down_deletes_a_bucket_with_all_its_versions(store: Store) -> None:
    store.declare(KEYS)
    store.succeeds("up")
    s3 = s3_of(store.site)
    fill(s3)
    s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket="data", Key="k", Body=b"without a version")
    store.succeeds("down", "--yes", "--delete-data", "data")
    assert store.buckets == []


def leave_version(s3: Any) -> None:
    make_versioned(s3)
    s3.put_object(Bucket="data", Key="k", Body=b"one")


def leave_marker(s3: Any) -> None:
    make_versioned(s3)
    s3.delete_object(Bucket="data", Key="k")


def leave_upload(s3: Any) -> None:
    upload_parts(s3, "k", b"part", finish=False)


@pytest.mark.parametrize(
    ("leave", "is_counted"),
    [(leave_version, True), (leave_marker, False), (leave_upload, True)],
    ids=["version", "delete marker", "unfinished upload"],
)
def test_what_stays_without_keys_is_an_error(
    store: Store, leave: Callable[[Any], None], is_counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delete marker has no bytes, and without keys nothing shows it. Yet the bucket can't be deleted."""
    monkeypatch.setattr("provision.objects.EMPTY_SECONDS", 0.3)
    store.declare(KEYS)
    store.succeeds("bucket", "create")
    store.succeeds("credentials", "create")
    leave(s3_of(store.site))
    store.succeeds("credentials", "revoke", "--yes")
    store.declare(BUCKET)
    for command, fails in (("empty", is_counted), ("delete", True)):
        ended = store.run("bucket", command, "--yes")
        assert ended.code == (3 if fails else 0), ended
        assert ("`credentials create`, then `bucket empty`" in ended.err) == fails, ended
    assert store.run("down", "--yes", "--delete-data", "data").code == 5 and store.buckets == ["data"]
    store.declare(KEYS)
    store.succeeds("credentials", "create")
    store.succeeds("bucket", "empty", "--yes")
    store.succeeds("bucket", "delete", "--yes")
    assert store.buckets == []


def test_more_versions_and_uploads_than_a_page_holds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.declare(KEYS)
    store.succeeds("bucket", "create")
    store.succeeds("credentials", "create")
    s3 = s3_of(store.site)
    make_versioned(s3)
    for batch in (range(1000), range(1000, 1010)):
        markers = [{"Key": f"marker {number:04} +%41"} for number in batch]
        assert len(s3.delete_objects(Bucket="data", Delete={"Objects": markers})["Deleted"]) == len(markers)
    for number in range(30):
        s3.put_object(Bucket="data", Key=f"k{number % 7} +%41", Body=b"1")
        s3.create_multipart_upload(Bucket="data", Key=f"k{number % 3} +%41")
    shown = store.succeeds("status")
    assert "7 objects, 7 bytes; 23 older versions with 23 bytes, 1,010 delete markers; 30 unfinished" in shown, shown
    with monkeypatch.context() as patch:
        patch.setattr("provision.s3.PER_CALL", 7)
        assert store.succeeds("status") == shown
    assert "1070 versions, delete markers and unfinished uploads" in store.succeeds("bucket", "empty", "--yes")
    store.succeeds("bucket", "delete", "--yes")
    assert store.buckets == []


@pytest.mark.parametrize("versioned", [True, False], ids=["versions", "no versions"])
def test_keys_with_odd_characters_are_deleted(store: Store, versioned: bool) -> None:
    store.declare(KEYS)
    store.succeeds("up")
    s3 = s3_of(store.site)
    if versioned:
        make_versioned(s3)
    for key in ODD:
        for body in (b"one", b"two"):
            s3.put_object(Bucket="data", Key=key, Body=body)
        if key != CONTROL:  # which the gateway can't begin an upload for
            upload_parts(s3, key, b"part", finish=False)
        if versioned:
            s3.delete_object(Bucket="data", Key=key)
    shown = store.succeeds("status")
    assert f"{len(ODD) - 1} unfinished uploads with {4 * (len(ODD) - 1)} bytes" in shown, shown
    store.succeeds("bucket", "empty", "--yes")
    store.succeeds("bucket", "delete", "--yes")
    assert store.buckets == []


def test_someone_else_s_bucket_is_left_alone(store: Store) -> None:
    store.swift.create_container("data", metadata={"owner": "them"})
    store.swift.upload_object("data", "theirs", data=b"x")
    store.declare(KEYS)
    for words in (("up",), ("bucket", "create")):
        taken = store.run(*words)
        assert taken.code == 3 and "the name is taken" in taken.err, taken
    for words in (("bucket", "empty", "--yes"), ("bucket", "delete", "--yes"), ("--adopt", "bucket", "empty", "--yes")):
        assert store.run(*words).code == 3
    assert store.swift.download_object("theirs", "data") == b"x"
    store.succeeds("--adopt", "up")
    assert store.headers["X-Container-Meta-Owner"] == "them"
    assert store.headers["X-Container-Meta-Larder-Stack"] == owner(store.site) and store.run("plan").code == 0
    store.succeeds("down", "--yes", "--delete-data", "data")
    assert store.buckets == []


def test_a_bucket_that_someone_creates_at_that_moment_is_left_alone(store: Store, wire: Wire) -> None:
    made: list[Any] = []

    def other(request: Any) -> None:
        if request.method == "PUT" and request.url.endswith("/data") and not made:
            made.append(request.url)
            store.swift.create_container("data", metadata={"owner": "them"})

    store.declare(BUCKET)
    wire.before = other
    ended = store.run("up")
    assert made and ended.code == 3 and "by someone else at this moment" in ended.err, ended
    headers = store.headers
    assert headers["X-Container-Meta-Owner"] == "them" and not [name for name in headers if "larder" in name.lower()]


def test_a_project_without_room_for_a_bucket(store: Store) -> None:
    store.swift.create_container("other")
    project = store.site.project
    store.gateway.manage("user", "modify", "--tenant", project, "--uid", project, "--max-buckets", "1")
    store.declare(BUCKET)
    ended = store.run("up")
    assert ended.code == 3 and "quota is used up: TooManyBuckets" in ended.err, ended
    assert store.buckets == ["other"]


def test_a_role_that_the_store_does_not_accept(store: Store) -> None:
    identity, site = store.site.admin.identity, store.site
    project, user = identity.get_project(site.project), identity.get_user(site.user)
    identity.assign_project_role_to_user(project, user, identity.find_role("reader"))
    identity.unassign_project_role_from_user(project, user, identity.find_role("member"))
    store.declare(BUCKET)
    ended = store.run("up")
    identity.assign_project_role_to_user(project, user, identity.find_role("member"))
    assert ended.code == 2 and "not allowed" in ended.err and "password" not in ended.err, ended


def test_a_store_that_does_not_answer(store: Store, box: str, admin: Any) -> None:
    store.declare(KEYS + 's3_endpoint = "http://127.0.0.1:9"\n')
    store.succeeds("bucket", "create")
    store.succeeds("credentials", "create")
    store.swift.upload_object("data", "k", data=b"x")
    emptied = store.site.run("bucket", "empty", typed="data\n")
    assert emptied.code == 0 and emptied.out.strip() == "1 objects deleted", emptied
    assert "1 objects, 1 bytes; versions and uploads are unknown, since its S3 API fails" in emptied.err, emptied
    assert "what only the S3 API of the bucket data shows may stay" in emptied.err, emptied
    with new_region(box, admin, "http://127.0.0.1:9/swift/v1/AUTH_%(project_id)s") as region:
        store.declare(KEYS, region)
        ended = store.run("bucket", "delete", "--yes")
        assert ended.code == 5 and "no connection" in ended.err, ended
    assert store.buckets == ["data"]
