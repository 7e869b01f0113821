"""Make a dataset in every layout that contestants of `stream_speed` read, on disk and in a store on this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.harness import run_stage, run_stage_on_volume
from benchmarks.store import loopback_store
from benchmarks.stream_peers.environments import python_of

PACK_BYTES = 16 << 20
"""Size of shards and chunks: so small that two workers get equal shares of a few of them."""


@dataclass(frozen=True)
class StreamData:
    """A dataset in all layouts.

    Attributes:
        uris: Where the training split is, by layout.
        settings: Of the store, and where arms look for the tree and keep caches.
        store: The store's process.
        shards: The folder of the training split's shards.
    """

    uris: Mapping[str, str]
    settings: Mapping[str, str]
    store: psutil.Process
    shards: Path

    @property
    def stored_bytes(self) -> int:
        """Length of the training split's shards."""
        return sum(path.stat().st_size for path in self.shards.iterdir())


@contextmanager
def stream_data(
    folder: Path, archive: Path, layouts: tuple[str, ...] = (), pack_bytes: int = PACK_BYTES
) -> Iterator[StreamData]:
    """Unpack an archive, make shards and other layouts of it, and load them into a store.

    Args:
        folder: Where to do so; an empty folder.
        archive: The images, in Food-11's layout.
        layouts: Layouts besides the tree and the shards: "litdata", "objects", and arms that read one of their own.
        pack_bytes: Size of shards and chunks.
    """
    for name in ("volume", "shards", "chunks"):
        (folder / name).mkdir()
    run_stage_on_volume("extract", folder / "volume", "--source", str(archive))
    run_stage_on_volume("transform", folder / "volume")
    tree = folder / "volume" / "Food-11"
    run_stage_on_volume("shard", folder / "shards", "--input", str(tree), "--shard-bytes", str(pack_bytes))
    shards = folder / "shards" / "Food-11-webdataset" / "training"
    with loopback_store(folder / "store") as settings:
        bucket = f"s3://{settings['S3_BUCKET']}"
        uris = {
            "tree": str(tree / "training"),
            "shards on disk": str(shards),
            "shards": f"{bucket}/Food-11-webdataset/training",
            "litdata": f"{bucket}/Food-11-litdata/training",
            "objects": f"{bucket}/Food-11/training",
            "mosaicml": f"{bucket}/Food-11-mds/training",
            "hf_datasets": f"{bucket}/Food-11-parquet/training",
            "turboloader": str(folder / "cache" / "Food-11-tar" / "training" / "images.tar"),
        }
        settings |= {"FOOD11_DATA_DIR": str(tree), "LARDER_CACHE_DIR": str(folder / "cache")}
        _load(settings, folder / "shards", "webdataset")
        if "litdata" in layouts:
            flags = "--input", str(tree), "--chunk-bytes", str(pack_bytes)
            run_stage_on_volume("optimize", folder / "chunks", *flags)
            _load(settings, folder / "chunks", "litdata")
        if "objects" in layouts:
            run_stage("load", settings | {"LARDER_VOLUME_DIR": str(folder / "volume")})
        for arm in {"mosaicml", "hf_datasets", "turboloader"}.intersection(layouts):
            if python_of(arm):
                run_stage("bench", settings, "--task", "peers", "--arm", arm)
        yield StreamData(uris, settings, _process_of(settings["S3_ENDPOINT_URL"]), shards)


def _load(settings: Mapping[str, str], volume: Path, layout: str) -> None:
    run_stage("load", {**settings, "LARDER_VOLUME_DIR": str(volume), "LARDER_LOAD": layout})


def _process_of(endpoint: str) -> psutil.Process:
    """Return the process that listens at an address of this machine."""
    port = int(endpoint.rpartition(":")[2])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return psutil.Process(connection.pid)
        time.sleep(0.1)
    raise RuntimeError(f"nobody listens at {endpoint}")
