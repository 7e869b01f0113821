"""The samples of WebDataset tar shards in a bucket, as a stream that PyTorch's DataLoader reads.

The format: https://github.com/webdataset/webdataset#the-webdataset-format
"""

from __future__ import annotations

import multiprocessing
import random
import tarfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from typing import IO, TYPE_CHECKING, Any, cast

from torch.utils.data import IterableDataset, get_worker_info

from larder.errors import InputError, LarderError
from larder.loaders.failures import CarriedError
from larder.loaders.preprocessing import decode, reference_transform
from larder.loaders.remedies import RENEW
from larder.loaders.s3_reader import FAULTS_OF_STREAMS, Reader, Readers
from larder.loaders.shard_table import Sample, ShardTable
from larder.loaders.traffic import Traffic
from larder.shards import LABEL, PlainTar, label_of
from larder.store import BucketSettings

if TYPE_CHECKING:
    from torch import Tensor

    from larder.loaders.loader import Transform


class ShardStream(IterableDataset["tuple[Tensor, int]"]):
    """The samples of the shards at `keys`. Each epoch orders the shards anew and deals them to the workers in turns;
    within a shard, samples come as it has them.
    """

    def __init__(
        self, settings: BucketSettings, keys: list[str], traffic: Traffic, batch_size: int, seed: int,
        transform: Transform | None, classes: int, table: ShardTable | None,
    ) -> None:  # fmt: skip
        self._bucket, self._keys, self._batch_size, self._seed = settings.bucket, keys, batch_size, seed
        self._classes, self._table = classes, table
        self._readers = Readers(settings, traffic)
        self._transform = transform or reference_transform()
        # Shared with the workers, which outlive a pass: its epoch, and how many batches are still to be begun.
        self._asked = multiprocessing.Array("q", 2)

    def ask(self, epoch: int, batches: int) -> None:
        """Say what the next pass reads: `batches` batches of an epoch, all workers' together, or all that there are."""
        with self._asked.get_lock():
            self._asked[:] = [epoch, batches]

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        info = get_worker_info()
        with closing(self._samples(*((info.id, info.num_workers) if info else (0, 1)))) as samples:
            for number, sample in enumerate(samples):
                if number % self._batch_size == 0 and not self._may_begin():
                    break
                yield self._transform(decode(sample.image, sample.name, sample.sha256)), sample.label

    def _samples(self, worker: int, workers: int) -> Generator[Sample, None, None]:
        """A worker's samples. Raises what DataLoader carries."""
        reader, keys = self._readers.own(), self._ordered()
        try:
            found = self._read(reader, keys, worker, workers)
            shards = (f"s3://{self._bucket}/{key}" for key in keys[worker::workers])
            yield from found if self._table is None else self._table.checked(found, shards)
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
        random.Random(self._seed + self._asked[0]).shuffle(keys)
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
                yield from samples_of(file, file.size, reader.opened, self._classes)


class LibraryShardStream(ShardStream):
    """The same by the library's WebDataset, which deals the shards, reads tar and groups members. It has no way to S3
    but other programs' pipes, and takes what opens a URL of a scheme: here that is our reader.
    """

    def _read(self, reader: Reader, keys: list[str], worker: int, workers: int) -> Iterator[Sample]:
        from webdataset import WebDataset
        from webdataset.gopen import gopen_schemes

        def open_stream(url: str, mode: str, bufsize: int, **_: Any) -> PlainTar:
            return PlainTar(reader.open(url.partition("://")[2].partition("/")[2]), url, RENEW)

        gopen_schemes["s3"] = open_stream
        urls = [f"s3://{self._bucket}/{key}" for key in keys]
        # It hands on bytes: its decoders, which it chooses by extensions and which unpickle some, aren't asked for.
        # No shard is fewer than a worker's, where there are more workers than shards.
        for sample in WebDataset(urls, shardshuffle=False, empty_check=False):
            fields = {name: value for name, value in sample.items() if not name.startswith("__")}
            yield _sample(sample["__key__"], fields, sample["__url__"], self._classes)


def samples_of(file: IO[bytes], size: int, uri: str, classes: int) -> Iterator[Sample]:
    """The samples of a shard of `size` bytes: members that follow one another with one key.

    Raises InputError for a sample without an image or a label of so many classes, for an archive that breaks off, and
    for one with other members than plain files; TarError for none.
    """
    key, fields = "", dict[str, bytes]()
    for name, content in _members(file, size, uri):
        folder, slash, base = name.rpartition("/")
        stem, _, extension = base.partition(".")
        if fields and f"{folder}{slash}{stem}" != key:
            yield _sample(key, fields, uri, classes)
            fields = {}
        key = f"{folder}{slash}{stem}"
        fields[extension] = content
    if fields:
        yield _sample(key, fields, uri, classes)


def _members(file: IO[bytes], size: int, uri: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=cast("IO[bytes]", PlainTar(file, uri, RENEW)), mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                yield member.name, content.read()
            archive.members = []  # type: ignore[attr-defined]  # tarfile remembers every member otherwise
        # To tarfile, a header that makes no sense is the end.
        if size - archive.offset > tarfile.RECORDSIZE:
            raise _damaged(uri, f"no tar header at byte {archive.offset:,}")


def _sample(key: str, fields: Mapping[str, bytes], uri: str, classes: int) -> Sample:
    """A sample of its fields: the label is in `cls`, and the image what else there is."""
    images = [name for name in fields if name != LABEL]
    if len(images) != 1 or LABEL not in fields or not fields[LABEL].isdigit():
        raise InputError(
            f"the sample {key!r} of {uri} has {', '.join(fields)}: an image and a label (.{LABEL}) make a sample",
            next_step=RENEW,
        )
    label = label_of(fields[LABEL], classes)
    if label is None:
        raise InputError(
            f"the sample {key!r} of {uri} has class {fields[LABEL][:20].decode()}, and the manifest names {classes:,}",
            next_step=RENEW,
        )
    return Sample(uri, f"{uri}, {key}.{images[0]}", fields[images[0]], label)


def _damaged(uri: str, reason: str) -> InputError:
    return InputError(f"{uri} is damaged: {reason}", next_step=RENEW)
