"""Create the bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from larder.s3_faults import S3_ERRORS, code_of, explain_s3_error
from larder.store import DEFAULT_REGION, make_client
from services.s3.settings import S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ATTEMPTS = 3
_MAY_BE_MISSING = frozenset({"NoSuchBucket", "AccessDenied", "403", "404"})
"""Error codes for a missing bucket. Stores answer "access denied" to keys that may not list."""


def make_bucket(settings: S3Settings, attempts: int = _ATTEMPTS) -> bool:
    """Create the bucket of `settings`. Return False if it exists already.

    Raises:
        ConfigurationError: If the bucket belongs to someone else, or the keys may not create one.
        ServiceError: If the store fails.
    """
    store = make_client(settings, attempts)
    try:
        return not _exists(store, settings.bucket) and _create(store, settings)
    except S3_ERRORS as fault:
        raise explain_s3_error(fault, f"making the bucket {settings.bucket}", settings.s3_endpoint_url) from fault


def _exists(store: S3Client, bucket: str) -> bool:
    try:
        store.list_objects_v2(Bucket=bucket, MaxKeys=1)
    except ClientError as fault:
        if code_of(fault) in _MAY_BE_MISSING:
            return False
        raise
    return True


def _create(store: S3Client, settings: S3Settings) -> bool:
    region = store.meta.region_name
    try:
        if settings.s3_endpoint_url or region == DEFAULT_REGION:
            store.create_bucket(Bucket=settings.bucket)
        else:  # AWS needs the region, but refuses it for us-east-1, as do other stores for any
            store.create_bucket(Bucket=settings.bucket, CreateBucketConfiguration={"LocationConstraint": region})  # type: ignore[typeddict-item]  # any region
    except ClientError as fault:
        if code_of(fault) == "BucketAlreadyOwnedByYou":
            return False
        raise
    return True
