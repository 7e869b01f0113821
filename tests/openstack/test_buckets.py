"""Versions, delete markers, segments and unfinished uploads of buckets: shown, emptied and deleted, on Swift."""

from __future__ import annotations

from typing import Any

import pytest

from tests.openstack.conftest import Site, s3_of
from tests.openstack.declarations import KEYS

PART = bytes(5 << 20)
"""The smallest part that S3 takes, unless it is the last."""


def fill(s3: Any, versioned: bool) -> None:
    """Versions, a delete marker, a finished upload, and an unfinished one."""
    if versioned:
        s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Enabled"})
    for body in (b"one", b"two", b"three"):
        s3.put_object(Bucket="data", Key="a b/ü+&", Body=body)
    s3.put_object(Bucket="data", Key="gone", Body=b"x")
    s3.delete_object(Bucket="data", Key="gone")
    for key in ("finished", "unfinished"):
        upload = s3.create_multipart_upload(Bucket="data", Key=key)["UploadId"]
        parts = [
            s3.upload_part(Bucket="data", Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]
            for number, body in ((1, PART), (2, b"end"))
        ]
        if key == "finished":
            listed = [{"PartNumber": at + 1, "ETag": tag} for at, tag in enumerate(parts)]
            s3.complete_multipart_upload(Bucket="data", Key=key, UploadId=upload, MultipartUpload={"Parts": listed})


@pytest.mark.parametrize("keys", ["S3 keys", "no S3 keys"])
def test_versions_markers_segments_and_uploads_are_seen_and_deleted(site: Site, keys: str) -> None:
    site.declare(KEYS)
    site.succeeds("up")
    fill(s3_of(site), versioned=True)
    if keys == "no S3 keys":
        site.succeeds("credentials", "revoke", "--yes")
    shown = site.succeeds("status")
    assert "2 objects" in shown and "3 older versions with 7 bytes, 1 delete marker" in shown, shown
    assert f"segments of uploads with {2 * len(PART) + 6} bytes" in shown
    assert ("1 unfinished upload with 5242883 bytes" in shown) == (keys == "S3 keys")
    refused = site.run("bucket", "delete", "--yes")
    assert refused.code == 3 and "is not empty" in refused.err and "`bucket empty`" in refused.err, refused
    assert set(site.things["buckets"]) == {"data", "data+segments"}

    emptied = site.succeeds("bucket", "empty", "--yes")
    assert "versions, delete markers and unfinished uploads" in emptied
    assert ("segments" in emptied) == (keys == "no S3 keys")  # else the S3 API has deleted them with their objects
    assert "0 objects deleted" in site.succeeds("bucket", "empty", "--yes")
    site.succeeds("bucket", "delete", "--yes")
    assert site.things["buckets"] == []


def test_down_deletes_a_bucket_with_all_its_versions(site: Site) -> None:
    site.declare(KEYS)
    site.succeeds("up")
    s3 = s3_of(site)
    fill(s3, versioned=True)
    s3.put_bucket_versioning(Bucket="data", VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket="data", Key="after", Body=b"x")
    site.succeeds("down", "--yes", "--delete-data", "data")
    assert site.things["buckets"] == []


def test_segments_of_a_bucket_without_versions(site: Site) -> None:
    site.declare(KEYS)
    site.succeeds("up")
    s3 = s3_of(site)
    fill(s3, versioned=False)
    s3.delete_object(Bucket="data", Key="a b/ü+&")
    site.cloud.object_store.create_container("data+segments-of-others")
    s3.delete_object(Bucket="data", Key="finished")
    refused = site.run("bucket", "delete", "--yes")
    assert refused.code == 3 and "1 unfinished upload" in refused.err, refused
    site.succeeds("bucket", "empty", "--yes")
    site.succeeds("bucket", "delete", "--yes")
    assert site.things["buckets"] == ["data+segments-of-others"]
