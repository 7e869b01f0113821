"""Stream batches of a split's shards as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from larder.imagenet import IMAGENET_MEAN, IMAGENET_STD
from larder.stream.array_stream import ArrayStream
from larder.stream.batch_reader import BatchReader
from larder.stream.device_decode import MAX_THREADS, DeviceDecoder, deliver, find_device, open_decoder, parse_device
from larder.stream.thread_reader import Epoch, read_images
from larder.stream.work import ImageBatch


class ShardStream(ArrayStream, IterableDataset[tuple[Tensor, Tensor]]):
    """Read WebDataset shards as batches of tensors, at close to the rate at which the cores decode.

    Each epoch yields every sample exactly once, in an order that depends on the shards, `window_bytes`, the seed, the
    epoch and the number of ranks alone (`larder.stream.order`). Shards that larder made have an index of samples: it is
    read instead of tar headers, and images are checked against it. Of other shards, the tar headers are read once, in
    parallel.

    Threads read blocks of 4 MiB and decode; they release Python's lock. They run in a child process, or in this one
    (`mode`). Memory holds `window_bytes` + `ahead_bytes` of shards, and a few batches. Nothing is written to a disk.
    Threads run only while batches are read; leaving the loop ends them, and the child process.

    Iterating yields the rest of the current epoch; then the next one begins. `state_dict` and `load_state_dict` store
    and restore the position after any batch.

    Args:
        uri: The folder of a split's shards: `s3://bucket/prefix/training`, or a path.
        batch_size: Samples per batch, for each rank.
        transform: CenterCrop or RandomResizedCrop; by default CenterCrop(256, 224).
        shuffle: Whether to shuffle; without it, samples keep the order of the shards.
        seed: Seed of the order and of random crops.
        rank: This process's rank; by default from torch.distributed, or from RANK, as torchrun sets it.
        world_size: Number of ranks; likewise, from WORLD_SIZE.
        last: What to do with samples at the end that don't fill a batch on every rank: "keep" makes the last batches
            smaller, "drop" leaves them out, "pad" repeats a rank's first samples. All ranks get the same number of
            batches.
        on_damage: What to do with a missing or damaged sample: "raise" an error, or "skip" it, which makes its batch
            smaller and is counted in `skipped_count`. In shards without an index, that goes for samples without a valid
            label, too, and for all that follows a damaged header.
        decode: "exact" gives PIL's pixels. "fast" decodes a JPEG image at 1/2, 1/4 or 1/8 of its size, as PIL's `draft`
            does, where its crop is resized to no more than that. Of photographs, the mean difference of an image is
            0.3 to 2.5 levels of 255, and up to 6 where grain fills it; single pixels differ by up to 69. Images are
            decoded 1.4 to 1.9 times as fast.
        check_digests: Whether to check each image's sha256 against the index, if there is one.
        mode: Where threads read and decode: "process" in one child process, which shares the memory of batches,
            "thread" in this process. Batches and positions are the same. A child leaves Python's lock to the training
            loop, takes half a second to start in the first epoch, and has a table of samples of its own. It needs a
            transform whose class can be imported. A DataLoader's workers read in threads.
        threads: Threads that decode; by default one per available core.
        window_bytes: Bytes of shards among which samples are shuffled.
        ahead_bytes: Bytes of shards that are read in advance.
        image_extension: Extension of the images in shards without an index; None takes a sample's only image.
        label_extension: Extension of the labels there, which are decimal numbers.
        device: A GPU that decodes JPEG files, by torchcodec, and on which batches are, such as "cuda"; by default, the
            CPU decodes, and batches are in memory. Its pixels are near PIL's, not equal (docs/stream.md). If the GPU
            can't be used, the CPU decodes, and one warning says why. While a GPU decodes, threads run in this process,
            whatever the mode.
        store: The store, from `larder.store.make_store`; None takes it from the environment (S3_ENDPOINT_URL,
            AWS_ACCESS_KEY_ID and so on).
        reporter: Receives progress while an index or headers are read; None reports nothing.

    Attributes:
        classes: Names of the classes; None for shards without larder's manifest.
        skipped: The first 1,000 samples that were left out: shard, offset and reason.
        skipped_count: Number of samples that were left out.

    Raises:
        ConfigurationError: If an argument is invalid, or the store refuses access.
        InputError: If there are no shards, or they don't match their index.
        ServiceError: If the store doesn't answer.

    Example:
        stream = ShardStream("s3://my-bucket/photos-webdataset/training", batch_size=256)
        for epoch in range(3):
            for images, labels in stream:  # uint8 [256, 3, 224, 224], channels-last in memory; int64 [256]
                loss = train(normalize(images.to(device)), labels.to(device))
    """

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches that remain of the current epoch. Then the next epoch begins.

        Yields:
            Images, uint8 [N, 3, H, W], channels-last in memory, and labels, int64 [N]. The memory of images is used
            again when nobody refers to it. Where there is a GPU, it is pinned, so that
            `images.to(device, non_blocking=True)` copies in the background. With mode="process", that takes a copy.
            With `device`, both are on that device.

        Raises:
            InputError: If a sample is missing or damaged, or has no image or label.
            ServiceError: If the store fails.
        """
        device = None if self._device is None else find_device(self._device)
        decoder = None if device is None else open_decoder(device, self._kernel, self._setup.decoder(self._kernel))
        batches = self.arrays() if decoder is None else self._decoded(partial(self._read_images_on_device, decoder))
        for images, labels in batches:
            tensor = _tensor_of(images)
            if decoder is None and self._uses_child() and self._pins():
                # The shared memory could be registered with CUDA. But torch knows only of its own pinned memory until
                # when a copy in the background reads it; a registered slot would be written again too early.
                tensor = tensor.pin_memory()
            yield deliver(tensor, device).permute(0, 3, 1, 2), deliver(torch.from_numpy(labels), device)

    def _choose_device(self, device: str | torch.device | None) -> torch.device | None:
        """Return the GPU that decodes images; None for the CPU."""
        return parse_device(device)

    def _read_images_on_device(self, decoder: DeviceDecoder, epoch: Epoch) -> BatchReader[ImageBatch]:
        """Return a reader of images with threads in this process, which have a GPU decode."""
        limits = self._setup.limits
        limits = replace(limits, decoders=min(limits.decoders, MAX_THREADS))
        return read_images(self._setup._replace(limits=limits), epoch, decoder, decoder.new_batch, self._traffic)

    def _find_rank(self) -> tuple[int, int]:
        """Return rank and number of ranks, from torch.distributed or from the variables that torchrun sets."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return super()._find_rank()

    def _find_worker(self) -> tuple[int, int]:
        """Return the number of this worker of a DataLoader, and their number."""
        worker = get_worker_info()
        return (0, 1) if worker is None else (worker.id, worker.num_workers)

    def _new_images(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return memory for a batch's images.

        torch keeps pinned memory, and doesn't give it out again while a copy to a device still reads it.
        """
        if not self._pins():
            return super()._new_images(shape)
        memory: NDArray[np.uint8] = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
        return memory

    def _uses_child(self) -> bool:
        """Return whether a child process reads images. A DataLoader's worker is a process of its own already."""
        return super()._uses_child() and get_worker_info() is None

    def _pins(self) -> bool:
        """Return whether batches are pinned. In a DataLoader's worker, CUDA can't be used."""
        return get_worker_info() is None and torch.cuda.is_available()


