"""The shard stage: WebDataset's layout in deterministic tar files.

`<split>/shard-%06d.tar` holds `<key>.jpg` and `<key>.cls` for each sample, one after the other: the image as it is, and
its label in decimal digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from larder import dataset, tar
from larder.contract import IndexEntry
from larder.next_step import Run
from larder.packing.plan import Limits, Pack
from larder.packing.stage import pack
from larder.progress import Reporter
from larder.shards import LABEL, member_names, needs_key, own_key
from larder.stage import Outcome
from services.shard.settings import ShardSettings

NEXT_STEP = str(Run("load", "shards"))


def shard(settings: ShardSettings, reporter: Reporter) -> Outcome:
    """Run the stage."""
    limits = Limits(settings.shard_bytes, settings.shard_samples, "LARDER_SHARD_BYTES")
    shaping: dict[str, str | int] = {"shard_bytes": int(limits.bytes), "shard_samples": limits.samples}
    return pack(settings, TarShards(), limits, shaping, NEXT_STEP, reporter)


class TarShards(NamedTuple):
    """WebDataset's layout. See larder.packing.Layout."""

    artifact: dataset.Layout = "webdataset"
    frame_bytes: int = len(tar.END)
    imports: tuple[str, ...] = ()
    remedy: str = "name the files in the source as what they are, with an extension (.jpg, .png), then extract again"

    def path(self, split: str, number: int) -> str:
        """See Layout."""
        return f"{split}/shard-{number:06d}.tar"

    def fault(self, entry: IndexEntry) -> str | None:
        """See Layout: a file without a name or an extension, or with that of labels."""
        key, _, extension = entry.path.rpartition(".")
        name = key.rpartition("/")[2]
        if not key or "/" in extension:
            return f"{entry.path} has no extension, by which WebDataset readers know what a file is"
        if not name:
            return f"{entry.path} has no name before its extension, which WebDataset readers need for a key"
        if extension.lower() == LABEL:
            return f"{entry.path} has the extension of labels: it and its own label would be one file"
        return None

    def needs_key(self, path: str, before: str) -> bool:
        """See Layout."""
        return needs_key(path, before)

    def own_key(self, path: str) -> str:
        """See Layout."""
        return own_key(path)

    def sample_bytes(self, entry: IndexEntry) -> int:
        """See Layout."""
        image, label = member_names(entry.path, entry.key)
        return tar.member_bytes(image, entry.bytes) + tar.member_bytes(label, len(str(entry.label)))

    def offsets(self, entries: Sequence[IndexEntry]) -> Iterator[int]:
        """See Layout."""
        place = 0
        for entry in entries:
            yield place + tar.header_bytes(member_names(entry.path, entry.key)[0])
            place += self.sample_bytes(entry)

    def encode(self, entries: Sequence[IndexEntry], contents: Iterable[bytes]) -> Iterator[bytes]:
        """See Layout."""
        for entry, content in zip(entries, contents, strict=True):
            image, label = member_names(entry.path, entry.key)
            yield tar.header(image, len(content))
            yield content
            text = str(entry.label).encode()
            yield tar.padding(len(content)) + tar.header(label, len(text)) + _padded(text)
        yield tar.END

    def extras(self, packs: Sequence[Pack], digests: Mapping[str, str]) -> dict[str, bytes]:
        """See Layout: there are none."""
        return {}


@lru_cache
def _padded(text: bytes) -> bytes:
    return text + tar.padding(len(text))
