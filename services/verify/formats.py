"""What stands around an image in a shard and in a chunk, read by other means than the stages that wrote it."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from larder import chunks, tar
from larder.chunks import Extent
from larder.contract import SampleEntry
from larder.errors import InputError
from larder.progress import amount
from larder.shards import PlainTar, member_names


class Numbered(NamedTuple):
    """A sample and its number in its pack."""

    number: int
    sample: SampleEntry


class Mismatch(NamedTuple):
    """What isn't as it must be."""

    what: str
    expected: str = ""
    found: str = ""


class Format(Protocol):
    """The interface that both have."""

    tail: bytes
    """What follows the last sample."""

    def head_bytes(self, samples: int) -> int:
        """How much of a pack of so many samples comes before the first."""

    def head(self, data: bytes, samples: int, some: Sequence[Numbered]) -> Mismatch | None:
        """What is wrong with the head of a pack of so many samples, as far as it concerns some of them."""

    def span(self, sample: SampleEntry) -> tuple[int, int]:
        """Where a sample begins and ends in its pack."""

    def frame(self, data: bytes, sample: SampleEntry) -> Mismatch | None:
        """What is wrong with a sample's bytes beside those of its image."""

    def most_extra_bytes(self, packs: int) -> int:
        """The most that a file beside so many packs may have."""

    def extra(self, data: bytes, packs: Mapping[str, Extent]) -> Mismatch | None:
        """What is wrong with a file beside the packs, which are given by their names in its folder."""


class Shards:
    """Tar shards: the members `<key>.jpg` and `<key>.cls` for each sample."""

    tail = tar.END

    def head_bytes(self, samples: int) -> int:
        """See Format: nothing."""
        return 0

    def head(self, data: bytes, samples: int, some: Sequence[Numbered]) -> Mismatch | None:
        """See Format."""
        return None

    def span(self, sample: SampleEntry) -> tuple[int, int]:
        """See Format."""
        image, label = member_names(sample.source, sample.key)
        begin = sample.offset - tar.header_bytes(image)
        return begin, begin + tar.member_bytes(image, sample.bytes) + tar.member_bytes(label, len(str(sample.label)))

    def frame(self, data: bytes, sample: SampleEntry) -> Mismatch | None:
        """See Format: names and sizes in both headers, and the class."""
        wanted = member_names(sample.source, sample.key)
        try:
            with tarfile.open(fileobj=io.BytesIO(_plain(data)), mode="r:") as archive:
                members = [member for member in (archive.next(), archive.next()) if member is not None]
        except (InputError, tarfile.TarError, ValueError) as fault:  # ValueError: tarfile's on odd numbers
            return Mismatch(f"there is no readable tar header before an image ({fault})", wanted[0])
        if [member.name for member in members] != list(wanted):
            found = ", ".join(member.name for member in members)
            return Mismatch("the tar members of a sample have other names", ", ".join(wanted), found)
        image, label = members
        if (image.size, image.offset_data) != (sample.bytes, sample.offset - self.span(sample)[0]):
            return Mismatch("the tar header of an image has another size", f"{sample.bytes:,}", f"{image.size:,}")
        text = data[label.offset_data : label.offset_data + label.size]
        if text != str(sample.label).encode():
            return Mismatch(f"{label.name} holds another class", str(sample.label), repr(text)[1:])
        return None

    def most_extra_bytes(self, packs: int) -> int:
        """See Format: there are none."""
        return 0

    def extra(self, data: bytes, packs: Mapping[str, Extent]) -> Mismatch | None:
        """See Format: there are none."""
        return Mismatch("shards have no such file beside them")


class Chunks:
    """LitData's chunks: the number of samples, where each begins and the last one ends, then the samples. Of each:
    the sizes of its two values, the image, the label. All little-endian.

    The format: https://github.com/Lightning-AI/litData, litdata/streaming/writer.py
    """

    tail = b""

    _NUMBER = struct.Struct("<I")
    _SIZES = struct.Struct("<II")
    _LABEL = struct.Struct("<q")

    def head_bytes(self, samples: int) -> int:
        """See Format."""
        return self._NUMBER.size * (samples + 2)

    def head(self, data: bytes, samples: int, some: Sequence[Numbered]) -> Mismatch | None:
        """See Format."""
        if len(data) < self.head_bytes(samples):
            return Mismatch("the chunk ends in its head")
        count, *offsets = struct.unpack(f"<{samples + 2}I", data)
        if count != samples:
            return Mismatch("the chunk says that it has another number of samples", f"{samples:,}", f"{count:,}")
        for number, sample in some:
            begin, end = self.span(sample)
            if (offsets[number], offsets[number + 1]) != (begin, end):
                found = f"{offsets[number]:,} to {offsets[number + 1]:,}"
                return Mismatch(
                    f"the chunk's head has another place for {sample.source}", f"{begin:,} to {end:,}", found
                )
        return None

    def span(self, sample: SampleEntry) -> tuple[int, int]:
        """See Format."""
        return sample.offset - self._SIZES.size, sample.offset + sample.bytes + self._LABEL.size

    def frame(self, data: bytes, sample: SampleEntry) -> Mismatch | None:
        """See Format: the sizes before, and the label behind."""
        wanted, sizes = (sample.bytes, self._LABEL.size), self._SIZES.unpack_from(data)
        if sizes != wanted:
            return Mismatch("the sizes before an image are others", f"{wanted}", f"{sizes}")
        [label] = self._LABEL.unpack_from(data, self._SIZES.size + sample.bytes)
        if label != sample.label:
            return Mismatch("another label stands behind an image", str(sample.label), str(label))
        return None

    def most_extra_bytes(self, packs: int) -> int:
        """See Format."""
        return chunks.most_bytes(packs)

    def extra(self, data: bytes, packs: Mapping[str, Extent]) -> Mismatch | None:
        """See Format: LitData's index names the chunks of its folder, with their lengths and numbers of samples.

        It must have the one form that larder writes, since LitData takes from it how to decode: see larder.chunks.
        """
        try:
            listed = chunks.parse(data)
        except ValueError as fault:
            return Mismatch(f"LitData's index isn't as larder writes it ({fault})")
        for name in sorted(listed.keys() | packs.keys()):
            if listed.get(name) != packs.get(name):
                return Mismatch(
                    f"LitData's index says something else of {name}", _in_words(packs.get(name)),
                    _in_words(listed.get(name)),
                )  # fmt: skip
        return None


def _plain(data: bytes) -> bytes:
    """A part of a shard. Raises InputError where it has other headers than those of plain files."""
    return PlainTar(io.BytesIO(data), "it", "").read()


def _in_words(extent: Extent | None) -> str:
    return (
        "no such chunk" if extent is None else f"{amount(extent.samples, 'samples')}, {amount(extent.bytes, 'bytes')}"
    )


FORMATS: Mapping[str, Format] = {"webdataset": Shards(), "litdata": Chunks()}
