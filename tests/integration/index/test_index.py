"""Index sources in a store and pack from there: the result is that of extract and transform."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from larder.sources.prefix_reader import PrefixReader
from larder.store import StoreSettings
from services.index.listing import ObjectListing, list_parallel
from tests.conftest import StartProxy, Store, wait_until, workers_of
from tests.integration.conftest import MakePicture, ReadObjects, Stage
from tests.integration.index.conftest import Put, tar_of, zip_of
from tests.many_objects import BUCKET, many_objects
from tests.parquet import packed

pytestmark = pytest.mark.any_store

SIZE = "--shard-bytes=40000"


def packs(found: dict[str, bytes]) -> dict[str, bytes]:
    """Shards, and where each sample lies in them."""
    named = {"samples.jsonl" if "/samples-" in path else path: content for path, content in found.items()}
    return {path: content for path, content in named.items() if "_larder/" not in path}


def by_split(files: dict[str, bytes]) -> dict[str, dict[str, bytes]]:
    splits: dict[str, dict[str, bytes]] = {}
    for path, content in files.items():
        split, _, inside = path.partition("/")
        splits.setdefault(split, {})[inside] = content
    return {split: found for split, found in splits.items() if split != "README.md"}


def as_objects(kind: str, photos: dict[str, bytes]) -> dict[str, bytes]:
    """The photos as a source of a kind, by key."""
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
        rows = {
            split: [
                (content, int(path.startswith("dog")))
                for path, content in found.items()
                if content.startswith(b"\xff\xd8")
            ]
            for split, found in by_split(photos).items()
        }
        return {
            f"in/data/{split}-0000{half}-of-00002.parquet": packed(rows[split][half::2], group=7)
            for split in rows
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
    stage: Stage,
    photos: dict[str, bytes],
    put: Put,
    env: dict[str, str],
    bucket: str,
    objects: ReadObjects,
    kind: str,
    tmp_path: Path,
    volume: Path,
) -> None:
    put(as_objects(kind, photos))
    env |= {"LARDER_SOURCE": f"s3://{bucket}/{SOURCES[kind]}"}
    for name in ("extract", "transform"):
        assert (done := stage(name, env=env)).code == 0, done.stderr
    assert "\n  all " in done.stderr, "the table has lines"
    tree = [json.loads(line) for line in (volume / "Food-11/_larder/index.jsonl").read_text().splitlines()]
    here = stage("shard", SIZE, f"--dest=s3://{bucket}/here/Food-11-webdataset", env=env)
    assert here.code == 0, here.stderr

    empty = tmp_path / "empty"
    empty.mkdir()
    indexed = stage("index", env=env, volume=empty)
    assert indexed.code == 0, indexed.stderr
    assert f"make etl-wds LARDER_INPUT=s3://{bucket}/Food-11-index LARDER_DEST=s3://{bucket}/Food-11-" in indexed.stderr
    assert "\n  all " in indexed.stderr
    found = objects("Food-11-index")
    manifest = json.loads(found["_larder/manifest.json"])
    assert (manifest["artifact"], manifest["classes"]) == ("index", ["cat", "dog"])
    [name] = [path for path in found if "/index-" in path]
    lines = [json.loads(line) for line in found[name].decode().splitlines()]
    shared = ("path", "bytes", "sha256", "class", "width", "height")
    assert [[line[key] for key in shared] for line in lines] == [[line[key] for key in shared] for line in tree]
    assert not [path for path in empty.rglob("*") if path.is_file() and path.name != "lock"], "nothing stays here"

    flags = (SIZE, f"--input=s3://{bucket}/Food-11-index", f"--dest=s3://{bucket}/there/Food-11-webdataset")
    assert (done := stage("shard", *flags, env=env, volume=empty)).code == 0, done.stderr
    assert packs(objects("there/Food-11-webdataset")) == packs(objects("here/Food-11-webdataset"))
    assert "up to date" in stage("index", env=env, volume=empty).stderr
    checked = stage("verify", env=env | {"S3_PREFIX": "there", "LARDER_VERIFY_SAMPLES": "all"}, volume=empty)
    assert checked.code == 0, checked.stdout + checked.stderr


@pytest.mark.exhaustive
def test_chunks_are_those_of_the_extracted_source(
    stage: Stage,
    photos: dict[str, bytes],
    put: Put,
    env: dict[str, str],
    bucket: str,
    objects: ReadObjects,
    tmp_path: Path,
) -> None:
    put({f"in/{path}": content for path, content in photos.items()})
    env |= {"LARDER_SOURCE": f"s3://{bucket}/in"}
    for name in ("extract", "transform", "index"):
        assert (done := stage(name, env=env)).code == 0, done.stderr
    volume = tmp_path / "empty"
    volume.mkdir()
    index = f"--input=s3://{bucket}/Food-11-index"
    size = "--chunk-bytes=40000"
    assert (done := stage("optimize", size, f"--dest=s3://{bucket}/tree", env=env)).code == 0, done.stderr
    done = stage("optimize", size, index, f"--dest=s3://{bucket}/index", env=env, volume=volume)
    assert done.code == 0, done.stderr
    assert packs(objects("index")) == packs(objects("tree")) != {}


def test_repacked_shards_keep_their_bytes(
    stage: Stage, photos: dict[str, bytes], put: Put, env: dict[str, str], bucket: str, objects: ReadObjects
) -> None:
    """larder's own shards: the manifest names the classes, and the folders are the splits."""
    plain = {path.replace("cat.", "").replace("dog.", ""): content for path, content in photos.items()}
    put({f"in/{path}": content for path, content in plain.items()})
    assert stage("index", env=env | {"LARDER_SOURCE": f"s3://{bucket}/in"}).code == 0
    flags = (SIZE, f"--input=s3://{bucket}/Food-11-index", f"--dest=s3://{bucket}/Food-11-webdataset")
    assert stage("shard", *flags, env=env).code == 0
    env |= {"LARDER_SOURCE": f"s3://{bucket}/Food-11-webdataset", "S3_PREFIX": "again"}
    assert (done := stage("index", env=env)).code == 0, done.stderr
    assert "recognized: WebDataset shards" in done.stderr
    assert json.loads(objects("again/Food-11-index")["_larder/manifest.json"])["classes"] == ["cat", "dog"]
    flags = (SIZE, f"--input=s3://{bucket}/again/Food-11-index", f"--dest=s3://{bucket}/again/Food-11-webdataset")
    assert (done := stage("shard", *flags, env=env)).code == 0, done.stderr
    assert packs(objects("again/Food-11-webdataset")) == packs(objects("Food-11-webdataset"))
    checked = stage("verify", "--samples=all", env=env)
    assert checked.code == 0, checked.stdout + checked.stderr
    assert "index in the store" in checked.stdout


