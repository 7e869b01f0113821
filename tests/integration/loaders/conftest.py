"""One dataset for all tests, which don't change it."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import NamedTuple

import pytest

from larder.volume import CHUNKS, SHARDS
from tests.conftest import Store
from tests.integration.bench.conftest import Packs, load, packs, run_stage

__all__ = ["packs"]


class Stored(NamedTuple):
    """A tree, and its images in a store as objects, as shards and as chunks."""

    tree: Path
    env: dict[str, str]
    """The settings that reach the store."""
    uris: dict[str, str]
    """Of each layout's folder, by the loader's module."""


@pytest.fixture(scope="session")
def stored(packs: Packs, s3: Store) -> Stored:
    """Forty images for training and twelve for validation, of three classes."""
    bucket = f"larder-loaders-{uuid.uuid4().hex[:12]}"
    s3.client.create_bucket(Bucket=bucket)
    environ = load(packs.tree, s3, bucket)
    for stage, name in (("shard", SHARDS), ("optimize", CHUNKS)):
        run_stage("load", **environ, LARDER_VOLUME_DIR=str(packs.volumes[stage]), LARDER_LOAD=name)
    folder = f"s3://{bucket}/{environ['S3_PREFIX']}/{packs.tree.name}"
    return Stored(
        packs.tree, s3.env, {"objects": folder, "shards": f"{folder}-webdataset", "chunks": f"{folder}-litdata"}
    )
