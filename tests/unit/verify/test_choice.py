"""The choice of the samples to read."""

from __future__ import annotations

from collections import Counter

import pytest

from larder.contract import IndexSummary, Manifest, SplitSummary
from services.verify.choice import choose_samples
from services.verify.verified_artifact import IndexedSample

COUNTS = {"training": [1000, 10, 1], "validation": [300, 0, 2]}
SAMPLES = [
    IndexedSample(f"{split}/class_{label:02d}/{number}.jpg", 1, label)
    for split, counts in COUNTS.items()
    for label, count in enumerate(counts)
    for number in range(count)
]
MANIFEST = Manifest(
    artifact="tree",
    dataset="d",
    classes=["a", "b", "c"],
    input={},
    settings={},
    files=len(SAMPLES),
    bytes=0,
    splits={split: SplitSummary(samples=sum(c), bytes=0, samples_per_class=c) for split, c in COUNTS.items()},
    index=IndexSummary(bytes=0, sha256=""),
)


@pytest.mark.parametrize("number", [1, 5, 131, 500, 1312])
def test_every_split_and_class_has_its_share(number: int) -> None:
    paths = choose_samples(SAMPLES, MANIFEST, number, 0).paths
    assert paths is not None
    chosen = Counter((sample.split, sample.label) for sample in SAMPLES if sample.path in paths)
    for split, counts in COUNTS.items():
        for label, count in enumerate(counts):
            assert chosen[split, label] == -(-count * number // len(SAMPLES))
    assert number <= len(paths) < number + 5


@pytest.mark.parametrize("number", [0, 1313, 10**9])
def test_all(number: int) -> None:
    choice = choose_samples(SAMPLES, MANIFEST, number, 0)
    assert choice.whole
    assert "anything" in choice


def test_it_depends_on_the_seed_and_not_on_the_order() -> None:
    one = choose_samples(SAMPLES, MANIFEST, 100, 0)
    assert choose_samples(reversed(SAMPLES), MANIFEST, 100, 0) == one
    assert choose_samples(SAMPLES, MANIFEST, 100, 1) != one


def test_files_without_classes() -> None:
    raw = MANIFEST.model_copy(update={"splits": {}, "classes": []})
    paths = choose_samples([sample._replace(label=None) for sample in SAMPLES], raw, 100, 0).paths
    assert paths is not None and len(paths) == 100
