"""Reading images to pack."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from larder.packing.pack_input import open_prefix
from larder.store import BucketSettings


def test_all_that_read_at_once_share_a_client() -> None:
    settings = BucketSettings.load("test", [], {"S3_BUCKET": "bucket", "AWS_REGION": "eu-north-1"})
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(lambda _: open_prefix(settings, "Food-11"), range(8)))
    assert len(set(map(id, opened))) == 1
