"""The size and the folder of LitData's cache."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from larder.errors import ConfigurationError, LarderError, StorageError
from larder.loaders import cache
from larder.loaders.cache import MAX_PREFETCH_CHUNKS, locked_folder, plan_budget

CHUNKS = [900] * 9 + [1000]  # 9,100 bytes


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Computes the budget with some limits, on a disk with this much free space."""

    def plan(size: int | None = None, ahead: int | None = None, free: int = 1_000_000) -> Any:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2_000_000, 1_000_000, free))
        return plan_budget(CHUNKS, tmp_path, workers=2, max_cache_size=size, max_pre_download=ahead)

    return plan


@pytest.mark.parametrize(
    ("size", "ahead", "free", "expected"),
    [
        pytest.param(None, None, 1_000_000, (750_000, None), id="all-kept"),
        pytest.param(None, 3, 1_000_000, (750_000, 3), id="all-kept-and-so-many-ahead"),
        pytest.param(9101, None, 9101, (9101, None), id="just-all"),
        pytest.param(9100, None, 10_000, (9100, 2), id="one-byte-less"),
        pytest.param(8000, None, 10_000, (8000, 2), id="twice-two-for-each-worker"),
        pytest.param(None, None, 11_000, (8250, 2), id="three-quarters-of-what-is-free"),
    ],
)
def test_budget(
    plan: Callable[..., Any], size: int | None, ahead: int | None, free: int, expected: tuple[int, int | None]
) -> None:
    assert plan(size, ahead, free) == expected


@pytest.mark.parametrize("workers", [0, 1], ids=["no-workers", "one-worker"])
def test_a_cache_with_room_for_more_fetches_more_ahead(tmp_path: Path, workers: int) -> None:
    limits: dict[str, Any] = {"workers": workers, "max_cache_size": 50_000, "max_pre_download": None}
    assert plan_budget([1000] * 60, tmp_path, **limits).prefetch_chunks == 25
    assert plan_budget([100] * 600, tmp_path, **limits).prefetch_chunks == MAX_PREFETCH_CHUNKS


@pytest.mark.parametrize(
    ("size", "ahead", "free", "kind", "match"),
    [
        pytest.param(
            7999,
            None,
            1_000_000,
            ConfigurationError,
            "=7999: 2 workers fetching 2 chunks ahead, each, need 8,000 bytes of cache; 9,101",
            id="too-small",
        ),
        pytest.param(
            9000,
            3,
            1_000_000,
            ConfigurationError,
            "fetching 3 chunks ahead, each, need 12,000 bytes",
            id="too-small-for-three-ahead",
        ),
        pytest.param(
            None, None, 10_000, StorageError, "may grow to 7,500 bytes, three quarters of what is free", id="disk"
        ),
        pytest.param(9101, None, 9000, StorageError, "8.8 KiB free, and the cache may", id="full"),
    ],
)
def test_too_little_room(
    plan: Callable[..., Any], size: int | None, ahead: int | None, free: int, kind: type[LarderError], match: str
) -> None:
    with pytest.raises(kind, match=match):
        plan(size, ahead, free)


def test_a_folder_is_empty_at_first_and_gone_in_the_end(tmp_path: Path) -> None:
    left = tmp_path / "cache/larder-x/old"
    left.mkdir(parents=True)
    (tmp_path / "cache/mine").touch()
    with pytest.raises(KeyboardInterrupt), locked_folder(tmp_path / "cache", "x") as folder:
        assert list(folder.iterdir()) == []
        (folder / "new").touch()
        raise KeyboardInterrupt
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".larder-x.lock", "mine"]


def test_a_folder_is_one_run_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "LOCK_TIMEOUT_SECONDS", 0.0)
    with (
        locked_folder(tmp_path, "x") as folder,
        pytest.raises(StorageError, match=f"another run uses {folder}"),
        locked_folder(tmp_path, "x"),
    ):
        pass
    with locked_folder(tmp_path, "x"):
        pass
