"""MosaicML Streaming over MDS shards from the bucket: cold, then from its cache on disk.

Two epochs are measured, as for `litdata_streaming`. It pins an old numpy: so it runs in an environment of its own.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING, Any

from larder.bench.arm_errors import map_arm_errors, require_bucket
from larder.bench.arms import ARMS, prepare_command
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.peer_data import locate_peer_data
from larder.bench.peers import EpochLoader, export_keys
from larder.bench.settings import LoaderSettings
from larder.loaders.cache import locked_folder
from larder.loaders.loader import check_manifest
from larder.progress import Reporter

if TYPE_CHECKING:
    from larder.loaders.loader import Batch


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `s3://<bucket>/[<prefix>/]<dataset>-mds/<split>/`.

    Raises:
        ConfigurationError: If the store refuses access.
        InputError: If there are no MDS shards.
        ServiceError: If the store doesn't answer.
    """
    require_bucket(settings, "mosaicml")
    with (
        map_arm_errors(type(settings), prepare_command("mosaicml")),
        locked_folder(settings.cache_dir, "mosaicml") as cache,
    ):
        where, found = locate_peer_data(settings, "mds")
        manifest = check_manifest(found, "tree", settings.split, where)
        export_keys(settings)
        loader = _make_loader(where, str(cache), settings)
        reader = (
            f"StreamingDataset of mosaicml-streaming {version('mosaicml-streaming')}, with numpy {version('numpy')}"
        )

        def open_epoch(epoch: int) -> Generator[Batch, None, None]:
            return _read_epoch(loader, epoch)

        measured = EpochLoader(manifest, settings, reader, open_epoch)
        try:
            yield MeasuredLoader(measured, lambda: None, passes=("cold", "warm"))
        finally:
            _remove_shared_memory(loader.dataset)


def _make_loader(remote: str, local: str, settings: LoaderSettings) -> Any:
    from streaming import StreamingDataLoader, StreamingDataset

    from larder.loaders.preprocessing import decode, reference_transform

    transform = reference_transform()

    class Photos(StreamingDataset):  # type: ignore[misc]  # no types
        def __getitem__(self, at: Any) -> tuple[Any, int]:
            sample = super().__getitem__(at)
            return transform(decode(sample["image"], f"sample {at}")), sample["label"]

    dataset = Photos(
        remote=remote,
        local=local,
        shuffle=True,
        shuffle_seed=settings.seed,
        batch_size=settings.batch_size,
        **ARMS["mosaicml"].options,
    )
    return StreamingDataLoader(dataset, batch_size=settings.batch_size, num_workers=settings.workers, drop_last=False)


def _remove_shared_memory(dataset: Any) -> None:
    """Remove what the dataset shares with its workers: it does so itself only when Python ends, which rounds skip."""
    from streaming.base.constant import SHM_TO_CLEAN
    from streaming.base.shared.prefix import _get_path

    for name in SHM_TO_CLEAN:
        with suppress(FileNotFoundError):
            memory = SharedMemory(_get_path(dataset._shm_prefix_int, name))
            memory.close()
            memory.unlink()


def _read_epoch(loader: Any, epoch: int) -> Generator[Batch, None, None]:
    loader.dataset.next_epoch = epoch
    iterator = iter(loader)
    try:
        yield from map(tuple, iterator)
    finally:
        iterator.close()
