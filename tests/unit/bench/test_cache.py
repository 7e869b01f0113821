"""How much LitData may keep on disk, and where."""

import shutil

import pytest

from larder.errors import ConfigurationError, StorageError
from services.bench import cache
from services.bench.cache import MOST_AHEAD, own_folder, plan_budget

CHUNKS = [900] * 9 + [1000]  # 9,100 bytes


@pytest.fixture
def plan(make_settings, tmp_path, monkeypatch):
    """The budget with some settings, on a disk with so much free."""

    def plan(*flags, free=1_000_000):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2_000_000, 1_000_000, free))
        return plan_budget(make_settings("--workers", "2", *flags), CHUNKS, tmp_path)

    return plan


@pytest.mark.parametrize(
    ("flags", "free", "expected"),
    [
        pytest.param([], 1_000_000, (750_000, None), id="all-kept"),
        pytest.param(["--max-pre-download", "3"], 1_000_000, (750_000, 3), id="all-kept-and-so-many-ahead"),
        pytest.param(["--max-cache-size", "9101"], 9101, (9101, None), id="just-all"),
        pytest.param(["--max-cache-size", "9100"], 10_000, (9100, 2), id="one-byte-less"),
        pytest.param(["--max-cache-size", "8000"], 10_000, (8000, 2), id="twice-two-for-each-worker"),
        pytest.param([], 11_000, (8250, 2), id="three-quarters-of-what-is-free"),
    ],
)
def test_budget(plan, flags, free, expected):
    assert plan(*flags, free=free) == expected


def test_a_cache_with_room_for_more_fetches_more_ahead(make_settings, tmp_path):
    settings = make_settings("--workers", "1", "--max-cache-size", "50000")
    assert plan_budget(settings, [1000] * 60, tmp_path).ahead == 25
    assert plan_budget(settings, [100] * 600, tmp_path).ahead == MOST_AHEAD


@pytest.mark.parametrize(
    ("flags", "free", "kind", "match"),
    [
        pytest.param(
            ["--max-cache-size", "7999"], 1_000_000, ConfigurationError,
            "=7999: 2 workers fetching 2 chunks ahead, each, take 8,000 bytes of cache; 9,101", id="too-small",
        ),
        pytest.param(
            ["--max-cache-size", "9000", "--max-pre-download", "3"], 1_000_000, ConfigurationError,
            "fetching 3 chunks ahead, each, take 12,000 bytes", id="too-small-for-three-ahead",
        ),
        pytest.param([], 10_000, StorageError, "may grow to 7,500 bytes, three quarters of what is free", id="disk"),
        pytest.param(["--max-cache-size", "9101"], 9000, StorageError, "8.8 KiB free, and the cache may", id="full"),
    ],
)  # fmt: skip
def test_too_little_room(plan, flags, free, kind, match):
    with pytest.raises(kind, match=match):
        plan(*flags, free=free)


def test_a_folder_is_empty_at_first_and_gone_in_the_end(tmp_path):
    left = tmp_path / "cache/larder-x/old"
    left.mkdir(parents=True)
    (tmp_path / "cache/mine").touch()
    with pytest.raises(KeyboardInterrupt), own_folder(tmp_path / "cache", "x") as folder:
        assert list(folder.iterdir()) == []
        (folder / "new").touch()
        raise KeyboardInterrupt
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".larder-x.lock", "mine"]


def test_a_folder_is_one_run_s(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "PATIENCE_SECONDS", 0.0)
    with (
        own_folder(tmp_path, "x") as folder,
        pytest.raises(StorageError, match=f"another run uses {folder}"),
        own_folder(tmp_path, "x"),
    ):
        pass
    with own_folder(tmp_path, "x"):
        pass
