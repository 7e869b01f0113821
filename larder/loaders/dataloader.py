"""A loader by PyTorch's DataLoader over any map-style dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from larder.contract import Manifest
from larder.loaders.failures import worker_start
from larder.loaders.loader import Loader, end_workers

if TYPE_CHECKING:
    from larder.loaders.loader import Batch, Transform


class MapStyleLoader(Loader):
    """Reads a dataset of (float32 [3, 224, 224], class) with worker processes; else with DataLoader's defaults."""

    def __init__(
        self, dataset: Any, manifest: Manifest, split: str, *, batch_size: int, workers: int | None, seed: int,
        transform: Transform | None,
    ) -> None:  # fmt: skip
        from torch.utils.data import DataLoader

        super().__init__(
            manifest, split, reader="torch's DataLoader over files or objects", batch_size=batch_size, workers=workers,
            transform=transform,
        )  # fmt: skip
        self.dataset = dataset
        self._order = EpochOrder(self.images, seed)
        self._loader: DataLoader[Any] = DataLoader(
            dataset, batch_size, sampler=self._order, num_workers=self.workers, persistent_workers=self.workers > 0,
            worker_init_fn=worker_start(),
        )  # fmt: skip

    def _read(self, epoch: int, batches: int) -> Iterator[Batch]:
        """See Loader. The order is cut before DataLoader sees it, so no worker fetches ahead of the last batch."""
        self._order.epoch, self._order.limit = epoch, batches * self.batch_size
        yield from map(tuple, self._loader)

    def close(self) -> None:
        """See Loader."""
        end_workers(self._loader)


class EpochOrder:
    """A sampler: a shuffle per epoch, the same for the same seed, cut at `limit` images."""

    def __init__(self, images: int, seed: int) -> None:
        self.images, self.limit, self.epoch = images, images, 0
        self._seed = seed

    def __iter__(self) -> Iterator[int]:
        import torch

        generator = torch.Generator().manual_seed(self._seed + self.epoch)
        yield from torch.randperm(self.images, generator=generator)[: self.limit].tolist()

    def __len__(self) -> int:
        return min(self.images, self.limit)
