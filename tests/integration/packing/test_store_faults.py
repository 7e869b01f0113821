"""Pack into a store that fails, or that stores wrong bytes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Proxy, Store
from tests.integration.packing.conftest import StorePacker

pytestmark = pytest.mark.any_store


@pytest.mark.one_in(2)
@pytest.mark.parametrize("fault", ["reset-request", 503])
def test_a_store_that_fails_in_passing(shard: StorePacker, proxy: Proxy, fault: Any) -> None:
    broken: set[str] = set()

    def once(method: str, path: str, number: int) -> Any:
        if method == "PUT" and path.endswith((".tar", "3.tar?x")) and path not in broken:
            broken.add(path)
            return fault
        return None

    proxy.fault = once
    result = shard("x", via=proxy)
    assert result.code == 0, result.stderr
    assert broken
    assert shard("y").code == 0
    assert shard.objects("x") == shard.objects("y")


def test_a_store_that_fails_for_good(shard: StorePacker, proxy: Proxy) -> None:
    proxy.fault = lambda method, path, number: 403 if method == "PUT" and "000002.tar" in path else None
    result = shard("x", via=proxy)
    assert result.code == 2, result.stderr
    assert "shard-000002.tar" in result.stderr
    assert "_larder/manifest.json" not in shard.objects("x")
    assert shard("x").code == 0


@pytest.mark.parametrize(
    ("faults", "puts"),
    [
        pytest.param([501], 2, id="takes-no-checksum"),
        pytest.param(["no-checksum"], 1, id="confirms-nothing"),
        pytest.param(["corrupt-request"], 2, id="got-other-bytes"),
        pytest.param([501, "corrupt-request"], 3, id="takes-no-checksum-and-got-other-bytes"),
    ],
)
def test_what_arrives_is_verified(shard: StorePacker, proxy: Proxy, faults: list[Any], puts: int) -> None:
    waiting = list(faults)
    proxy.fault = lambda method, path, number: (
        waiting.pop(0) if waiting and method == "PUT" and "training/shard-000001.tar" in path else None
    )
    result = shard("x", "--shard-bytes=300000", via=proxy)
    assert result.code == 0, result.stderr
    assert not waiting
    assert proxy.count("PUT", "training/shard-000001.tar") == puts
    assert not proxy.count("GET", "training/shard-000001.tar"), "its ETag confirms the content"
    assert shard("y", "--shard-bytes=300000").code == 0
    assert shard.objects("x") == shard.objects("y")


def test_other_bytes_in_a_store_that_gives_no_checksums(shard: StorePacker, proxy: Proxy) -> None:
    proxy.fault = lambda method, path, number: (
        {"PUT": "no-digest", "GET": "corrupt"}.get(method) if "training/shard-000001.tar" in path else None
    )
    result = shard("x", via=proxy)
    assert result.code == 5, result.stderr
    assert "the store's bytes differ from those that were sent" in result.stderr
    assert "_larder/manifest.json" not in shard.objects("x")


@pytest.mark.parametrize("index", ["_larder/index-", "_larder/samples-"])
@pytest.mark.parametrize("way", ["streamed", "loaded"])
def test_an_index_that_arrives_wrong_gets_no_manifest(shard: StorePacker, proxy: Proxy, index: str, way: str) -> None:
    proxy.fault = lambda method, path, number: "corrupt-request" if method == "PUT" and index in path else None
    if way == "loaded":
        assert shard.to_volume().code == 0
    result = shard("", via=proxy) if way == "streamed" else shard.load(via=proxy)
    assert result.code == 5, result.stderr
    assert index in result.stderr
    assert "the store's bytes differ from those that were sent" in result.stderr
    assert "_larder/manifest.json" not in shard.objects()


def test_a_store_that_takes_no_checksum_gets_one_pack_again(store: Store, bucket: str, proxy: Proxy) -> None:
    from larder.bucket import BucketPrefix
    from larder.store import BucketSettings

    proxy.fault = lambda method, path, number: 501 if number == 1 else None
    settings = BucketSettings.load("test", [], store.env | {"S3_BUCKET": bucket, "S3_ENDPOINT_URL": proxy.endpoint})
    folder = BucketPrefix(settings, "folder")
    assert [folder.write_confirmed(path, b"pack")[1] for path in ("1.tar", "2.tar")] == [True, True]
    assert [proxy.count("PUT", path) for path in ("1.tar", "2.tar")] == [2, 1]
    assert proxy.checksums == 1


def test_a_large_pack_that_fails_leaves_nothing(
    store: Store, bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    from larder.errors import ConfigurationError
    from larder.packing import store as packs
    from larder.store import BucketSettings

    monkeypatch.setattr(packs, "CUTOFF_BYTES", 5 << 20)
    monkeypatch.setattr(packs, "PART_BYTES", 5 << 20)
    proxy.fault = lambda method, path, number: 403 if "partNumber=2" in path else None
    settings = BucketSettings.load("test", [], store.env | {"S3_BUCKET": bucket, "S3_ENDPOINT_URL": proxy.endpoint})
    with pytest.raises(ConfigurationError, match=r"folder/large\.tar"):
        packs.upload_pack(settings, "folder", "", "large.tar", 11 << 20, [bytes(11 << 20)])
    assert proxy.count("PUT", "partNumber=1") == 1
    assert not store.client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert not store.client.list_objects_v2(Bucket=bucket).get("Contents")
