"""LitData's own dataset over chunks in a bucket, and what it takes for it to fail in words."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import botocore.session
from botocore.config import Config
from filelock import FileLock, Timeout
from litdata import StreamingDataset
from litdata.exceptions import ChunkWaitTimeoutError
from litdata.streaming import async_prefetch, downloader, item_loader, reader
from litdata.streaming.resolver import Dir
from obstore.exceptions import BaseError, NotFoundError

from larder.chunks import INDEX
from larder.errors import InputError, LarderError, ServiceError, StorageError, explain_os_error
from larder.loaders.failures import CarriedError
from larder.loaders.preprocessing import decode, reference_transform
from larder.loaders.remedies import AGAIN, RENEW, RESTORE
from larder.loaders.s3_reader import ATTEMPTS
from larder.loaders.traffic import Traffic
from larder.s3_faults import FAULTS, explain, explain_code
from larder.store import StoreSettings, region_of

if TYPE_CHECKING:
    from torch import Tensor

    from larder.loaders.loader import Transform


class Adjustment(NamedTuple):
    """What LitData is told beside its own arguments, in each process that reads."""

    endpoint: str
    stall_seconds: int
    ahead: int | None
    """How many chunks each worker fetches ahead; None leaves it to LitData."""
    traffic: Traffic
    sha256: Mapping[str, str] | None
    """What each chunk must have, by its name; None doesn't look."""


class PyTreeLoader(item_loader.PyTreeLoader):  # type: ignore[misc]  # litdata has no types
    """LitData's, under the name that its index has, for plain chunks alone.

    LitData takes a chunk for compressed or for Arrow's by bytes in the chunk itself, whatever its index says.
    """

    def _resolve_framed_header(self, *_: Any) -> None:
        return None

    def _try_arrow_footer_rows(self, *_: Any) -> Any:
        return item_loader._BATCH_SKIP


class Images(StreamingDataset):  # type: ignore[misc]  # litdata has no types
    """LitData's dataset, of images as tensors and their classes.

    Chunks are fetched from `uri` into the folder `cache`, where an index lies that larder.chunks has checked.
    """

    def __init__(
        self, uri: str, cache: Path, classes: int, transform: Transform | None, adjustment: Adjustment, **options: Any
    ) -> None:
        self._uri, self._classes, self._to_tensor = uri, classes, transform or reference_transform()
        self._failure: Exception | None = None
        self._adjustment = adjustment
        adjust_litdata(adjustment)
        super().__init__(Dir(path=str(cache), url=uri), item_loader=PyTreeLoader(), **options)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        adjust_litdata(self._adjustment)  # a worker that isn't forked from here has imported an unadjusted LitData

    def __getitem__(self, index: Any) -> tuple[Tensor, int]:
        """An image that LitData asks for by its number in the split and its chunk's. Raises what DataLoader carries."""
        if self._failure is not None:  # a worker goes on with what it was asked for before; LitData would hang in that
            raise self._failure
        name = f"image {index.index:,} of {self._uri}, in chunk {index.chunk_index:,}"
        try:
            sample = super().__getitem__(index)
            # A copy: samples are views of a file that is mapped into memory, and bytes are what PIL takes.
            image, label = bytes(memoryview(sample["image"])), int(sample["label"])
            if not 0 <= label < self._classes:
                raise ValueError(f"class {label}, and the manifest names {self._classes:,}")
        except Exception as fault:  # LitData raises nearly anything on damaged chunks
            cause = fault.__cause__  # what its thread that fetches has raised
            self._failure = cause if isinstance(cause, CarriedError) else CarriedError.of(_explain_read(fault, name))
            raise self._failure from fault
        return self._to_tensor(decode(image, name)), label


def _explain_read(fault: Exception, name: str) -> LarderError:
    if isinstance(fault, ChunkWaitTimeoutError):
        return ServiceError(f"{name}: the chunk didn't come within {fault.waited_s:.0f} s", next_step=AGAIN)
    known = next(filter(None, map(_explain_storage, (fault, fault.__cause__))), None)
    return known or InputError(f"{name}: the chunk is damaged: {_short(fault)}", next_step=RENEW)


