"""The arms that read packs: how they are started, and what they ask of the store."""

from __future__ import annotations

import pytest

from tests.conftest import Proxy

SHARDS, CHUNKS = "team/food/Food-11-webdataset", "team/food/Food-11-litdata"

ARMS = {
    "webdataset": ({}, SHARDS),
    "library": ({"LARDER_WEBDATASET_LOADER": "webdataset"}, SHARDS),
    "stream": ({}, SHARDS),
    "litdata_streaming": ({}, CHUNKS),
}

one_store = pytest.mark.parametrize("store", ["seaweedfs"], indirect=True)

all_arms = pytest.mark.parametrize("arm", ARMS)


def fetched(proxy: Proxy, folder: str) -> list[tuple[str, str]]:
    """The requests for packs of the split."""
    return [(method, path) for method, path in proxy.requests if is_pack(path) and f"{folder}/training/" in path]


def is_pack(path: str) -> bool:
    return path.endswith((".tar", ".bin"))
