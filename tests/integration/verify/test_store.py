"""What verify finds in a store: each break by itself, under its name, and what mends it does."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from collections.abc import Callable
from typing import Any

import pytest

from services.verify.keys import Selection

ALL = ["archive", "raw", "tree", "webdataset", "litdata", "objects", "stored-webdataset", "stored-litdata"]
LINKS = {"Food-11": "objects", "Food-11-webdataset": "stored-webdataset", "Food-11-litdata": "stored-litdata"}
AGAIN = {"Food-11": "make etl-load", "Food-11-webdataset": "make etl-wds", "Food-11-litdata": "make etl-lit"}
DATA = {"Food-11": ".jpg", "Food-11-webdataset": ".tar", "Food-11-litdata": ".bin"}


@pytest.fixture
def look(verify: Any, there: Any, loaded: dict[str, str]) -> Callable[..., Any]:
    """Runs the stage over the copy and the store; no secret may be printed."""

    def look(*flags: str, env: dict[str, str] | None = None, **options: Any) -> Any:
        found = verify(*flags, env=loaded | (env or {}), **options)
        assert loaded["AWS_SECRET_ACCESS_KEY"] not in found.stderr + json.dumps(found.report)
        return found

    return look


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def data_of(there: Any, folder: str) -> str:
    """The key of a data object."""
    return str(next(key for key in there.list(folder) if key.endswith(DATA[folder])))


@pytest.mark.parametrize("sample", ["0", "1000"])
def test_a_good_chain_holds_to_its_end(look: Any, sample: str) -> None:
    found = look(f"--sample={sample}", workers=2)
    assert found.code == 0, found.stderr
    assert found.verdicts == dict.fromkeys(ALL, "holds")
    assert [found.row(link)["note"] for link in LINKS.values()] == ["", "", ""]
    assert found.row("objects")["hashed"] == found.row("objects")["compared"] == 90
    packed = found.row("stored-webdataset")
    assert packed["compared"] == 90
    assert packed["hashed"] > 90 if sample == "0" else packed["hashed"] == 90


def test_a_sample_is_followed_to_the_store_with_one_request_each(
    look: Any, loaded: dict[str, str], store: Any, proxy: Any, copy: Any
) -> None:
    watched = proxy(store)
    found = look("--sample=4", env={"S3_ENDPOINT_URL": watched.endpoint})
    assert found.code == 0
    assert [found.row(link)["hashed"] for link in ALL] == [1] + 7 * [4]
    entries = copy.lines("Food-11/_larder/index.jsonl")
    selection = Selection((line["path"] for line in entries), 4, 0)
    fetched = sorted(path.split("/Food-11/")[1] for _, path in watched.requests if path.endswith(".jpg"))
    assert fetched == [line["path"] for line in entries if line["path"] in selection]
    assert watched.count("GET", ".tar") == watched.count("GET", ".bin") == 4
    assert {method for method, _ in watched.requests} == {"GET"}


@pytest.mark.parametrize("folder", LINKS)
@pytest.mark.parametrize("sample", ["0", "1"])
def test_an_object_that_was_overwritten_is_named(
    look: Any, there: Any, flipped: Any, folder: str, sample: str
) -> None:
    key = data_of(there, folder)
    before = there.read(key)
    there.put(key, flipped(before))
    found = look(f"--sample={sample}")
    assert found.code == 3
    broken = found.report["broken"]
    assert broken["link"] == LINKS[folder]
    assert key in broken["where"]
    if folder == "Food-11":
        assert (broken["expected"], broken["found"]) == (f"sha256 {sha256(before)}", f"sha256 {sha256(flipped(before))}")
    assert broken["next_step"].startswith(f"run `{AGAIN[folder]}`, ")
    assert {found.verdicts[link] for link in ALL[: ALL.index(LINKS[folder])]} == {"holds"}


@pytest.mark.parametrize("folder", LINKS)
@pytest.mark.parametrize("how", ["deleted", "longer"])
def test_an_object_that_is_gone_or_has_another_length(look: Any, there: Any, folder: str, how: str) -> None:
    key = data_of(there, folder)
    size = len(there.read(key))
    if how == "deleted":
        there.delete(key)
    else:
        there.put(key, there.read(key) + b"\0")
    found = look("--sample=1")
    assert found.code == 3
    broken = found.report["broken"]
    assert (broken["link"], broken["expected"]) == (LINKS[folder], f"{size:,} bytes")
    assert broken["found"] == ("nothing" if how == "deleted" else f"{size + 1:,} bytes")
    assert key in broken["where"]


def test_a_read_that_comes_back_wrong_is_noticed(look: Any, store: Any, proxy: Any) -> None:
    """The listing is right, and the content isn't: `load` sees that only when it reads everything back."""
    watched = proxy(store)
    watched.fault = lambda method, path, number: "spoilt" if path.endswith(".jpg") else None
    found = look("--sample=2", env={"S3_ENDPOINT_URL": watched.endpoint})
    assert found.code == 3
    assert found.report["broken"]["link"] == "objects"
    assert "make etl-load LARDER_VERIFY_REMOTE=read" in found.report["broken"]["next_step"]


