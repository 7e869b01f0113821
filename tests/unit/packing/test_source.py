"""What images are read with."""

from __future__ import annotations

import pytest

from larder.contract import IndexEntry
from larder.errors import ServiceError
from larder.packing.source import BucketSource, open_folder
from larder.store import BucketSettings


def test_all_that_read_at_once_share_a_client() -> None:
    nobody_listens = {"S3_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    source = BucketSource(BucketSettings.load("test", [], nobody_listens | {"S3_BUCKET": "bucket"}), "Food-11")
    open_folder.cache_clear()
    with pytest.raises(ServiceError, match="doesn't answer"):
        list(source.contents([IndexEntry(f"t/c/{number}.jpg", 1, "0" * 64, 0) for number in range(100)]))
    assert open_folder.cache_info().misses == 1
