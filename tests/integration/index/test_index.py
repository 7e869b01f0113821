"""Sources that are indexed where they lie, and packed from there: what extract and transform would have led to."""

from __future__ import annotations

import json
import signal
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from larder.sources.prefix import Prefix
from larder.store import StoreSettings
from services.index.listing import Listing, list_at_once
from tests.conftest import wait_until, workers_of
from tests.integration.index.conftest import tar_of, zip_of
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
        rows = {split: [(content, int(path.startswith("dog"))) for path, content in found.items()
                        if content.startswith(b"\xff\xd8")] for split, found in by_split(photos).items()}  # fmt: skip
        return {f"in/data/{split}-0000{half}-of-00002.parquet": packed(rows[split][half::2], group=7)
                for split in rows for half in (0, 1)}  # fmt: skip
    if kind == "tar archives":
        return {f"in/{split}-00{half}.tar": tar_of(dict(list(found.items())[half::2]))
                for split, found in by_split(photos).items() for half in (0, 1)}  # fmt: skip
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
    stage: Any, photos: dict[str, bytes], put: Any, env: dict[str, str], bucket: str, objects: Any, kind: str,
    tmp_path: Path, volume: Path,
) -> None:  # fmt: skip
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
    stage: Any, photos: dict[str, bytes], put: Any, env: dict[str, str], bucket: str, objects: Any, tmp_path: Path
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


def test_shards_are_packed_anew_as_they_were(
    stage: Any, photos: dict[str, bytes], put: Any, env: dict[str, str], bucket: str, objects: Any
) -> None:
    """Those of larder: its manifest names the classes, and the folders are the splits."""
    plain = {path.replace("cat.", "").replace("dog.", ""): content for path, content in photos.items()}
    put({f"in/{path}": content for path, content in plain.items()})
    assert stage("index", env=env | {"LARDER_SOURCE": f"s3://{bucket}/in"}).code == 0
    flags = (SIZE, f"--input=s3://{bucket}/Food-11-index", f"--dest=s3://{bucket}/Food-11-webdataset")
    assert stage("shard", *flags, env=env).code == 0
    env |= {"LARDER_SOURCE": f"s3://{bucket}/Food-11-webdataset", "S3_PREFIX": "again"}
    assert (done := stage("index", env=env)).code == 0, done.stderr
    assert "recognised: WebDataset shards" in done.stderr
    assert json.loads(objects("again/Food-11-index")["_larder/manifest.json"])["classes"] == ["cat", "dog"]
    flags = (SIZE, f"--input=s3://{bucket}/again/Food-11-index", f"--dest=s3://{bucket}/again/Food-11-webdataset")
    assert (done := stage("shard", *flags, env=env)).code == 0, done.stderr
    assert packs(objects("again/Food-11-webdataset")) == packs(objects("Food-11-webdataset"))
    checked = stage("verify", "--samples=all", env=env)
    assert checked.code == 0, checked.stdout + checked.stderr
    assert "index in the store" in checked.stdout


def test_shards_of_others(
    stage: Any, picture: Callable[[int], bytes], put: Any, env: dict[str, str], bucket: str, objects: Any
) -> None:
    """Labels are names, splits are in the shards' names, and every shard counts from zero."""
    shards = {}
    for number, name in enumerate(("set-train-000", "set-train-001", "set-val-000")):
        members = {}
        for key in range(6):
            members |= {f"{key:04d}.jpeg": picture(10 * number + key), f"{key:04d}.cls": (b"cat\n", b"dog")[key % 2],
                        f"{key:04d}.json": b"{}"}  # fmt: skip
        shards[f"in/{name}.tar"] = tar_of(members)
    put(shards)
    env |= {"LARDER_SOURCE": f"s3://{bucket}/in/*.tar", "LARDER_SPLITS": "set-train=training,set-val=validation"}
    assert (done := stage("index", env=env)).code == 0, done.stderr
    found = objects("Food-11-index")
    manifest = json.loads(found["_larder/manifest.json"])
    assert manifest["classes"] == ["cat", "dog"]
    assert {split: there["samples_per_class"] for split, there in manifest["splits"].items()} == {
        "training": [6, 6], "validation": [3, 3],
    }  # fmt: skip
    [name] = [path for path in found if "/index-" in path]
    paths = [json.loads(line)["path"] for line in found[name].splitlines()]
    assert "training/class_00/set-train-001_0000.jpeg" in paths, "two shards have a 0000.jpeg"
    assert "validation/class_00/0000.jpeg" in paths


