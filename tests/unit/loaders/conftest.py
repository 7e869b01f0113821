"""A manifest for loaders."""

from __future__ import annotations

import pytest

from larder.contract import IndexSummary, Manifest, SplitSummary


@pytest.fixture
def manifest() -> Manifest:
    """Of 640 images for training, in two classes."""
    return Manifest(
        artifact="tree",
        dataset="photos",
        classes=["class_00", "class_01"],
        splits={"training": SplitSummary(samples=640, bytes=6400, samples_per_class=[320, 320])},
        input={},
        settings={},
        files=640,
        bytes=6400,
        index=IndexSummary(bytes=0, sha256="0" * 64),
    )
