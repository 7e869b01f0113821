"""List the shards of a prefix as presigned URLs, for contestants that read http."""

from __future__ import annotations

import os

import boto3
from botocore.config import Config


def presign_shards(uri: str) -> dict[str, int]:
    """Return the length of each shard below `s3://bucket/prefix`, by its presigned URL, sorted by name."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    client = boto3.client(
        "s3",
        endpoint_url=os.environ["S3_ENDPOINT_URL"],
        region_name="us-east-1",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    found = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]
    return {
        client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": entry["Key"]}): entry["Size"]
        for entry in sorted(found, key=lambda entry: entry["Key"])
        if entry["Key"].endswith(".tar")
    }
