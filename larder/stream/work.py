"""Turn the bytes of samples into batches: what decoders do (`larder.stream.batch_reader.Work`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from larder.errors import InputError
from larder.loaders.hints import CREATE_AGAIN
from larder.stream.decode import ImageDecoder, has_digest
from larder.stream.members import Sample, member_at, read_sample
from larder.stream.order import Samples, uniform_draws
from larder.stream.samples import NO_LABEL, SampleTable, Skipped
from larder.stream.shard_folders import ShardFolder
from larder.stream.transforms import Transform

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images, uint8 [N, H, W, 3], and their labels, int64 [N]."""


@dataclass(frozen=True)
class SampleChecks:
    """Find and name samples that can't be used. Its methods are called in several threads.

    Attributes:
        folder: The shards.
        table: Their samples.
        on_damage: Whether a sample that can't be used raises an error, or is skipped.
        check_digests: Whether to check each image's sha256, if the table has it.
    """

    folder: ShardFolder
    table: SampleTable
    on_damage: Literal["raise", "skip"]
    check_digests: bool

    def name(self, sample: int) -> str:
        """Return how messages name a sample: shard, offset and key."""
        table = self.table
        shard, begin = table.shards[table.shard[sample]], int(table.begin[sample])
        try:
            member = member_at(self.folder, shard, begin, int(table.end[sample]))
        except InputError:
            member = ""
        position = int(table.offset[sample]) if table.offset[sample] >= 0 else begin
        return f"{self.folder.uri}/{shard}, byte {position:,}" + (f", {member!r}" if member else "")

    def lacks(self, samples: Samples) -> list[str]:
        """Return what each sample lacks to be an image with a label, as a reason; empty for nothing."""
        has_image, has_label = self.table.offset[samples] >= 0, self.table.label[samples] != NO_LABEL
        reasons = np.where(has_image, np.where(has_label, "", "it has no label"), "it has no image")
        return [str(reason) for reason in reasons]

    def fault_of(self, sample: int, content: memoryview | InputError, image: memoryview | None = None) -> str:
        """Return why a sample can't be used; empty if it can.

        Args:
            sample: Number of the sample.
            content: Its bytes, or why they couldn't be read.
            image: The bytes of its image; None if `content` is the image.
        """
        if isinstance(content, InputError):
            shard = f"{self.folder.uri}/{self.table.shards[self.table.shard[sample]]}"
            return content.what.replace(shard, "the shard")
        digests = self.table.digests
        if digests is None or not self.check_digests:
            return ""
        is_same = has_digest(content if image is None else image, digests[sample])
        return "" if is_same else "it has other bytes than the dataset's index says"

    def handle_fault(self, sample: int, reason: str) -> Skipped:
        """Raise InputError for a sample that can't be used, or return how it is counted."""
        if self.on_damage == "raise":
            raise InputError(f"{self.name(sample)} can't be read: {reason}", next_step=CREATE_AGAIN)
        position = int(max(self.table.offset[sample], self.table.begin[sample]))
        return Skipped(self.table.shards[self.table.shard[sample]], position, reason)


class ImageBatch:
    """A batch of images that is being filled.

    Attributes:
        images: uint8 [N, H, W, 3]: an array, or a tensor on a device.
        labels: int64 [N].
        slot: Number of the shared slot that holds the images, in a stream's child process; -1 elsewhere.
        skipped: The samples that can't be used, by their places in the batch.
    """

    def __init__(self, images: Any, labels: NDArray[np.int64], slot: int = -1) -> None:
        self.images, self.labels, self.slot = images, labels, slot
        self.skipped: dict[int, Skipped] = {}

    def finish(self, skip: Callable[[Sequence[Skipped]], None]) -> Arrays:
        """Return the images that can be used, and their labels. Call `skip` with the others.

        Raises:
            InputError: If no image can be used.
        """
        if not self.skipped:
            return self.images, self.labels
        skipped = [self.skipped[place] for place in sorted(self.skipped)]
        skip(skipped)
        if len(self.skipped) == len(self.labels):
            raise InputError(
                f"all {len(self.labels):,} images of a batch are damaged; the last one: {skipped[-1].reason}",
                next_step="check the shards; to leave the batch out, iterate again: the stream is behind it",
            )
        good = [place for place in range(len(self.labels)) if place not in self.skipped]
        return self.images[good], self.labels[good]


class DecodeWork:
    """Decode images into batches.

    Args:
        checks: Checks the images before they are decoded.
        decoder: Decodes them.
        transform: The decoder's transform.
        seed: Seed of random crops.
        epoch: The epoch, on which random crops depend.
        new_batch: Returns an empty batch for images of a shape, [N, H, W, 3], and their labels.
    """

    def __init__(
        self,
        checks: SampleChecks,
        decoder: ImageDecoder,
        transform: Transform,
        seed: int,
        epoch: int,
        new_batch: Callable[[tuple[int, ...], NDArray[np.int64]], ImageBatch],
    ) -> None:
        self._checks, self._decoder, self._new_batch = checks, decoder, new_batch
        self._seed, self._epoch, self._size, self._draws = seed, epoch, transform.size, transform.draws

    def start(self, samples: Samples) -> ImageBatch:
        """See `Work`."""
        return self._new_batch((len(samples), self._size, self._size, 3), self._checks.table.labels(samples))

    def fill(
        self, batch: ImageBatch, begin: int, samples: Samples, contents: Sequence[memoryview | InputError]
    ) -> None:
        """See `Work`."""
        draws = uniform_draws(self._seed, self._epoch, samples, self._draws)
        out = batch.images[begin : begin + len(samples)]
        lacks = self._checks.lacks(samples)
        reasons = [lacks[at] or self._checks.fault_of(one, contents[at]) for at, one in enumerate(samples.tolist())]
        images = [content for content in contents if not isinstance(content, InputError)]
        if any(reasons):  # decode nothing of them
            images = [memoryview(b"") if reason else content for reason, content in zip(reasons, contents, strict=True)]  # type: ignore[misc]
        faults = self._decoder.decode(images, draws, out)
        for at, sample in enumerate(samples.tolist()):
            if reasons[at] or faults[at]:
                batch.skipped[begin + at] = self._checks.handle_fault(sample, reasons[at] or faults[at])


MemberBatch = list[Sample | Skipped | None]
"""Samples, cut into their members, with those that can't be used; None where it isn't filled yet."""


class MembersWork:
    """Cut samples into their members.

    Args:
        checks: Checks the samples.
    """

    def __init__(self, checks: SampleChecks) -> None:
        self._checks = checks

    def start(self, samples: Samples) -> MemberBatch:
        """See `Work`."""
        return [None] * len(samples)

    def fill(
        self, batch: MemberBatch, begin: int, samples: Samples, contents: Sequence[memoryview | InputError]
    ) -> None:
        """See `Work`."""
        table = self._checks.table
        images = (table.offset[samples] - table.begin[samples]).tolist(), table.length[samples].tolist()
        for at, (number, content, offset, length) in enumerate(
            zip(samples.tolist(), contents, *images, strict=True), begin
        ):
            image = None if isinstance(content, InputError) else content[offset : offset + length]
            reason = self._checks.fault_of(number, content, image)
            if not reason and not isinstance(content, InputError):
                try:
                    batch[at] = read_sample(content, table.shards[table.shard[number]], int(table.begin[number]))
                except InputError as error:
                    reason = error.what
            if reason:
                batch[at] = self._checks.handle_fault(number, reason)
