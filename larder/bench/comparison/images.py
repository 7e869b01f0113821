"""Read the encoded images of a split, for the reference and for upper bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from larder.bench.arms import Layout
from larder.bench.settings import LoaderSettings
from larder.contract import find_manifest, read_index
from larder.shards import LABEL
from larder.store import StoreSettings


class ImageSource(NamedTuple):
    """Where the encoded images of a split are: in a folder of shards, or in a tree."""

    shards: str
    """URI of the folder of shards; empty if there are none."""
    tree: str
    """Folder of the tree; empty if there is none."""
    split: str
    """The split; in a folder of shards it is a subfolder, unless it is empty."""

    @property
    def shard_folder(self) -> str:
        """URI of the folder of the split's shards."""
        return f"{self.shards}/{self.split}" if self.split else self.shards


def source_of(settings: LoaderSettings, where: Mapping[Layout, str]) -> ImageSource | None:
    """Return where images can be read; None if there are neither shards nor a tree."""
    split = "" if settings.shards else settings.split
    source = ImageSource(where.get("webdataset", ""), where.get("tree", ""), split)
    return source if source.shards or source.tree else None


def encoded_images(source: ImageSource, store: StoreSettings) -> Iterator[tuple[bytes, int]]:
    """Yield each image's bytes and its label, in the stored order."""
    return _of_shards(source, store) if source.shards else _of_tree(Path(source.tree), source.split)


def _of_shards(source: ImageSource, store: StoreSettings) -> Iterator[tuple[bytes, int]]:
    from larder.stream.array_stream import ArrayStream
    from larder.stream.members import KEY

    stream = ArrayStream(source.shard_folder, shuffle=False, rank=0, world_size=1, store=store, mode="thread")
    for sample in stream.samples():
        images = [content for name, content in sample.items() if name not in (KEY, LABEL)]
        label = sample[LABEL]
        assert isinstance(label, bytes)
        yield max((content for content in images if isinstance(content, bytes)), key=len), int(label)


def _of_tree(folder: Path, split: str) -> Iterator[tuple[bytes, int]]:
    manifest = find_manifest(folder)
    assert manifest is not None
    for entry in read_index(folder, manifest):
        if entry.path.startswith(f"{split}/") and entry.label is not None:
            yield (folder / entry.path).read_bytes(), entry.label
