"""Check the bytes around images in shards and chunks, with parsers independent of the code that writes them."""

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
from larder.progress import format_amount
from larder.shards import PlainTar, member_names


class NumberedSample(NamedTuple):
    """A sample with its number in its pack (shard or chunk)."""

    number: int
    sample: SampleEntry


class Mismatch(NamedTuple):
    """A difference between a pack and what it should hold."""

    what: str
    expected: str = ""
    found: str = ""


class PackFormat(Protocol):
    """The interface of both formats."""

    tail: bytes
    """The bytes after the last sample."""

    def head_bytes(self, samples: int) -> int:
        """Return the bytes before the first sample, for a pack of `samples` samples."""

    def check_head(self, data: bytes, samples: int, chosen: Sequence[NumberedSample]) -> Mismatch | None:
        """Check the head of a pack of `samples` samples, as far as it concerns the `chosen` ones."""

    def span(self, sample: SampleEntry) -> tuple[int, int]:
        """Return the offsets where a sample begins and ends in its pack."""

    def check_frame(self, data: bytes, sample: SampleEntry) -> Mismatch | None:
        """Check the bytes of a sample around its image."""

    def max_extra_file_bytes(self, packs: int) -> int:
        """Return the maximum length of a file beside `packs` packs."""

    def check_extra_file(self, data: bytes, packs: Mapping[str, Extent]) -> Mismatch | None:
        """Check a file beside the packs, which are given by their names in its folder."""


class ShardFormat:
    """Tar shards: the members `<key>.jpg` and `<key>.cls` for each sample."""

    tail = tar.END

    def head_bytes(self, samples: int) -> int:
        """See PackFormat. Shards have no head."""
        return 0

    def check_head(self, data: bytes, samples: int, chosen: Sequence[NumberedSample]) -> Mismatch | None:
        """See PackFormat."""
        return None

    def span(self, sample: SampleEntry) -> tuple[int, int]:
        """See PackFormat."""
        image, label = member_names(sample.source, sample.key)
        begin = sample.offset - tar.header_bytes(image)
        return begin, begin + tar.member_bytes(image, sample.bytes) + tar.member_bytes(label, len(str(sample.label)))

    def check_frame(self, data: bytes, sample: SampleEntry) -> Mismatch | None:
        """See PackFormat. Checks names and sizes in both headers, and the class."""
        expected = member_names(sample.source, sample.key)
        try:
            plain = PlainTar(io.BytesIO(data), "it", "").read()  # refuses headers other than those of regular files
            with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as archive:
                members = [member for member in (archive.next(), archive.next()) if member is not None]
        except (InputError, tarfile.TarError, ValueError) as fault:  # tarfile raises ValueError for invalid numbers
            return Mismatch(f"there is no readable tar header before an image ({fault})", expected[0])
        if [member.name for member in members] != list(expected):
            found = ", ".join(member.name for member in members)
            return Mismatch("the tar members of a sample have other names", ", ".join(expected), found)
        image, label = members
        if (image.size, image.offset_data) != (sample.bytes, sample.offset - self.span(sample)[0]):
            return Mismatch("the tar header of an image has another size", f"{sample.bytes:,}", f"{image.size:,}")
        text = data[label.offset_data : label.offset_data + label.size]
        if text != str(sample.label).encode():
            return Mismatch(f"{label.name} holds another class", str(sample.label), repr(text)[1:])
        return None

    def max_extra_file_bytes(self, packs: int) -> int:
        """See PackFormat. There are none."""
        return 0

    def check_extra_file(self, data: bytes, packs: Mapping[str, Extent]) -> Mismatch | None:
        """See PackFormat. There are none."""
        return Mismatch("shards have no such file beside them")


class ChunkFormat:
    """LitData's chunks.

    A chunk holds the number of samples, the offset of each sample and of the last one's end, then the samples. A sample
    holds the sizes of its two values, the image and the label. All numbers are little-endian.

    The format: https://github.com/Lightning-AI/litData, litdata/streaming/writer.py
    """

    tail = b""

    _NUMBER = struct.Struct("<I")
    _SIZES = struct.Struct("<II")
    _LABEL = struct.Struct("<q")

    def head_bytes(self, samples: int) -> int:
        """See PackFormat."""
        return self._NUMBER.size * (samples + 2)

    def check_head(self, data: bytes, samples: int, chosen: Sequence[NumberedSample]) -> Mismatch | None:
        """See PackFormat."""
        if len(data) < self.head_bytes(samples):
            return Mismatch("the chunk ends in its header")
        count, *offsets = struct.unpack(f"<{samples + 2}I", data)
        if count != samples:
            return Mismatch("the chunk's header has another number of samples", f"{samples:,}", f"{count:,}")
        for number, sample in chosen:
            begin, end = self.span(sample)
            if (offsets[number], offsets[number + 1]) != (begin, end):
                found = f"{offsets[number]:,} to {offsets[number + 1]:,}"
                return Mismatch(
                    f"the chunk's header has another offset for {sample.source}", f"{begin:,} to {end:,}", found
                )
        return None

    def span(self, sample: SampleEntry) -> tuple[int, int]:
        """See PackFormat."""
        return sample.offset - self._SIZES.size, sample.offset + sample.bytes + self._LABEL.size

    def check_frame(self, data: bytes, sample: SampleEntry) -> Mismatch | None:
        """See PackFormat. Checks the sizes before the image, and the label after it."""
        expected, sizes = (sample.bytes, self._LABEL.size), self._SIZES.unpack_from(data)
        if sizes != expected:
            return Mismatch("the sizes before an image are wrong", f"{expected}", f"{sizes}")
        [label] = self._LABEL.unpack_from(data, self._SIZES.size + sample.bytes)
        if label != sample.label:
            return Mismatch("the label after an image is wrong", str(sample.label), str(label))
        return None

    def max_extra_file_bytes(self, packs: int) -> int:
        """See PackFormat."""
        return chunks.max_index_bytes(packs)

    def check_extra_file(self, data: bytes, packs: Mapping[str, Extent]) -> Mismatch | None:
        """See PackFormat. Checks LitData's index: the chunks of its folder, their lengths and numbers of samples.

        It must be exactly as larder writes it, since it tells LitData how to decode: see larder.chunks.
        """
        try:
            listed = chunks.parse(data)
        except ValueError as fault:
            return Mismatch(f"LitData's index isn't as larder writes it ({fault})")
        for name in sorted(listed.keys() | packs.keys()):
            if listed.get(name) != packs.get(name):
                return Mismatch(
                    f"LitData's index differs for {name}",
                    _describe_extent(packs.get(name)),
                    _describe_extent(listed.get(name)),
                )
        return None


def _describe_extent(extent: Extent | None) -> str:
    return (
        "no such chunk"
        if extent is None
        else f"{format_amount(extent.samples, 'samples')}, {format_amount(extent.bytes, 'bytes')}"
    )


PACK_FORMATS: Mapping[str, PackFormat] = {"webdataset": ShardFormat(), "litdata": ChunkFormat()}
