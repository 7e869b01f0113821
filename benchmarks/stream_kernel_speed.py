"""Is the JPEG kernel's crop and resize nearly as fast as decoding alone, and faster than the best pair of packages?

It also compares fast decoding (`ShardStream(decode="fast")`) with exact decoding: the speed, and the pixels. With
LARDER_SOURCE naming a zip of photographs, this includes the first of those.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import os
import statistics
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks import data
from benchmarks.harness import BenchmarkReport, CannotRunError, ResourceUsage, interleave
from larder import sample
from larder.sample import SampleImage, picture
from larder.sample.scene import paint
from larder.stream.kernel import CROP, JpegKernel
from larder.stream.transforms import CenterCrop

ROUNDS = 15
IMAGES = 128
PASSES = 4
SIDE, RESIZED, CROPPED = 512, 256, 224
LARGE_IMAGES = 16
QUALITY = 55
"""Of JPEG, so that a file has about 40 KB."""

Arm = Callable[[Sequence[bytes]], None]


def measure() -> BenchmarkReport:
    """Resize(256) and CenterCrop(224) of the same images in memory, by one thread and by two, in turns."""
    photos = [_photo(number) for number in range(IMAGES)]
    kernel = JpegKernel.load()
    if kernel is None:
        raise CannotRunError("the kernel isn't compiled: run python3 larder/stream/build.py")
    report = BenchmarkReport(
        f"{IMAGES} photos of {SIDE} x {SIDE} pixels and {statistics.mean(map(len, photos)) / 1000:.0f} KB, "
        f"Resize({RESIZED}) and CenterCrop({CROPPED}): the kernel against decoding alone, simplejpeg with "
        "cykooz.resizer, and Pillow"
    )
    arms = _arms(kernel)
    for name, pictures in _pictures_to_scale():
        _compare_fast(report, name, pictures, kernel)
    for threads in (1, 2):
        shares = [photos[number::threads] for number in range(threads)]
        with ThreadPoolExecutor(threads) as pool:
            contestants = {name: partial(_take_turn, pool, shares, make()) for name, make in arms.items()}
            rounds = interleave(ROUNDS, contestants)
        _compare(report, threads, rounds)
    return report


def _photo(number: int, tiles: int = 1) -> bytes:
    """Return a picture of the sample, with sides of SIDE pixels; or a mosaic of tiles x tiles such pictures."""
    mosaic, seed = Image.new("RGB", (tiles * SIDE, tiles * SIDE)), 1
    for tile in range(tiles**2):
        image = SampleImage("training", (number + tile) % 11, number + tile)
        painted = paint(picture._random(seed, image, 1), image.label, SIDE, SIDE, picture._textures(seed))
        mosaic.paste(painted, (tile % tiles * SIDE, tile // tiles * SIDE))
    stream = io.BytesIO()
    mosaic.save(stream, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return stream.getvalue()


def _pictures_to_scale() -> Iterator[tuple[str, Sequence[bytes]]]:
    """Yield pictures that fast decoding scales to a half, a quarter and an eighth, and photographs, if given."""
    for tiles in (1, 2, 4):
        yield f"{tiles * SIDE:,} pixels", [_photo(number, tiles) for number in range(LARGE_IMAGES)]
    if os.environ.get("LARDER_SOURCE", "") not in ("", sample.NAME):
        with zipfile.ZipFile(data.photos()) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg"))]
            yield "LARDER_SOURCE", [archive.read(name) for name in names[:IMAGES]]


def _compare_fast(report: BenchmarkReport, name: str, pictures: Sequence[bytes], kernel: JpegKernel) -> None:
    """Compare fast with exact decoding of those pictures that fast decoding scales."""
    transform, nothing = CenterCrop(RESIZED, CROPPED), np.empty(0)
    exact = [transform.crop(width, height, nothing) for width, height, *_ in kernel.headers(pictures).tolist()]
    scaled = [at for at, crop in enumerate(exact) if crop.scaled() != crop]
    files = [pictures[at] for at in scaled]
    ways = {
        "exact": np.array([exact[at] for at in scaled], CROP),
        "fast": np.array([exact[at].scaled() for at in scaled], CROP),
    }
    outs = {way: np.empty((len(files), CROPPED, CROPPED, 3), np.uint8) for way in ways}

    def decode(way: str, _: int) -> Turn:
        begin, cpu_begin = time.perf_counter(), time.process_time()
        if any(kernel.decode(files, ways[way], outs[way])):
            raise CannotRunError(f"{name}: a picture is damaged, or of a kind that the kernel doesn't decode")
        return Turn(time.perf_counter() - begin, 0, time.process_time() - cpu_begin)

    rounds = interleave(ROUNDS, {way: partial(decode, way) for way in ways})
    differences = np.abs(outs["fast"].astype(np.int16) - outs["exact"])
    speeds = [took["exact"].cpu_seconds / took["fast"].cpu_seconds for took in rounds]
    report.add(f"fast / exact (images per CPU second), {name}", speeds)
    for kind, values in (("mean", differences.mean((1, 2, 3))), ("largest", differences.max((1, 2, 3)))):
        report.add(f"fast, {kind} difference of {len(files)} images, {name}", values.tolist(), "of 255")
    report.rounds += [{"pictures": name} | {way: asdict(one) for way, one in took.items()} for took in rounds]


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


def _arms(kernel: JpegKernel) -> dict[str, Callable[[], Arm]]:
    """Return a function that makes each contestant. Each of its threads has its own buffers, as in a good program."""
    try:
        importlib.import_module("simplejpeg")
        importlib.import_module("cykooz_resizer")
    except ImportError as error:
        raise CannotRunError(f"{error}: install simplejpeg and cykooz.resizer, which larder doesn't need") from error
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