def test_shards_of_others(
    stage: Stage, picture: MakePicture, put: Put, env: dict[str, str], bucket: str, objects: ReadObjects
) -> None:
    """Labels are names, splits are in the shards' names, and every shard counts from zero."""
    shards = {}
    for number, name in enumerate(("set-train-000", "set-train-001", "set-val-000")):
        members = {}
        for key in range(6):
            members |= {
                f"{key:04d}.jpeg": picture(10 * number + key),
                f"{key:04d}.cls": (b"cat\n", b"dog")[key % 2],
                f"{key:04d}.json": b"{}",
            }
        shards[f"in/{name}.tar"] = tar_of(members)
    put(shards)
    env |= {"LARDER_SOURCE": f"s3://{bucket}/in/*.tar", "LARDER_SPLITS": "set-train=training,set-val=validation"}
    assert (done := stage("index", env=env)).code == 0, done.stderr
    found = objects("Food-11-index")
    manifest = json.loads(found["_larder/manifest.json"])
    assert manifest["classes"] == ["cat", "dog"]
    assert {split: there["samples_per_class"] for split, there in manifest["splits"].items()} == {
        "training": [6, 6],
        "validation": [3, 3],
    }
    [name] = [path for path in found if "/index-" in path]
    paths = [json.loads(line)["path"] for line in found[name].splitlines()]
    assert "training/class_00/set-train-001_0000.jpeg" in paths, "two shards have a 0000.jpeg"
    assert "validation/class_00/0000.jpeg" in paths