def _tensor_of(images: Any) -> Tensor:
    """Return a batch's images as a tensor: the pinned one, if the array is in its memory."""
    if isinstance(images, Tensor):
        return images
    return images.base if isinstance(images.base, Tensor) else torch.from_numpy(images)


def normalize(
    images: Tensor,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    dtype: Any = torch.float32,
) -> Tensor:
    """Scale images to 0..1 and normalize them, on the device where they are.

    Args:
        images: Images, uint8 [N, 3, H, W].
        mean: Mean of each channel, in 0..1; by default ImageNet's.
        std: Standard deviation of each channel, in 0..1; by default ImageNet's.
        dtype: Type of the result, such as torch.bfloat16.

    Returns:
        Normalized images, [N, 3, H, W], in the memory format of `images`.

    Example:
        >>> normalize(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)).shape
        torch.Size([2, 3, 8, 8])
    """
    scale = torch.tensor([1 / (255 * value) for value in std], device=images.device)
    shift = torch.tensor([value / width for value, width in zip(mean, std, strict=True)], device=images.device)
    if images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last):
        # Whole rows of pixels: with three values at a time, torch takes more than twice as long.
        number, _, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).reshape(number * height, width * 3).to(torch.float32, copy=True)
        rows.mul_(scale.repeat(width)).sub_(shift.repeat(width))
        return rows.view(number, height, width, 3).permute(0, 3, 1, 2).to(dtype)
    pixels = images.to(torch.float32, copy=True)
    return pixels.mul_(scale.view(3, 1, 1)).sub_(shift.view(3, 1, 1)).to(dtype)
