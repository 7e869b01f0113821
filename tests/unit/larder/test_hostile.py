"""Malicious manifests and indexes: parsers raise an error of ours, and a short one."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from larder import chunks
from larder.cli import inventory
from larder.contract import (
    IndexEntry,
    IndexSummary,
    Manifest,
    SampleEntry,
    SplitSummary,
    find_manifest,
    is_inside,
    parse_index,
    parse_manifest,
    parse_samples,
    read_index,
)
from larder.errors import InputError
from services.verify.choice import choose_samples
from services.verify.sorted_index import SortedIndex
from services.verify.verified_artifact import IndexedSample
from tests import hostile

DIGEST = "0" * 64
ENTRY = IndexEntry("training/class_00/a.jpg", 5, DIGEST, 0, 10, 10, "a.jpg")
SAMPLE = SampleEntry("training/shard-000000.tar", 512, 5, DIGEST, 0, "training/class_00/a.jpg")
MANIFEST = Manifest(
    artifact="tree",
    dataset="photos",
    classes=["a", "b"],
    input={},
    settings={},
    splits={"training": SplitSummary(samples=1, bytes=5, samples_per_class=[1, 0])},
    files=1,
    bytes=5,
    index=IndexSummary(bytes=100, sha256=DIGEST),
)
TOLD_BY_READING = ("an index without end", "samples without end")
"""Manifests that only those can tell who read what they speak of."""


@pytest.mark.parametrize("attack", sorted(hostile.MANIFESTS.keys() - TOLD_BY_READING))
def test_manifests(tmp_path: Path, attack: str) -> None:
    (tmp_path / "_larder").mkdir()
    (tmp_path / "_larder/manifest.json").write_bytes(hostile.MANIFESTS[attack](MANIFEST.to_json().encode()))
    with pytest.raises(InputError, match="is not a manifest that this version reads") as caught:
        find_manifest(tmp_path)
    assert len(caught.value.what) < 1000


@pytest.mark.parametrize("attack", hostile.MANIFESTS)
def test_manifests_in_the_inventory(tmp_path: Path, attack: str) -> None:
    """status shows existing data, and needs only printable numbers and texts."""
    (tmp_path / "x/_larder").mkdir(parents=True)
    (tmp_path / "x/_larder/manifest.json").write_bytes(hostile.MANIFESTS[attack](MANIFEST.to_json().encode()))
    held = inventory.read_volume(tmp_path)
    [artifact] = held.artifacts
    assert f"{artifact.files:,} {artifact.bytes:,} {artifact.samples:,}" and isinstance(artifact.dataset, str)
    assert inventory.from_json(inventory.as_json({"x": held})) == {"x": held}


def test_a_manifest_as_it_should_be() -> None:
    text = MANIFEST.to_json().encode()
    assert parse_manifest(text, "m") == MANIFEST
    assert inventory.parse("x", text).samples == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [("object", "file:///etc/passwd"), ("object", "s3://bucket"), ("object", "s3:///key"), ("object", 7),
     ("object", "s3://bucket/" + "k" * 2000), ("offset", -1), ("offset", 1.5), ("offset", 2**63 - 1), ("packed", -1),
     ("codec", "pickle"), ("codec", None), ("at", -1)],
    ids=["a file", "no key", "no bucket", "a number", "a long key", "negative", "a fraction", "beyond files", "packed",
         "a codec", "no codec", "before"],
)  # fmt: skip
def test_places_of_images_that_are_none(field: str, value: object) -> None:
    line = ENTRY._replace(object="s3://bucket/a.tar", offset=512, packed=4, codec="snappy", at=3).to_json()
    assert IndexEntry.checked(line).to_json() == line
    with pytest.raises(ValueError, match="invalid"):
        IndexEntry.checked(json.dumps(json.loads(line) | {field: value}))


@pytest.mark.parametrize("attack", [*hostile.LINES, *hostile.LABELS])
def test_lines_of_an_index(tmp_path: Path, attack: str) -> None:
    place = tmp_path / "index.jsonl"
    place.write_bytes((hostile.LINES | hostile.LABELS)[attack](ENTRY.to_json().encode()) + b"\n")
    with pytest.raises(InputError, match=r"is not an index entry|the manifest names 2") as caught:
        list(parse_index(place, classes=2))
    assert len(caught.value.what) < 1000
    if attack not in ("class of more than there are", "class large"):
        with pytest.raises(ValueError):
            list(SortedIndex(place))


def of_a_sample(attack: Callable[[bytes], bytes]) -> bytes:
    """Return a line of samples.jsonl, attacked like a line of an index."""
    line = SAMPLE.to_json().encode().replace(b'"file"', b'"path"')
    return attack(line).replace(b'"path"', b'"file"')


@pytest.mark.parametrize("attack", [*hostile.LINES, *hostile.LABELS])
def test_lines_of_an_index_of_samples(tmp_path: Path, attack: str) -> None:
    place = tmp_path / "samples.jsonl"
    place.write_bytes(of_a_sample((hostile.LINES | hostile.LABELS)[attack]) + b"\n")
    if attack in ("class of more than there are", "class large"):
        assert list(parse_samples(place))
        return
    with pytest.raises(InputError, match=r"line 1 of .* is not an index entry"):
        list(parse_samples(place))


@pytest.mark.parametrize("paths", [["a", "a"], ["b", "a"], ["ä", "z"], ["\U0001f35c", "\uffee"]])
def test_an_index_that_is_not_sorted(tmp_path: Path, paths: list[str]) -> None:
    text = "".join(f"{ENTRY._replace(path=path).to_json()}\n" for path in paths).encode()
    (tmp_path / "_larder").mkdir()
    (tmp_path / "_larder/index.jsonl").write_bytes(text)
    summary = IndexSummary(bytes=len(text), sha256=sha256(text).hexdigest())
    with pytest.raises(InputError, match="isn't sorted"):
        list(read_index(tmp_path, MANIFEST.model_copy(update={"index": summary})))


@pytest.mark.parametrize("path", ["a", "a.b/c", "..a", "a../b", ".hidden/.x", "a/...", "ä/b", "a\\b", " "])
def test_paths_inside(path: str) -> None:
    assert is_inside(path)


@pytest.mark.parametrize(
    "path",
    ["", "/", "/a", "a/", "..", ".", "../a", "a/..", "a/../b", "a//b", "./a", "a/./b", "a/.", "\0", ".a/\0", "/.a"],
)
def test_paths_that_leave(path: str) -> None:
    assert not is_inside(path)


LENGTHS = {"chunk-0-0.bin": (1000, 3), "chunk-0-1.bin": (2000, 4), "chunk-0-10.bin": (500, 1)}


def test_an_index_of_litdata_as_it_should_be() -> None:
    data = hostile.litdata_index(LENGTHS)
    assert chunks.parse(data) == LENGTHS
    chunks.require_chunks(data, {name: size for name, (size, _) in LENGTHS.items()}, 8)


@pytest.mark.parametrize("attack", hostile.CHUNK_INDEXES)
def test_indexes_of_litdata(attack: str) -> None:
    data = hostile.CHUNK_INDEXES[attack](hostile.litdata_index(LENGTHS))
    lengths = {name: size for name, (size, _) in LENGTHS.items()}
    with pytest.raises(ValueError) as caught:
        if len(data) > chunks.max_index_bytes(len(lengths)):
            raise ValueError("nobody reads it")
        chunks.require_chunks(data, lengths, 8)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("changes", [{"chunk-0-2.bin": 5}, {"chunk-0-1.bin": 2001}, {"../chunk-0-1.bin": 2000}])
def test_an_index_of_litdata_for_other_chunks(changes: dict[str, int]) -> None:
    lengths = {name: size for name, (size, _) in LENGTHS.items()} | changes
    with pytest.raises(ValueError, match="has another length in the manifest"):
        chunks.require_chunks(hostile.litdata_index(LENGTHS), lengths, 8)


def test_the_form_is_the_one_that_optimize_writes() -> None:
    from services.optimize.optimize import ChunkLayout

    class Made:
        path, size, samples = "training/chunk-0-0.bin", 1000, 3

    [(path, data)] = ChunkLayout(1 << 26).extras([Made], {Made.path: DIGEST}).items()  # type: ignore[list-item]
    assert path == f"training/{chunks.INDEX}"
    assert chunks.parse(data) == {"chunk-0-0.bin": (1000, 3)}


def test_samples_of_unknown_splits_and_classes_are_not_chosen() -> None:
    samples = [IndexedSample(f"elsewhere/{number}.jpg", 1, number) for number in range(50)]
    counted = {"training": SplitSummary(samples=9, bytes=1, samples_per_class=[9])}
    manifest = MANIFEST.model_copy(update={"splits": counted})
    assert choose_samples(samples, manifest, 3, 0).paths == frozenset()