class Held:
    """Holds back a store's answers for the images of a class."""

    def __init__(self, between: Any, class_name: str) -> None:
        self._between, self._class_name, self._go = between, class_name, threading.Event()
        self.paths = set[str]()
        between.fault = self._hold

    def _hold(self, method: str, path: str, number: int) -> None:
        if method == "GET" and f"/{self._class_name}/" in path:
            self.paths.add(path)
            self._go.wait()

    def release(self) -> None:
        self._between.fault = lambda method, path, number: None
        self._go.set()


@pytest.mark.parametrize("killed", ["run", "worker"])
def test_a_killed_one_goes_on(
    stage: Stage,
    picture: MakePicture,
    put: Put,
    store: Store,
    env: dict[str, str],
    bucket: str,
    objects: ReadObjects,
    proxy: StartProxy,
    killed: str,
) -> None:
    # Objects are checked in batches of 64: three of cats, which end, then two of dogs, one for each worker.
    put({f"in/{'cat' if number < 192 else 'dog'}/{number:04d}.jpg": picture(number) for number in range(300)})
    env |= {"LARDER_SOURCE": f"s3://{bucket}/in/"}
    whole = stage("index", env=env | {"S3_PREFIX": "whole", "LARDER_WORKERS": "2"})
    assert whole.code == 0, whole.stderr
    between = proxy(store)
    held = Held(between, "dog")
    env |= {"S3_ENDPOINT_URL": between.endpoint, "LARDER_WORKERS": "1" if killed == "run" else "2"}
    process = stage.start("index", env=env)
    first_of_batches = ["0192.jpg"] if killed == "run" else ["0192.jpg", "0256.jpg"]
    wait_until(lambda: all(name in " ".join(tuple(held.paths)) for name in first_of_batches), "dogs are read")
    if killed == "run":
        process.send_signal(signal.SIGKILL)
    else:
        workers_of(process)[0].kill()
    _, said = process.communicate(timeout=120)
    assert killed == "run" or (process.returncode, "a worker process was killed" in said) == (3, True), said
    held.release()
    assert "_larder/manifest.json" not in objects("Food-11-index")
    between.settle()
    between.requests.clear()
    again = stage("index", env=env)
    assert again.code == 0, again.stderr
    assert "continuing an earlier run" in again.stderr
    assert between.count("GET", "/cat/") == 0, "what was checked is not read again"
    assert objects("Food-11-index") == objects("whole/Food-11-index")


def test_what_has_changed_since(
    stage: Stage, photos: dict[str, bytes], put: Put, store: Store, env: dict[str, str], bucket: str
) -> None:
    put({f"in/{path}": content for path, content in photos.items()})
    put({"packed/train.tar": tar_of({path[6:]: data for path, data in photos.items() if path.startswith("train/")})})
    assert stage("index", env=env | {"LARDER_SOURCE": f"s3://{bucket}/in"}).code == 0
    done = stage("index", env=env | {"LARDER_SOURCE": f"s3://{bucket}/packed/train.tar", "S3_PREFIX": "b"})
    assert done.code == 0, done.stderr
    path, inside = "in/train/cat/cat.8.jpg", photos["train/cat/cat.8.jpg"]
    put({path: bytes(len(inside))})
    flags = (SIZE, f"--input=s3://{bucket}/Food-11-index", f"--dest=s3://{bucket}/Food-11-webdataset")
    result = stage("shard", *flags, env=env)
    assert (result.code, f"s3://{bucket}/{path} has changed since it was indexed" in result.stderr) == (3, True)
    assert "run `make index`" in result.stderr
    checked = stage("verify", "--samples=all", env=env)
    assert (checked.code, f"{path} has changed" in checked.stdout) == (3, True), checked.stdout
    store.client.delete_object(Bucket=bucket, Key=path)
    assert f"{path} is gone since it was indexed" in stage("shard", *flags, env=env).stderr
    assert stage("index", env=env | {"LARDER_SOURCE": f"s3://{bucket}/in"}).code == 0
    assert stage("shard", *flags, env=env).code == 0
    put({"packed/train.tar": bytes(200_000)})
    flags = (SIZE, f"--input=s3://{bucket}/b/Food-11-index", f"--dest=s3://{bucket}/b/Food-11-webdataset")
    result = stage("shard", *flags, env=env)
    assert (result.code, f"s3://{bucket}/packed/train.tar (" in result.stderr) == (3, True), result.stderr


