"""Index sources in a store and pack from there: the result is that of extract and transform."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.integration.conftest import MakePicture
from tests.integration.index.conftest import BucketStages, tar_of, zip_of
from tests.parquet import packed

pytestmark = pytest.mark.any_store

SIZE = "--shard-bytes=40000"


def packs(found: dict[str, bytes]) -> dict[str, bytes]:
    """Return shards and the index of samples, without manifest and run.json."""
    named = {"samples.jsonl" if "/samples-" in path else path: content for path, content in found.items()}
    return {path: content for path, content in named.items() if "_larder/" not in path}


def by_split(files: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    splits: dict[str, dict[str, bytes]] = {}
    for path, content in files.items():
        split, _, inside = path.partition("/")
        splits.setdefault(split, {})[inside] = content
    return {split: found for split, found in splits.items() if split != "README.md"}


def as_objects(kind: str, photos: dict[str, bytes]) -> dict[str, bytes]:
    """Return the photos as a kind of source, by key."""
    if kind == "a prefix":
        return {f"in/my photos/{path}": content for path, content in photos.items()}
    if kind == "a table":
        images = {path: content for path, content in photos.items() if path.endswith(".jpg") and "/." not in path}
        rows = "".join(f"{path.replace('/', '_')},{path.split('/')[1]},{path.split('/')[0]}\n" for path in images)
        flat = {path.replace("/", "_"): content for path, content in images.items()}
        return {f"in/{path}": content for path, content in flat.items()} | {
            "in/labels.csv": f"file,label,split\n{rows}".encode()
        }
    if kind == "Parquet files":
        by_rows = {
            split: [
                (content, int(path.startswith("dog")))
                for path, content in found.items()
                if content.startswith(b"\xff\xd8")
            ]
            for split, found in by_split(photos).items()
        }
        return {
            f"in/data/{split}-0000{half}-of-00002.parquet": packed(by_rows[split][half::2], group=7)
            for split in by_rows
            for half in (0, 1)
        }
    if kind == "tar archives":
        return {
            f"in/{split}-00{half}.tar": tar_of(dict(list(found.items())[half::2]))
            for split, found in by_split(photos).items()
            for half in (0, 1)
        }
    return {"in/photos.zip": zip_of(photos, zipfile.ZIP_DEFLATED if "deflated" in kind else zipfile.ZIP_STORED)}


SOURCES = {
    "a prefix": "in",
    "a table": "in/",
    "tar archives": "in/*.tar",
    "a zip archive": "in/photos.zip",
    "a deflated zip archive": "in/photos.zip",
    "Parquet files": "in",
}


@pytest.mark.parametrize("kind", SOURCES)
def test_packs_are_those_of_the_extracted_source(
    stages: BucketStages, photos: dict[str, bytes], kind: str, volume: Path, empty: Path
) -> None:
    stages.put(as_objects(kind, photos))
    stages.env |= {"LARDER_SOURCE": stages.uri(SOURCES[kind])}
    for name in ("extract", "transform"):
        assert (done := stages(name)).code == 0, done.stderr
    assert "\n  all " in done.stderr, "the table has lines"
    tree = [json.loads(line) for line in (volume / "Food-11/_larder/index.jsonl").read_text().splitlines()]
    here = stages("shard", SIZE, f"--dest=s3://{stages.bucket}/here/Food-11-webdataset")
    assert here.code == 0, here.stderr

    indexed = stages("index", volume=empty)
    assert indexed.code == 0, indexed.stderr
    assert (
        f"make etl-wds LARDER_INPUT=s3://{stages.bucket}/Food-11-index LARDER_DEST=s3://{stages.bucket}/Food-11-"
        in indexed.stderr
    )
    assert "\n  all " in indexed.stderr
    index = stages.objects("Food-11-index")
    manifest = json.loads(index["_larder/manifest.json"])
    assert (manifest["artifact"], manifest["classes"]) == ("index", ["cat", "dog"])
    [name] = [path for path in index if "/index-" in path]
    lines = [json.loads(line) for line in index[name].decode().splitlines()]
    shared = ("path", "bytes", "sha256", "class", "width", "height")
    assert [[line[key] for key in shared] for line in lines] == [[line[key] for key in shared] for line in tree]
    assert not [path for path in empty.rglob("*") if path.is_file() and path.name != "lock"], "nothing stays here"

    flags = (
        SIZE,
        f"--input=s3://{stages.bucket}/Food-11-index",
        f"--dest=s3://{stages.bucket}/there/Food-11-webdataset",
    )
    assert (done := stages("shard", *flags, volume=empty)).code == 0, done.stderr
    assert packs(stages.objects("there/Food-11-webdataset")) == packs(stages.objects("here/Food-11-webdataset"))
    assert "up to date" in stages("index", volume=empty).stderr
    checked = stages("verify", env={"S3_PREFIX": "there", "LARDER_VERIFY_SAMPLES": "all"}, volume=empty)
    assert checked.code == 0, checked.stdout + checked.stderr


@pytest.mark.exhaustive
def test_chunks_are_those_of_the_extracted_source(stages: BucketStages, photos: dict[str, bytes], empty: Path) -> None:
    stages.put({f"in/{path}": content for path, content in photos.items()})
    stages.env |= {"LARDER_SOURCE": stages.uri("in")}
    for name in ("extract", "transform", "index"):
        assert (done := stages(name)).code == 0, done.stderr
    index = f"--input=s3://{stages.bucket}/Food-11-index"
    size = "--chunk-bytes=40000"
    assert (done := stages("optimize", size, f"--dest=s3://{stages.bucket}/tree")).code == 0, done.stderr
    done = stages("optimize", size, index, f"--dest=s3://{stages.bucket}/index", volume=empty)
    assert done.code == 0, done.stderr
    assert packs(stages.objects("index")) == packs(stages.objects("tree")) != {}


def test_repacked_shards_keep_their_bytes(stages: BucketStages, photos: dict[str, bytes]) -> None:
    """larder's own shards: the manifest names the classes, and the folders are the splits."""
    plain = {path.replace("cat.", "").replace("dog.", ""): content for path, content in photos.items()}
    stages.put({f"in/{path}": content for path, content in plain.items()})
    assert stages("index", env={"LARDER_SOURCE": stages.uri("in")}).code == 0
    flags = (SIZE, f"--input=s3://{stages.bucket}/Food-11-index", f"--dest=s3://{stages.bucket}/Food-11-webdataset")
    assert stages("shard", *flags).code == 0
    stages.env |= {"LARDER_SOURCE": stages.uri("Food-11-webdataset"), "S3_PREFIX": "again"}
    assert (done := stages("index")).code == 0, done.stderr
    assert "recognized: WebDataset shards" in done.stderr
    assert json.loads(stages.objects("again/Food-11-index")["_larder/manifest.json"])["classes"] == ["cat", "dog"]
    flags = (
        SIZE,
        f"--input=s3://{stages.bucket}/again/Food-11-index",
        f"--dest=s3://{stages.bucket}/again/Food-11-webdataset",
    )
    assert (done := stages("shard", *flags)).code == 0, done.stderr
    assert packs(stages.objects("again/Food-11-webdataset")) == packs(stages.objects("Food-11-webdataset"))
    checked = stages("verify", "--samples=all")
    assert checked.code == 0, checked.stdout + checked.stderr
    assert "index in the store" in checked.stdout


