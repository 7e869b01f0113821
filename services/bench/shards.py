"""A feed by PyTorch's DataLoader over WebDataset tar shards in a bucket.

The format: https://github.com/webdataset/webdataset#the-webdataset-format
"""

from __future__ import annotations

import math
import multiprocessing
import random
import sys
import tarfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import IO, TYPE_CHECKING, Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from larder.contract import Manifest
from larder.errors import InputError, LarderError
from services.bench import recipe
from services.bench.dataloader import CarriedError, start_worker
from services.bench.inputs import mend
from services.bench.received import interface_bytes
from services.bench.s3_reader import FAULTS_OF_STREAMS, Reader, Readers, Traffic
from services.bench.settings import BenchSettings

if TYPE_CHECKING:
    from torch import Tensor

    from services.bench.feed import Batch

LABEL = "cls"
_ANEW = mend("make etl-wds")

Sample = tuple[str, bytes, int]
"""A name for messages, an image, its class."""


class ShardsFeed:
    """Reads the shards at `keys`, which hold a split's images, with worker processes that make batches of their own."""

    passes: tuple[str, ...] = ("epoch",)
    received = staticmethod(interface_bytes)

    def __init__(self, settings: BenchSettings, manifest: Manifest, keys: list[str]) -> None:
        self.manifest, self.recipe, self.images = manifest, recipe.NAME, manifest.splits[settings.split].samples
        self._epoch_batches = math.ceil(self.images / settings.batch_size)
        self._traffic = Traffic()
        self.network = self._traffic.read
        by_library = settings.webdataset_loader == "webdataset"
        library = f"WebDataset and WebLoader of webdataset {version('webdataset')}" if by_library else ""
        self.loader = library or "larder's own IterableDataset, by torch's DataLoader"
        self._shards = (LibraryShards if by_library else Shards)(settings, keys, self._traffic)
        self._loader = _loader_class(by_library)(
            self._shards, batch_size=settings.batch_size, num_workers=settings.workers, persistent_workers=True,
            worker_init_fn=start_worker,
        )  # fmt: skip

    def read(self, epoch: int, batches: int) -> Iterator[Batch]:
        """See Feed."""
        self._shards.ask(epoch, batches if batches < self._epoch_batches else sys.maxsize)
        yield from map(tuple, self._loader)


def _loader_class(by_library: bool) -> Any:
    if not by_library:
        return DataLoader
    from webdataset import WebLoader

    return WebLoader


class Shards(IterableDataset["tuple[Tensor, int]"]):
    """The samples of the shards at `keys`. Each epoch orders the shards anew and deals them to the workers in turns;
    within a shard, samples come as it has them.
    """

    def __init__(self, settings: BenchSettings, keys: list[str], traffic: Traffic) -> None:
        self._settings, self._keys = settings, keys
        self._readers = Readers(settings, traffic)
        self._transform = recipe.transform()
        # Shared with the workers, which outlive a pass: its epoch, and how many batches are still to be begun.
        self._asked = multiprocessing.Array("q", 2)

    def ask(self, epoch: int, batches: int) -> None:
        """Say what the next pass reads: `batches` batches of an epoch, all workers' together, or all that there are."""
        with self._asked.get_lock():
            self._asked[:] = [epoch, batches]

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        reader = self._readers.own()
        try:
            for number, (name, image, label) in enumerate(self._read(reader, self._ordered(), worker, workers)):
                if number % self._settings.batch_size == 0 and not self._may_begin():
                    break
                yield self._transform(recipe.decode(image, name)), label
        except FAULTS_OF_STREAMS as fault:
            raise CarriedError.of(reader.explain(fault)) from fault
        except (tarfile.TarError, ValueError) as fault:  # ValueError: the library's, and tarfile's on odd numbers
            raise CarriedError.of(_damaged(reader.opened, str(fault))) from fault
        except LarderError as error:
            raise CarriedError.of(error) from error
        finally:
            reader.settle()

    def _ordered(self) -> list[str]:
        keys = sorted(self._keys)
        random.Random(self._settings.seed + self._asked[0]).shuffle(keys)
        return keys

    def _may_begin(self) -> bool:
        """Whether one more batch is wanted. Workers with few samples leave theirs to the others."""
        with self._asked.get_lock():
            self._asked[1] -= 1
            wanted: bool = self._asked[1] >= 0
            return wanted

    def _read(self, reader: Reader, keys: list[str], worker: int, workers: int) -> Iterator[Sample]:
        """A worker's samples."""
        for key in keys[worker::workers]:
            with reader.open(key) as file:
                yield from _samples(file, file.size, reader.opened)


class LibraryShards(Shards):
    """The same by the library's WebDataset, which deals the shards, reads tar and groups members. It has no way to S3
    but other programs' pipes, and takes what opens a URL of a scheme: here that is our reader.
    """

    def _read(self, reader: Reader, keys: list[str], worker: int, workers: int) -> Iterator[Sample]:
        from webdataset import WebDataset
        from webdataset.gopen import gopen_schemes

        def open_stream(url: str, mode: str, bufsize: int, **_: Any) -> IO[bytes]:
            file: IO[bytes] = reader.open(url.partition("://")[2].partition("/")[2])
            return file

        gopen_schemes["s3"] = open_stream
        urls = [f"s3://{self._settings.bucket}/{key}" for key in keys]
        # No shard is fewer than a worker's, where there are more workers than shards.
        for sample in WebDataset(urls, shardshuffle=False, empty_check=False):
            fields = {name: value for name, value in sample.items() if not name.startswith("__")}
            yield _sample(sample["__key__"], fields, sample["__url__"])


def _samples(file: IO[bytes], size: int, uri: str) -> Iterator[Sample]:
    """The samples of a shard of `size` bytes: members that follow one another with one key.

    Raises InputError for a sample without an image or a label and for an archive that breaks off, TarError for none.
    """
    key, fields = "", dict[str, bytes]()
    for name, content in _members(file, size, uri):
        folder, slash, base = name.rpartition("/")
        stem, _, extension = base.partition(".")
        if fields and f"{folder}{slash}{stem}" != key:
            yield _sample(key, fields, uri)
            fields = {}
        key = f"{folder}{slash}{stem}"
        fields[extension] = content
    if fields:
        yield _sample(key, fields, uri)


def _members(file: IO[bytes], size: int, uri: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                yield member.name, content.read()
        # To tarfile, a header that makes no sense is the end.
        if size - archive.offset > tarfile.RECORDSIZE:
            raise _damaged(uri, f"no tar header at byte {archive.offset:,}")


def _sample(key: str, fields: Mapping[str, bytes], uri: str) -> Sample:
    """A sample of its fields: the label is in `cls`, and the image what else there is."""
    images = [name for name in fields if name != LABEL]
    if len(images) != 1 or LABEL not in fields or not fields[LABEL].isdigit():
        raise InputError(
            f"the sample {key!r} of {uri} has {', '.join(fields)}: an image and a label (.{LABEL}) make a sample",
            next_step=_ANEW,
        )
    return f"{uri}, {key}.{images[0]}", fields[images[0]], int(fields[LABEL])


def _damaged(uri: str, reason: str) -> InputError:
    return InputError(f"{uri} is damaged: {reason}", next_step=_ANEW)