def test_rejects_and_what_is_left_out(
    stage: Stage,
    photos: dict[str, bytes],
    put: Put,
    env: dict[str, str],
    bucket: str,
    objects: ReadObjects,
    volume: Path,
) -> None:
    put({f"in/{path}": content for path, content in photos.items()})
    put(
        {
            "in/train/cat/cut.jpg": photos["train/cat/cat.0.jpg"][:-200],
            "in/train/dog/a.gif": b"GIF89a",
            "in/train/dog/nameless": photos["train/cat/cat.0.jpg"],
            "in/elsewhere.jpg": b"x",
        }
    )
    env |= {"LARDER_SOURCE": f"s3://{bucket}/in"}
    assert stage("extract", env=env).code == 0
    here = stage("transform", "--max-rejects=9", env=env)
    assert here.code == 0, here.stderr
    failed = stage("index", env=env)
    assert failed.code == 4, failed.stderr
    assert "_larder/manifest.json" not in objects("Food-11-index")
    there = stage("index", "--max-rejects=9", env=env)
    assert there.code == 0, there.stderr
    assert "continuing an earlier run" in there.stderr
    found = objects("Food-11-index")
    assert found["_larder/rejects.jsonl"] == (volume / "rejects/rejects.jsonl").read_bytes()
    left_out = volume / "Food-11/_larder/left-out.jsonl"
    assert set(left_out.read_bytes().splitlines()) <= set(found["_larder/left-out.jsonl"].splitlines())
    assert "index" in stage("index", "--max-rejects=9", env=env).stderr


IMAGES = {f"{label}/{number}.jpg": b"%d" % number for label in ("cat", "dog") for number in range(3)}
REFUSED = {
    "compressed members": ({"a.zip": zip_of({"cat/1.jpg": b"1" * 999}, zipfile.ZIP_BZIP2)}, "a.zip", "zip -0"),
    "a compressed tar": ({"a.tar.gz": tar_of(IMAGES, "w:gz")}, "a.tar.gz", "compressed as a whole (gzip)"),
    "no archive": ({"a.tar": b"nothing of the kind" * 99}, "a.tar", "a.tar"),
    "no Parquet file": ({"in/train-0.parquet": b"PAR1"}, "in/", "train-0.parquet is damaged"),
    "Parquet files in Zstandard": (
        {"in/train-0.parquet": packed([(b"1", 0), (b"2", 1)], compression="zstd")},
        "in/",
        "compressed with ZSTD",
    ),
    "a table in an archive": ({"a.tar": tar_of({"labels.csv": b"file,label\n"} | IMAGES)}, "a.tar", "labels.csv"),
    "archives in an archive": (
        {"a.zip": zip_of({"bird.tar": tar_of({"1.jpg": b"1"})} | IMAGES)},
        "a.zip",
        "holds the archive 'bird.tar'",
    ),
    "a member twice": ({"a.tar": 2 * tar_of(IMAGES)[:6144] + bytes(1024)}, "a.tar", "is in it twice"),
    "a label of any length": (
        {"a.tar": tar_of({"1.jpg": b"1", "1.cls": b"1" * 2000})},
        "a.tar",
        "1.cls: has more than 1,024 bytes",
    ),
    "splits that names may mean": (
        {f"in/imagenet-{split}-000000.tar": tar_of({"1.jpg": b"1", "1.cls": b"1"}) for split in ("train", "val")},
        "in/",
        "LARDER_SPLITS=imagenet-train=training,imagenet-val=validation",
    ),
    "the same source twice": ({"in/a.tar": tar_of(IMAGES)}, "in/\n{source}in/", "'a.tar' is listed twice"),
    "nothing": ({}, "in/", "holds no objects"),
    "no such object": ({}, "a.tar", "does not exist"),
    "images without classes": ({"in/1.jpg": b"1"}, "in/", "no recipe recognizes the layout"),
    "labels for some": (
        {"in/a.tar": tar_of(IMAGES), "in/b.tar": tar_of({"1.jpg": b"1", "1.cls": b"1"})},
        "in/",
        "separately",
    ),
}


