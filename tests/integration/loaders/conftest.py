"""The data are bench's: a tree, and its images as objects, shards and chunks in a bucket."""

from tests.integration.bench.conftest import loaded, packed, packs, tree

__all__ = ["loaded", "packed", "packs", "tree"]
