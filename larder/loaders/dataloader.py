"""Base class of loaders that use PyTorch's DataLoader over a map-style dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from larder.contract import Manifest
from larder.loaders.failures import make_worker_init
from larder.loaders.loader import Loader, end_workers

if TYPE_CHECKING:
    from larder.loaders.loader import Batch, Transform


class MapStyleLoader(Loader):
    """Loader over a map-style dataset of (float32 [3, 224, 224], label); DataLoader's defaults but for `options`."""

    def __init__(
        self,
        dataset: Any,
        manifest: Manifest,
        split: str,
        *,
        batch_size: int,
        workers: int | None,
        seed: int,
        transform: Transform | None,
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        from torch.utils.data import DataLoader

        super().__init__(
            manifest,
            split,
            reader="torch's DataLoader over files or objects",
            batch_size=batch_size,
            workers=workers,
            transform=transform,
        )
        self.dataset = dataset
        self._order = EpochSampler(self.images, seed)
        self._loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size,
            sampler=self._order,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            worker_init_fn=make_worker_init(),
            **options,
        )

    def _read(self, epoch: int, batches: int) -> Iterator[Batch]:
        """Limit the sampler before DataLoader reads it, so that no worker prefetches beyond the last batch."""
        self._order.epoch, self._order.limit = epoch, batches * self.batch_size
        yield from map(tuple, self._loader)

    def close(self) -> None:
        """End the worker processes. The next iteration starts new ones."""
        end_workers(self._loader)


class EpochSampler:
    """Sampler that shuffles per epoch, reproducibly by seed, and stops after `limit` images."""

    def __init__(self, images: int, seed: int) -> None:
        self.images, self.limit, self.epoch = images, images, 0
        self._seed = seed

    def __iter__(self) -> Iterator[int]:
        import torch

        generator = torch.Generator().manual_seed(self._seed + self.epoch)
        yield from torch.randperm(self.images, generator=generator)[: self.limit].tolist()

    def __len__(self) -> int:
        return min(self.images, self.limit)
