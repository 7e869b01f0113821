"""A loader names the extras that install what is missing."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from larder.contract import Manifest
from larder.errors import ConfigurationError
from larder.loaders.chunks import ChunkLoader
from larder.loaders.image_folder import ImageFolderLoader
from larder.loaders.loader import Loader
from larder.loaders.objects import ObjectLoader
from larder.loaders.shards import ShardLoader

PYPROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
EXTRAS = set(PYPROJECT["project"]["optional-dependencies"])
URI = "s3://bucket/photos"
LOADERS: dict[str, Callable[[], Loader]] = {
    "objects": lambda: ObjectLoader(URI, "training"),
    "shards": lambda: ShardLoader(URI, "training"),
    "chunks": lambda: ChunkLoader(URI, "training", cache_dir="cache"),
}


@pytest.mark.parametrize("name", LOADERS)
def test_without_a_client_for_the_store(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match="needs boto3, which is not installed") as raised:
        LOADERS[name]()
    [extras] = re.findall(r"larder-data\[(.+)\]", raised.value.next_step)
    assert set(extras.split(",")) <= EXTRAS
    assert "s3fs" in extras


def test_without_torchvision(monkeypatch: pytest.MonkeyPatch, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "_larder").mkdir()
    (tmp_path / "_larder" / "manifest.json").write_text(manifest.to_json())
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ConfigurationError, match="ImageFolderLoader needs torchvision") as raised:
        ImageFolderLoader(tmp_path, "training")
    assert "'larder-data[torch]'" in raised.value.next_step