def test_a_column_of_splits_counts_in_parquet(stage: Stage, put: Put, env: dict[str, str], bucket: str) -> None:
    rows = [(b"\xff\xd8\xff%d" % number, number % 2) for number in range(4)]
    put({"in/data.parquet": packed(rows, splits=["Train", "test", "holdout", None])})
    env |= {"LARDER_SOURCE": f"s3://{bucket}/in/"}
    refused = stage("index", "--verify=none", env=env)
    assert refused.code == 3, refused.stderr
    assert "rows without a split" in refused.stderr
    assert "LARDER_SPLITS=null=training" in refused.stderr
    done = stage("index", "--verify=none", env=env | {"LARDER_SPLITS": "null=validation,holdout=-"})
    assert done.code == 0, done.stderr
    assert "(evaluation 1, training 1, validation 1)" in done.stderr


@pytest.mark.parametrize("why", REFUSED)
def test_what_can_not_be_indexed(stage: Stage, put: Put, env: dict[str, str], bucket: str, why: str) -> None:
    there, source, words = REFUSED[why]
    put(there)
    source = source.replace("{source}", f"s3://{bucket}/")
    result = stage("index", "--verify=none", env=env | {"LARDER_SOURCE": f"s3://{bucket}/{source}"})
    assert result.code in (2, 3), result.stderr
    assert words in result.stderr
    assert "next step:" in result.stderr
    assert "Traceback" not in result.stderr


def test_where_something_else_lies(
    stage: Stage, put: Put, env: dict[str, str], bucket: str, photos: dict[str, bytes]
) -> None:
    put({f"in/{path}": content for path, content in photos.items()})
    env |= {"LARDER_SOURCE": f"s3://{bucket}/in"}
    assert stage("index", env=env).code == 0
    flags = (SIZE, f"--input=s3://{bucket}/Food-11-index")
    packs_there = stage("shard", *flags, f"--dest=s3://{bucket}/Food-11-index", env=env)
    assert (packs_there.code, "holds 'index' data" in packs_there.stderr) == (2, True), packs_there.stderr
    assert stage("shard", *flags, f"--dest=s3://{bucket}/other-index", env=env).code == 0
    index_there = stage("index", "--dataset=other", env=env)
    assert (index_there.code, "holds 'webdataset' data" in index_there.stderr) == (2, True), index_there.stderr
    wrong = stage("index", env=env | {"LARDER_SOURCE": "photos/"})
    assert (wrong.code, "must be s3://bucket/prefix/" in wrong.stderr) == (2, True)
    assert stage("index", env=env | {"LARDER_RECIPE": "food11"}).code == 3


