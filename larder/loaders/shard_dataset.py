"""Stream the samples of WebDataset tar shards in a bucket, as a dataset for PyTorch's DataLoader.

The format: https://github.com/webdataset/webdataset#the-webdataset-format
"""

from __future__ import annotations

import multiprocessing
import random
import tarfile
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import closing
from typing import IO, TYPE_CHECKING, Any, cast

from torch.utils.data import IterableDataset, get_worker_info

from larder.errors import InputError, LarderError
from larder.loaders.failures import WorkerError
from larder.loaders.hints import CREATE_AGAIN
from larder.loaders.preprocessing import decode, reference_transform
from larder.loaders.s3_reader import STREAM_ERRORS, ObjectReader, ProcessReaders
from larder.loaders.shard_table import ShardSample, ShardTable
from larder.loaders.traffic import TrafficCounter
from larder.shards import LABEL, PlainTar, label_of
from larder.store import BucketSettings

if TYPE_CHECKING:
    from torch import Tensor

    from larder.loaders.loader import Transform


class ShardDataset(IterableDataset["tuple[Tensor, int]"]):
    """Iterable dataset of the samples of the shards at `keys`.

    Each epoch shuffles the shards and deals them to the workers in turn. Within a shard, samples keep their order.
    """

    def __init__(
        self,
        settings: BucketSettings,
        keys: list[str],
        traffic: TrafficCounter,
        batch_size: int,
        seed: int,
        transform: Transform | None,
        classes: int,
        table: ShardTable | None,
    ) -> None:
        self._bucket, self._keys, self._batch_size, self._seed = settings.bucket, keys, batch_size, seed
        self._classes, self._table = classes, table
        self._readers = ProcessReaders(settings, traffic)
        self._transform = transform or reference_transform()
        # Shared with the workers, which outlive a pass: its epoch, and how many batches are left to start.
        self._pass_state = multiprocessing.Array("q", 2)

    def set_epoch(self, epoch: int, batches: int) -> None:
        """Set what the next pass reads: an epoch, and the maximum number of batches of all workers together."""
        with self._pass_state.get_lock():
            self._pass_state[:] = [epoch, batches]

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        info = get_worker_info()
        with closing(self._samples(*((info.id, info.num_workers) if info else (0, 1)))) as samples:
            for number, sample in enumerate(samples):
                if number % self._batch_size == 0 and not self._claim_batch():
                    break
                yield self._transform(decode(sample.image, sample.name, sample.sha256)), sample.label

    def _samples(self, worker: int, workers: int) -> Generator[ShardSample, None, None]:
        """Yield a worker's samples. Raise WorkerError, which DataLoader can re-raise."""
        reader, keys = self._readers.get(), self._shuffled_keys()
        try:
            samples = self._read(reader, keys, worker, workers)
            shards = (f"s3://{self._bucket}/{key}" for key in keys[worker::workers])
            yield from samples if self._table is None else self._table.check_samples(samples, shards)
        except STREAM_ERRORS as fault:
            raise WorkerError.from_error(reader.explain(fault)) from fault
        except (tarfile.TarError, ValueError) as fault:  # ValueError: webdataset's, and tarfile's on invalid numbers
            raise WorkerError.from_error(damaged(reader.opened_uri, str(fault))) from fault
        except LarderError as error:
            raise WorkerError.from_error(error) from error
        finally:
            reader.count_last_body()

    def _shuffled_keys(self) -> list[str]:
        keys = sorted(self._keys)
        random.Random(self._seed + self._pass_state[0]).shuffle(keys)
        return keys

    def _claim_batch(self) -> bool:
        """Return whether another batch may start. Workers with few samples leave their share to the others."""
        with self._pass_state.get_lock():
            self._pass_state[1] -= 1
            may_start: bool = self._pass_state[1] >= 0
            return may_start

    def _read(self, reader: ObjectReader, keys: list[str], worker: int, workers: int) -> Iterator[ShardSample]:
        for key in keys[worker::workers]:
            with reader.open(key) as file:
                yield from read_shard_samples(file, file.size, reader.opened_uri, self._classes)


