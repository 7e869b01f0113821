"""A feed by PyTorch's DataLoader over a map-style dataset, and the failures of all its loaders in words."""

from __future__ import annotations

import json
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from larder.contract import Manifest
from larder.engines.local import end_with_parent
from larder.errors import ConfigurationError, InputError, LarderError, ResourceError, ServiceError, StorageError
from larder.progress import amount
from services.bench import recipe
from services.bench.feed import Network
from services.bench.inputs import mend
from services.bench.received import interface_bytes
from services.bench.settings import BenchSettings

if TYPE_CHECKING:
    from services.bench.feed import Batch

SHARED_MEMORY = Path("/dev/shm")
_CARRIED = {kind.__name__: kind for kind in (ConfigurationError, InputError, ServiceError, StorageError)}


def start_worker(_number: int) -> None:
    """What every loader's workers begin with."""
    end_with_parent()
    sys.excepthook = _without_interrupted_batches


def _without_interrupted_batches(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say what Python says, but for a lost connection of the thread that hands batches over: who interrupts a run that
    takes one would read a worker's traceback. What else fails in a worker isn't told by this hook.
    """
    if not isinstance(error, OSError | EOFError):
        sys.__excepthook__(kind, error, trace)


class CarriedError(Exception):
    """An error of ours on its way out of a worker; its one argument, for DataLoader's sake, is a line of JSON."""

    @classmethod
    def of(cls, error: LarderError) -> CarriedError:
        """Pack one of those in `_CARRIED`; the block of `explained` raises it again."""
        return cls(json.dumps([type(error).__name__, error.what, error.next_step]))


class DataLoaderFeed:
    """Reads a dataset of (float32 [3, 224, 224], class) with worker processes; else with DataLoader's defaults."""

    passes: tuple[str, ...] = ("epoch",)

    def __init__(
        self, manifest: Manifest, dataset: Dataset[Any], images: int, settings: BenchSettings,
        network: Callable[[], Network | None], received: Callable[[], int],
    ) -> None:  # fmt: skip
        self.loader = "torch's DataLoader over files or objects"
        self.manifest, self.recipe, self.images, self.network = manifest, recipe.NAME, images, network
        self.received = received
        self._batch_size = settings.batch_size
        self._order = _Order(images, settings.seed)
        self._loader = DataLoader(
            dataset, settings.batch_size, sampler=self._order, num_workers=settings.workers, persistent_workers=True,
            worker_init_fn=start_worker,
        )  # fmt: skip

    def read(self, epoch: int, batches: int) -> Iterator[Batch]:
        """See Feed. The order is cut before DataLoader sees it, so no worker fetches ahead of the last batch."""
        self._order.epoch, self._order.limit = epoch, batches * self._batch_size
        yield from map(tuple, self._loader)


@contextmanager
def explained(made_by: str) -> Iterator[None]:
    """A block in which what DataLoader raises when a worker fails or is lost becomes an error of ours.

    It can come up anywhere in the block, not in `Feed.read` alone: DataLoader raises it from a signal handler, too.
    `made_by` is the command that makes the data.
    """
    # The number of workers is what is measured: more than cores is a choice, and it is in the record.
    warnings.filterwarnings("ignore", "This DataLoader will create")
    try:
        yield
    except recipe.UnreadableImageError as error:
        raise InputError(_raised(error), next_step=mend(made_by)) from error
    except CarriedError as error:
        kind, what, next_step = json.loads(_raised(error))
        raise _CARRIED[kind](what, next_step=next_step) from error
    except RuntimeError as error:
        known = _explain(str(error))
        if known is None:
            raise
        raise known from error


@contextmanager
def open_dataloader(
    manifest: Manifest, dataset: Dataset[Any], images: int, settings: BenchSettings, made_by: str,
    network: Callable[[], Network | None] = lambda: None, received: Callable[[], int] = interface_bytes,
) -> Iterator[DataLoaderFeed]:  # fmt: skip
    """A feed over `dataset` of `images` images. Its workers end when the last reference to it goes.

    `made_by` is the command that makes the data; `network` and `received` are Feed's.
    """
    with explained(made_by):
        yield DataLoaderFeed(manifest, dataset, images, settings, network, received)


class _Order(Sampler[int]):
    """A shuffle per epoch, the same for the same seed, cut at `limit` images."""

    def __init__(self, images: int, seed: int) -> None:
        self.images, self.limit, self.epoch = images, images, 0
        self._seed = seed

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self.epoch)
        yield from torch.randperm(self.images, generator=generator)[: self.limit].tolist()

    def __len__(self) -> int:
        return min(self.images, self.limit)


def _raised(error: Exception) -> str:
    """The argument of what a worker raised: DataLoader puts its whole traceback before it, and it is the last line."""
    return str(error).strip().splitlines()[-1].removeprefix(f"{type(error).__module__}.{type(error).__name__}: ")


def _explain(message: str) -> LarderError | None:
    """The error for a RuntimeError of DataLoader (torch/csrc/DataLoader.cpp, torch/utils/data/dataloader.py)."""
    if "Bus error" in message or "shared memory" in message or re.search(r"</?torch_\d+", message):
        return ResourceError(
            f"a loader's worker ran out of shared memory: {SHARED_MEMORY} has {_shared_memory_size()}, and batches "
            "that are ready wait there",
            next_step="set LARDER_SHM_SIZE higher (8gb is the default), then `make jupyter` or `make bench` again, or "
            "set LARDER_WORKERS or LARDER_BATCH_SIZE lower",
        )
    if "DataLoader worker (pid" in message:
        return ResourceError(
            f"a loader's worker process was lost, most likely killed for lack of memory ({message.splitlines()[0]})",
            next_step="look for `Out of memory` in `dmesg`; set LARDER_WORKERS lower or give it more memory",
        )
    return None


def _shared_memory_size() -> str:
    try:
        return amount(shutil.disk_usage(SHARED_MEMORY).total, "B")
    except OSError:
        return "an unknown size"
