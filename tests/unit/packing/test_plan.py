"""The plan of the packs: which samples go into which pack, in which order, under which keys."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from larder.contract import IndexEntry, write_index
from larder.errors import ConfigurationError, InputError
from larder.packing.pack import Pack, PackLimits
from larder.packing.plan import plan_packs, require_packable
from services.optimize.optimize import ChunkLayout
from services.shard.shard import ShardLayout

LAYOUTS = [ShardLayout(), ChunkLayout(1 << 20)]


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
def test_a_pack_is_as_long_as_planned(index: Path, layout: ShardLayout | ChunkLayout, seed: int | None) -> None:
    packs = list(plan_packs(index, layout, PackLimits(20_000, 0, "SIZE"), seed))
    assert len(paths(packs)) == len(set(paths(packs))) == 400
    for pack in packs:
        assert pack.size <= 20_000
        assert pack.samples == len(pack.entries())
        assert {entry.path.split("/")[0] for entry in pack.entries()} == {pack.path.split("/")[0]}
        written = b"".join(layout.encode(pack.entries(), (bytes(entry.bytes) for entry in pack.entries())))
        assert len(written) == pack.size


def test_the_order_is_the_seeds(index: Path) -> None:
    limits = PackLimits(20_000, 0, "SIZE")
    orders = [paths(list(plan_packs(index, ShardLayout(), limits, seed))) for seed in (None, 0, 0, 1)]
    assert orders[0] == sorted(orders[0])
    assert orders[1] == orders[2]
    assert orders[1] != orders[3]
    assert sorted(orders[1]) == orders[0]


def test_the_order_stays_the_same_from_release_to_release(tmp_path: Path) -> None:
    write_index(tmp_path / "index.jsonl", [IndexEntry(f"t/c/{name}.jpg", 1, "0" * 64, 0) for name in "abcdef"])
    order = paths(list(plan_packs(tmp_path / "index.jsonl", ShardLayout(), PackLimits(20_000, 0, "SIZE"), 0)))
    assert "".join(path[4] for path in order) == "caebfd"


def test_shuffling_takes_little_memory(tmp_path: Path) -> None:
    count, limits = 40_000, PackLimits(1 << 30, 100, "SIZE")
    entries = (IndexEntry(f"t/c/{number:06d}.jpg", 1, "0" * 64, 0) for number in range(count))
    write_index(tmp_path / "index.jsonl", entries)
    tracemalloc.start()
    plan = plan_packs(tmp_path / "index.jsonl", ShardLayout(), limits, 0, tmp_path)
    samples = sum(pack.samples for pack in plan)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (samples, os.listdir(tmp_path)) == (count, ["index.jsonl"])
    assert peak < 5 << 19


def test_the_largest_sample_alone_must_fit(index: Path) -> None:
    with pytest.raises(ConfigurationError, match="takes 3,584 bytes by itself, and SIZE is 2,000") as caught:
        require_packable(index, ShardLayout(), PackLimits(2000, 0, "SIZE"))
    lines = caught.value.what.splitlines()
    assert lines[0] == "400 samples can't be packed, of which the first 20 are:"
    assert len(lines) == 21
    assert "SIZE to at least 4096" in caught.value.next_step
    require_packable(index, ShardLayout(), PackLimits(4096, 0, "SIZE"))


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    faulty = [".jpg", "a.cls", "b.CLS", "f", "large.jpg"]
    names = sorted([*faulty, "good.jpg", "c.d.jpg", "e.jpeg", "e.jpg", "e.k.jpg", "e.png"])
    entries = [IndexEntry(f"t/c/{name}", 9000 if name == "large.jpg" else 1, "0" * 64, 0) for name in names]
    write_index(tmp_path / "index.jsonl", entries)
    with pytest.raises(InputError) as caught:
        require_packable(tmp_path / "index.jsonl", ShardLayout(), PackLimits(9000, 0, "SIZE"))
    assert "good.jpg" not in caught.value.what
    assert caught.value.what.splitlines()[0] == "5 samples can't be packed:"
    assert [name for name in faulty if f"t/c/{name} " not in caught.value.what] == []
    assert "an extension" in caught.value.next_step
    assert "SIZE to at least" in caught.value.next_step


@pytest.mark.parametrize("seed", [None, 0])
def test_long_lines(tmp_path: Path, seed: int | None) -> None:
    names = sorted(f"t/c/{letter * length}.jpg" for letter in "ab" for length in (1, 400, 512, 1100, 5000))
    write_index(tmp_path / "index.jsonl", [IndexEntry(name, 1, "0" * 64, 0) for name in names])
    packs = list(plan_packs(tmp_path / "index.jsonl", ChunkLayout(1 << 20), PackLimits(1 << 20, 0, "SIZE"), seed))
    assert sorted(paths(packs)) == names


@pytest.mark.parametrize("seed", [None, 0])
def test_every_sample_has_a_key_of_its_own(tmp_path: Path, seed: int | None) -> None:
    """Names with dots, names that differ in the extension, and names that other names would become."""
    names = ["cat.0.jpg", "cat.1.jpg", "cat_0.jpg", "IMG.2024.1.jpg", "IMG.2024_1.jpg", "1.jpg", "1.png", "1.JPG",
             "1.jpeg", "1.0.png", "1_0.png", "..jpg", "a..jpg", "naïve.拉面.webp", "plain.jpg"]  # fmt: skip
    entries = sorted(
        (IndexEntry(f"t/c/{name}", 3, "0" * 64, 0) for name in names), key=lambda entry: entry.path.encode()
    )
    write_index(tmp_path / "index.jsonl", entries)
    require_packable(tmp_path / "index.jsonl", ShardLayout(), PackLimits(1 << 20, 0, "SIZE"))
    [pack] = plan_packs(tmp_path / "index.jsonl", ShardLayout(), PackLimits(1 << 20, 0, "SIZE"), seed)
    packed = b"".join(ShardLayout().encode(pack.entries(), [b"abc"] * len(names)))
    assert len(packed) == pack.size
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = archive.getnames()
    keys = [base.partition(".")[0] for base in (member.rpartition("/")[2] for member in members)]
    assert len(set(keys)) == len(names), "readers cut a key at the first dot"
    assert keys[::2] == keys[1::2], "image and label are one sample"
    by_path = {entry.path[4:]: key for entry, key in zip(pack.entries(), keys[::2], strict=True)}
    assert {name: by_path[name] for name in ("cat_0.jpg", "plain.jpg", "1_0.png", "1.JPG")} == {
        "cat_0.jpg": "cat_0",
        "plain.jpg": "plain",
        "1_0.png": "1_0",
        "1.JPG": "1",
    }
    assert by_path["cat.0.jpg"] == f"cat_0-{hashlib.sha256(b'c/cat.0.jpg').hexdigest()[:8]}"
    assert by_path["1.png"] == f"1-{hashlib.sha256(b'c/1.png').hexdigest()[:8]}"
