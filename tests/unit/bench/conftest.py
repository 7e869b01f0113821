from types import SimpleNamespace

import pytest


class FakeTensor:
    """A batch's shape and type without torch."""

    def __init__(self, shape: tuple[int, ...], dtype: str) -> None:
        self.shape, self.dtype = shape, dtype

    def __len__(self) -> int:
        return self.shape[0]


@pytest.fixture
def make_batch():
    def make(images=4, shape=(3, 224, 224), dtype="torch.float32"):
        return FakeTensor((images, *shape), dtype), FakeTensor((images,), "torch.int64")

    return make


@pytest.fixture
def manifest():
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
def loader(manifest):
    """What a record tells of a loader."""
    return SimpleNamespace(
        manifest=manifest, split="training", preprocessing="PIL decode", reader="torch's DataLoader", images=640
    )


@pytest.fixture
def make_settings():
    from services.bench.settings import BenchSettings

    def make(*flags, **environ):
        return BenchSettings.load("bench", flags, environ)

    return make
