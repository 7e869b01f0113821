"""Versions, delete markers and unfinished uploads by the S3 API alone, on a real server that has no Swift API.

The server is MinIO, which starts at once. tests/openstack does the same with Swift and with Ceph's RGW.
"""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from keystoneauth1.session import Session

from larder.errors import ServiceError
from provision.contents import delete_versions
from provision.s3 import S3Client, Upload
from tests.conftest import Store

KEYS = ("plain", "a b/ü+&<>'\"%41", "~-_.!*()", "a/b/" + "c" * 200)


@pytest.fixture
def client(minio_server: Store) -> S3Client:
    """A client for a bucket of its own."""
    bucket = f"contents-{uuid.uuid4().hex[:8]}"
    minio_server.client.create_bucket(Bucket=bucket)
    return S3Client(Session(), minio_server.endpoint, minio_server.access_key, minio_server.secret_key, bucket)


@pytest.fixture
def s3(minio_server: Store) -> Any:
    return minio_server.client


def test_a_bucket_is_emptied_of_versions_markers_and_uploads(client: S3Client, s3: Any) -> None:
    bucket = client.bucket
    assert not client.is_versioned() and list(client.list_uploads()) == [[]]
    s3.put_object(Bucket=bucket, Key="before", Body=b"x")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert client.is_versioned()
    for key in KEYS:
        for body in (b"one", b"two"):
            s3.put_object(Bucket=bucket, Key=key, Body=body)
    s3.delete_object(Bucket=bucket, Key=KEYS[1])
    uploads = {key: s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"] for key in KEYS}
    for key, id in uploads.items():
        s3.upload_part(Bucket=bucket, Key=key, UploadId=id, PartNumber=1, Body=b"part")

    versions = [item for page in client.list_versions() for item in page]
    assert {item.key for item in versions} == {"before", *KEYS}
    assert [(item.key, item.is_latest) for item in versions if item.is_marker] == [(KEYS[1], True)]
    assert sum(item.bytes for item in versions) == 1 + len(KEYS) * 6

    assert delete_versions(client) == 2 + 2 * len(KEYS)
    assert list(client.list_versions()) == [[]]
    for key, id in uploads.items():  # MinIO lists unfinished uploads of a given key only; Swift and RGW list all
        assert client.upload_bytes(Upload(key, id)) == 4 and client.abort(Upload(key, id)) == ""
        with pytest.raises(s3.exceptions.NoSuchUpload):
            s3.list_parts(Bucket=bucket, Key=key, UploadId=id)
    s3.delete_bucket(Bucket=bucket)


def test_more_versions_than_a_page_holds(client: S3Client, s3: Any) -> None:
    s3.put_bucket_versioning(Bucket=client.bucket, VersioningConfiguration={"Status": "Enabled"})

    def write(number: int) -> None:
        s3.put_object(Bucket=client.bucket, Key=f"k{number % 7}", Body=b"")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(1100)))
    assert [len(page) for page in client.list_versions()] == [1000, 100]
    assert delete_versions(client) == 1100
    s3.delete_bucket(Bucket=client.bucket)


def test_refusals_carry_the_store_s_reason(client: S3Client, minio_server: Store, s3: Any) -> None:
    wrong = S3Client(Session(), minio_server.endpoint, minio_server.access_key, "wrong", client.bucket)
    with pytest.raises(ServiceError, match="SignatureDoesNotMatch"):
        wrong.is_versioned()
    with pytest.raises(ServiceError, match="9"):
        S3Client(Session(), "http://127.0.0.1:9", "a", "b", "c").is_versioned()
    s3.delete_bucket(Bucket=client.bucket)
    assert not client.is_versioned()