class Held:
    """Holds a store's answers back from the `after`th image on."""

    def __init__(self, between: Any, after: int) -> None:
        self._between, self._after, self.count, self._go = between, after, 0, threading.Event()
        between.fault = self._hold

    def _hold(self, method: str, path: str, number: int) -> None:
        if method == "GET" and ".jpg" in path:
            self.count += 1
            if self.count > self._after:
                self._go.wait()

    def release(self) -> None:
        self._between.fault = lambda method, path, number: None
        self._go.set()


@pytest.mark.parametrize("killed", ["run", "worker"])
def test_a_killed_one_goes_on(
    stage: Any, picture: Callable[[int], bytes], put: Any, store: Any, env: dict[str, str], bucket: str, objects: Any,
    proxy: Any, killed: str,
) -> None:  # fmt: skip
    put({f"in/{'cat' if number % 2 else 'dog'}/{number:04d}.jpg": picture(number) for number in range(300)})
    env |= {"LARDER_SOURCE": f"s3://{bucket}/in/"}
    whole = stage("index", env=env | {"S3_PREFIX": "whole", "LARDER_WORKERS": "2"})
    assert whole.code == 0, whole.stderr
    between = proxy(store)
    held = Held(between, 100 if killed == "run" else 180)
    env |= {"S3_ENDPOINT_URL": between.endpoint, "LARDER_WORKERS": "1" if killed == "run" else "2"}
    process = stage.start("index", env=env)
    wait_until(lambda: held.count > held._after + 8, "images are read")
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
    assert between.count("GET", ".jpg") <= 300 - 64, "what was read is not read again"
    assert objects("Food-11-index") == objects("whole/Food-11-index")


def test_what_has_changed_since(
    stage: Any, photos: dict[str, bytes], put: Any, store: Any, env: dict[str, str], bucket: str
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
    stage: Any, photos: dict[str, bytes], put: Any, env: dict[str, str], bucket: str, objects: Any, volume: Path
) -> None:
    put({f"in/{path}": content for path, content in photos.items()})
    put({"in/train/cat/cut.jpg": photos["train/cat/cat.0.jpg"][:-200], "in/train/dog/a.gif": b"GIF89a",
         "in/train/dog/nameless": photos["train/cat/cat.0.jpg"], "in/elsewhere.jpg": b"x"})  # fmt: skip
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
        {"in/train-0.parquet": packed([(b"1", 0), (b"2", 1)], compression="zstd")}, "in/", "packed with ZSTD"
    ),
    "a table in an archive": ({"a.tar": tar_of({"labels.csv": b"file,label\n"} | IMAGES)}, "a.tar", "labels.csv"),
    "nothing": ({}, "in/", "holds no objects"),
    "no such object": ({}, "a.tar", "does not exist"),
    "images without classes": ({"in/1.jpg": b"1"}, "in/", "no layout that a recipe knows"),
    "labels for some": (
        {"in/a.tar": tar_of(IMAGES), "in/b.tar": tar_of({"1.jpg": b"1", "1.cls": b"1"})}, "in/", "apart"
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_what_can_not_be_indexed(stage: Any, put: Any, env: dict[str, str], bucket: str, why: str) -> None:
    there, source, words = REFUSED[why]
    put(there)
    result = stage("index", "--verify=none", env=env | {"LARDER_SOURCE": f"s3://{bucket}/{source}"})
    assert result.code in (2, 3), result.stderr
    assert words in result.stderr
    assert "next step:" in result.stderr
    assert "Traceback" not in result.stderr


def test_where_something_else_lies(stage: Any, put: Any, env: dict[str, str], bucket: str, photos: Any) -> None:
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


@pytest.mark.parametrize("count", [20_000, pytest.param(200_000, marks=pytest.mark.exhaustive)])
def test_a_listing_of_any_length_takes_no_memory(tmp_path: Path, count: int) -> None:
    with many_objects(count) as (server, address):
        settings = StoreSettings.load("store", [], {"S3_ENDPOINT_URL": address, "LARDER_UNSIGNED": "true"})
        prefix, listing = Prefix(f"s3://{BUCKET}/", settings, count), Listing(tmp_path / "listing.sqlite", count)
        prefix.page(prefix.start)  # its client takes memory, too
        tracemalloc.start()
        for page in list_at_once(prefix):
            listing.add("many", BUCKET, page.objects, page.keys)
        listing.finish()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (listing.files, sum(1 for _ in listing.paths())) == (count, count)
    assert server.requests <= count / 1000 + 70, "a thousand in a request"
    assert peak < 48 << 20