@pytest.mark.parametrize("count", [20_000, pytest.param(80_000, marks=pytest.mark.exhaustive)])
def test_a_listing_of_any_length_takes_no_memory(tmp_path: Path, count: int) -> None:
    with many_objects(count) as (server, address):
        settings = StoreSettings.load("store", [], {"S3_ENDPOINT_URL": address, "LARDER_UNSIGNED": "true"})
        prefix, listing = (
            PrefixReader(f"s3://{BUCKET}/", settings, count),
            ObjectListing(tmp_path / "listing.sqlite", count),
        )
        prefix.list_page(prefix.start)  # its client takes memory, too
        tracemalloc.start()
        for page in list_parallel(prefix):
            listing.add("many", BUCKET, page.objects, page.keys)
        listing.finish()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (listing.files, sum(1 for _ in listing.paths())) == (count, count)
    assert server.requests <= count / 1000 + 70, "a thousand in a request"
    assert peak < 48 << 20


def metadata_of(rows: list[tuple[str, str]]) -> bytes:
    return "".join(json.dumps({"file_name": path, "label": label}) + "\n" for path, label in rows).encode()


def in_form(form: str, labels: list[str], photo: Callable[[int], bytes]) -> dict[str, bytes]:
    """Images with these labels in one of the forms that datasets have, by key."""
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
    stage: Stage,
    picture: MakePicture,
    put: Put,
    env: dict[str, str],
    bucket: str,
    objects: ReadObjects,
    volume: Path,
    form: str,
    classes: list[str],
    expected: list[int],
) -> None:
    put(in_form(form, NUMBERS, picture))
    env |= {"LARDER_SOURCE": f"s3://{bucket}/in/"}
    wanted = {hashlib.sha256(picture(number)).hexdigest(): label for number, label in enumerate(expected)}
    for name in ("extract", "transform", "index"):
        done = stage(name, env=env)
        assert done.code == 0, done.stderr
        positions = "labels are positions in the list of classes: class 3 has the label 2" in done.stderr
        assert positions == (name != "extract" and "list" not in form)
    tree, found = volume / "Food-11/_larder", objects("Food-11-index")
    [name] = [path for path in found if "/index-" in path]
    for manifest, lines in (
        ((tree / "manifest.json").read_bytes(), (tree / "index.jsonl").read_bytes()),
        (found["_larder/manifest.json"], found[name]),
    ):
        assert json.loads(manifest)["classes"] == classes
        assert {line["sha256"]: line["class"] for line in map(json.loads, lines.splitlines())} == wanted


def test_a_mask_is_no_sample_of_its_own(
    stage: Stage,
    picture: MakePicture,
    put: Put,
    env: dict[str, str],
    bucket: str,
    objects: ReadObjects,
    volume: Path,
) -> None:
    members = {}
    for number in range(3):  # the mask of the second comes first, and the image of the third is damaged
        pair = {f"{number}.jpg": picture(number), f"{number}.mask.png": picture(10 + number)}
        members |= dict(reversed(pair.items())) if number == 1 else pair
        members[f"{number}.cls"] = b"cat"
    members["2.jpg"] = members["2.jpg"][:-200]
    put({"in/train-000.tar": tar_of(members)})
    env |= {"LARDER_SOURCE": f"s3://{bucket}/in/", "LARDER_ARCHIVE_FOLDERS": "archive"}
    assert stage("extract", env=env).code == 0
    for name in ("transform", "index"):
        failed = stage(name, env=env)
        assert failed.code == 4, failed.stderr
        assert "has the key of another image" in failed.stderr
        assert (done := stage(name, "--max-rejects=4", env=env)).code == 0, done.stderr
    found = objects("Food-11-index")
    here = (volume / "rejects/rejects.jsonl").read_text().splitlines()
    there = found["_larder/rejects.jsonl"].decode().splitlines()
    ours, theirs = ({json.loads(line)["path"].rpartition("/")[2] for line in lines} for lines in (here, there))
    assert ours == theirs == {"0.mask.png", "1.mask.png", "2.mask.png", "2.jpg"}
    assert json.loads(found["_larder/manifest.json"])["files"] == 2


