"""The reference of PIL's pixels, the page cache, and descriptions of machines."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from PIL import Image
from torchvision import transforms

from larder.bench.comparison.describe import endpoint_of, storage_of
from larder.bench.comparison.identify import Collector, identify
from larder.bench.comparison.page_cache import _by_cachestat, _by_mincore, cache_state
from larder.bench.comparison.reference import build_reference, read_reference, write_reference
from larder.loaders.preprocessing import decode, reference_transform


def jpeg(number: int) -> bytes:
    Image.effect_noise((300 + number, 260), 60).convert("RGB").save(file := io.BytesIO(), "JPEG")
    return file.getvalue()


def test_a_loader_with_pils_pixels_matches_the_reference(tmp_path: Path) -> None:
    images = [(jpeg(number), number % 3) for number in range(10)]
    write_reference(tmp_path / "reference.npz", build_reference(images, threads=2))
    reference = read_reference(tmp_path / "reference.npz")
    assert reference is not None
    collector = Collector()
    for content, label in reversed(images):
        collector.add(reference_transform()(decode(content))[None], torch.tensor([label]))
    found = identify(collector.samples(), reference)
    assert found.ids.tolist() == list(range(9, -1, -1))
    assert found.digest == reference.digest()
    assert found.pixel_error is not None
    assert found.pixel_error.max == 0


def test_a_view_of_the_whole_image_has_a_reference_of_its_own() -> None:
    images = [(jpeg(number), number % 3) for number in range(4)]
    squash = transforms.Compose([transforms.Resize((224, 224)), *reference_transform().transforms[2:]])  # type: ignore[attr-defined]
    collector = Collector()
    for content, label in images:
        collector.add(squash(decode(content))[None], torch.tensor([label]))
    found = identify(collector.samples(), build_reference(images, 2, "squash"))
    assert found.ids.tolist() == [0, 1, 2, 3]
    assert found.pixel_error is not None
    assert found.pixel_error.max == 0
    crop = build_reference(images, 2)
    assert identify(collector.samples(), crop).digest != crop.digest()


def test_there_may_be_no_reference(tmp_path: Path) -> None:
    assert read_reference(tmp_path / "reference.npz") is None


def test_a_file_that_was_just_written_is_cached(tmp_path: Path) -> None:
    (path := tmp_path / "file").write_bytes(os.urandom(100_000))
    state = cache_state([path])
    assert state.share == 1.0
    assert state.method in ("cachestat", "mincore")
    with path.open("rb") as file:
        assert _by_mincore(file.fileno(), 100_000) == 25
        assert _by_cachestat(file.fileno(), 100_000) in (25, None)


def test_the_state_of_missing_and_of_no_files_is_unknown(tmp_path: Path) -> None:
    assert cache_state([tmp_path / "missing"]).share is None
    assert cache_state([]).share is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", "AWS"),
        ("http://store:9000", "http://store:9000"),
        ("https://key:secret@store/path?token=secret", "https://store"),
    ],
)
def test_endpoints_are_recorded_without_secrets(url: str, shown: str) -> None:
    assert endpoint_of(url) == shown


def test_storage_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert storage_of(tmp_path / "missing" / "folder") == storage_of(tmp_path) != "unknown"