def adjust_litdata(adjustment: Adjustment) -> None:
    """Have LitData reach the store, count what it fetches and say why it fails, here and in forks of this process."""
    endpoint, stall_seconds, ahead, traffic, sha256 = adjustment

    class Counting(downloader.S3Downloader):  # type: ignore[misc]
        """LitData's way to S3."""

        async def adownload_file(self, remote_filepath: str, local_filepath: str) -> None:
            _require_chunk(remote_filepath, local_filepath)
            with _explained(remote_filepath, endpoint):
                await super().adownload_file(remote_filepath, local_filepath)

        def download_file(self, remote_filepath: str, local_filepath: str) -> None:
            _require_chunk(remote_filepath, local_filepath)
            with _explained(remote_filepath, endpoint):
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
                        next_step=RESTORE,
                    )
                )
            _require_digest(tmp_path, f"{self._remote_dir}/{os.path.basename(local_filepath)}", sha256)
            super()._publish_file(tmp_path, local_filepath)

    downloader.register_downloader("s3://", Counting, overwrite=True)
    downloader._OBSTORE_CLIENT_OPTIONS.update(client_options(endpoint, stall_seconds))
    # LitData raises what it is given to what it thinks best: for remote chunks, nearly always to 32.
    if ahead is not None:
        reader.adaptive_pre_download = lambda *_, **__: ahead
    # Its thread that fetches prints tracebacks of what comes out of `Images`, too; so does asyncio.
    reader.PrepareChunksThread._report_crash = lambda *_: None
    reader.close_thread_event_loop = _close_loop
    for name in ("litdata", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _require_digest(file: str, uri: str, sha256: Mapping[str, str] | None) -> None:
    """Raise CarriedError unless the chunk in a file is the one at `uri` that the index names."""
    if sha256 is None:
        return
    with open(file, "rb", buffering=0) as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != sha256.get(uri.rpartition("/")[2]):
        raise CarriedError.of(InputError(f"{uri} has other bytes than the data set's index says", next_step=RENEW))


def client_options(endpoint: str, stall_seconds: int) -> dict[str, Any]:
    """What obstore, which fetches the chunks, must be told to reach the store as boto3 does; proxies it finds itself.

    It refuses plain http unless told, and knows nothing of AWS's setting for a bundle of certificates. It can't require
    progress: silence ends a request after the stall time, and LitData's own limit any request after 200 s.
    """
    bundle = botocore.session.get_session().get_config_variable("ca_bundle")
    known = {"root_certificate": Path(bundle).read_bytes()} if bundle else {}
    return known | {"allow_http": endpoint.startswith("http://"), "read_timeout": f"{stall_seconds}s"}


def _require_chunk(remote: str, local: str) -> None:
    """Raise CarriedError where LitData would fetch an index: it was given the one that was checked."""
    if remote.endswith(f"/{INDEX}") and not os.path.exists(local):
        raise CarriedError.of(
            StorageError(f"{local} is gone from the cache while it was read", next_step="leave it alone, and run again")
        )


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
        return InputError(f"{uri} is gone: it was deleted after the load", next_step=RESTORE)
    if isinstance(fault, BaseError):
        code = re.search(r"<Code>(\w+)</Code>", str(fault))
        if code:
            return explain_code(code[1], "", what)
    return _explain_storage(fault) or ServiceError(f"{what}: {_short(fault)}", next_step=AGAIN)


def _explain_storage(fault: BaseException | None) -> LarderError | None:
    return explain_os_error(fault) if isinstance(fault, OSError) else None


def _short(fault: Exception) -> str:
    said = str(fault).partition(" Debug source:")[0]  # obstore adds one
    return " ".join(f"{type(fault).__name__}: {said}".split())[:300]


def storage_options(settings: StoreSettings) -> dict[str, Any]:
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
