"""Labels and splits of sources in a store are the same in every form of a dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import MakePicture
from tests.integration.index.conftest import BucketStages, tar_of
from tests.parquet import packed

pytestmark = pytest.mark.any_store


def metadata_of(rows: list[tuple[str, str]]) -> bytes:
    return "".join(json.dumps({"file_name": path, "label": label}) + "\n" for path, label in rows).encode()


def in_form(form: str, labels: list[str], photo: Callable[[int], bytes]) -> dict[str, bytes]:
    """Return images with these labels in a dataset of some form, by key."""
    rows = [(f"{number}.jpg", label) for number, label in enumerate(labels)]
    images = {path: photo(number) for number, (path, _) in enumerate(rows)}
    if form.startswith("Parquet"):
        kind = int if "numbers" in form else str
        return {"in/train.parquet": packed([(images[path], kind(label)) for path, label in rows], names=())}
    if form.startswith("shards"):
        pairs = [{path: images[path], path.replace("jpg", "cls"): label.encode()} for path, label in rows]
        listed = {"in/classes.txt": "\n".join("abcdefghijk").encode()} if "list" in form else {}
        return {
            f"in/train-00{half}.tar": tar_of({k: v for pair in pairs[half::2] for k, v in pair.items()})
            for half in (0, 1)
        } | listed
    table = {"csv": "labels.csv", "metadata": "metadata.jsonl"}[form]
    text = "file,label\n" + "".join(f"{path},{label}\n" for path, label in rows)
    content = text.encode() if form == "csv" else metadata_of(rows)
    return {f"in/{path}": image for path, image in images.items()} | {f"in/{table}": content}


NUMBERS = ["10", "3", "0", "1", "10", "3"]


@pytest.mark.parametrize(
    ("form", "classes", "expected"),
    [
        *(
            (form, ["0", "1", "3", "10"], [3, 2, 0, 1, 3, 2])
            for form in ("csv", "metadata", "Parquet of numbers", "Parquet of texts", "shards")
        ),
        ("shards with a list", list("abcdefghijk"), [10, 3, 0, 1, 10, 3]),
    ],
    ids=["csv", "metadata", "parquet-numbers", "parquet-texts", "shards", "shards-and-list"],
)
def test_labels_with_gaps_are_the_same_in_every_form(
    stages: BucketStages, picture: MakePicture, volume: Path, form: str, classes: list[str], expected: list[int]
) -> None:
    stages.put(in_form(form, NUMBERS, picture))
    stages.env |= {"LARDER_SOURCE": stages.uri("in/")}
    labels = {hashlib.sha256(picture(number)).hexdigest(): label for number, label in enumerate(expected)}
    for name in ("extract", "transform", "index"):
        done = stages(name)
        assert done.code == 0, done.stderr
        positions = "labels are positions in the list of classes: class 3 has the label 2" in done.stderr
        assert positions == (name != "extract" and "list" not in form)
    tree, found = volume / "Food-11/_larder", stages.objects("Food-11-index")
    [name] = [path for path in found if "/index-" in path]
    for manifest, lines in (
        ((tree / "manifest.json").read_bytes(), (tree / "index.jsonl").read_bytes()),
        (found["_larder/manifest.json"], found[name]),
    ):
        assert json.loads(manifest)["classes"] == classes
        assert {line["sha256"]: line["class"] for line in map(json.loads, lines.splitlines())} == labels


def test_a_mask_is_no_sample_of_its_own(stages: BucketStages, picture: MakePicture, volume: Path) -> None:
    members: dict[str, bytes] = {}
    for number in range(3):  # the mask of the second comes first, and the image of the third is damaged
        pair = {f"{number}.jpg": picture(number), f"{number}.mask.png": picture(10 + number)}
        members |= dict(reversed(pair.items())) if number == 1 else pair
        members[f"{number}.cls"] = b"cat"
    members["2.jpg"] = members["2.jpg"][:-200]
    stages.put({"in/train-000.tar": tar_of(members)})
    stages.env |= {"LARDER_SOURCE": stages.uri("in/"), "LARDER_ARCHIVE_FOLDERS": "archive"}
    assert stages("extract").code == 0
    for name in ("transform", "index"):
        failed = stages(name)
        assert failed.code == 4, failed.stderr
        assert "has the key of another image" in failed.stderr
        assert (done := stages(name, "--max-rejects=4")).code == 0, done.stderr
    index = stages.objects("Food-11-index")
    here = (volume / "rejects/rejects.jsonl").read_text().splitlines()
    there = index["_larder/rejects.jsonl"].decode().splitlines()
    ours, theirs = ({json.loads(line)["path"].rpartition("/")[2] for line in lines} for lines in (here, there))
    assert ours == theirs == {"0.mask.png", "1.mask.png", "2.mask.png", "2.jpg"}
    assert json.loads(index["_larder/manifest.json"])["files"] == 2


def test_a_column_of_splits_counts_in_parquet(stages: BucketStages) -> None:
    rows = [(b"\xff\xd8\xff%d" % number, number % 2) for number in range(4)]
    stages.put({"in/data.parquet": packed(rows, splits=["Train", "test", "holdout", None])})
    stages.env |= {"LARDER_SOURCE": stages.uri("in/")}
    refused = stages("index", "--verify=none")
    assert refused.code == 3, refused.stderr
    assert "rows without a split" in refused.stderr
    assert "LARDER_SPLITS=null=training" in refused.stderr
    done = stages("index", "--verify=none", env={"LARDER_SPLITS": "null=validation,holdout=-"})
    assert done.code == 0, done.stderr
    assert "(evaluation 1, training 1, validation 1)" in done.stderr
