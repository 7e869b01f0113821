"""A map-style dataset over the objects of a bucket: one GET per image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.utils.data import Dataset

from larder.errors import LarderError
from services.bench import recipe
from services.bench.dataloader import CarriedError
from services.bench.objects import Objects
from services.bench.s3_reader import Readers, Traffic
from services.bench.settings import BenchSettings

if TYPE_CHECKING:
    from torch import Tensor


class RemoteImages(Dataset["tuple[Tensor, int]"]):
    """Images below the key `folder`. Opens a reader in each process that reads, and none before."""

    def __init__(self, settings: BenchSettings, folder: str, objects: Objects, traffic: Traffic) -> None:
        self._folder, self._objects, self._readers = folder, objects, Readers(settings, traffic)
        self._transform = recipe.transform()

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        key = f"{self._folder}/{self._objects.path(number)}"
        try:
            content = self._readers.own().read(key)
        except LarderError as error:
            raise CarriedError.of(error) from error
        return self._transform(recipe.decode(content, key)), self._objects.label(number)