def test_small_folders_are_not_listed_one_by_one() -> None:
    """Names begin with digits of a digest: each folder would need a request for its few objects."""
    folders = [f"{first:02x}/{second:02x}/" for first in range(20) for second in range(100)]
    with many_objects(30_000, folders=folders) as (server, address):
        settings = StoreSettings.load("store", [], {"S3_ENDPOINT_URL": address, "LARDER_UNSIGNED": "true"})
        keys = [
            found.key
            for page in list_parallel(PrefixReader(f"s3://{BUCKET}/", settings, 30_000))
            for found in page.objects
        ]
    assert len(set(keys)) == len(keys) == 30_000
    assert server.requests <= 100


class Replaced:
    """Replaces an object with another one of its length when the `number`th request for it comes."""

    def __init__(self, store: Any, bucket: str, key: str, number: int) -> None:
        self._store, self._bucket, self._key, self._left = store, bucket, key, number

    def __call__(self, method: str, path: str, _: int) -> None:
        if method == "GET" and path.endswith(self._key):
            self._left -= 1
            if self._left == 0:
                size = self._store.client.head_object(Bucket=self._bucket, Key=self._key)["ContentLength"]
                self._store.client.put_object(Bucket=self._bucket, Key=self._key, Body=bytes(size))


@pytest.mark.parametrize(("key", "number"), [("a.tar", 1), ("a.tar", 2), ("a.parquet", 1), ("a.parquet", 3)])
def test_what_is_replaced_while_it_is_read(
    stage: Stage,
    picture: MakePicture,
    put: Put,
    store: Store,
    env: dict[str, str],
    bucket: str,
    proxy: StartProxy,
    key: str,
    number: int,
) -> None:
    if key == "a.tar":  # of more than one block
        put({key: tar_of({"cat/1.jpg": picture(1), "notes.txt": bytes(9 << 20), "dog/2.jpg": picture(2)})})
    else:
        put({key: packed([(picture(1), 0), (picture(2), 1)])})
    between = proxy(store)
    between.fault = Replaced(store, bucket, key, number)
    env |= {"S3_ENDPOINT_URL": between.endpoint, "LARDER_SOURCE": f"s3://{bucket}/{key}"}
    failed = stage("index", env=env)
    assert (failed.code, f"{key} has changed since it was listed" in failed.stderr) == (3, True), failed.stderr


def test_what_killed_runs_leave(
    stage: Stage,
    picture: MakePicture,
    put: Put,
    store: Store,
    env: dict[str, str],
    bucket: str,
    objects: ReadObjects,
) -> None:
    """Objects and parts of no index are deleted; a record of no manifest is ignored."""
    put({f"in/{label}/1.jpg": picture(number) for number, label in enumerate(("cat", "dog"))})
    env |= {"LARDER_SOURCE": f"s3://{bucket}/in/"}
    assert stage("index", env=env).code == 0
    meta, other = "Food-11-index/_larder", f"index-{'0' * 64}.jsonl"
    assert stage("index", "--verify=none", env=env | {"S3_PREFIX": "other"}).code == 0
    run = store.client.get_object(Bucket=bucket, Key=f"other/{meta}/run.json")["Body"].read()
    put({f"{meta}/run.json": run, f"{meta}/probe": b"larder", f"{meta}/{other}": b""})
    store.client.create_multipart_upload(Bucket=bucket, Key=f"{meta}/{other}")
    again = stage("index", "--verify=none", env=env)
    assert (again.code, "up to date" in again.stderr) == (0, False), "killed between its record and its manifest"
    assert objects("Food-11-index") == objects("other/Food-11-index")
    assert not store.client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    put({f"{meta}/probe": b"larder", f"{meta}/{other}": b""})
    assert "up to date" in stage("index", "--verify=none", env=env).stderr
    assert objects("Food-11-index") == objects("other/Food-11-index")
