"""A feed by LitData's own dataset and loader over chunks in a bucket."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.config import Config
from filelock import FileLock, Timeout
from litdata import StreamingDataLoader, StreamingDataset
from litdata.exceptions import ChunkWaitTimeoutError
from litdata.streaming import async_prefetch, downloader, reader
from obstore.exceptions import BaseError, NotFoundError

from larder.contract import Manifest
from larder.errors import InputError, LarderError, ServiceError, explain_os_error
from larder.s3_faults import FAULTS, explain, explain_code
from larder.store import region_of
from services.bench import recipe
from services.bench.cache import Budget
from services.bench.dataloader import CarriedError, start_worker
from services.bench.feed import Network
from services.bench.inputs import mend
from services.bench.received import interface_bytes
from services.bench.s3_reader import ATTEMPTS, Traffic
from services.bench.settings import BenchSettings

if TYPE_CHECKING:
    from torch import Tensor

    from services.bench.feed import Batch

_ANEW = mend("make etl-lit")
_AGAIN = "run the same command again; `make s3-check` looks closer"


class ChunksFeed:
    """Reads the chunks at `uri` through a cache in the folder `cache`, within `budget`."""

    passes: tuple[str, ...] = ("cold", "warm")
    received = staticmethod(interface_bytes)

    def __init__(self, settings: BenchSettings, uri: str, manifest: Manifest, cache: Path, budget: Budget) -> None:
        self.manifest, self.recipe = manifest, recipe.NAME
        self.loader = f"StreamingDataset and StreamingDataLoader of litdata {version('litdata')}"
        self.images = manifest.splits[settings.split].samples
        self._settings, self._epoch_batches = settings, math.ceil(self.images / settings.batch_size)
        self._traffic = Traffic()
        _adjust_litdata(settings, budget.ahead, self._traffic)
        self._dataset = Images(
            uri, cache_dir=str(cache), shuffle=True, seed=settings.seed, drop_last=False,
            storage_options=_storage_options(settings), max_cache_size=budget.bytes,
        )  # fmt: skip
        self._loader: Any = None

    def read(self, epoch: int, batches: int) -> Iterator[Batch]:
        """See Feed. LitData counts epochs itself. A pass that is cut short ends its workers, which would read on."""
        if self._loader is None:
            self._loader = StreamingDataLoader(
                self._dataset, batch_size=self._settings.batch_size, num_workers=self._settings.workers,
                persistent_workers=True, worker_init_fn=start_worker,
            )  # fmt: skip
        yield from map(tuple, itertools.islice(self._loader, batches if batches < self._epoch_batches else None))
        if batches < self._epoch_batches:
            self.close()

    def network(self) -> Network:
        """See Feed: the chunks that came, whole. How many requests they took, LitData keeps to itself."""
        return self._traffic.read()._replace(requests=None)

    def close(self) -> None:
        """End the workers, which write to the cache: now, and not when the last reference to their loader goes."""
        workers = getattr(self._loader, "_iterator", None)
        if workers is not None:
            workers._shutdown_workers()
        self._loader = None


class Images(StreamingDataset):  # type: ignore[misc]  # litdata has no types
    """LitData's dataset, of images as tensors and their classes."""

    def __init__(self, uri: str, **settings: Any) -> None:
        self._uri, self._transform = uri, recipe.transform()
        self._failure: Exception | None = None
        super().__init__(uri, **settings)

    def __getitem__(self, index: Any) -> tuple[Tensor, int]:
        """An image that LitData asks for by its number in the split and its chunk's. Raises what DataLoader carries."""
        if self._failure is not None:  # a worker goes on with what it was asked for before; LitData would hang in that
            raise self._failure
        name = f"image {index.index:,} of {self._uri}, in chunk {index.chunk_index:,}"
        try:
            sample = super().__getitem__(index)
        except Exception as fault:  # LitData raises nearly anything on damaged chunks
            cause = fault.__cause__  # what its thread that fetches has raised
            self._failure = cause if isinstance(cause, CarriedError) else CarriedError.of(_explain_read(fault, name))
            raise self._failure from fault
        # A copy: samples are views of a file that is mapped into memory, and bytes are what PIL takes.
        return self._transform(recipe.decode(bytes(sample["image"]), name)), int(sample["label"])


def _explain_read(fault: Exception, name: str) -> LarderError:
    if isinstance(fault, ChunkWaitTimeoutError):
        return ServiceError(f"{name}: the chunk didn't come within {fault.waited_s:.0f} s", next_step=_AGAIN)
    known = next(filter(None, map(_explain_storage, (fault, fault.__cause__))), None)
    return known or InputError(f"{name}: the chunk is damaged: {_short(fault)}", next_step=_ANEW)


