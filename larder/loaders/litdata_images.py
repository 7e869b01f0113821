"""LitData's dataset over chunks in a bucket, adjusted so that failures raise errors with a cause."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import botocore.session
from botocore.config import Config
from litdata import StreamingDataset
from litdata.exceptions import ChunkWaitTimeoutError
from litdata.streaming.resolver import Dir
from obstore.exceptions import BaseError, NotFoundError

from larder.chunks import INDEX
from larder.errors import InputError, LarderError, ServiceError, StorageError, explain_os_error
from larder.litdata_adapter import PyTreeLoader, patch_litdata
from larder.loaders.failures import WorkerError
from larder.loaders.hints import CREATE_AGAIN, RESTORE, RUN_AGAIN
from larder.loaders.preprocessing import decode, reference_transform
from larder.loaders.s3_reader import ATTEMPTS
from larder.loaders.traffic import TrafficCounter
from larder.s3_faults import S3_ERRORS, explain_code, explain_s3_error
from larder.store import StoreSettings, region_of

if TYPE_CHECKING:
    from torch import Tensor

    from larder.loaders.loader import Transform


class LitDataPatch(NamedTuple):
    """Settings for LitData beyond its own arguments, applied in each process that reads."""

    endpoint: str
    stall_seconds: int
    prefetch_chunks: int | None
    """Chunks that each worker prefetches; None leaves it to LitData."""
    traffic: TrafficCounter
    sha256: Mapping[str, str] | None
    """Expected sha256 of each chunk, by name; None skips the check."""


class LitDataImages(StreamingDataset):  # type: ignore[misc]  # litdata has no types
    """LitData's dataset that yields (image tensor, label).

    LitData fetches chunks from `uri` into the folder `cache`, which must contain an index that `larder.chunks` has
    checked.
    """

    def __init__(
        self, uri: str, cache: Path, classes: int, transform: Transform | None, patch: LitDataPatch, **options: Any
    ) -> None:
        self._uri, self._classes, self._to_tensor = uri, classes, transform or reference_transform()
        self._failure: Exception | None = None
        self._patch = patch
        _patch_litdata(patch)
        super().__init__(Dir(path=str(cache), url=uri), item_loader=PyTreeLoader(), **options)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _patch_litdata(self._patch)  # a spawned worker has imported an unpatched LitData

    def __getitem__(self, index: Any) -> tuple[Tensor, int]:
        """Return the image and label at LitData's index. Raise WorkerError, or what `decode` raises."""
        if self._failure is not None:  # a worker continues with queued requests, and LitData would hang in them
            raise self._failure
        name = f"image {index.index:,} of {self._uri}, in chunk {index.chunk_index:,}"
        try:
            sample = super().__getitem__(index)
            # Copy: samples are views of a memory-mapped file, and PIL needs bytes.
            image, label = bytes(memoryview(sample["image"])), int(sample["label"])
            if not 0 <= label < self._classes:
                raise ValueError(f"class {label}, and the manifest names {self._classes:,}")
        except Exception as fault:  # LitData raises nearly anything on damaged chunks
            cause = fault.__cause__  # raised in LitData's fetching thread
            self._failure = (
                cause if isinstance(cause, WorkerError) else WorkerError.from_error(_explain_read(fault, name))
            )
            raise self._failure from fault
        return self._to_tensor(decode(image, name)), label


def _explain_read(fault: Exception, name: str) -> LarderError:
    if isinstance(fault, ChunkWaitTimeoutError):
        return ServiceError(f"{name}: the chunk didn't arrive within {fault.waited_s:.0f} s", next_step=RUN_AGAIN)
    known = next(filter(None, map(_explain_storage, (fault, fault.__cause__))), None)
    return known or InputError(f"{name}: the chunk is damaged: {_short(fault)}", next_step=CREATE_AGAIN)


