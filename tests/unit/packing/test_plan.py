"""Which samples go where."""

from __future__ import annotations

from pathlib import Path

import pytest

from larder.contract import IndexEntry, write_index
from larder.errors import ConfigurationError, InputError
from larder.packing.plan import Limits, Pack, plan, require_packable
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
    with pytest.raises(ConfigurationError, match="takes 3,584 bytes by itself, and SIZE is 2,000") as caught:
        require_packable(index, TarShards(), Limits(2000, 0, "SIZE"))
    lines = caught.value.what.splitlines()
    assert lines[0] == "400 samples can't be packed, of which the first 20 are:"
    assert len(lines) == 21
    assert "SIZE to at least 4096" in caught.value.next_step
    require_packable(index, TarShards(), Limits(4096, 0, "SIZE"))


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    faulty = [".jpg", "a.cls", "b.CLS", "c.d.jpg", "e.jpeg", "e.jpg", "e.k.jpg", "e.png", "f", "large.jpg"]
    names = sorted([*faulty, "good.jpg", "e.jpg.cls"])
    entries = [IndexEntry(f"t/c/{name}", 9000 if name == "large.jpg" else 1, "0" * 64, 0) for name in names]
    write_index(tmp_path / "index.jsonl", entries)
    with pytest.raises(InputError) as caught:
        require_packable(tmp_path / "index.jsonl", TarShards(), Limits(9000, 0, "SIZE"))
    assert "good.jpg" not in caught.value.what
    assert caught.value.what.splitlines()[0] == "10 samples can't be packed:"
    assert [name for name in faulty if f"t/c/{name} " not in caught.value.what] == []
    assert caught.value.what.count("the same key") == 2
    assert "one dot" in caught.value.next_step
    assert "SIZE to at least" in caught.value.next_step


@pytest.mark.parametrize("seed", [None, 0])
def test_long_lines(tmp_path: Path, seed: int | None) -> None:
    names = sorted(f"t/c/{letter * length}.jpg" for letter in "ab" for length in (1, 400, 512, 1100, 5000))
    write_index(tmp_path / "index.jsonl", [IndexEntry(name, 1, "0" * 64, 0) for name in names])
    packs = list(plan(tmp_path / "index.jsonl", Chunks(1 << 20), Limits(1 << 20, 0, "SIZE"), seed))
    assert sorted(paths(packs)) == names