class WebDatasetDataset(ShardDataset):
    """The same stream, with webdataset's WebDataset to assign shards, read tar and group members.

    webdataset reads S3 only through pipes of other programs, but accepts an opener per URL scheme: here, our reader.
    """

    def _read(self, reader: ObjectReader, keys: list[str], worker: int, workers: int) -> Iterator[ShardSample]:
        from webdataset import WebDataset
        from webdataset.gopen import gopen_schemes

        def open_stream(url: str, mode: str, bufsize: int, **_: Any) -> PlainTar:
            return PlainTar(reader.open(url.partition("://")[2].partition("/")[2]), url, CREATE_AGAIN)

        gopen_schemes["s3"] = open_stream
        urls = [f"s3://{self._bucket}/{key}" for key in keys]
        # No decoders are requested, since webdataset would unpickle some extensions: samples are bytes.
        # empty_check=False: with more workers than shards, some workers have none.
        for sample in WebDataset(urls, shardshuffle=False, empty_check=False):
            fields = {name: value for name, value in sample.items() if not name.startswith("__")}
            yield self._make_sample(sample["__key__"], fields, sample["__url__"])

    def _make_sample(self, key: str, fields: Mapping[str, bytes], uri: str) -> ShardSample:
        """Build a sample from its fields."""
        return _sample(key, fields, uri, self._classes)


def read_shard_samples(
    file: IO[bytes], size: int, uri: str, classes: int, extensions: Collection[str] | None = None
) -> Iterator[ShardSample]:
    """Yield the samples of a shard: groups of consecutive members with the same key.

    Args:
        file: The shard.
        size: Its length in bytes; 0 is unknown, so that a damaged header passes for the end.
        uri: Its address, for messages.
        classes: Number of classes.
        extensions: Extensions of members that make a sample, in lower case; others are skipped. None takes all.

    Raises:
        InputError: If a sample lacks an image or a valid label, the archive is truncated, or a member isn't a plain
            file.
        TarError: If the file isn't a tar archive.
    """
    key, fields = "", dict[str, bytes]()
    for name, content in _members(file, size, uri):
        folder, slash, base = name.rpartition("/")
        stem, _, extension = base.partition(".")
        if extensions is not None and extension.lower() not in extensions:
            continue
        if fields and f"{folder}{slash}{stem}" != key:
            yield _sample(key, fields, uri, classes)
            fields = {}
        key = f"{folder}{slash}{stem}"
        fields[extension] = content
    if fields:
        yield _sample(key, fields, uri, classes)


def _members(file: IO[bytes], size: int, uri: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=cast("IO[bytes]", PlainTar(file, uri, CREATE_AGAIN)), mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                yield member.name, content.read()
            archive.members = []  # type: ignore[attr-defined]  # tarfile remembers every member otherwise
        # tarfile takes an invalid header for the end of the archive.
        if size - archive.offset > tarfile.RECORDSIZE:
            raise damaged(uri, f"no tar header at byte {archive.offset:,}")


def _sample(key: str, fields: Mapping[str, bytes], uri: str, classes: int) -> ShardSample:
    """Build a sample from its fields: the label is in `cls`, the image in the only other field."""
    images = [name for name in fields if name != LABEL]
    if len(images) != 1 or LABEL not in fields or not fields[LABEL].isdigit():
        raise InputError(
            f"the sample {key!r} of {uri} has {', '.join(fields)}: an image and a label (.{LABEL}) make a sample",
            next_step=CREATE_AGAIN,
        )
    label = label_of(fields[LABEL], classes)
    if label is None:
        raise InputError(
            f"the sample {key!r} of {uri} has class {fields[LABEL][:20].decode()}, and the manifest names {classes:,}",
            next_step=CREATE_AGAIN,
        )
    return ShardSample(uri, f"{uri}, {key}.{images[0]}", fields[images[0]], label)


def damaged(uri: str, reason: str) -> InputError:
    """Return the error of a shard that can't be read as tar."""
    return InputError(f"{uri} is damaged: {reason}", next_step=CREATE_AGAIN)