class _ChunkChecks:
    """Count and check fetched chunks, and explain why fetching fails."""

    def __init__(self, patch: LitDataPatch) -> None:
        self._endpoint, self._traffic, self._sha256 = patch.endpoint, patch.traffic, patch.sha256

    @contextmanager
    def fetching(self, uri: str, file: str) -> Iterator[None]:
        """See FetchObserver. Raises WorkerError for any failure."""
        _require_chunk(uri, file)
        with _map_fetch_errors(uri, self._endpoint):
            yield

    def check(self, file: str, uri: str, expected_bytes: int) -> None:
        """See FetchObserver. Raises WorkerError for a chunk of another length or another content."""
        size = os.path.getsize(file)
        self._traffic.add(bytes=size)
        if expected_bytes and size != expected_bytes:
            raise WorkerError.from_error(
                InputError(f"{uri} has {size:,} bytes, and LitData's index says {expected_bytes:,}", next_step=RESTORE)
            )
        _require_digest(file, uri, self._sha256)


def _patch_litdata(patch: LitDataPatch) -> None:
    """Patch LitData, in this process and its forks, to reach the store, count traffic and report why fetching fails."""
    patch_litdata(_ChunkChecks(patch), client_options(patch.endpoint, patch.stall_seconds), patch.prefetch_chunks)


def _require_digest(file: str, uri: str, sha256: Mapping[str, str] | None) -> None:
    """Raise WorkerError unless the chunk's sha256 matches the index."""
    if sha256 is None:
        return
    with open(file, "rb", buffering=0) as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != sha256.get(uri.rpartition("/")[2]):
        raise WorkerError.from_error(
            InputError(f"{uri} has other bytes than the dataset's index says", next_step=CREATE_AGAIN)
        )


def client_options(endpoint: str, stall_seconds: int) -> dict[str, Any]:
    """Return obstore's client options to reach the store as boto3 does; obstore finds proxies itself.

    obstore refuses plain http by default and ignores AWS_CA_BUNDLE. It can't enforce a minimum pace: a request ends
    after `stall_seconds` without data, and after 200 s in any case (LitData's limit).
    """
    bundle = botocore.session.get_session().get_config_variable("ca_bundle")
    certificates = {"root_certificate": Path(bundle).read_bytes()} if bundle else {}
    return certificates | {"allow_http": endpoint.startswith("http://"), "read_timeout": f"{stall_seconds}s"}


def _require_chunk(remote: str, local: str) -> None:
    """Raise WorkerError if LitData tries to fetch an index: the checked one is in the cache."""
    if remote.endswith(f"/{INDEX}") and not os.path.exists(local):
        raise WorkerError.from_error(
            StorageError(
                f"{local} was deleted from the cache while it was read",
                next_step="run again, and leave the cache alone meanwhile",
            )
        )


@contextmanager
def _map_fetch_errors(uri: str, endpoint: str) -> Iterator[None]:
    """Turn any exception while fetching `uri` into a WorkerError."""
    try:
        yield
    except WorkerError:
        raise
    except Exception as fault:
        raise WorkerError.from_error(_explain_fetch(fault, uri, endpoint)) from fault


def _explain_fetch(fault: Exception, uri: str, endpoint: str) -> LarderError:
    what = f"reading {uri}"
    if isinstance(fault, S3_ERRORS):
        return explain_s3_error(fault, what, endpoint)
    if isinstance(fault, (NotFoundError, FileNotFoundError)):
        return InputError(f"{uri} is missing: it was deleted after the load", next_step=RESTORE)
    if isinstance(fault, BaseError):
        code = re.search(r"<Code>(\w+)</Code>", str(fault))
        if code:
            return explain_code(code[1], "", what)
    return _explain_storage(fault) or ServiceError(f"{what}: {_short(fault)}", next_step=RUN_AGAIN)


def _explain_storage(fault: BaseException | None) -> LarderError | None:
    return explain_os_error(fault) if isinstance(fault, OSError) else None


def _short(fault: Exception) -> str:
    message = str(fault).partition(" Debug source:")[0]  # obstore appends it
    return " ".join(f"{type(fault).__name__}: {message}".split())[:300]


def storage_options(settings: StoreSettings) -> dict[str, Any]:
    """Return the options that LitData passes to boto3 and translates for obstore."""
    options = {
        "endpoint_url": settings.s3_endpoint_url,
        "region_name": region_of(settings),
        "aws_access_key_id": settings.aws_access_key_id,
        "aws_secret_access_key": settings.aws_secret_access_key.get_secret_value(),
        "aws_session_token": settings.aws_session_token.get_secret_value(),
        # LitData's default would request its index a thousand times.
        "config": Config(retries={"mode": "standard", "total_max_attempts": ATTEMPTS}),
    }
    return {name: value for name, value in options.items() if value}
