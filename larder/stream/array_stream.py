"""Stream batches of a split's shards as numpy arrays, or samples as raw members."""

from __future__ import annotations

import copy
import functools
import math
import os
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from larder.errors import ConfigurationError, InputError, without_causes
from larder.machine import available_cpus, release_free_memory
from larder.progress import NullReporter, Reporter
from larder.shards import LABEL
from larder.store import StoreSettings
from larder.stream.arguments import (
    as_integers,
    parse_rank,
    rank_of_torchrun,
    require_at_least,
    require_choices,
    require_samples,
    require_transform,
)
from larder.stream.batch_reader import ReadLimits, Traffic, block_numbers
from larder.stream.child_reader import Child, ChildReader
from larder.stream.kernel import JpegKernel, explain_missing_kernel
from larder.stream.members import Sample
from larder.stream.open_shards import open_shards
from larder.stream.order import Batching, Last, Shuffle, join_segments, rank_batches
from larder.stream.positions import NOT_SHUFFLED, Position
from larder.stream.samples import NO_LABEL, SampleTable, Skipped
from larder.stream.shard_scan import Wanted
from larder.stream.slots import Slots
from larder.stream.thread_reader import Epoch, ReadSetup, read_images, read_members
from larder.stream.transforms import CenterCrop, Transform
from larder.stream.work import Arrays, ImageBatch, MemberBatch, SampleChecks

if TYPE_CHECKING:
    import torch

DecodeKind = Literal["exact", "fast"]
Mode = Literal["thread", "process"]
WINDOW_BYTES, AHEAD_BYTES = 256 << 20, 64 << 20
_FETCHERS, _BATCHES_AHEAD = 8, 4
_MAX_WINDOW = 1 << 62
"""More positions than there are samples; numpy's integers hold it."""
MAX_SKIPPED = 1000
"""Samples that `skipped` names; `skipped_count` counts all."""
B = TypeVar("B")
B_co = TypeVar("B_co", covariant=True)


class _Reader(Protocol[B_co]):
    """What reads an epoch: threads, or a child process."""

    def __iter__(self) -> Iterator[B_co]:
        """Return itself."""

    def __next__(self) -> B_co:
        """Return the next batch."""

    def close(self) -> None:
        """Stop reading."""


