"""Does the memory of index, and of shard and optimize from the index, grow with the number of objects?"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import obstore
from obstore.store import S3Store

from benchmarks import data
from benchmarks.harness import WORK, BenchmarkReport, ResourceUsage, run_stage
from benchmarks.store import loopback_store

FEW, MANY = 20_000, 200_000
WORKERS = 2
_PACK_BYTES = "4MiB"
"""So small that few images fill several, too: a worker holds one, and its samples, at a time."""
_PUTS = 64
_BATCH = 10_000


def measure(many: int = MANY) -> BenchmarkReport:
    """Peak memory at so many tiny objects against 20,000: store to store, with two workers."""
    report = BenchmarkReport(f"peak memory at {many:,} objects / at {FEW:,}, store to store, {WORKERS} workers")
    took = {(name, images): usage for images in (FEW, many) for name, usage in _run_stages(images)}
    for name in dict.fromkeys(name for name, _ in took):
        peak = took[name, many].peak_bytes
        report.add(f"{name}: peak ratio", [peak / took[name, FEW].peak_bytes], "", at_most=1.2)
        report.add(f"{name}: peak", [peak / 1e6], "MB")
        report.add(f"{name}: rate", [many / took[name, many].seconds], "images/s")
    return report


def _run_stages(images: int) -> Iterator[tuple[str, ResourceUsage]]:
    """Put the images into a store, then index and pack them; yields what each stage took."""
    with (
        tempfile.TemporaryDirectory(dir=WORK, prefix="index-memory-") as folder,
        loopback_store(Path(folder) / "store") as store,
    ):
        print(f"  putting {images:,} objects", flush=True)
        asyncio.run(_put_tiny_images(store, images))
        bucket, volume = f"s3://{store['S3_BUCKET']}", Path(folder) / "volume"
        volume.mkdir()
        shared = {
            "LARDER_VOLUME_DIR": str(volume), "LARDER_DATASET": "tiny", "LARDER_SOURCE": f"{bucket}/in/",
            "LARDER_WORKERS": str(WORKERS), "LARDER_INPUT": f"{bucket}/tiny-index",
            "LARDER_SHARD_BYTES": _PACK_BYTES, "LARDER_CHUNK_BYTES": _PACK_BYTES,
        }  # fmt: skip
        for name, destination in (("index", ""), ("shard", "tiny-webdataset"), ("optimize", "tiny-litdata")):
            settings = shared | store | {"LARDER_DEST": destination and f"{bucket}/{destination}"}
            took = run_stage(name, settings, watch_memory=True)
            print(f"  {name} of {images:,}: {took.peak_bytes / 1e6:.0f} MB, {took.seconds:.0f} s", flush=True)
            yield name, took


async def _put_tiny_images(store: Mapping[str, str], images: int) -> None:
    bucket = S3Store(
        store["S3_BUCKET"],
        prefix="in",
        endpoint=store["S3_ENDPOINT_URL"],
        access_key_id=store["AWS_ACCESS_KEY_ID"],
        secret_access_key=store["AWS_SECRET_ACCESS_KEY"],
        region="us-east-1",
        client_options={"allow_http": True},
    )
    found = data.tiny_images(images)
    while batch := list(itertools.islice(found, _BATCH)):
        await asyncio.gather(*(_put(bucket, batch[start::_PUTS]) for start in range(_PUTS)))


async def _put(bucket: S3Store, found: list[tuple[str, bytes]]) -> None:
    for path, content in found:
        await obstore.put_async(bucket, path, content, use_multipart=False)
