"""Manifests, by all of their readers."""

from __future__ import annotations

from pathlib import Path

from larder.cli import inventory
from larder.contract import IndexSummary, Manifest, SplitSummary, parse_manifest
from larder.errors import LarderError
from tests import hostile
from tests.fuzz.mutations import mutated

SOUND = Manifest(
    artifact="webdataset",
    dataset="photos",
    classes=["a", "b"],
    input={"kind": "tree", "manifest": "0" * 64},
    settings={"seed": 0},
    files=3,
    bytes=5000,
    index=IndexSummary(bytes=600, sha256="0" * 64),
    samples=IndexSummary(bytes=900, sha256="1" * 64),
    splits={"training": SplitSummary(samples=7, bytes=4000, samples_per_class=[3, 4])},
)
SEEDS = [SOUND.to_json().encode(), *(attack(SOUND.to_json().encode())[:5000] for attack in hostile.MANIFESTS.values())]


def target(data: bytes, folder: Path) -> None:
    """Parse it in all ways, and write back what is read."""
    try:
        manifest = parse_manifest(data, "manifest.json")
    except LarderError as error:
        assert len(error.what) < 1000
    else:
        assert parse_manifest(manifest.to_json().encode(), "again") == manifest
    held = inventory.Contents((inventory.parse("x", data),))
    assert inventory.from_json(inventory.as_json({"x": held})) == {"x": held}


fuzz = mutated(SEEDS, target)
