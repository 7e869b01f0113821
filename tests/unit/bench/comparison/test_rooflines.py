"""Upper bounds: which images are decoded, and how files are read."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from larder.bench.comparison import rooflines
from larder.bench.comparison.images import ImageSource, sampled_images
from larder.contract import META, IndexEntry, IndexSummary, Manifest, SplitSummary
from larder.store import OptionalBucketSettings

CLASSES, IMAGES = 4, 25
STORE = OptionalBucketSettings.load("compare", [], {})


@pytest.fixture
def source(tmp_path: Path) -> ImageSource:
    """A tree of four classes with 25 files each; a file's first byte is its class."""
    entries = []
    for label in range(CLASSES):
        for number in range(IMAGES):
            name, content = f"training/class_{label:02}/{number:02}.jpg", bytes([label]) + bytes(9)
            (path := tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            entries.append(IndexEntry(name, len(content), hashlib.sha256(content).hexdigest(), label))
    index = "".join(entry.to_json() + "\n" for entry in sorted(entries)).encode()
    total = CLASSES * IMAGES
    manifest = Manifest(
        artifact="tree",
        dataset="Food-11",
        classes=[f"class_{label:02}" for label in range(CLASSES)],
        splits={"training": SplitSummary(samples=total, bytes=10 * total, samples_per_class=[IMAGES] * CLASSES)},
        input={},
        settings={},
        files=total,
        bytes=10 * total,
        index=IndexSummary(bytes=len(index), sha256=hashlib.sha256(index).hexdigest()),
    )
    (tmp_path / META).mkdir()
    (tmp_path / META / "index.jsonl").write_bytes(index)
    (tmp_path / META / "manifest.json").write_text(manifest.to_json())
    return ImageSource("", str(tmp_path), "training")


def test_images_of_all_classes_are_decoded_the_same_ones_each_time(source: ImageSource) -> None:
    images = sampled_images(source, STORE, 20, 1 << 20)
    assert len(images) == 20
    assert {image[0] for image in images} == set(range(CLASSES))
    assert images == sampled_images(source, STORE, 20, 1 << 20)


@pytest.mark.parametrize(("max_images", "max_bytes", "expected"), [(1000, 1 << 20, 100), (1000, 45, 5)])
def test_images_in_memory_are_limited(source: ImageSource, max_images: int, max_bytes: int, expected: int) -> None:
    assert len(sampled_images(source, STORE, max_images, max_bytes)) == expected


def test_a_disk_is_read_by_as_many_threads_as_there_are_workers(
    source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the first four reads waits until four are in flight."""
    waiting, begun, lock = threading.Barrier(4), [], threading.Lock()

    def read(path: Path) -> int:
        with lock:
            begun.append(path)
            is_early = len(begun) <= 4
        if is_early:
            waiting.wait(timeout=60)
        return path.stat().st_size

    monkeypatch.setattr(rooflines, "_read_file", read)
    bound = rooflines.measure_roofline("disk_read", source, STORE, threads=4, bytes_per_img=10.0)
    assert bound.threads == 4
    assert bound.bytes_per_s == pytest.approx(bound.imgs_per_s * 10)
    assert len(begun) == len(set(begun)), "no file is read twice, from memory"