class ArrayStream:
    """Read shards as batches of numpy arrays; ShardStream gives the same as tensors, and documents all arguments."""

    @without_causes()
    def __init__(
        self,
        uri: str | os.PathLike[str],
        *,
        batch_size: int = 64,
        transform: Transform | None = None,
        shuffle: bool = True,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        last: Last = "keep",
        on_damage: Literal["raise", "skip"] = "raise",
        decode: DecodeKind = "exact",
        check_digests: bool = True,
        mode: Mode = "process",
        threads: int | None = None,
        window_bytes: int = WINDOW_BYTES,
        ahead_bytes: int = AHEAD_BYTES,
        image_extension: str | None = None,
        label_extension: str = LABEL,
        device: str | torch.device | None = None,
        store: StoreSettings | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        require_choices(
            ("last", last, get_args(Last)),
            ("on_damage", on_damage, ("raise", "skip")),
            ("decode", decode, get_args(DecodeKind)),
            ("mode", mode, get_args(Mode)),
        )
        require_transform(transform)
        batch_size, seed, decoders, window_bytes, ahead_bytes = as_integers(
            batch_size=batch_size,
            seed=seed,
            threads=available_cpus() if threads is None else threads,
            window_bytes=window_bytes,
            ahead_bytes=ahead_bytes,
        )
        require_at_least(
            ("batch_size", batch_size, 1),
            ("threads", decoders, 1),
            ("window_bytes", window_bytes, 0),
            ("ahead_bytes", ahead_bytes, 1 << 20),
        )
        self._given_rank = parse_rank(rank, world_size)
        self._device = self._choose_device(device)
        uri = os.fspath(uri)
        self.uri, self.batch_size, self.transform = uri, batch_size, transform or CenterCrop()
        self.seed, self.on_damage, self.check_digests, self.mode = seed, on_damage, check_digests, mode
        self._last = last
        wanted = Wanted(
            image_extension and image_extension.lower().removeprefix("."),
            label_extension.lower().removeprefix("."),
            on_damage,
        )
        folder, self.manifest, self._table, left_out = open_shards(uri, store, wanted, reporter or NullReporter())
        self._shuffle = _shuffle_of(self._table, window_bytes, seed if shuffle else None)
        self._order = {
            "seed": seed,
            "samples": len(self._table),
            "window": self._shuffle.window if shuffle else NOT_SHUFFLED,
            "shards": self._table.digest(),
        }
        self._setup = ReadSetup(
            SampleChecks(folder, self._table, on_damage, check_digests),
            block_numbers(self._shuffle.block_starts),
            self.transform,
            seed,
            ReadLimits(decoders, _FETCHERS, window_bytes + ahead_bytes, _BATCHES_AHEAD),
            fast=decode == "fast",
        )
        self._position = Position()
        self._kernel = _load_kernel()
        self._slots = Slots(batch_size * self.transform.size**2 * 3)
        self._traffic = Traffic()
        self._child: Child | None = None
        self.skipped: list[Skipped] = []
        self.skipped_count = 0
        self._skip(left_out)

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes; None for shards without larder's manifest."""
        return None if self.manifest is None else self.manifest.classes

    @property
    def samples_per_epoch(self) -> int:
        """Number of samples of all ranks together."""
        return len(self._table)

    @property
    def bytes_read(self) -> int:
        """Bytes of shards that were read so far, without indexes and headers."""
        return int(self._traffic.counts[0])

    @property
    def requests(self) -> int:
        """Number of reads of shards so far."""
        return int(self._traffic.counts[1])

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to."""
        return self._position.epoch

    @property
    def batch(self) -> int:
        """How many batches of its epoch come before the next one: 0, unless this is in the middle of an epoch.

        In a loop, `enumerate(stream, stream.batch)` numbers the batches, also after `load_state_dict`. With another
        number of ranks or batch size than before, it counts batches of the present size.
        """
        batching, samples = self._batching()[1], len(self._table)
        left = samples
        for (ranks, size, _), batches in self._position.segments_with(batching):
            left -= min(ranks * size * batches, left)
        return batching.count(samples) - batching.count(left) if left < samples else 0

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch. Setting the current epoch again keeps the position in it.

        So a training loop may call it before each epoch, also before the one in which it resumes.
        """
        if epoch != self.epoch:
            self.restart(epoch)

    def restart(self, epoch: int) -> None:
        """Go to the beginning of an epoch, even if it is the current one."""
        [epoch] = as_integers(epoch=epoch)
        if epoch < 0:
            raise ConfigurationError(f"epoch={epoch}: must not be negative", next_step="number epochs from 0 on")
        self._position.move(epoch, [])

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the batches that were yielded so far: below 1 KB, and JSON can store it."""
        return self._position.pack(self._batching()[1], self._order)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the last batch before `state_dict`, perhaps with other ranks, threads or batch size.

        Shards, seed, `shuffle` and `window_bytes` must be the same, since the order depends on them.

        Raises:
            ConfigurationError: If the state is of another seed or of other shards, or isn't a state.
        """
        self._position.unpack(state, self._order)

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch, for each rank."""
        return self._batching()[1].count(len(self._table))

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches that remain of the current epoch. Then the next epoch begins."""
        return self.arrays()

    def arrays(self) -> Iterator[Arrays]:
        """Yield the batches that remain of the current epoch, as arrays.

        Yields:
            Images, uint8 [N, H, W, 3], and labels, int64 [N]. The memory is used again when nobody refers to it.

        Raises:
            InputError: If a sample is missing or damaged, or has no image or label.
            ServiceError: If the store fails.
            ResourceError: If the child process of mode="process" was killed.
        """
        yield from self._decoded(self._read_images_in_child if self._uses_child() else self._read_images_here)

    def _decoded(self, open_reader: Callable[[Epoch], _Reader[ImageBatch]]) -> Generator[Any, None, None]:
        """Yield the images and labels of the batches that remain of the current epoch."""
        for name, values, missing in (("image", self._table.offset, -1), ("label", self._table.label, NO_LABEL)):
            if self.on_damage == "raise" and (values == missing).any():
                raise InputError(
                    f"{self._setup.checks.name(int(np.argmax(values == missing)))}: the sample has no {name}",
                    next_step="name the members by `image_extension` and `label_extension`, or read them as they are, "
                    "with `samples()`",
                )
        has_good, fault = False, None
        with without_causes(), closing(self._read(open_reader)) as batches:
            for left, batch in batches:
                self._advance(left)  # a batch without a good image is skipped, too, by a caller that iterates again
                try:
                    arrays = batch.finish(self._skip)
                except InputError as error:
                    fault = error
                    if self._rank_and_ranks()[1] > 1:
                        raise  # other ranks would wait for the batch
                    continue
                has_good = True
                yield arrays
        if fault is not None and not has_good:
            raise fault

    def samples(self) -> Iterator[Sample]:
        """Yield the samples that remain of the current epoch, undecoded: the content of each member by its extension.

        They come in the same order as images do, with the same guarantees. State counts single samples; with several
        ranks, it must be taken after as many samples on each, and in the middle of the last batch, it is that of the
        batch's beginning.

        Yields:
            A dict with the members' contents, as bytes, and the sample's key as "__key__".

        Raises:
            InputError: If a sample is missing or damaged.
            ServiceError: If the store fails.
        """
        position, ranks = self._position, self._batching()[1].world_size
        with without_causes(), closing(self._read(self._read_members_here)) as batches:
            for left, batch in batches:
                for at, one in enumerate(batch, 1):
                    if at == len(batch):
                        self._advance(left)
                    elif left or ranks == 1:  # else another rank may have a sample more in its last batch
                        position.within = at
                    loop = position.loop
                    if isinstance(one, Skipped):
                        self._skip([one])
                    elif one is not None:
                        yield one
                    if position.loop != loop:
                        break  # the caller has moved the stream

    def close(self) -> None:
        """End the child process that mode="process" keeps for the next epoch. The next iteration starts a new one."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def _read(self, open_reader: Callable[[Epoch], _Reader[B]]) -> Generator[tuple[int, B], None, None]:
        """Yield the batches that remain of the epoch, each with the number of batches after it."""
        rank, batching = self._batching()
        workers = self._find_worker()[1]
        require_samples(self.uri, len(self._table), batching.world_size // workers, workers, self.skipped)
        position = self._position
        segments = join_segments(len(self._table), position.segments_with(batching), batching)
        batches = rank_batches(self._shuffle, position.epoch, segments, rank, batching)
        if not batches:
            self.restart(position.epoch + 1)
            return
        position.move(position.epoch, segments)
        loop = position.loop
        reader = open_reader(Epoch(position.epoch, batches, bool(segments) and self._shuffle.seed is not None))
        release_free_memory()  # opening, sorting and planning take 100 MB for a million samples
        try:
            for left, batch in zip(range(len(batches) - 1, -1, -1), reader, strict=False):
                yield left, batch
                if left and position.loop != loop:
                    raise ConfigurationError(
                        "the stream was moved, or another loop over it has begun, while this one was reading",
                        next_step="leave the loop before you move the stream; for two loops, make two streams",
                    )
        finally:
            reader.close()

    def _read_images_here(self, epoch: Epoch) -> _Reader[ImageBatch]:
        """Return a reader of images with threads in this process."""

        def new_batch(shape: tuple[int, ...], labels: NDArray[np.int64]) -> ImageBatch:
            return ImageBatch(self._new_images(shape), labels)

        return read_images(self._setup, epoch, self._setup.decoder(self._kernel), new_batch, self._traffic)

    def _read_images_in_child(self, epoch: Epoch) -> _Reader[ImageBatch]:
        """Return a reader of images with a child process: the one that read the last epoch, if there is one."""
        child, self._child = self._child, None
        slot_bytes = max(self.batch_size, *map(len, epoch.batches)) * self.transform.size**2 * 3
        if child is None or child.owner != os.getpid() or child.slot_bytes < slot_bytes:
            child = Child(self._setup, slot_bytes, self._traffic)
        return ChildReader(child, epoch, self._table.labels, self.transform.size, self._keep_child)

    def _choose_device(self, device: str | torch.device | None) -> torch.device | None:
        """Return the GPU that decodes images; None for the CPU."""
        if device is None:
            return None
        raise ConfigurationError(
            f"device={str(device)!r}: ArrayStream gives arrays, which are in memory",
            next_step="use ShardStream, or leave out `device`",
        )

    def _uses_child(self) -> bool:
        """Return whether a child process reads images."""
        return self.mode == "process"

    def _read_members_here(self, epoch: Epoch) -> _Reader[MemberBatch]:
        """Return a reader of samples' members, with threads in this process."""
        return read_members(self._setup, epoch, self._traffic)

    def _keep_child(self, child: Child) -> None:
        """Keep a child process for the next epoch."""
        self._child = child

    def _advance(self, left: int) -> None:
        """Count a batch, which `left` batches of the epoch follow.

        After the last one, the next epoch begins at once: callers that count batches don't ask for one more.
        """
        self._position.count_batch()
        if not left:
            self.restart(self.epoch + 1)

    def _skip(self, samples: Sequence[Skipped]) -> None:
        """Count samples that were left out, and keep the first ones."""
        self.skipped_count += len(samples)
        self.skipped += samples[: MAX_SKIPPED - len(self.skipped)]

    def _batching(self) -> tuple[int, Batching]:
        """Return this process's rank, and how epochs are cut."""
        rank, world_size = self._rank_and_ranks()
        worker, workers = self._find_worker()
        return rank * workers + worker, Batching(world_size * workers, self.batch_size, self._last)

    def _rank_and_ranks(self) -> tuple[int, int]:
        """Return this process's rank, and the number of ranks."""
        return self._given_rank or self._find_rank()

    def _find_rank(self) -> tuple[int, int]:
        """Return rank and number of ranks, from the variables that torchrun sets."""
        return rank_of_torchrun()

    def _find_worker(self) -> tuple[int, int]:
        """Return the number of this process among those that share out a rank's samples, and their number."""
        return 0, 1

    def _new_images(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return memory for a batch's images, uint8 of this shape."""
        size = math.prod(shape)
        memory = self._slots.take()[:size] if size <= self._slots.size else np.empty(size, np.uint8)
        return memory.reshape(shape)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for another process, which loads the kernel and allocates memory itself."""
        own = {"_kernel": None, "_slots": None, "_traffic": None, "_child": None}
        return self.__dict__ | own | {"_position": copy.copy(self._position)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._kernel, self._traffic = _load_kernel(), Traffic()
        self._slots = Slots(self.batch_size * self.transform.size**2 * 3)


def _shuffle_of(table: SampleTable, window_bytes: int, seed: int | None) -> Shuffle:
    """Return how an epoch of these samples is ordered, with a window of about so many bytes."""
    stored_bytes = int((table.end - table.begin).sum())
    window = window_bytes * len(table) // stored_bytes if len(table) else 0
    return Shuffle(table.block_starts(), min(window, _MAX_WINDOW), seed)


@functools.cache
def _load_kernel() -> JpegKernel | None:
    """Return the kernel, or warn once that there is none."""
    kernel = JpegKernel.load()
    if kernel is None:
        missing = explain_missing_kernel()
        warnings.warn(
            f"{missing.cause}, so Pillow decodes at a third of the speed; to compile it, {missing.next_step}",
            stacklevel=3,
        )
    return kernel
