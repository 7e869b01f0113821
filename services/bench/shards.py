"""Iterable datasets over WebDataset tar shards in a bucket.

The format: https://github.com/webdataset/webdataset#the-webdataset-format
"""

from __future__ import annotations

import random
import tarfile
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

from larder.errors import InputError, LarderError
from larder.store import region_of
from services.bench import recipe
from services.bench.dataloader import CarriedError, Stream
from services.bench.s3_reader import FAULTS_OF_STREAMS, Reader, Traffic
from services.bench.settings import BenchSettings

if TYPE_CHECKING:
    from torch import Tensor

LABEL = "cls"


class Shards(Stream):
    """The samples of the shards at `keys`. Each epoch orders the shards anew and deals them to the workers in turns;
    within a shard, samples come as it has them. Opens a reader in each process that reads, and none before.
    """

    def __init__(self, settings: BenchSettings, keys: list[str], traffic: Traffic) -> None:
        super().__init__(settings.batch_size)
        self._settings, self._keys, self._traffic = settings, keys, traffic
        self._region = region_of(settings)
        self._transform = recipe.transform()

    def samples(self, epoch: int, worker: int, workers: int) -> Iterator[tuple[Tensor, int]]:
        """See Stream."""
        keys = sorted(self._keys)
        random.Random(self._settings.seed + epoch).shuffle(keys)
        reader = Reader(self._settings, self._region, self._traffic)
        try:
            for name, image, label in self._read(reader, keys, worker, workers):
                yield self._transform(recipe.decode(image, name)), label
        except FAULTS_OF_STREAMS as fault:
            raise CarriedError.of(reader.explain(fault)) from fault
        except tarfile.TarError as fault:
            raise CarriedError.of(
                InputError(
                    f"{reader.opened} is damaged: {fault}",
                    next_step="run `make etl-wds LARDER_FORCE=true`, which puts it back",
                )
            ) from fault
        except LarderError as error:
            raise CarriedError.of(error) from error
        finally:
            reader.close()

    def _read(self, reader: Reader, keys: list[str], worker: int, workers: int) -> Iterator[tuple[str, bytes, int]]:
        """Name, image and label of a worker's samples."""
        for key in keys[worker::workers]:
            with reader.open(key) as file:
                yield from _samples(file, reader.opened)


class LibraryShards(Shards):
    """The same by the library's WebDataset, which deals the shards, reads tar and groups members. It has no way to S3
    but other programs' pipes, and takes what opens a URL of a scheme: here that is our reader.
    """

    def _read(self, reader: Reader, keys: list[str], worker: int, workers: int) -> Iterator[tuple[str, bytes, int]]:
        from webdataset import WebDataset
        from webdataset.gopen import gopen_schemes

        def open_stream(url: str, mode: str, bufsize: int, **_: Any) -> IO[bytes]:
            return reader.open(url.partition("://")[2].partition("/")[2])

        gopen_schemes["s3"] = open_stream
        urls = [f"s3://{self._settings.bucket}/{key}" for key in keys]
        for sample in WebDataset(urls, shardshuffle=False, empty_check=False):
            fields = {name: value for name, value in sample.items() if not name.startswith("__")}
            yield _sample(sample["__key__"], fields, reader.opened)


def _samples(file: IO[bytes], uri: str) -> Iterator[tuple[str, bytes, int]]:
    """Name, image and label of each sample of a shard: members that follow one another with one key.

    Raises InputError for a sample that has no image or no label, TarError for what is no tar archive.
    """
    key, fields = "", dict[str, bytes]()
    for name, content in _members(file):
        folder, slash, base = name.rpartition("/")
        stem, _, extension = base.partition(".")
        if fields and f"{folder}{slash}{stem}" != key:
            yield _sample(key, fields, uri)
            fields = {}
        key = f"{folder}{slash}{stem}"
        fields[extension] = content
    if fields:
        yield _sample(key, fields, uri)


def _members(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                yield member.name, content.read()


def _sample(key: str, fields: Mapping[str, bytes], uri: str) -> tuple[str, bytes, int]:
    """Name, image and label: the label is in `cls`, and the image what else there is."""
    images = [name for name in fields if name != LABEL]
    if len(images) != 1 or LABEL not in fields or not fields[LABEL].isdigit():
        raise InputError(
            f"the sample {key!r} of {uri} has {', '.join(fields)}: an image and a label (.{LABEL}) make a sample",
            next_step="run `make etl-wds LARDER_FORCE=true`, which makes the shards anew",
        )
    return f"{uri}, {key}.{images[0]}", fields[images[0]], int(fields[LABEL])
