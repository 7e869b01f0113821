"""The shard stage: pack samples in WebDataset's layout into deterministic tar files.

`<split>/shard-%06d.tar` holds two members per sample, in order: `<key>.jpg` with the unchanged image, and `<key>.cls`
with the label in decimal digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from larder import dataset, tar
from larder.contract import IndexEntry
from larder.next_step import StageRun
from larder.packing.pack import Pack, PackLimits
from larder.packing.run import PackFormat, Shaping
from larder.packing.stage import pack
from larder.progress import Reporter
from larder.shards import LABEL, member_names, needs_special_key, special_key
from larder.stage import StageOutcome
from services.shard.settings import ShardSettings

NEXT_STEP = str(StageRun("load", "shards"))


def shard(settings: ShardSettings, reporter: Reporter) -> StageOutcome:
    """Run the stage."""
    limits = PackLimits(settings.shard_bytes, settings.shard_samples, "LARDER_SHARD_BYTES")
    shaping: Shaping = {"shard_bytes": int(limits.bytes), "shard_samples": limits.samples}
    return pack(settings, PackFormat(ShardLayout(), limits, shaping, NEXT_STEP), reporter)


class ShardLayout(NamedTuple):
    """WebDataset's layout. See PackLayout."""

    artifact: dataset.ArtifactLayout = "webdataset"
    frame_bytes: int = len(tar.END)
    imports: tuple[str, ...] = ()
    hint: str = "name the files in the source as what they are, with an extension (.jpg, .png), then extract again"

    def path(self, split: str, number: int) -> str:
        """See PackLayout."""
        return f"{split}/shard-{number:06d}.tar"

    def reject_reason(self, entry: IndexEntry) -> str | None:
        """See PackLayout. Refuses files without a name or an extension, and files with the labels' extension."""
        key, _, extension = entry.path.rpartition(".")
        name = key.rpartition("/")[2]
        if not key or "/" in extension:
            return f"{entry.path} has no extension, by which WebDataset readers know what a file is"
        if not name:
            return f"{entry.path} has no name before its extension, which WebDataset readers need for a key"
        if extension.lower() == LABEL:
            return f"{entry.path} has the extension of labels: it and its own label would be one file"
        return None

    def needs_special_key(self, path: str, previous: str) -> bool:
        """See PackLayout."""
        return needs_special_key(path, previous)

    def special_key(self, path: str) -> str:
        """See PackLayout."""
        return special_key(path)

    def sample_bytes(self, entry: IndexEntry) -> int:
        """See PackLayout."""
        image, label = member_names(entry.path, entry.key)
        return tar.member_bytes(image, entry.bytes) + tar.member_bytes(label, len(str(entry.label)))

    def offsets(self, entries: Sequence[IndexEntry]) -> Iterator[int]:
        """See PackLayout."""
        position = 0
        for entry in entries:
            yield position + tar.header_bytes(member_names(entry.path, entry.key)[0])
            position += self.sample_bytes(entry)

    def encode(self, entries: Sequence[IndexEntry], contents: Iterable[bytes]) -> Iterator[bytes]:
        """See PackLayout."""
        for entry, content in zip(entries, contents, strict=True):
            image, label = member_names(entry.path, entry.key)
            yield tar.header(image, len(content))
            yield content
            text = str(entry.label).encode()
            yield tar.padding(len(content)) + tar.header(label, len(text)) + _padded(text)
        yield tar.END

    def extras(self, packs: Sequence[Pack], digests: Mapping[str, str]) -> dict[str, bytes]:
        """See PackLayout. Shards have none."""
        return {}


@lru_cache
def _padded(text: bytes) -> bytes:
    return text + tar.padding(len(text))
