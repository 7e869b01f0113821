"""TurboLoader over one tar file on local disk: threads in compiled code.

Its fast path can't crop: it squashes the whole image to a square. So its pixels are compared with PIL's of the same
view. It uses all cores of the machine, whatever LARDER_WORKERS says: `num_workers` is for its slower path only, and
nothing else limits the threads of the fast one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from larder.bench.arm_errors import map_arm_errors
from larder.bench.arms import ARMS, prepare_command
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.peer_data import TAR, locate_peer_data
from larder.bench.peers import EpochLoader, find_files
from larder.bench.settings import LoaderSettings
from larder.loaders.loader import check_manifest
from larder.progress import Reporter

if TYPE_CHECKING:
    from torch import Tensor

    from larder.loaders.loader import Batch

_PREPROCESSING = "TurboLoader's decoder, the whole image squashed to 224 x 224, ImageNet normalization"


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `<cache_dir>/<dataset>-tar/<split>/images.tar`, with the labels of the tree.

    Raises what `find_files` raises; InputError if there is no tar file.
    """
    import torch
    import turboloader

    with map_arm_errors(type(settings), prepare_command("turboloader")):
        where, found = locate_peer_data(settings, "tar")
        manifest = check_manifest(found, "tree", settings.split, where)
        table = find_files(settings, reporter)[2]
        labels = torch.tensor([table.label(number) for number in range(len(table))])
        loader = turboloader.DataLoader(
            str(Path(where) / TAR),
            batch_size=settings.batch_size,
            num_workers=max(settings.workers, 1),
            image_size=224,
            output_format="pytorch",
            transform=turboloader.ImageNetNormalize(),
            shuffle=True,
            seed=settings.seed,
            **ARMS["turboloader"].options,
        )
        reader = f"DataLoader of turboloader {version('turboloader')}"

        def open_epoch(epoch: int) -> Generator[Batch, None, None]:
            return _read_epoch(loader, labels, epoch)

        yield MeasuredLoader(EpochLoader(manifest, settings, reader, open_epoch, _PREPROCESSING), lambda: None)


def _read_epoch(loader: object, labels: Tensor, epoch: int) -> Generator[Batch, None, None]:
    import torch

    loader.set_epoch(epoch)  # type: ignore[attr-defined]
    for images, info in loader:  # type: ignore[attr-defined]
        yield torch.as_tensor(images), labels[info["indices"]]
