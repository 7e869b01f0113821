"""Resources that all S3 clients of a process share."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import JSONFileLoader

from larder.loaders.s3_reader import ObjectReader
from larder.loaders.traffic import TrafficCounter
from larder.store import BucketSettings, StoreSettings, make_client

KEYS = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret"}


def test_models_are_read_once_for_all_clients(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = StoreSettings.load("store", [], KEYS)
    make_client(settings)
    read: list[str] = []
    load = JSONFileLoader._load_file  # type: ignore[attr-defined]

    def noted(self: Any, path: str, open_method: Any) -> Any:
        read.append(path)
        return load(self, path, open_method)

    monkeypatch.setattr(JSONFileLoader, "_load_file", noted)
    made = make_client(settings)
    bucket = BucketSettings.load("bench", [], KEYS | {"S3_BUCKET": "images"})
    ObjectReader(bucket, "us-east-1", TrafficCounter())._files.connect()
    assert not read
    assert made.meta.service_model.api_version == "2006-03-01"
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))  # models of the user's own
    make_client(settings)
    assert any(path.startswith(str(tmp_path)) for path in read)


def test_deleting_several_objects_has_the_digest_that_swift_requires() -> None:
    client = make_client(StoreSettings.load("store", [], {**KEYS, "S3_ENDPOINT_URL": "http://127.0.0.1:9"}))
    sent: list[Any] = []

    def stop(request: Any, **_: Any) -> None:
        sent.append(request)
        raise ConnectionError

    client.meta.events.register("before-send.s3.DeleteObjects", stop)
    with pytest.raises(ConnectionError):
        client.delete_objects(Bucket="images", Delete={"Objects": [{"Key": "a"}]})
    [request] = sent
    digest = b64encode(hashlib.md5(request.body, usedforsecurity=False).digest())
    assert request.headers["Content-MD5"] in (digest, digest.decode())
