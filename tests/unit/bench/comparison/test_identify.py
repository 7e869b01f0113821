"""Samples are recognized from their pixels."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from larder.bench.comparison.identify import SIZE, Collector, Samples, identify, order_entropy

SAMPLES = 40
RANDOM = np.random.default_rng(0)
REFERENCE = Samples(RANDOM.integers(0, 256, (SAMPLES, SIZE), dtype=np.uint8), np.arange(SAMPLES, dtype=np.int64) % 3)


def epoch_of(numbers: list[int], noise: int = 0) -> Samples:
    levels = REFERENCE.fingerprints[numbers].astype(int)
    levels += np.random.default_rng(1).integers(-noise, noise + 1, levels.shape)
    return Samples(levels.clip(0, 255).astype(np.uint8), REFERENCE.labels[numbers])


SHUFFLED = RANDOM.permutation(SAMPLES).tolist()


def test_every_sample_once_has_the_digest_of_the_reference() -> None:
    found = identify(epoch_of(SHUFFLED), REFERENCE)
    assert found.ids.tolist() == SHUFFLED
    assert found.digest == REFERENCE.digest()
    assert found.pixel_error is not None
    assert (found.pixel_error.mean, found.pixel_error.max) == (0.0, 0.0)
    assert found.pixel_error.pixels == SAMPLES * SIZE


@pytest.mark.parametrize(
    "numbers",
    [SHUFFLED[:-1], [*SHUFFLED, 0], [*SHUFFLED[:-1], SHUFFLED[0]]],
    ids=["one is missing", "one comes twice", "one in place of another"],
)
@pytest.mark.parametrize("noise", [0, 3])
def test_another_epoch_has_another_digest(numbers: list[int], noise: int) -> None:
    assert identify(epoch_of(numbers, noise), REFERENCE).digest != REFERENCE.digest()


def test_a_wrong_label_changes_the_digest() -> None:
    epoch = epoch_of(SHUFFLED)
    epoch.labels[3] = (epoch.labels[3] + 1) % 3
    assert identify(epoch, REFERENCE).digest != REFERENCE.digest()


def test_other_pixels_are_recognized_and_their_error_is_measured() -> None:
    found = identify(epoch_of(SHUFFLED, noise=3), REFERENCE)
    assert found.ids.tolist() == SHUFFLED
    assert found.digest == REFERENCE.digest()
    assert found.pixel_error is not None
    assert 1 < found.pixel_error.mean < 2.5
    assert found.pixel_error.max == 3


def test_an_image_of_another_dataset_is_unknown() -> None:
    others = Samples(np.zeros((1, SIZE), np.uint8), np.zeros(1, np.int64))
    found = identify(others, REFERENCE)
    assert found.ids.tolist() == [-1]
    assert found.pixel_error is None


def test_equal_images_count_as_one_another() -> None:
    twice = Samples(np.repeat(REFERENCE.fingerprints[:1], 2, axis=0), np.zeros(2, np.int64))
    assert identify(twice, twice).digest == twice.digest()
    assert identify(Samples(twice.fingerprints[:1], twice.labels[:1]), twice).digest != twice.digest()


@pytest.mark.parametrize(
    ("order", "low", "high"),
    [(list(range(1000)), 0.0, 0.0), (np.random.default_rng(5).permutation(1000).tolist(), 0.98, 1.0)],
    ids=["as stored", "shuffled"],
)
def test_entropy_tells_how_well_an_order_is_shuffled(order: list[int], low: float, high: float) -> None:
    entropy = order_entropy(np.array(order))
    assert entropy is not None
    assert low <= entropy <= high


def test_entropy_of_blocks_is_between() -> None:
    blocks = np.random.default_rng(5).permutation(np.arange(1000).reshape(100, 10)).reshape(-1)
    entropy = order_entropy(blocks)
    assert entropy is not None
    assert 0.05 < entropy < 0.3


def test_entropy_is_unknown_if_a_sample_is() -> None:
    assert order_entropy(np.array([*range(20), -1])) is None


def test_fingerprints_are_levels_of_the_original_pixels() -> None:
    levels = torch.arange(224 * 224 * 3, dtype=torch.float32).reshape(1, 3, 224, 224) % 256
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalized = (levels / 255 - mean[:, None, None]) / std[:, None, None]
    collector = Collector()
    collector.add(normalized, torch.tensor([7]))
    normalized.zero_()  # loaders use their memory again
    samples = collector.samples()
    assert samples.labels.tolist() == [7]
    assert samples.fingerprints.tolist() == [levels[:, :, 14::28, 96:112].reshape(-1).tolist()]
