"""litdata's StreamingRawDataset, as its documentation runs it: over a prefix, with a transform, under DataLoader.

Its list of files comes from one listing, before the clock starts: its own index needs another package.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import boto3
from litdata import StreamingRawDataset
from litdata.raw.indexer import BaseIndexer, FileMetadata
from litdata.streaming import downloader
from torch.utils.data import DataLoader

from benchmarks.stream_peers.contestant import Given, run
from benchmarks.stream_peers.recipes import recipe


class _Listing(BaseIndexer):  # type: ignore[misc]  # no types
    def __init__(self, uri: str) -> None:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        client = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT_URL"], region_name="us-east-1")
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
        objects = [item for page in pages for item in page["Contents"]]
        self._files = [FileMetadata(path=f"s3://{bucket}/{item['Key']}", size=item["Size"]) for item in objects]

    def discover_files(self, *_: Any, **__: Any) -> list[Any]:
        return self._files

    def build_or_load_index(self, *_: Any, **__: Any) -> list[Any]:
        return self._files


def batches(given: Given) -> Generator[int, None, None]:
    """Read an epoch. The first step opens the data."""
    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True
    how = recipe(given.recipe)
    dataset = StreamingRawDataset(
        given.uri,
        cache_dir=str(given.folder),
        indexer=_Listing(given.uri),
        transform=lambda content: (how.transform(bytes(content)), 0),
        storage_options={
            "endpoint_url": os.environ["S3_ENDPOINT_URL"],
            "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
            "region_name": "us-east-1",
        },
    )
    loader: DataLoader[Any] = DataLoader(dataset, given.batch_size, shuffle=True, num_workers=given.workers)
    yield 0
    for _, labels in loader:
        yield len(labels)


if __name__ == "__main__":
    run(batches)
