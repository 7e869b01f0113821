"""The optimize stage: LitData's chunks, written by LitData's own writer.

`<split>/chunk-0-<n>.bin` and `<split>/index.json`; a sample is `{"image": <JPEG bytes>, "label": <int>}`.
The format: https://github.com/Lightning-AI/litData, litdata/streaming/writer.py
"""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, NamedTuple

from larder import dataset
from larder.contract import IndexEntry
from larder.errors import ConfigurationError
from larder.next_step import Run
from larder.packing.plan import Limits, Pack
from larder.packing.stage import pack
from larder.progress import Reporter
from larder.stage import Outcome
from services.optimize.settings import OptimizeSettings

NEXT_STEP = str(Run("load", "chunks"))
WRITER = "0.2.76"
"""The release of litdata whose bytes these are."""
_LABEL_BYTES = 8  # an int64
_SIZES_BYTES = 2 * 4  # a sample begins with the sizes of its two values
_OFFSET_BYTES = 4


def optimize(settings: OptimizeSettings, reporter: Reporter) -> Outcome:
    """Run the stage. Raises ConfigurationError when litdata isn't the release that chunks are made by."""
    _require_release()
    limits = Limits(settings.chunk_bytes, settings.chunk_samples, "LARDER_CHUNK_BYTES")
    shaping: dict[str, str | int] = {
        "chunk_bytes": int(limits.bytes), "chunk_samples": limits.samples, "litdata": WRITER
    }  # fmt: skip
    return pack(settings, Chunks(limits.bytes), limits, shaping, NEXT_STEP, reporter)


class Chunks(NamedTuple):
    """LitData's layout. See larder.packing.Layout."""

    chunk_bytes: int
    artifact: dataset.Layout = "litdata"
    frame_bytes: int = 2 * _OFFSET_BYTES
    """The number of samples, and the offset at which the last one ends."""
    remedy: str = ""
    imports: tuple[str, ...] = ("litdata.streaming.writer",)

    def path(self, split: str, number: int) -> str:
        """See Layout. LitData names a chunk by the rank of its writer and its number."""
        return f"{split}/chunk-0-{number}.bin"

    def fault(self, entry: IndexEntry) -> None:
        """See Layout: a chunk holds no names, so that any will do."""

    def needs_key(self, path: str, before: str) -> bool:
        """See Layout: there are no keys."""
        return False

    def own_key(self, path: str) -> str:
        """See Layout."""
        return path

    def sample_bytes(self, entry: IndexEntry) -> int:
        """See Layout."""
        return _OFFSET_BYTES + _SIZES_BYTES + entry.bytes + _LABEL_BYTES

    def offsets(self, entries: Sequence[IndexEntry]) -> Iterator[int]:
        """See Layout."""
        place = self.frame_bytes + _OFFSET_BYTES * len(entries) + _SIZES_BYTES
        for entry in entries:
            yield place
            place += entry.bytes + _LABEL_BYTES + _SIZES_BYTES

    def encode(self, entries: Sequence[IndexEntry], contents: Iterable[bytes]) -> Iterator[bytes]:
        """See Layout."""
        labels = (entry.label or 0 for entry in entries)
        yield _write(self.chunk_bytes, zip(contents, labels, strict=True))[0]

    def extras(self, packs: Sequence[Pack], digests: Mapping[str, str]) -> dict[str, bytes]:
        """See Layout: LitData's index of each split.

        LitData notes the time of writing there, and readers drop what they have cached when it changes. A digest of the
        chunks serves for it here, so that the same chunks have the same index.
        """
        config = _write(self.chunk_bytes, [(b"", 0)])[1]
        found = {}
        for split, some in itertools.groupby(packs, key=lambda pack: pack.path.partition("/")[0]):
            chunks, content = [], hashlib.sha256()
            for chunk in some:
                content.update(digests[chunk.path].encode())
                name = chunk.path.partition("/")[2]
                chunks.append({"chunk_bytes": chunk.size, "chunk_size": chunk.samples, "dim": None, "filename": name})
            index = {"chunks": chunks, "config": config, "updated_at": content.hexdigest()[:16]}
            found[f"{split}/index.json"] = json.dumps(index, sort_keys=True).encode()
        return found


@cache
def _require_release() -> None:
    """Also asked by each worker, whose node may have packages of its own."""
    if (found := version("litdata")) != WRITER:
        raise ConfigurationError(
            f"litdata {found} is installed on {platform.node()}, and chunks are those of {WRITER}: others would differ",
            next_step=f"`pip install litdata=={WRITER}`, or use this stage's image; nodes of a cluster need it, too",
        )


def _write(chunk_bytes: int, samples: Iterable[tuple[bytes, int]]) -> tuple[bytes, dict[str, Any]]:
    """One chunk's bytes as LitData's writer makes them, and the writer's configuration for LitData's index."""
    _require_release()
    from litdata.streaming.writer import BinaryWriter  # imports torch, which takes seconds

    chunks: list[bytes] = []

    class InMemory(BinaryWriter):  # type: ignore[misc]  # litdata has no types
        """Keeps what the writer would put into a file, which is the same whether pyarrow is installed or not.

        Where it is, LitData would write samples as rows of Arrow.
        """

        def _create_chunk(self, on_done: bool = False) -> tuple[bytes, bool, dict[str, Any]]:
            for item in self._serialized_items.values():
                item.sample = None  # the row
            chunk: tuple[bytes, bool, dict[str, Any]] = super()._create_chunk(on_done)
            return chunk

        def write_chunk_to_file(self, raw_data: bytes, filename: str, compress: bool | None = None) -> None:
            chunks.append(raw_data)

    with tempfile.TemporaryDirectory(prefix="larder-") as folder:  # the writer wants one, for an index of its own
        writer = InMemory(folder, chunk_bytes=chunk_bytes)
        for number, (image, label) in enumerate(samples):
            writer.add_item(number, {"image": image, "label": label})
        writer.done()
    [data] = chunks
    return data, writer.get_config()
