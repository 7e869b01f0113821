"""A feed by LitData's own dataset and loader over chunks in a bucket."""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming import downloader

from larder.contract import Manifest
from larder.errors import ServiceError
from larder.s3_faults import FAULTS, explain, explain_code
from larder.store import region_of
from services.bench import recipe
from services.bench.feed import Network
from services.bench.s3_reader import Traffic
from services.bench.settings import BenchSettings

if TYPE_CHECKING:
    from torch import Tensor

    from services.bench.feed import Batch


class ChunksFeed:
    """Reads the chunks at `uri` through a cache in the folder `cache`."""

    passes: tuple[str, ...] = ("cold", "warm")

    def __init__(self, settings: BenchSettings, uri: str, manifest: Manifest, cache: Path) -> None:
        self.manifest, self.recipe = manifest, recipe.NAME
        self.images = manifest.splits[settings.split].samples
        self._settings, self._uri, self._whole = settings, uri, math.ceil(self.images / settings.batch_size)
        self._traffic = Traffic()
        _count_in(self._traffic)
        # obstore, which fetches the chunks, refuses plain http unless told, and LitData has no setting for it.
        downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True
        # Its threads print what they fail at, with tracebacks; what matters comes out of the workers, too.
        logging.getLogger("litdata").setLevel(logging.CRITICAL)
        with _explained(uri, settings.s3_endpoint_url):
            self._dataset = StreamingDataset(
                uri, cache_dir=str(cache), shuffle=True, seed=settings.seed, drop_last=False,
                storage_options=_storage_options(settings), max_pre_download=settings.max_pre_download,
                max_cache_size=settings.max_cache_size and int(settings.max_cache_size), transform=_Decode(uri),
            )  # fmt: skip
        self._loader: Any = None

    def read(self, epoch: int, batches: int) -> Iterator[Batch]:
        """See Feed. A pass that is cut short ends its workers, which would read on."""
        if self._loader is None:
            self._loader = StreamingDataLoader(
                self._dataset, batch_size=self._settings.batch_size, num_workers=self._settings.workers,
                persistent_workers=True,
            )  # fmt: skip
        whole = batches >= self._whole
        with _explained(self._uri, self._settings.s3_endpoint_url):
            yield from map(tuple, self._loader if whole else itertools.islice(self._loader, batches))
        if not whole:
            self.close()

    def network(self) -> Network:
        """See Feed: the chunks that came, whole. How many requests they took, LitData keeps to itself."""
        return self._traffic.read()._replace(requests=None)

    def close(self) -> None:
        """End the workers."""
        self._loader = None


@contextmanager
def _explained(uri: str, endpoint: str) -> Iterator[None]:
    """A block in which what LitData raises becomes an error of ours: botocore's errors, and in workers those of obstore,
    which arrive as text.
    """
    try:
        yield
    except FAULTS as fault:
        raise explain(fault, f"reading {uri}", endpoint) from fault
    except (RuntimeError, OSError) as error:
        text = str(error)
        if isinstance(error, RuntimeError) and "Caught" not in text:
            raise
        code = next((code for sign, code in _SIGNS.items() if sign in text), None)
        if code is None:
            reason = text.strip().splitlines()[-1]
            raise ServiceError(f"reading {uri}: LitData failed: {reason}", next_step="run `make s3-check`") from error
        raise explain_code(code, "", f"reading {uri}") from error


_SIGNS = {"AccessDenied": "AccessDenied", "SlowDown": "SlowDown", "NoSuchKey": "NoSuchKey"}
"""What obstore's messages have of a store's answer, and its code."""


class _Decode:
    """From a sample to its image as a tensor, and its class."""

    def __init__(self, uri: str) -> None:
        self._uri, self._transform = uri, recipe.transform()

    def __call__(self, sample: dict[str, Any]) -> tuple[Tensor, int]:
        image = recipe.decode(bytes(sample["image"]), f"an image of {self._uri}")
        return self._transform(image), int(sample["label"])


def _count_in(traffic: Traffic) -> None:
    """Have LitData's way to S3 count what it fetches, here and in workers that are forked from here."""

    class Counting(downloader.S3Downloader):  # type: ignore[misc]
        def _publish_file(self, tmp_path: str, local_filepath: str) -> None:
            traffic.add(bytes=os.path.getsize(tmp_path))
            super()._publish_file(tmp_path, local_filepath)

    downloader.register_downloader("s3://", Counting, overwrite=True)


def _storage_options(settings: BenchSettings) -> dict[str, str]:
    """What LitData hands on to boto3's client, and takes from it for obstore."""
    given = {
        "endpoint_url": settings.s3_endpoint_url,
        "region_name": region_of(settings),
        "aws_access_key_id": settings.aws_access_key_id,
        "aws_secret_access_key": settings.aws_secret_access_key.get_secret_value(),
        "aws_session_token": settings.aws_session_token.get_secret_value(),
    }
    return {name: value for name, value in given.items() if value}
