"""Making the bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from larder.s3_faults import FAULTS, code_of, explain
from larder.store import DEFAULT_REGION, client
from services.s3.settings import S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ATTEMPTS = 3
_MAY_BE_MISSING = frozenset({"NoSuchBucket", "AccessDenied", "403", "404"})
"""How a store answers for a bucket that isn't there; to keys that may not list, it doesn't tell."""


def make_bucket(settings: S3Settings, attempts: int = _ATTEMPTS) -> bool:
    """Make the bucket of `settings`. Returns False when it was there already.

    Raises ConfigurationError when it is another's or these keys may not make one, ServiceError when the store fails.
    """
    store = client(settings, attempts)
    try:
        return not _is_there(store, settings.bucket) and _make(store, settings)
    except FAULTS as fault:
        raise explain(fault, f"making the bucket {settings.bucket}", settings.s3_endpoint_url) from fault


def _is_there(store: S3Client, bucket: str) -> bool:
    try:
        store.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except ClientError as fault:
        if code_of(fault) in _MAY_BE_MISSING:
            return False
        raise
    return True


def _make(store: S3Client, settings: S3Settings) -> bool:
    region = store.meta.region_name
    try:
        if settings.s3_endpoint_url or region == DEFAULT_REGION:
            store.create_bucket(Bucket=settings.bucket)
        else:  # AWS makes it there only when told; other stores refuse the words, and AWS does for its first region
            store.create_bucket(Bucket=settings.bucket, CreateBucketConfiguration={"LocationConstraint": region})  # type: ignore[typeddict-item]  # any region
    except ClientError as fault:
        if code_of(fault) == "BucketAlreadyOwnedByYou":
            return False
        raise
    return True
