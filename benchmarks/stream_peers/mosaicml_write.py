"""Write MDS shards for `mosaicml`: `python -m benchmarks.stream_peers.mosaicml_write TREE OUT PACK_BYTES`."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from streaming import MDSWriter


def write(tree: Path, out: Path, pack_bytes: int) -> None:
    """Write the images below `tree`, in folders `class_XX`, shuffled as other layouts are."""
    paths = sorted(tree.rglob("*.jpg"))
    random.Random(0).shuffle(paths)
    with MDSWriter(out=str(out), columns={"image": "bytes", "label": "int"}, size_limit=pack_bytes) as writer:
        for path in paths:
            writer.write({"image": path.read_bytes(), "label": int(path.parent.name.rpartition("_")[2])})


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
