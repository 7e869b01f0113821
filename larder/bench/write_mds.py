"""Write a split of a tree as MDS shards, in MosaicML Streaming's environment.

Run `python -m larder.bench.write_mds TREE SPLIT OUT`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from larder.bench.peer_data import shuffled
from larder.contract import find_manifest, read_index
from larder.loaders.image_table import ImageTable


def write(tree: Path, split: str, out: Path) -> None:
    """Write the images of a split, with the columns image and label, shuffled as other layouts are."""
    from streaming import MDSWriter

    manifest = find_manifest(tree)
    assert manifest is not None  # the caller has read it
    table = ImageTable(read_index(tree, manifest), split, lambda: None)
    with MDSWriter(out=str(out), columns={"image": "bytes", "label": "int"}) as writer:
        for number in shuffled(table):
            writer.write({"image": (tree / table.path(number)).read_bytes(), "label": table.label(number)})


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
