"""Read the encoded images of a split, for the reference and for upper bounds."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from larder.bench.arms import Layout
from larder.bench.settings import LoaderSettings
from larder.contract import find_manifest, read_index
from larder.shards import LABEL
from larder.store import StoreSettings

_SEED = 0  # each round has the same images


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
    return _of_shards(source, store, shuffle=False) if source.shards else _of_tree(Path(source.tree), source.split)


def sampled_images(source: ImageSource, store: StoreSettings, max_images: int, max_bytes: int) -> list[bytes]:
    """Return the bytes of some images from all parts of the split, the same ones each time.

    Images are often stored by class, and the first ones may be larger or smaller than the others.

    Args:
        source: Where the images are; a tree is preferred.
        store: Settings of the store.
        max_images: Number of images, if the split has as many.
        max_bytes: Total length after which no further image is taken.
    """
    if source.tree:
        paths = _paths_of_tree(Path(source.tree), source.split)
        chosen = random.Random(_SEED).sample(paths, min(max_images, len(paths)))
        contents: Iterator[bytes] = (path.read_bytes() for path, _ in chosen)
    else:
        contents = (content for content, _ in _of_shards(source, store, shuffle=True))
    images, total = list[bytes](), 0
    for content in itertools.islice(contents, max_images):
        images.append(content)
        total += len(content)
        if total >= max_bytes:
            break
    return images


def _of_shards(source: ImageSource, store: StoreSettings, *, shuffle: bool) -> Iterator[tuple[bytes, int]]:
    from larder.stream.array_stream import ArrayStream
    from larder.stream.members import KEY

    stream = ArrayStream(
        source.shard_folder, shuffle=shuffle, seed=_SEED, rank=0, world_size=1, store=store, mode="thread"
    )
    for sample in stream.samples():
        images = [content for name, content in sample.items() if name not in (KEY, LABEL)]
        label = sample[LABEL]
        assert isinstance(label, bytes)
        yield max((content for content in images if isinstance(content, bytes)), key=len), int(label)


def _of_tree(folder: Path, split: str) -> Iterator[tuple[bytes, int]]:
    for path, label in _paths_of_tree(folder, split):
        yield path.read_bytes(), label


def _paths_of_tree(folder: Path, split: str) -> list[tuple[Path, int]]:
    """Return path and label of each image, in the order of the index."""
    manifest = find_manifest(folder)
    assert manifest is not None
    return [
        (folder / entry.path, entry.label)
        for entry in read_index(folder, manifest)
        if entry.path.startswith(f"{split}/") and entry.label is not None
    ]
