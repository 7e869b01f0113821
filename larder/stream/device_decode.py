"""Decode JPEG files on a GPU, and crop and resize them there: what `ShardStream(device="cuda")` does.

torchcodec decodes, with NVIDIA's nvJPEG; `decode_jpegs` is the only call of it. What nvJPEG would decode otherwise than
libjpeg, or not at all, is decoded on the CPU: other formats, CMYK, RGB without luma, unusual subsampling, and damaged
files. Orientation tags are ignored, as PIL ignores them, so files are given to torchcodec without their EXIF.

The pixels are near PIL's, not equal: docs/stream.md has the measured differences.
"""

from __future__ import annotations

import functools
import io
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils.data import get_worker_info

from larder.errors import ConfigurationError
from larder.stream.decode import Decoder, Draws
from larder.stream.kernel import JpegKernel, explain_missing_kernel
from larder.stream.transforms import Crop
from larder.stream.work import ImageBatch

MAX_THREADS = 32
"""Threads that may decode at once: torchcodec keeps as many of nvJPEG's decoders, and making one takes long."""

_EXIF = re.compile(rb"\xff\xe1(..Exif\0)", re.DOTALL)  # a segment APP1 with EXIF; coded data never has this marker
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


def decode_jpegs(files: Sequence[bytes], device: torch.device) -> list[Tensor]:
    """Decode JPEG files with torchcodec.

    Args:
        files: The files' contents; at least one.
        device: Where to decode.

    Returns:
        The images, uint8 [3, H, W], on the device. They may still be being written on its current stream.

    Raises:
        RuntimeError: If one of them can't be decoded.
    """
    from torchcodec.decoders import decode_jpeg

    # Of read-only bytes, torchcodec would make tensors itself and silence torch's warning, which isn't safe in threads.
    contents = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    decoded: list[Tensor] = decode_jpeg(contents, mode="RGB", device=device)
    return decoded


def parse_device(name: object) -> torch.device | None:
    """Return the GPU that a name such as "cuda" or "cuda:1" stands for; None for "cpu" and None.

    Raises:
        ConfigurationError: If it stands for anything else.
    """
    try:
        device = torch.device("cpu" if name is None else str(name))
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ConfigurationError(
            f"device={str(name)!r}: JPEG files can't be decoded there", next_step='choose "cuda", "cuda:1" or "cpu"'
        )
    return None if device.type == "cpu" else device


def find_device(device: torch.device) -> torch.device | None:
    """Return the GPU with its number, or None where this process can't use it, which is told once."""
    if get_worker_info() is not None:
        _tell(device, "a worker of a DataLoader can't use CUDA", "iterate over the stream itself, which has threads")
    elif not torch.cuda.is_available():
        _tell(device, "torch finds no GPU", "run `nvidia-smi`, and install a build of torch for CUDA")
    elif device.index is not None and device.index >= torch.cuda.device_count():
        _tell(device, f"this machine has {torch.cuda.device_count()} GPUs", "choose one of them, counted from 0")
    else:
        return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
    return None


def open_decoder(device: torch.device, kernel: JpegKernel | None, cpu: Decoder) -> DeviceDecoder | None:
    """Return what decodes on a device, or None if that is impossible, which is told once.

    Args:
        device: The device, as `find_device` returns it.
        kernel: Reads the headers of JPEG files.
        cpu: Decodes the other images.
    """
    if kernel is None:
        missing = explain_missing_kernel()
        _tell(device, f"{missing.cause}, and it reads headers", missing.next_step)
        return None
    try:
        _decode_a_sample(device)
    except ImportError as error:
        _tell(device, f"torchcodec 0.16 or newer isn't there: {error}", "run `pip install 'larder-data[gpu]'`")
    except (OSError, RuntimeError) as error:
        _tell(device, f"torchcodec fails: {error}", "install builds of torch and torchcodec for the same CUDA")
    else:
        return DeviceDecoder(device, kernel, cpu)
    return None


