"""Is the JPEG kernel's crop and resize nearly as fast as decoding alone, and faster than the best pair of packages?"""

from __future__ import annotations

import ctypes
import importlib
import io
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness import BenchmarkReport, CannotRunError, ResourceUsage, interleave
from larder.sample import SampleImage, picture
from larder.sample.scene import paint
from larder.stream.kernel import CROP, JpegKernel

ROUNDS = 15
IMAGES = 128
PASSES = 4
SIDE, RESIZED, CROPPED = 512, 256, 224
QUALITY = 55
"""Of JPEG, so that a file has about 40 KB."""

Arm = Callable[[Sequence[bytes]], None]


def measure() -> BenchmarkReport:
    """Resize(256) and CenterCrop(224) of the same images in memory, by one thread and by two, in turns."""
    photos = [_photo(number) for number in range(IMAGES)]
    report = BenchmarkReport(
        f"{IMAGES} photos of {SIDE} x {SIDE} pixels and {statistics.mean(map(len, photos)) / 1000:.0f} KB, "
        f"Resize({RESIZED}) and CenterCrop({CROPPED}): the kernel against decoding alone, simplejpeg with "
        "cykooz.resizer, and Pillow"
    )
    arms = _arms()
    for threads in (1, 2):
        shares = [photos[number::threads] for number in range(threads)]
        with ThreadPoolExecutor(threads) as pool:
            contestants = {name: partial(_take_turn, pool, shares, make()) for name, make in arms.items()}
            rounds = interleave(ROUNDS, contestants)
        _compare(report, threads, rounds)
    return report


def _photo(number: int) -> bytes:
    """Return a picture of the sample, with sides of SIDE pixels."""
    image, seed = SampleImage("training", number % 11, number), 1
    painted = paint(picture._random(seed, image, 1), image.label, SIDE, SIDE, picture._textures(seed))
    stream = io.BytesIO()
    painted.save(stream, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return stream.getvalue()


@dataclass(frozen=True)
class Turn(ResourceUsage):
    """What a contestant took: also the CPU time, which other programs of a busy machine change less."""

    cpu_seconds: float


def _take_turn(pool: ThreadPoolExecutor, shares: Sequence[Sequence[bytes]], arm: Arm, _: int) -> Turn:
    """Have each thread work on its share; all wait for the last."""
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in range(PASSES):
        list(pool.map(arm, shares))
    return Turn(time.perf_counter() - start, 0, time.process_time() - cpu_start)


def _compare(report: BenchmarkReport, threads: int, rounds: Sequence[dict[str, Turn]]) -> None:
    kind = f"{threads} thread{'s' if threads > 1 else ''}"
    images = IMAGES * PASSES
    report.add(f"kernel, {kind}", [images / took["kernel"].seconds for took in rounds], "images/s")
    for other, goal in (("decode alone", 0.9), ("packages", 1.15), ("Pillow", None)):
        wall = [took[other].seconds / took["kernel"].seconds for took in rounds]
        cpu = [took[other].cpu_seconds / took["kernel"].cpu_seconds for took in rounds]
        report.add(f"kernel / {other} (images per CPU second), {kind}", cpu, "", at_least=goal)
        report.add(f"kernel / {other} (images per second), {kind}", wall, "")
    report.rounds += [{"threads": threads} | {name: asdict(one) for name, one in took.items()} for took in rounds]


def _arms() -> dict[str, Callable[[], Arm]]:
    """Return a function that makes each contestant. Each of its threads has its own buffers, as in a good program."""
    try:
        importlib.import_module("simplejpeg")
        importlib.import_module("cykooz_resizer")
    except ImportError as error:
        raise CannotRunError(f"{error}: install simplejpeg and cykooz.resizer, which larder doesn't need") from error
    kernel = JpegKernel.load()
    if kernel is None:
        raise CannotRunError("the kernel isn't compiled: run python3 larder/stream/build.py")
    return {
        "kernel": partial(_kernel_arm, kernel),
        "decode alone": _decoder_arm,
        "packages": _packages_arm,
        "Pillow": lambda: _pillow,
    }


def _kernel_arm(kernel: JpegKernel) -> Arm:
    edge = (RESIZED - CROPPED) // 2
    crops = np.array([(0, 0, SIDE, SIDE, RESIZED, RESIZED, edge, edge, 0, 8)] * IMAGES, CROP)

    def run(photos: Sequence[bytes]) -> None:
        out = np.empty((len(photos), CROPPED, CROPPED, 3), np.uint8)
        if any(kernel.decode(photos, crops[: len(photos)], out)):
            raise RuntimeError("a photo is damaged")

    return run


def _decoder_arm() -> Arm:
    import simplejpeg

    own = threading.local()

    def run(photos: Sequence[bytes]) -> None:
        if not hasattr(own, "pixels"):
            own.pixels = np.empty((SIDE, SIDE, 3), np.uint8)
        for photo in photos:
            simplejpeg.decode_jpeg(photo, "RGB", buffer=own.pixels)

    return run


def _packages_arm() -> Arm:
    import cykooz_resizer as cykooz
    import simplejpeg

    own, edge = threading.local(), SIDE * (RESIZED - CROPPED) / 2 / RESIZED
    box = cykooz.CropBox(edge, edge, SIDE - 2 * edge, SIDE - 2 * edge)
    bilinear = cykooz.ResizeAlg.convolution(cykooz.FilterType.bilinear)

    def run(photos: Sequence[bytes]) -> None:
        if not hasattr(own, "pixels"):
            own.options, own.resizer = cykooz.ResizeOptions(bilinear, crop_box=box), cykooz.Resizer()
            own.image, own.pixels = _writable_bytes(SIDE * SIDE * 3)
            own.pixels = own.pixels.reshape(SIDE, SIDE, 3)
        for photo in photos:
            simplejpeg.decode_jpeg(photo, "RGB", buffer=own.pixels)
            source = cykooz.ImageData(SIDE, SIDE, cykooz.PixelType.U8x3, own.image)
            made = cykooz.ImageData(CROPPED, CROPPED, cykooz.PixelType.U8x3)
            own.resizer.resize(source, made, own.options)
            np.frombuffer(made.get_buffer(), np.uint8)

    return run


def _writable_bytes(count: int) -> tuple[bytes, NDArray[np.uint8]]:
    """Return bytes (cykooz takes nothing else) and an array in the same memory, so that nothing is copied."""
    fixed = bytes(count)
    address = np.frombuffer(fixed, np.uint8).ctypes.data
    return fixed, np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(address))


def _pillow(photos: Sequence[bytes]) -> None:
    edge = (RESIZED - CROPPED) // 2
    for photo in photos:
        with Image.open(io.BytesIO(photo)) as image:
            resized = image.resize((RESIZED, RESIZED), Image.Resampling.BILINEAR)
        np.asarray(resized.crop((edge, edge, edge + CROPPED, edge + CROPPED)))
