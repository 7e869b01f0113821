"""Layouts that only arms of other libraries read."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from larder.bench import peer_data
from larder.bench.arms import ARMS
from larder.bench.comparison.data import find_data
from larder.bench.peer_data import TAR, locate_peer_data, shuffled, write_peer_data
from larder.bench.prepare_peer import prepare_peer
from larder.contract import META, IndexEntry, IndexSummary, Manifest, SplitSummary, find_manifest
from larder.errors import ConfigurationError, InputError
from larder.loaders.image_table import ImageTable
from larder.progress import NullReporter
from tests.unit.bench.conftest import MakeSettings


def make_tree(folder: Path, images: int) -> Path:
    """Make a tree of files that aren't images, half of them of each class."""
    import hashlib

    entries = []
    for number in range(images):
        path = f"training/class_{number % 2:02}/{number:03}.jpg"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content := b"image %d" % number)
        entries.append(IndexEntry(path, len(content), hashlib.sha256(content).hexdigest(), number % 2))
    index = "".join(f"{entry.to_json()}\n" for entry in sorted(entries)).encode()
    size = sum(entry.bytes for entry in entries)
    per_class = [len(entries) - len(entries) // 2, len(entries) // 2]
    manifest = Manifest(
        artifact="tree",
        dataset="Food-11",
        classes=["a", "b"],
        splits={"training": SplitSummary(samples=images, bytes=size, samples_per_class=per_class)},
        input={},
        settings={},
        files=images,
        bytes=size,
        index=IndexSummary(bytes=len(index), sha256=hashlib.sha256(index).hexdigest()),
    )
    (folder / META).mkdir()
    (folder / META / "index.jsonl").write_bytes(index)
    (folder / META / "manifest.json").write_text(manifest.to_json())
    return folder


def places(tree: Path, tmp_path: Path) -> dict[str, str]:
    return {"FOOD11_DATA_DIR": str(tree), "LARDER_CACHE_DIR": str(tmp_path / "cache")}


def test_a_tar_file_has_the_images_in_the_order_of_the_index(make_settings: MakeSettings, tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "Food-11", 11)
    settings = make_settings(**places(tree, tmp_path))
    assert locate_peer_data(settings, "tar").manifest is None
    where = write_peer_data(settings, "tar", NullReporter())
    with tarfile.open(Path(where) / TAR) as archive:
        names = archive.getnames()
    assert names == sorted(f"training/class_{number % 2:02}/{number:03}.jpg" for number in range(11))
    assert locate_peer_data(settings, "tar") == (where, find_manifest(tree))


def test_an_interrupted_layout_counts_as_missing(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_settings(**places(make_tree(tmp_path / "Food-11", 11), tmp_path))
    write_peer_data(settings, "tar", NullReporter())

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tarfile, "open", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_peer_data(settings, "tar", NullReporter())
    assert locate_peer_data(settings, "tar").manifest is None


def test_a_layout_of_another_tree_is_left_out(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("larder.bench.comparison.data.missing_packages", lambda name: [])
    tree = make_tree(tmp_path / "Food-11", 11)
    settings = make_settings("--batch-size=2", **places(tree, tmp_path))
    write_peer_data(settings, "tar", NullReporter())
    assert find_data(settings, ["imagefolder_local", "turboloader"], str).arms == ["imagefolder_local", "turboloader"]
    shutil.rmtree(tree)
    make_tree(tree, 12)
    found = find_data(settings, ["imagefolder_local", "turboloader"], str)
    assert found.arms == ["imagefolder_local"]
    [left_out] = found.left_out
    assert "arms must read the same samples" in left_out.reason
    assert left_out.command == "bench peers LARDER_ARM=turboloader"


def test_packed_layouts_arent_sorted_by_class(tmp_path: Path) -> None:
    entries = [IndexEntry(f"training/class_{at // 50:02}/{at:03}.jpg", 1, "00" * 32, at // 50) for at in range(100)]
    table = ImageTable(entries, "training", lambda: None)
    order = shuffled(table)
    assert sorted(order) == list(range(100))
    assert 15 < sum(table.label(number) for number in order[:50]) < 35
    parts = list(peer_data._parts(table))
    assert [number for part in parts for number in part] == order
    assert len(parts) >= 8


def test_an_arm_that_needs_nothing_of_its_own_says_so(make_settings: MakeSettings) -> None:
    with pytest.raises(ConfigurationError, match="stream needs no data or environment of its own") as caught:
        prepare_peer("stream", make_settings(), NullReporter())
    assert "hf_datasets, mosaicml, turboloader" in caught.value.next_step


def test_a_peer_without_its_data_is_left_out_with_the_command(
    make_settings: MakeSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("larder.bench.comparison.data.missing_packages", lambda name: [])
    readers = [name for name in ARMS if peer_data.layout_of(name)]
    with pytest.raises(InputError) as nothing:
        find_data(make_settings(LARDER_CACHE_DIR=str(tmp_path)), readers, str)
    assert set(readers) == {"hf_datasets", "mosaicml", "turboloader"}
    assert "no finished data" in nothing.value.what
    assert "S3_BUCKET is not set" in nothing.value.what
    assert "turboloader: " in nothing.value.what
    assert "bench peers LARDER_ARM=turboloader" in nothing.value.what
    assert "hf_datasets, mosaicml: it reads from a bucket, and S3_BUCKET is not set; s3 up" in nothing.value.what