@pytest.mark.parametrize("folder", LINKS)
@pytest.mark.parametrize("name", ["manifest", "index", "samples"])
def test_a_flipped_byte_in_what_describes_the_objects(
    look: Any, there: Any, flipped: Any, folder: str, name: str
) -> None:
    if (folder, name) == ("Food-11", "samples"):
        pytest.skip("objects of their own have no index of samples")
    key = next(key for key in there.list(f"{folder}/_larder") if key.split("/")[-1].startswith(name))
    there.put(key, flipped(there.read(key)))
    found = look("--sample=1")
    assert found.code == 3
    assert found.report["broken"]["link"] == LINKS[folder]
    assert key.split("/_larder")[0] in found.report["broken"]["where"]
    assert found.report["broken"]["next_step"].startswith(f"run `{AGAIN[folder]}")


@pytest.mark.parametrize("folder", LINKS)
def test_a_manifest_of_another_tree_is_named(look: Any, there: Any, copy: Any, folder: str) -> None:
    key = f"{folder}/_larder/manifest.json"
    manifest = json.loads(there.read(key))
    manifest["input"]["manifest"] = "0" * 64
    there.put(key, (json.dumps(manifest, sort_keys=True, indent=2) + "\n").encode())
    found = look("--sample=1")
    assert found.code == 3
    broken = found.report["broken"]
    assert (broken["link"], broken["found"]) == (LINKS[folder], f"input {'0' * 64}")
    assert "another tree" in broken["cause"]
    assert broken["next_step"].startswith(f"run `{AGAIN[folder]}`, ")


def test_no_manifest_means_not_loaded(look: Any, there: Any) -> None:
    there.delete("Food-11-litdata/_larder/manifest.json")
    found = look("--sample=1")
    assert found.code == 0
    assert found.verdicts == dict.fromkeys(ALL, "holds") | {"stored-litdata": "not checked"}
    assert "make etl-lit" in found.row("stored-litdata")["note"]


@pytest.mark.parametrize("sample", ["0", "6"])
def test_shards_that_are_in_the_store_alone_are_followed_from_the_tree(
    look: Any, there: Any, copy: Any, flipped: Any, sample: str
) -> None:
    line = copy.lines("Food-11-webdataset/_larder/samples.jsonl")[2]
    for folder in ("Food-11-webdataset", "Food-11-litdata"):
        shutil.rmtree(copy.volume / folder)
    found = look(f"--sample={sample}")
    assert found.code == 0, found.stderr
    assert [found.verdicts[link] for link in ALL[3:]] == ["not checked"] * 2 + ["holds"] * 3
    assert "compared with the tree" in found.row("stored-webdataset")["note"]
    key = f"Food-11-webdataset/{line['file']}"
    there.put(key, flipped(there.read(key), line["offset"] + 3))
    broken = look(f"--sample={sample}").report["broken"]
    assert broken["link"] == "stored-webdataset"
    assert line["file"] in broken["where"]
    if sample == "0":
        assert f"{line['source']} at byte {line['offset']}" in broken["where"]