@functools.cache
def _decode_a_sample(device: torch.device) -> None:
    """Raise what torchcodec raises on a good image: builds without CUDA fail only when they decode."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    decode_jpegs([file.getvalue()], device)[0].cpu()  # waits, and raises what failed meanwhile


@functools.cache
def _tell(device: torch.device, cause: str, next_step: str) -> None:
    """Warn, once for each cause."""
    warnings.warn(
        f"the CPU decodes in place of {device}, since {' '.join(cause.split())}; to decode on the GPU, {next_step}",
        stacklevel=4,
    )


class DeviceDecoder:
    """Decode images on a device. `decode` may be called in several threads.

    Args:
        device: The device.
        kernel: Reads the headers of JPEG files.
        cpu: Decodes what the device doesn't. Its transform is used for all.
    """

    def __init__(self, device: torch.device, kernel: JpegKernel, cpu: Decoder) -> None:
        self.device, self._kernel, self._cpu = device, kernel, cpu
        self._threads = threading.local()

    @contextmanager
    def _own_stream(self) -> Iterator[None]:
        """Work on a CUDA stream of this thread, and wait for its end.

        So decoding doesn't wait for training, and memory that a thread allocates isn't in use any more elsewhere.
        """
        if self.device.type != "cuda":
            yield
            return
        if not hasattr(self._threads, "stream"):
            self._threads.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._threads.stream):
            yield
            self._threads.stream.synchronize()

    def new_batch(self, shape: tuple[int, ...], labels: NDArray[np.int64]) -> ImageBatch:
        """Return an empty batch on the device, for images of a shape, [N, H, W, 3], and their labels."""
        with self._own_stream():
            return ImageBatch(torch.empty(shape, dtype=torch.uint8, device=self.device), labels)

    def decode(self, images: Sequence[memoryview], draws: Draws, out: Tensor) -> list[str]:
        """Decode images into a batch.

        Args:
            images: Contents of the image files.
            draws: Random numbers of each image, float64 [N, transform.draws].
            out: The images' places in the batch, uint8 [N, size, size, 3], on the device.

        Returns:
            For each image, why it can't be decoded; empty if it was.
        """
        with self._own_stream():
            headers = self._kernel.headers(images)
            crops = self._cpu.plan(headers, images, draws)
            files = {at: _without_exif(images[at]) for at in np.flatnonzero(headers["rgb"] == 0).tolist() if crops[at]}
            files = {at: file for at, file in files.items() if _has_end(file)}
            others = [at for at in range(len(images)) if at not in files]
            for at, image in zip(files, self._decode_jpegs(list(files.values())), strict=True):
                crop = crops[at]
                if image is None or crop is None:
                    others.append(at)
                else:
                    out[at] = crop_and_resize(image, crop, out.shape[1])
            return self._decode_others(images, draws, out, others)

    def _decode_jpegs(self, files: Sequence[bytes]) -> list[Tensor | None]:
        """Return the images; None for each that can't be decoded. One of those makes torchcodec refuse them all."""
        if not files:
            return []
        try:
            return [*decode_jpegs(files, self.device)]
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return [None] if len(files) == 1 else [image for file in files for image in self._decode_jpegs([file])]

    def _decode_others(
        self, images: Sequence[memoryview], draws: Draws, out: Tensor, others: Sequence[int]
    ) -> list[str]:
        """Decode the images at these positions on the CPU. Return the faults of all images."""
        faults = [""] * len(images)
        if others:
            pixels = np.empty((len(others), *out.shape[1:]), np.uint8)
            found = self._cpu.decode([images[at] for at in others], draws[others], pixels)
            out[others] = torch.from_numpy(pixels).to(self.device)
            for at, fault in zip(others, found, strict=True):
                faults[at] = fault
        return faults


def crop_and_resize(image: Tensor, crop: Crop, size: int) -> Tensor:
    """Crop and resize an image on the device where it is. The sums are exact to float32, and rounded once.

    Args:
        image: The image, uint8 [3, H, W].
        crop: What to crop, and how to resize it.
        size: Width and height of the result.

    Returns:
        The result, uint8 [size, size, 3].

    Example:
        >>> crop_and_resize(torch.zeros(3, 300, 400, dtype=torch.uint8), Crop(50, 0, 300, 300, 64, 64), 64).shape
        torch.Size([64, 64, 3])
    """
    region = image[None, :, crop.y : crop.y + crop.height, crop.x : crop.x + crop.width].float()
    resized = functional.interpolate(
        region, (crop.resized_height, crop.resized_width), mode="bilinear", antialias=True, align_corners=False
    )
    window = resized[0, :, crop.window_y : crop.window_y + size, crop.window_x : crop.window_x + size]
    return (window.flip(-1) if crop.flip else window).round().to(torch.uint8).permute(1, 2, 0)


def deliver(tensor: Tensor, device: torch.device | None) -> Tensor:
    """Return a tensor on a device, for the consumer's current stream; the tensor itself if there is no device."""
    if device is None or device.type != "cuda":
        return tensor
    if tensor.is_cuda:
        tensor.record_stream(torch.cuda.current_stream(device))  # its memory isn't used again before that is done
        return tensor
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


def _without_exif(image: memoryview) -> bytes:
    """Return a JPEG file with its EXIF marked as a comment: torchcodec would rotate the image as the EXIF says."""
    return _EXIF.sub(b"\xff\xfe\\1", bytes(image))


def _has_end(file: bytes) -> bool:
    """Return whether a JPEG file is complete: nvJPEG doesn't tell that the end is missing."""
    return file.rfind(_END_OF_IMAGE) > file.rfind(_START_OF_SCAN)
