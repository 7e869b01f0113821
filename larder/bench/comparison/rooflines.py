"""Measure upper bounds: decoding from memory, the fastest known loader from memory, and reading alone."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from larder.bench.comparison.images import ImageSource, sampled_images
from larder.store import StoreSettings

MIN_SECONDS = 1.5
MAX_IMAGES, MAX_BYTES = 2000, 256 << 20
"""Encoded images that are decoded from memory, and bytes of them or of shards that are kept there or read."""
_BLOCK, _FETCHERS, _CHUNK = 4 << 20, 8, 64
_MEMORY = Path("/dev/shm")
_SEED = 0  # each round has the same files
ABOUT = {
    "decode": "decode, crop and resize in threads, from memory, with larder.stream's kernel (PIL where it isn't built)",
    "decode_pil": "decode, resize, crop and normalize with PIL and torchvision in threads, from memory",
    "stream_from_memory": "larder.stream over shards in memory, normalized: the fastest known way to the same batches",
    "disk_read": "read the tree's files from disk in random order, in as many threads as an arm has workers, after "
    "dropping them from the page cache",
    "store_read": f"read shards from the store in blocks of 4 MiB, {_FETCHERS} at once, and discard them",
}


class Bound(NamedTuple):
    """One measurement of an upper bound."""

    imgs_per_s: float
    bytes_per_s: float | None
    threads: int


def available_rooflines(source: ImageSource | None) -> list[str]:
    """Return the upper bounds that can be measured with the data."""
    if source is None:
        return []
    names = ["decode", "decode_pil"]
    names += ["stream_from_memory", "store_read"] if source.shards else []
    return names + (["disk_read"] if source.tree else [])


def measure_roofline(name: str, source: ImageSource, store: StoreSettings, threads: int, bytes_per_img: float) -> Bound:
    """Measure one upper bound for a second or two.

    Args:
        name: One of `ABOUT`.
        source: Where the images are.
        store: Settings of the store.
        threads: Threads that decode, or that read from disk, which needs several requests in flight.
        bytes_per_img: Mean length of an image with its share of headers, for reads.
    """
    if name == "decode":
        return _decode(sampled_images(source, store, MAX_IMAGES, MAX_BYTES), threads)
    if name == "decode_pil":
        return _decode_pil(sampled_images(source, store, MAX_IMAGES, MAX_BYTES), threads)
    if name == "stream_from_memory":
        return _stream_from_memory(source, store, threads)
    if name == "disk_read":
        rate, readers = _disk_read(source, threads), threads
    else:
        rate, readers = _store_read(source, store), _FETCHERS
    return Bound(rate / bytes_per_img, rate, readers)


def _decode(images: Sequence[bytes], threads: int) -> Bound:
    from larder.stream.decode import Decoder
    from larder.stream.kernel import JpegKernel
    from larder.stream.transforms import CenterCrop

    transform = CenterCrop()
    decoder = Decoder(transform, JpegKernel.load())
    views = [memoryview(content) for content in images]

    def work(begin: int) -> int:
        chunk = views[begin : begin + _CHUNK]
        out = np.empty((len(chunk), transform.size, transform.size, 3), np.uint8)
        decoder.decode(chunk, np.zeros((len(chunk), transform.draws)), out)
        return len(chunk)

    return Bound(_rate_in_threads(work, len(views), _CHUNK, threads), None, threads)


def _decode_pil(images: Sequence[bytes], threads: int) -> Bound:
    import torch

    from larder.loaders.preprocessing import decode, reference_transform

    torch.set_num_threads(1)
    transform = reference_transform()

    def work(at: int) -> int:
        transform(decode(images[at], "an image"))
        return 1

    return Bound(_rate_in_threads(work, len(images), 1, threads), None, threads)


def _rate_in_threads(work: Callable[[int], int], total: int, step: int, threads: int) -> float:
    """Return how many units per second threads do, over and over, for MIN_SECONDS."""
    end = perf_counter() + MIN_SECONDS
    turns = itertools.cycle(range(0, total, step))

    def one_thread(_: int) -> int:
        done = 0
        while perf_counter() < end:
            done += work(next(turns))
        return done

    start = perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(one_thread, range(threads)))
    return done / (perf_counter() - start)


def _stream_from_memory(source: ImageSource, store: StoreSettings, threads: int) -> Bound:
    from larder.stream import ShardStream, normalize

    with tempfile.TemporaryDirectory(prefix="larder-", dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        copy_shards(source.shard_folder, store, Path(folder))
        # In threads: a child process would start within the measured seconds.
        stream = ShardStream(folder, batch_size=_CHUNK, threads=threads, rank=0, world_size=1, mode="thread")

        def rate() -> float:
            images, start = 0, perf_counter()
            while True:
                for pixels, _ in stream:
                    images += len(normalize(pixels))
                    if (seconds := perf_counter() - start) >= MIN_SECONDS:
                        return images / seconds

        rate()  # opening, and the small window of an epoch's beginning
        return Bound(rate(), None, threads)


def copy_shards(uri: str, store: StoreSettings, folder: Path) -> None:
    """Copy shards below a URI into a folder, from all parts of the split, up to MAX_BYTES; at least one."""
    from larder.stream.shard_folders import open_folder

    shards = open_folder(uri, store)
    total = 0
    listed = sorted(shards.list("").items())
    for path, size in random.Random(_SEED).sample(listed, len(listed)):
        if total and total + size > MAX_BYTES:
            break
        with (folder / f"{total:012}.tar").open("wb") as file:
            for begin in range(0, size, _BLOCK):
                file.write(shards.read(path, begin, min(begin + _BLOCK, size)))
        total += size


def _disk_read(source: ImageSource, threads: int) -> float:
    """Return the bytes per second at which threads read files that aren't in the page cache."""
    files = _uncached_files(Path(source.tree) / source.split)
    end = perf_counter() + 2 * MIN_SECONDS
    turns = iter(files)  # each file once: a second read would come from memory

    def one_thread(_: int) -> int:
        done = 0
        while perf_counter() < end and (path := next(turns, None)) is not None:
            done += _read_file(path)
        return done

    start = perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(one_thread, range(threads)))
    return total / max(perf_counter() - start, 1e-9)


def _uncached_files(folder: Path) -> list[Path]:
    """Drop files of MAX_BYTES from the page cache, and return them in random order."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    random.Random(_SEED).shuffle(files)
    dropped, total = list[Path](), 0
    for path in files:
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            total += os.fstat(file.fileno()).st_size
        dropped.append(path)
        if total > MAX_BYTES:
            break
    return dropped


def _read_file(path: Path) -> int:
    with path.open("rb", buffering=0) as file:
        return len(file.readall())


def _store_read(source: ImageSource, store: StoreSettings) -> float:
    from larder.stream.shard_folders import open_folder

    shards = open_folder(source.shard_folder, store)
    ranges = [
        (path, begin, min(begin + _BLOCK, size))
        for path, size in shards.list("").items()
        for begin in range(0, size, _BLOCK)
    ]
    end = perf_counter() + MIN_SECONDS
    turns: Iterator[tuple[str, int, int]] = itertools.cycle(ranges)

    def one_thread(_: int) -> int:
        done = 0
        while perf_counter() < end:
            done += len(shards.read(*next(turns)))
        return done

    start = perf_counter()
    with ThreadPoolExecutor(_FETCHERS) as pool:
        total = sum(pool.map(one_thread, range(_FETCHERS)))
    return total / (perf_counter() - start)