def test_shards_of_others(stages: BucketStages, picture: MakePicture) -> None:
    """Labels are names, splits are in the shards' names, and every shard counts from zero."""
    shards = {}
    for number, name in enumerate(("set-train-000", "set-train-001", "set-val-000")):
        members: dict[str, bytes] = {}
        for key in range(6):
            members |= {
                f"{key:04d}.jpeg": picture(10 * number + key),
                f"{key:04d}.cls": (b"cat\n", b"dog")[key % 2],
                f"{key:04d}.json": b"{}",
            }
        shards[f"in/{name}.tar"] = tar_of(members)
    stages.put(shards)
    stages.env |= {
        "LARDER_SOURCE": stages.uri("in/*.tar"),
        "LARDER_SPLITS": "set-train=training,set-val=validation",
    }
    assert (done := stages("index")).code == 0, done.stderr
    index = stages.objects("Food-11-index")
    manifest = json.loads(index["_larder/manifest.json"])
    assert manifest["classes"] == ["cat", "dog"]
    assert {split: there["samples_per_class"] for split, there in manifest["splits"].items()} == {
        "training": [6, 6],
        "validation": [3, 3],
    }
    [name] = [path for path in index if "/index-" in path]
    paths = [json.loads(line)["path"] for line in index[name].splitlines()]
    assert "training/class_00/set-train-001_0000.jpeg" in paths, "two shards have a 0000.jpeg"
    assert "validation/class_00/0000.jpeg" in paths


