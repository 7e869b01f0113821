"""Which samples go where."""

from __future__ import annotations

from pathlib import Path

import pytest

from larder.contract import IndexEntry, write_index
from larder.errors import ConfigurationError
from larder.packing.plan import Limits, Pack, plan
from services.optimize.optimize import Chunks
from services.shard.shard import TarShards

LAYOUTS = [TarShards(), Chunks(1 << 20)]


@pytest.fixture
def index(tmp_path: Path) -> Path:
    entries = [
        IndexEntry(f"{split}/class_{number % 3:02d}/{number:03d}.jpg", 1000 + number, f"{number:064x}", number % 3)
        for split in ("training", "validation")
        for number in range(200)
    ]
    place = tmp_path / "index.jsonl"
    write_index(place, sorted(entries, key=lambda entry: entry.path))
    return place


def paths(packs: list[Pack]) -> list[str]:
    return [entry.path for pack in packs for entry in pack.entries()]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["shards", "chunks"])
@pytest.mark.parametrize("seed", [None, 0, 7])
def test_a_pack_is_as_long_as_planned(index: Path, layout: TarShards | Chunks, seed: int | None) -> None:
    packs = list(plan(index, layout, Limits(20_000, 0, "SIZE"), seed))
    assert len(paths(packs)) == len(set(paths(packs))) == 400
    for pack in packs:
        assert pack.size <= 20_000
        assert pack.samples == len(pack.entries())
        assert {entry.path.split("/")[0] for entry in pack.entries()} == {pack.path.split("/")[0]}
        written = b"".join(layout.encode(pack.entries(), (bytes(entry.bytes) for entry in pack.entries())))
        assert len(written) == pack.size


def test_the_order_is_the_seeds(index: Path) -> None:
    limits = Limits(20_000, 0, "SIZE")
    orders = [paths(list(plan(index, TarShards(), limits, seed))) for seed in (None, 0, 0, 1)]
    assert orders[0] == sorted(orders[0])
    assert orders[1] == orders[2]
    assert orders[1] != orders[3]
    assert sorted(orders[1]) == orders[0]


def test_the_order_stays_the_same_from_release_to_release(tmp_path: Path) -> None:
    write_index(tmp_path / "index.jsonl", [IndexEntry(f"t/c/{name}.jpg", 1, "0" * 64, 0) for name in "abcdef"])
    order = paths(list(plan(tmp_path / "index.jsonl", TarShards(), Limits(20_000, 0, "SIZE"), 0)))
    assert "".join(path[4] for path in order) == "caebfd"


def test_the_largest_sample_alone_must_fit(index: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"SIZE=2000: .* takes 3,584 bytes"):
        list(plan(index, TarShards(), Limits(2000, 0, "SIZE"), None))


@pytest.mark.parametrize("seed", [None, 0])
def test_long_lines(tmp_path: Path, seed: int | None) -> None:
    names = sorted(f"t/c/{letter * length}.jpg" for letter in "ab" for length in (1, 400, 512, 1100, 5000))
    write_index(tmp_path / "index.jsonl", [IndexEntry(name, 1, "0" * 64, 0) for name in names])
    packs = list(plan(tmp_path / "index.jsonl", Chunks(1 << 20), Limits(1 << 20, 0, "SIZE"), seed))
    assert sorted(paths(packs)) == names
