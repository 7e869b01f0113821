"""Batches, manifests and settings without torch."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from larder.contract import Manifest

MakeBatch = Callable[..., Any]
MakeSettings = Callable[..., Any]


class FakeTensor:
    """A batch's shape and dtype, without torch."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype = shape, dtype

    def __len__(self) -> int:
        return self.shape[0]


@pytest.fixture
def make_batch() -> MakeBatch:
    def make(
        images: int = 4, shape: tuple[int, ...] = (3, 224, 224), dtype: str = "torch.float32"
    ) -> tuple[FakeTensor, FakeTensor]:
        return FakeTensor((images, *shape), dtype), FakeTensor((images,), "torch.int64")

    return make


@pytest.fixture
def manifest() -> Manifest:
    from larder.contract import IndexSummary, Manifest, SplitSummary

    return Manifest(
        artifact="tree",
        dataset="Food-11",
        classes=["class_00", "class_01"],
        splits={"training": SplitSummary(samples=640, bytes=6400, samples_per_class=[320, 320])},
        input={},
        settings={},
        files=640,
        bytes=6400,
        index=IndexSummary(bytes=0, sha256="0" * 64),
    )


@pytest.fixture
def loader(manifest: Manifest) -> SimpleNamespace:
    """The attributes of a loader that a record contains."""
    return SimpleNamespace(
        manifest=manifest, split="training", preprocessing="PIL decode", reader="torch's DataLoader", images=640
    )


@pytest.fixture
def make_settings() -> MakeSettings:
    from services.bench.settings import BenchSettings

    def make(*flags: str, **environ: str) -> Any:
        return BenchSettings.load("bench", flags, environ)

    return make
