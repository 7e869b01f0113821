"""Index foreign WebDataset shards in place: the result is that of extract and transform."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.conftest import MakePicture, ReadObjects, Stage
from tests.integration.index.conftest import Put, tar_of

Labels = dict[str, bytes]


CASES: dict[str, tuple[dict[str, Labels], dict[str, bytes], dict[str, str]]] = {
    "numbers": ({"train-000": {"a": b"00", "b": b"7"}, "val-000": {"c": b"0"}}, {}, {}),
    "a list of classes": ({"x/train-000": {"a": b"0", "b": b"1"}}, {"x/classes.json": b'["dog", "cat", "cow"]'}, {}),
    "names, some left out": (
        {"train-000": {"a": b"dog\n", "b": "\u00fc".encode()}, "more-000": {"c": b"cow"}},
        {},
        {"LARDER_SPLITS": "more=-"},
    ),
    "one name in two folders": (
        {"train-000": {"a/1": b"1", "b/1": b"1"}, "train-001": {"c/1": b"1", "2": b"1"}},
        {},
        {},
    ),
    "one name in two shards": (
        {"train-000": {"1": b"1", "2": b"0"}, "val-000": {"1": b"1"}, "train-001": {"1": b"1", "3": b"1"}},
        {},
        {"LARDER_ARCHIVE_FOLDERS": "archive"},
    ),
    "splits that are given": (
        {"set-train-000": {"a": b"1"}, "set-val-000": {"b": b"0"}},
        {},
        {"LARDER_SPLITS": "set-train=training,set-val=validation"},
    ),
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("case", CASES)
def test_shards_are_those_of_the_extracted_source(
    stage: Stage,
    picture: MakePicture,
    put: Put,
    env: dict[str, str],
    bucket: str,
    volume: Path,
    tmp_path: Path,
    objects: ReadObjects,
    case: str,
) -> None:
    shards, beside, given = CASES[case]
    for number, (name, labels) in enumerate(shards.items()):
        members: dict[str, bytes] = {}
        if number == 0:
            label = next(iter(labels.values()))
            members = {"z.seg.png": picture(98), "z.jpg": picture(99), "z.cls": label, "y.cls": label}
        for place, (key, label) in enumerate(labels.items()):
            members |= {f"{key}.jpg": picture(10 * number + place), f"{key}.cls": label}
        put({f"in/{name}.tar": tar_of(members)})
    put({f"in/{path}": content for path, content in beside.items()})
    env |= {"LARDER_SOURCE": f"s3://{bucket}/in/", "LARDER_MAX_REJECTS": "2"} | given
    for name in ("extract", "transform"):
        assert (done := stage(name, env=env)).code == 0, done.stderr
    assert (done := stage("index", env=env)).code == 0, done.stderr
    index = objects("Food-11-index")
    here, there = (volume / "Food-11/_larder/manifest.json").read_bytes(), index["_larder/manifest.json"]
    assert json.loads(there)["classes"] == json.loads(here)["classes"]
    [lines_there] = [content for path, content in index.items() if "/index-" in path]
    lines = [
        [json.loads(line) for line in text.splitlines()]
        for text in ((volume / "Food-11/_larder/index.jsonl").read_bytes(), lines_there)
    ]
    trees, indexed = ([[line[key] for key in ("path", "sha256", "class")] for line in some] for some in lines)
    assert indexed == trees
    rejects = [json.loads(line)["reason"] for line in index["_larder/rejects.jsonl"].splitlines()]
    assert rejects == ["has no image with its key in the shard", "has the key of another image, 'z.jpg'"], (
        "a mask is no sample"
    )