def test_rejects_and_what_is_left_out(stages: BucketStages, photos: dict[str, bytes], volume: Path) -> None:
    stages.put({f"in/{path}": content for path, content in photos.items()})
    stages.put(
        {
            "in/train/cat/cut.jpg": photos["train/cat/cat.0.jpg"][:-200],
            "in/train/dog/a.gif": b"GIF89a",
            "in/train/dog/nameless": photos["train/cat/cat.0.jpg"],
            "in/elsewhere.jpg": b"x",
        }
    )
    stages.env |= {"LARDER_SOURCE": stages.uri("in")}
    assert stages("extract").code == 0
    here = stages("transform", "--max-rejects=9")
    assert here.code == 0, here.stderr
    failed = stages("index")
    assert failed.code == 4, failed.stderr
    assert "_larder/manifest.json" not in stages.objects("Food-11-index")
    there = stages("index", "--max-rejects=9")
    assert there.code == 0, there.stderr
    assert "continuing an earlier run" in there.stderr
    index = stages.objects("Food-11-index")
    assert index["_larder/rejects.jsonl"] == (volume / "rejects/rejects.jsonl").read_bytes()
    left_out = volume / "Food-11/_larder/left-out.jsonl"
    assert set(left_out.read_bytes().splitlines()) <= set(index["_larder/left-out.jsonl"].splitlines())
    assert "index" in stages("index", "--max-rejects=9").stderr


def test_what_has_changed_since(stages: BucketStages, photos: dict[str, bytes]) -> None:
    stages.put({f"in/{path}": content for path, content in photos.items()})
    stages.put(
        {"packed/train.tar": tar_of({path[6:]: data for path, data in photos.items() if path.startswith("train/")})}
    )
    assert stages("index", env={"LARDER_SOURCE": stages.uri("in")}).code == 0
    done = stages("index", env={"LARDER_SOURCE": stages.uri("packed/train.tar"), "S3_PREFIX": "b"})
    assert done.code == 0, done.stderr
    path, inside = "in/train/cat/cat.8.jpg", photos["train/cat/cat.8.jpg"]
    stages.put({path: bytes(len(inside))})
    flags = (SIZE, f"--input=s3://{stages.bucket}/Food-11-index", f"--dest=s3://{stages.bucket}/Food-11-webdataset")
    result = stages("shard", *flags)
    assert (result.code, f"s3://{stages.bucket}/{path} has changed since it was indexed" in result.stderr) == (3, True)
    assert "run `make index`" in result.stderr
    checked = stages("verify", "--samples=all")
    assert (checked.code, f"{path} has changed" in checked.stdout) == (3, True), checked.stdout
    stages.store.client.delete_object(Bucket=stages.bucket, Key=path)
    assert f"{path} is gone since it was indexed" in stages("shard", *flags).stderr
    assert stages("index", env={"LARDER_SOURCE": stages.uri("in")}).code == 0
    assert stages("shard", *flags).code == 0
    stages.put({"packed/train.tar": bytes(200_000)})
    flags = (SIZE, f"--input=s3://{stages.bucket}/b/Food-11-index", f"--dest=s3://{stages.bucket}/b/Food-11-webdataset")
    result = stages("shard", *flags)
    assert (result.code, stages.uri("packed/train.tar (") in result.stderr) == (3, True), result.stderr


def test_where_something_else_lies(stages: BucketStages, photos: dict[str, bytes]) -> None:
    stages.put({f"in/{path}": content for path, content in photos.items()})
    stages.env |= {"LARDER_SOURCE": stages.uri("in")}
    assert stages("index").code == 0
    flags = (SIZE, f"--input=s3://{stages.bucket}/Food-11-index")
    packs_there = stages("shard", *flags, f"--dest=s3://{stages.bucket}/Food-11-index")
    assert (packs_there.code, "holds 'index' data" in packs_there.stderr) == (2, True), packs_there.stderr
    assert stages("shard", *flags, f"--dest=s3://{stages.bucket}/other-index").code == 0
    index_there = stages("index", "--dataset=other")
    assert (index_there.code, "holds 'webdataset' data" in index_there.stderr) == (2, True), index_there.stderr
    wrong = stages("index", env={"LARDER_SOURCE": "photos/"})
    assert (wrong.code, "must be s3://bucket/prefix/" in wrong.stderr) == (2, True)
    assert stages("index", env={"LARDER_RECIPE": "food11"}).code == 3