def _adjust_litdata(settings: BenchSettings, ahead: int | None, traffic: Traffic) -> None:
    """Have LitData count what it fetches and say why it fails, here and in workers that are forked from here."""

    class Counting(downloader.S3Downloader):  # type: ignore[misc]
        """LitData's way to S3."""

        async def adownload_file(self, remote_filepath: str, local_filepath: str) -> None:
            with _explained(remote_filepath, settings.s3_endpoint_url):
                await super().adownload_file(remote_filepath, local_filepath)

        def download_file(self, remote_filepath: str, local_filepath: str) -> None:
            with _explained(remote_filepath, settings.s3_endpoint_url):
                super().download_file(remote_filepath, local_filepath)
                # It takes "not found" for "another worker fetches it", and all then wait for good.
                with suppress(Timeout), FileLock(f"{local_filepath}.lock", timeout=0):
                    if not os.path.exists(local_filepath):
                        raise FileNotFoundError(remote_filepath)

        def _publish_file(self, tmp_path: str, local_filepath: str) -> None:
            size, wanted = os.path.getsize(tmp_path), downloader._indexed_object_bytes(self._chunks, local_filepath)
            traffic.add(bytes=size)
            if wanted and size != wanted:  # a shorter one would be waited for until it has grown
                name = os.path.basename(local_filepath)
                raise CarriedError.of(
                    InputError(
                        f"{self._remote_dir}/{name} has {size:,} bytes, and LitData's index says {wanted:,}",
                        next_step="run `make etl-lit`, which puts it back",
                    )
                )
            super()._publish_file(tmp_path, local_filepath)

    downloader.register_downloader("s3://", Counting, overwrite=True)
    # obstore, which fetches the chunks, refuses plain http unless told, and LitData has no setting for it.
    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True
    # LitData raises what it is given to what it thinks best: for remote chunks, nearly always to 32.
    if ahead is not None:
        reader.adaptive_pre_download = lambda *_, **__: ahead
    # Its thread that fetches prints tracebacks of what comes out of `Images`, too; so does asyncio.
    reader.PrepareChunksThread._report_crash = lambda *_: None
    reader.close_thread_event_loop = _close_loop
    for name in ("litdata", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _close_loop() -> None:
    """End what else is being fetched, then close the loop: obstore's threads print tracebacks when it isn't there."""
    loop = getattr(async_prefetch._THREAD_LOOPS, "loop", None)
    if loop is not None and (pending := asyncio.all_tasks(loop)):
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
    async_prefetch.close_thread_event_loop()


@contextmanager
def _explained(uri: str, endpoint: str) -> Iterator[None]:
    """A block in which what fetching `uri` raises becomes a CarriedError."""
    try:
        yield
    except CarriedError:
        raise
    except Exception as fault:
        raise CarriedError.of(_explain_fetch(fault, uri, endpoint)) from fault


def _explain_fetch(fault: Exception, uri: str, endpoint: str) -> LarderError:
    what = f"reading {uri}"
    if isinstance(fault, FAULTS):
        return explain(fault, what, endpoint)
    if isinstance(fault, (NotFoundError, FileNotFoundError)):
        return InputError(
            f"{uri} is gone: it was deleted after the load", next_step="run `make etl-lit`, which puts it back"
        )
    if isinstance(fault, BaseError):
        code = re.search(r"<Code>(\w+)</Code>", str(fault))
        if code:
            return explain_code(code[1], "", what)
    return _explain_storage(fault) or ServiceError(f"{what}: {_short(fault)}", next_step=_AGAIN)


def _explain_storage(fault: BaseException | None) -> LarderError | None:
    return explain_os_error(fault) if isinstance(fault, OSError) else None


def _short(fault: Exception) -> str:
    said = str(fault).partition(" Debug source:")[0]  # obstore adds one
    return " ".join(f"{type(fault).__name__}: {said}".split())[:300]


def _storage_options(settings: BenchSettings) -> dict[str, Any]:
    """What LitData hands on to boto3's client, and takes from it for obstore."""
    given = {
        "endpoint_url": settings.s3_endpoint_url,
        "region_name": region_of(settings),
        "aws_access_key_id": settings.aws_access_key_id,
        "aws_secret_access_key": settings.aws_secret_access_key.get_secret_value(),
        "aws_session_token": settings.aws_session_token.get_secret_value(),
        # LitData's own would ask for its index a thousand times.
        "config": Config(retries={"mode": "standard", "total_max_attempts": ATTEMPTS}),
    }
    return {name: value for name, value in given.items() if value}
