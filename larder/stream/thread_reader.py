"""Read an epoch in threads of this process: images for batches, or samples cut into their members."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from larder.stream.batch_reader import BatchReader, ReadLimits, Traffic, Work
from larder.stream.decode import Decoder, ImageDecoder
from larder.stream.kernel import JpegKernel
from larder.stream.order import Samples
from larder.stream.transforms import Transform
from larder.stream.work import DecodeWork, ImageBatch, MemberBatch, MembersWork, SampleChecks

B = TypeVar("B")


class ReadSetup(NamedTuple):
    """What is the same in all epochs of a stream."""

    checks: SampleChecks
    block: Samples
    """Block of each sample, int64 [N]."""
    transform: Transform
    seed: int
    limits: ReadLimits
    fast: bool
    """Whether JPEG images are decoded at a smaller size, for speed; see Decoder."""

    def decoder(self, kernel: JpegKernel | None) -> Decoder:
        """Return what decodes images on the CPU: JPEG by the kernel, if there is one, and the others by PIL."""
        return Decoder(self.transform, kernel, fast=self.fast)


class Epoch(NamedTuple):
    """What remains to be read of an epoch."""

    number: int
    batches: list[Samples]
    read_first: bool
    """Whether to read the first batch's samples before whole blocks; see `larder.stream.read_plan`."""


def read_images(
    setup: ReadSetup,
    epoch: Epoch,
    decoder: ImageDecoder,
    new_batch: Callable[[tuple[int, ...], NDArray[np.int64]], ImageBatch],
    traffic: Traffic,
) -> BatchReader[ImageBatch]:
    """Return an iterator over an epoch's batches of images.

    Args:
        setup: The stream's setup.
        epoch: What to read.
        decoder: Decodes the images, with the setup's transform.
        new_batch: Returns an empty batch for images of a shape, [N, H, W, 3], and their labels.
        traffic: Counts bytes and requests.
    """
    work = DecodeWork(setup.checks, decoder, setup.transform, setup.seed, epoch.number, new_batch)
    table = setup.checks.table
    begin = table.offset if (table.offset >= 0).all() else np.maximum(table.offset, table.begin)  # without an image
    return _open(setup, epoch, work, begin, begin + table.length, traffic)


def read_members(setup: ReadSetup, epoch: Epoch, traffic: Traffic) -> BatchReader[MemberBatch]:
    """Return an iterator over an epoch's batches of samples, cut into their members."""
    table = setup.checks.table
    return _open(setup, epoch, MembersWork(setup.checks), table.begin, table.end, traffic)


def _open(
    setup: ReadSetup, epoch: Epoch, work: Work[B], begin: Samples, end: Samples, traffic: Traffic
) -> BatchReader[B]:
    return BatchReader(
        setup.checks.folder,
        shards=setup.checks.table.shards,
        shard=setup.checks.table.shard,
        begin=begin,
        end=end,
        block=setup.block,
        batches=epoch.batches,
        work=work,
        limits=setup.limits,
        traffic=traffic,
        read_first=epoch.read_first,
    )
