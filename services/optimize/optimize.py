"""The optimize stage: pack samples into LitData chunks, with LitData's own writer.

It writes `<split>/chunk-0-<n>.bin` and `<split>/index.json`. A sample is `{"image": <JPEG bytes>, "label": <int>}`.
The format: https://github.com/Lightning-AI/litData, litdata/streaming/writer.py
"""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

from larder import dataset
from larder.contract import IndexEntry
from larder.errors import ConfigurationError
from larder.next_step import StageRun
from larder.packing.pack import Pack, PackLimits
from larder.packing.run import PackFormat, Shaping
from larder.packing.stage import pack
from larder.progress import Reporter
from larder.stage import StageOutcome
from services.optimize.settings import OptimizeSettings

NEXT_STEP = str(StageRun("load", "chunks"))
LITDATA_VERSION = "0.2.76"
"""The release of litdata that defines the chunks' bytes."""
_LABEL_BYTES = 8  # an int64
_SIZES_BYTES = 2 * 4  # a sample begins with the sizes of its two values
_OFFSET_BYTES = 4


def optimize(settings: OptimizeSettings, reporter: Reporter) -> StageOutcome:
    """Run the stage. Raises ConfigurationError if litdata's release isn't LITDATA_VERSION."""
    _require_release()
    limits = PackLimits(settings.chunk_bytes, settings.chunk_samples, "LARDER_CHUNK_BYTES")
    shaping: Shaping = {
        "chunk_bytes": int(limits.bytes),
        "chunk_samples": limits.samples,
        "litdata": LITDATA_VERSION,
    }
    return pack(settings, PackFormat(ChunkLayout(limits.bytes), limits, shaping, NEXT_STEP), reporter)


class ChunkLayout(NamedTuple):
    """LitData's layout. See PackLayout."""

    chunk_bytes: int
    artifact: dataset.ArtifactLayout = "litdata"
    frame_bytes: int = 2 * _OFFSET_BYTES
    """The number of samples, and the offset at which the last one ends."""
    hint: str = ""
    imports: tuple[str, ...] = ("larder.litdata_adapter",)

    def path(self, split: str, number: int) -> str:
        """See PackLayout. LitData names a chunk by the rank of its writer and its number."""
        return f"{split}/chunk-0-{number}.bin"

    def reject_reason(self, entry: IndexEntry) -> None:
        """See PackLayout. Chunks hold no names, so any name is valid."""

    def needs_special_key(self, path: str, previous: str) -> bool:
        """See PackLayout. Chunks have no keys."""
        return False

    def special_key(self, path: str) -> str:
        """See PackLayout."""
        return path

    def sample_bytes(self, entry: IndexEntry) -> int:
        """See PackLayout."""
        return _OFFSET_BYTES + _SIZES_BYTES + entry.bytes + _LABEL_BYTES

    def offsets(self, entries: Sequence[IndexEntry]) -> Iterator[int]:
        """See PackLayout."""
        position = self.frame_bytes + _OFFSET_BYTES * len(entries) + _SIZES_BYTES
        for entry in entries:
            yield position
            position += entry.bytes + _LABEL_BYTES + _SIZES_BYTES

    def encode(self, entries: Sequence[IndexEntry], contents: Iterable[bytes]) -> Iterator[bytes]:
        """See PackLayout."""
        labels = (entry.label or 0 for entry in entries)
        yield _write_chunk(self.chunk_bytes, zip(contents, labels, strict=True))[0]

    def extras(self, packs: Sequence[Pack], digests: Mapping[str, str]) -> dict[str, bytes]:
        """See PackLayout. Returns LitData's index of each split.

        LitData writes the current time into it, and readers drop their cache when it changes. Here a digest of the
        chunks replaces the time, so that the same chunks have the same index.
        """
        config = _write_chunk(self.chunk_bytes, [(b"", 0)])[1]
        files = {}
        for split, split_packs in itertools.groupby(packs, key=lambda pack: pack.path.partition("/")[0]):
            chunks, content = [], hashlib.sha256()
            for chunk in split_packs:
                content.update(digests[chunk.path].encode())
                name = chunk.path.partition("/")[2]
                chunks.append({"chunk_bytes": chunk.size, "chunk_size": chunk.samples, "dim": None, "filename": name})
            index = {"chunks": chunks, "config": config, "updated_at": content.hexdigest()[:16]}
            files[f"{split}/index.json"] = json.dumps(index, sort_keys=True).encode()
        return files


@cache
def _require_release() -> None:
    """Raise ConfigurationError unless litdata's release is LITDATA_VERSION.

    Workers check it, too, since their nodes may differ.
    """
    if (release := version("litdata")) != LITDATA_VERSION:
        raise ConfigurationError(
            f"litdata {release} is installed on {platform.node()}, and chunks are written with {LITDATA_VERSION}: "
            f"other releases may write other bytes",
            next_step=f"`pip install litdata=={LITDATA_VERSION}`, or use this stage's image; "
            "nodes of a cluster need it, too",
        )


def _write_chunk(chunk_bytes: int, samples: Iterable[tuple[bytes, int]]) -> tuple[bytes, dict[str, Any]]:
    """Return a chunk's bytes from LitData's writer, and the writer's configuration for LitData's index."""
    _require_release()
    from larder.litdata_adapter import write_chunk  # imports torch, which takes seconds

    return write_chunk(chunk_bytes, samples)