def test_without_any_volume_the_store_is_compared_with_itself(look: Any, there: Any, copy: Any, flipped: Any) -> None:
    shutil.rmtree(copy.volume)
    copy.volume.mkdir()
    found = look("--sample=0")
    assert found.code == 0, found.stderr
    assert [found.verdicts[link] for link in ALL[5:]] == ["holds"] * 3
    assert "the tree isn't there" in found.row("objects")["note"]
    key = "Food-11/_larder/manifest.json"
    manifest = json.loads(there.read(key)) | {"input": {"kind": "tree", "manifest": "0" * 64}}
    there.put(key, (json.dumps(manifest, sort_keys=True, indent=2) + "\n").encode())
    assert look("--sample=1").report["broken"]["link"] == "stored-webdataset"


def test_shards_made_otherwise_are_compared_with_the_tree(look: Any, stage: Any, copy: Any) -> None:
    again = stage("shard", "--shard-bytes=50000", volume=copy.volume, env={"LARDER_WORKERS": "1"})
    assert again.code == 0, again.stderr
    found = look("--sample=0")
    assert found.code == 0, found.stderr
    assert "other settings" in found.row("stored-webdataset")["note"]


def test_a_copy_that_is_not_the_volumes_is_named(look: Any, there: Any, copy: Any) -> None:
    """The same settings and the same tree give the same shards: others are a break."""
    folder = copy.volume / "Food-11-webdataset/_larder"
    lines = copy.lines("Food-11-webdataset/_larder/index.jsonl")
    lines[0]["sha256"] = "0" * 64
    index = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["index"] = {"bytes": len(index), "sha256": sha256(index)}
    (folder / "index.jsonl").write_bytes(index)
    (folder / "manifest.json").write_text(json.dumps(manifest, sort_keys=True, indent=2) + "\n")
    found = look("--sample=1", "--links=stored-webdataset")
    assert found.code == 3
    assert lines[0]["path"] in found.report["broken"]["where"]
    assert "0" * 64 in found.report["broken"]["expected"]


def test_other_checksums_with_the_right_content_are_said(look: Any, there: Any, store: Any, loaded: Any) -> None:
    key = data_of(there, "Food-11")
    data = there.read(key)
    there.put(key, data)  # so that it is put back
    client, place = store.client, {"Bucket": loaded["S3_BUCKET"], "Key": key}
    upload = client.create_multipart_upload(**place)["UploadId"]
    part = client.upload_part(**place, UploadId=upload, PartNumber=1, Body=data)
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload=parts)
    found = look("--sample=1")
    assert found.code == 0, found.stderr
    assert "1 have another ETag" in found.row("objects")["note"]


def test_what_is_in_the_way_is_said(look: Any, there: Any) -> None:
    there.put("Food-11/training/class_00/mine.jpg", b"mine")
    found = look("--sample=1")
    assert found.code == 0
    assert "training/class_00/mine.jpg" in found.row("objects")["note"]


def test_a_store_that_fails_ends_with_5(look: Any, store: Any, proxy: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as place:
        down = f"http://127.0.0.1:{place.getsockname()[1]}"
    found = look(env={"S3_ENDPOINT_URL": down})
    assert found.code == 5
    assert f"{down} doesn't answer" in found.stderr
    watched = proxy(store)
    watched.fault = lambda method, path, number: 503 if path.endswith(".tar") else None
    found = look("--sample=1", env={"S3_ENDPOINT_URL": watched.endpoint})
    assert found.code == 5
    assert found.verdicts == dict.fromkeys(ALL[:6], "holds") | dict.fromkeys(ALL[6:], "not reached")


def test_a_store_that_falters_is_asked_again(look: Any, store: Any, proxy: Any) -> None:
    watched = proxy(store)
    watched.fault = lambda method, path, number: (503, "reset-response", None, None)[number % 4]
    assert look("--sample=3", env={"S3_ENDPOINT_URL": watched.endpoint}).code == 0


def test_wrong_keys_and_a_missing_bucket_are_named(look: Any) -> None:
    for env, says in (
        ({"S3_BUCKET": "larder-no-such-bucket"}, "no such bucket"), ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "secret key"),
    ):  # fmt: skip
        found = look(env=env)
        assert found.code == 2
        assert says in found.stderr


def test_who_may_only_read_can_verify(verify: Any, loaded: dict[str, str], there: Any, reader_of: Any) -> None:
    assert verify("--sample=2", env=loaded | reader_of).code == 0
