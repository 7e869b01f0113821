"""What load writes to a store, and what it doesn't send again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from larder.stage import RunRecord
from services.load.commit import LoadRunRecord
from tests.conftest import Proxy, Store
from tests.integration.conftest import MakePicture, Stage
from tests.integration.load.conftest import InStore, Load, MakeFiles, MakeTree


def own(keys: list[str]) -> list[str]:
    return sorted(key for key in keys if key.startswith("_larder/"))


def test_every_file_becomes_an_object_and_the_manifest_names_them(load: Load, tree: MakeTree, there: InStore) -> None:
    made = tree(60)
    result = load()
    assert result.code == 0, result.stderr
    assert there.data() == made
    assert set(there.require_whole()) == set(made)
    manifest = there.manifest()
    assert manifest["artifact"] == "objects"
    assert manifest["files"] == 60
    assert own(there.paths()) == [
        "_larder/classes.json",
        f"_larder/index-{manifest['index']['sha256']}.jsonl",
        "_larder/manifest.json",
        "_larder/run.json",
    ]
    assert json.loads(there.read("_larder/classes.json")) == manifest["classes"]
    record = json.loads(there.read("_larder/run.json"))
    assert record.keys() == RunRecord.__annotations__.keys() | LoadRunRecord.__annotations__.keys()
    head = there.client.head_object(Bucket=there.bucket, Key="Food-11/training/class_00/0_0.jpg")
    assert head["ContentType"] == "image/jpeg"


def test_the_index_carries_the_stores_checksums(load: Load, tree: MakeTree, there: InStore) -> None:
    made = tree(12)
    assert load().code == 0
    index = there.read(f"_larder/index-{there.manifest()['index']['sha256']}.jsonl").decode()
    for line in map(json.loads, index.splitlines()):
        assert line["etag"] == hashlib.md5(made[line["path"]]).hexdigest()


def test_a_second_load_sends_nothing_and_asks_little(load: Load, tree: MakeTree, there: InStore, proxy: Proxy) -> None:
    tree(1100)
    assert load().code == 0
    before = there.read("_larder/manifest.json"), there.read("_larder/run.json")
    result = load(env={"S3_ENDPOINT_URL": proxy.endpoint})
    assert result.code == 0
    assert "up to date, all verified by size and checksum" in result.stderr
    assert "of the volume, only the index was read" in result.stderr
    assert len(proxy.requests) <= 1100 / 1000 + 10
    assert {method for method, _ in proxy.requests} == {"GET"}
    assert (there.read("_larder/manifest.json"), there.read("_larder/run.json")) == before


def test_a_changed_file_goes_up_alone(
    load: Load, tree: MakeTree, files: MakeFiles, picture: MakePicture, there: InStore, proxy: Proxy
) -> None:
    tree(40)
    assert load().code == 0
    made = tree(files(40) | {"training/0_0.jpg": picture(1000)})
    result = load(env={"S3_ENDPOINT_URL": proxy.endpoint})
    assert result.code == 0, result.stderr
    sent = {path for method, path in proxy.requests if method == "PUT" and path.endswith(".jpg")}
    assert {path.rsplit("/", 1)[1] for path in sent} == {"0_0.jpg"}
    assert "1 sent" in result.stderr
    assert there.data() == made
    assert set(there.require_whole()) == set(made)
    assert len(own(there.paths())) == 4, "nothing is left of the way there"


def test_the_old_data_stay_whole_until_the_new_are_all_there(
    load: Load, tree: MakeTree, there: InStore, proxy: Proxy
) -> None:
    tree(16)
    assert load().code == 0
    old = there.require_whole()
    tree(20, first=1000)
    proxy.fault = lambda method, path, number: 503 if method == "PUT" and "incoming" in path and number > 10 else None
    assert load("--stall-seconds=2", env={"S3_ENDPOINT_URL": proxy.endpoint}).code == 5
    assert there.require_whole() == old
    assert load().code == 0
    assert set(there.require_whole()) > set(old)


def test_what_is_in_the_way_is_reported_and_deleted_on_request(
    load: Load, tree: MakeTree, there: InStore, proxy: Proxy
) -> None:
    tree(30)
    assert load().code == 0
    made = tree(20)
    there.put("notes.txt", b"mine")
    there.put("training/more.txt", b"mine, too")
    result = load()
    assert result.code == 0
    assert "2 objects" in result.stderr
    assert "--delete-extra" in result.stderr
    assert len(there.data()) == 22
    assert load("--delete-extra", env={"S3_ENDPOINT_URL": proxy.endpoint}).code == 0
    assert there.data() == made
    assert own(there.paths())


def test_a_folder_of_others_is_refused_before_anything_is_sent(load: Load, tree: MakeTree, there: InStore) -> None:
    """It may hold the images that the tree was made from: next, LARDER_DELETE_EXTRA would delete them."""
    made = tree(20)
    there.put("train/my cat.jpg", b"mine")
    refused = load("--delete-extra")
    assert refused.code == 3
    assert "holds 1 object that larder hasn't put there, such as train/my cat.jpg" in refused.stderr
    assert "next step: set S3_PREFIX" in refused.stderr
    assert there.paths() == ["train/my cat.jpg"]
    beside = load("--force")
    assert beside.code == 0 and "in the way: 1 object" in beside.stderr
    assert there.data().keys() == {*made, "train/my cat.jpg"}


def test_extras_are_deleted_only_after_the_manifest_is_in_place(
    load: Load, tree: MakeTree, there: InStore, proxy: Proxy
) -> None:
    tree(30)
    assert load().code == 0
    tree(20)
    there.put("notes.txt", b"mine")
    assert load("--delete-extra", env={"S3_ENDPOINT_URL": proxy.endpoint}).code == 0
    assert len(there.data()) == 20
    made = [(method, path) for method, path in proxy.requests]
    put = next(n for n, (method, path) in enumerate(made) if method == "PUT" and path.endswith("manifest.json"))
    deleted = [n for n, (method, path) in enumerate(made) if method == "POST" and "delete" in path]
    assert deleted
    assert min(deleted) > put


@pytest.mark.one_in(2)
@pytest.mark.parametrize("changed", [False, True], ids=["fewer", "fewer-and-changed"])
def test_the_load_after_an_interrupted_one_removes_objects_of_the_old_dataset(
    load: Load, tree: MakeTree, there: InStore, proxy: Proxy, changed: bool
) -> None:
    tree(30)
    assert load().code == 0
    there.put("notes.txt", b"mine")
    made = tree(20, first=1000 * changed)
    proxy.fault = lambda method, path, number: 403 if method == "POST" and proxy.count("PUT", "manifest.json") else None
    assert load(env={"S3_ENDPOINT_URL": proxy.endpoint}).code == 2
    assert set(there.require_whole()) == set(made)
    assert len(there.data()) == 31
    again = load()
    assert again.code == 0
    assert "deleting 10 objects" in again.stderr
    assert there.data() == made | {"notes.txt": b"mine"}
    assert "deleting" not in load().stderr


def test_a_tree_without_a_manifest_is_refused(load: Load, tree: MakeTree, there: InStore, volume: Path) -> None:
    tree(5)
    (volume / "Food-11/_larder/manifest.json").unlink()
    result = load()
    assert result.code == 3
    assert "make etl-local" in result.stderr
    assert there.paths() == []


@pytest.mark.parametrize("how", ["changed", "grown", "gone"])
def test_a_file_that_is_not_what_the_index_says_is_refused(
    load: Load, tree: MakeTree, there: InStore, volume: Path, how: str
) -> None:
    tree(5)
    victim = volume / "Food-11/training/class_00/0_0.jpg"
    data = victim.read_bytes()
    victim.unlink()
    if how != "gone":
        victim.write_bytes(data[:-1] + b"x" if how == "changed" else data + b"x")
    result = load()
    assert result.code == 3
    assert "0_0.jpg" in result.stderr
    assert there.find_manifest() is None


@pytest.mark.parametrize("how", ["deleted", "overwritten", "truncated"])
def test_objects_that_others_changed_are_repaired(
    load: Load, tree: MakeTree, there: InStore, proxy: Proxy, how: str
) -> None:
    made = tree(20)
    assert load().code == 0
    victim = "training/class_00/0_0.jpg"
    if how == "deleted":
        there.delete(victim)
    else:
        there.put(victim, bytes(len(made[victim])) if how == "overwritten" else made[victim][:10])
    result = load(env={"S3_ENDPOINT_URL": proxy.endpoint})
    assert result.code == 0
    assert "1 sent" in result.stderr
    assert there.data() == made


def test_reading_back_fetches_every_object(load: Load, tree: MakeTree, there: InStore, proxy: Proxy) -> None:
    made = tree(20)
    result = load("--verify-remote=read", env={"S3_ENDPOINT_URL": proxy.endpoint})
    assert result.code == 0
    assert "verified by size and content" in result.stderr
    assert sum(method == "GET" and path.endswith(".jpg") for method, path in proxy.requests) == 20
    assert there.data() == made


def test_reading_back_finds_what_a_listing_hides(load: Load, tree: MakeTree, there: InStore, proxy: Proxy) -> None:
    """The store returns wrong bytes once, although its listing shows the right checksum."""
    made = tree(20)
    corrupted: list[str] = []

    def corrupt(method: str, path: str, number: int) -> str | None:
        if method == "GET" and path.endswith("/0_0.jpg") and not corrupted:
            corrupted.append(path)
            return "corrupt"
        return None

    proxy.fault = corrupt
    result = load("--verify-remote=read", env={"S3_ENDPOINT_URL": proxy.endpoint})
    assert result.code == 0, result.stderr
    assert corrupted
    assert proxy.count("PUT", "/0_0.jpg") == 2
    assert there.data() == made


def test_verifying_by_listing_alone_notices_a_wrong_size(load: Load, tree: MakeTree, there: InStore) -> None:
    made = tree(20)
    assert load("--verify-remote=list").code == 0
    there.put("training/class_00/0_0.jpg", b"short")
    result = load("--verify-remote=list")
    assert result.code == 0
    assert "1 sent" in result.stderr
    assert "verified by size" in result.stderr
    assert there.data() == made


ODD_NAMES = ["with space", "plus+sign", "per%cent", "per%20cent", "#hash", "[brackets]", "{braces}", "star*", "quo'te",
             'quo"te', "ümlaut", "图片", "emoji😀", "semi;colon", "amp&er", "q?mark", "e=q", "at@", "a..b", "~tilde",
             "back\\slash", "trailing ", "！wide", "‛quote", "100％"]  # fmt: skip


def test_any_name_keeps_its_name(
    load: Load, tree: MakeTree, picture: MakePicture, there: InStore, store: Store
) -> None:
    names = [name for name in ODD_NAMES if store.kind != "seaweedfs" or "\\" not in name]  # it makes a / of a \\
    images = {f"soup/{name}.jpg": picture(number) for number, name in enumerate(names)}
    made = tree(images, LARDER_RECIPE="imagefolder")
    result = load()
    assert result.code == 0, result.stderr
    assert there.data() == made
    assert "up to date" in load().stderr


def test_a_large_file_goes_up_in_parts(load: Load, tree: MakeTree, picture: MakePicture, there: InStore) -> None:
    made = tree(
        {"soup/0_0.jpg": os.urandom(1 << 20) * 201, "tart/1_1.jpg": picture(1)},
        LARDER_VERIFY="none",
        LARDER_RECIPE="imagefolder",
    )
    result = load()
    assert result.code == 0, result.stderr
    victim = "training/class_00/0_0.jpg"
    listed = there.client.head_object(Bucket=there.bucket, Key=f"Food-11/{victim}")
    assert listed["ContentLength"] == 201 << 20
    assert there.read(victim) == made[victim]
    assert "up to date" in load().stderr
    assert load("--force").code == 0


def test_a_prefix_stands_before_the_folder(load: Load, tree: MakeTree, there: InStore) -> None:
    tree(5)
    assert load("--prefix=team/a b").code == 0
    assert there.paths() == []
    listing = there.client.list_objects_v2(Bucket=there.bucket, Prefix="team/a b/Food-11/")
    assert len([item for item in listing["Contents"] if not item["Key"].endswith("/.keep")]) == 9


def test_another_data_set_is_not_replaced_by_mistake(load: Load, tree: MakeTree, there: InStore, volume: Path) -> None:
    tree(5)
    assert load().code == 0
    made = tree(8, LARDER_DATASET="Other")
    shutil.rmtree(volume / "Food-11")
    (volume / "Other").rename(volume / "Food-11")  # as earlier versions named it
    result = load()
    assert result.code == 2
    assert "'Food-11'" in result.stderr
    assert len(there.data()) == 5
    assert load("--force").code == 0
    assert there.data() == made


def test_the_labs_name_for_the_bucket_works(stage: Stage, tree: MakeTree, store: Store, bucket: str) -> None:
    tree(5)
    result = stage("load", env=store.env | {"RCLONE_CONTAINER": bucket})
    assert result.code == 0
    assert f"s3://{bucket}/Food-11" in result.stderr


def test_a_bandwidth_limit_is_kept(load: Load, tree: MakeTree, there: InStore) -> None:
    tree({f"soup/{n}.jpg": os.urandom(200_000) for n in range(20)}, LARDER_VERIFY="none", LARDER_RECIPE="imagefolder")
    result = load("--bandwidth=1MB")
    assert result.code == 0
    assert result.seconds > 2.5, "4 MB at 1 MB/s, after a burst that rclone allows itself"


def test_progress_comes_from_rclones_log(load: Load, tree: MakeTree, there: InStore) -> None:
    tree({f"soup/{n}.jpg": os.urandom(300_000) for n in range(30)}, LARDER_VERIFY="none", LARDER_RECIPE="imagefolder")
    result = load("--bandwidth=1500kB", env={"LARDER_LOG": "json"})
    events = [event for event in result.events if event["event"] == "progress" and "uploading" in event["task"]]
    assert events
    assert 0 < events[0]["done"] < events[0]["total"] == 9_000_000
    assert result.events[-2]["sent"] == 30


def test_objects_that_rclone_copied_by_hand_are_not_sent_again(
    load: Load, tree: MakeTree, there: InStore, volume: Path, proxy: Proxy
) -> None:
    made = tree(20)
    for path in (volume / "Food-11").rglob("*"):
        if path.is_file():
            there.put(str(path.relative_to(volume / "Food-11")), path.read_bytes())
    result = load(env={"S3_ENDPOINT_URL": proxy.endpoint})
    assert result.code == 0, result.stderr
    assert proxy.count("PUT", ".jpg") == 0
    assert set(there.require_whole()) == set(made)


def test_every_class_is_in_every_split_of_the_store(
    load: Load, tree: MakeTree, picture: MakePicture, there: InStore
) -> None:
    """Stores have no empty folders, and readers of folders would number those that they find."""
    images = {"train/a/1.jpg": picture(0), "train/b/1.jpg": picture(1), "val/b/2.jpg": picture(2)}
    made = tree(images)
    assert load().code == 0
    assert there.kept() == ["validation/class_00/.keep"]
    assert there.read("validation/class_00/.keep") == b""
    assert there.data() == made
    again = load("--delete-extra")
    assert again.code == 0 and "up to date" in again.stderr and "in the way" not in again.stderr
    assert there.kept() == ["validation/class_00/.keep"]
    there.delete("validation/class_00/.keep")
    assert load().code == 0
    assert there.kept() == ["validation/class_00/.keep"]
    tree({"val/a/3.jpg": picture(3), "val/c/4.jpg": picture(4)} | images)
    assert load().code == 0
    assert there.kept() == ["training/class_02/.keep"], "what another dataset needed is gone"
