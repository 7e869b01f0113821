"""What verify finds on the volumes: each break by itself, under its name, with what mends it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.verify.keys import Selection

LOCAL = ["archive", "raw", "tree", "webdataset", "litdata"]
STORE = ["objects", "stored-webdataset", "stored-litdata"]
AGAIN = {"raw": "make etl-local", "tree": "make etl-local", "webdataset": "make etl-wds", "litdata": "make etl-lit"}
SHARDS, CHUNKS = "Food-11-webdataset", "Food-11-litdata"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def rewrite(path: Path, data: bytes) -> None:
    """Write a file anew, so that nothing that is linked to it changes, too."""
    path.unlink()
    path.write_bytes(data)


def test_a_good_chain_holds(verify: Any) -> None:
    found = verify("--sample=0", workers=2)
    assert found.code == 0, found.stderr
    assert found.verdicts == dict.fromkeys(LOCAL, "holds") | dict.fromkeys(STORE, "not checked")
    assert found.report["broken"] is None
    assert "S3_BUCKET isn't set" in found.row("objects")["note"]
    assert "not checked: tree → store" in json.loads(found.stderr.splitlines()[-1])["message"]
    assert found.row("archive")["hashed"] == 1
    assert found.row("raw")["hashed"] == found.row("tree")["hashed"] == found.row("tree")["compared"] == 90
    assert found.row("tree")["bytes"] == 0, "hard links are read once"
    assert found.row("webdataset")["hashed"] > 90, "files and the samples in them"


def test_the_table_is_for_people(stage: Any, copy: Any) -> None:
    ended = stage("verify", volume=copy.volume, env={"LARDER_WORKERS": "1"})
    assert ended.code == 0
    lines = ended.stdout.splitlines()
    assert len(lines) == 1 + len(LOCAL) + len(STORE)
    assert lines[0].split() == ["link", "compared", "hashed", "read", "verdict"]
    assert lines[4].startswith("tree → shards")
    assert lines[4].endswith("holds")
    assert "LARDER_SOURCE names no file here" in lines[1]
    assert "make verify LARDER_VERIFY_SAMPLE=0" in ended.stderr


def break_file(pattern: str) -> Callable[[Any, Any], tuple[str, str, str]]:
    """Flips a byte in the middle of a file. Gives what must be named: the place, and two digests."""

    def change(copy: Any, flipped: Any) -> tuple[str, str, str]:
        path = copy.find(pattern)
        before = sha256(path)
        rewrite(path, flipped(path.read_bytes()))
        return str(path), before, sha256(path)

    return change


def break_member(folder: str) -> Callable[[Any, Any], tuple[str, str, str]]:
    """Flips a byte of an image in a packed file."""

    def change(copy: Any, flipped: Any) -> tuple[str, str, str]:
        line = copy.lines(f"{folder}/_larder/samples.jsonl")[7]
        path = copy.volume / folder / line["file"]
        path.write_bytes(flipped(path.read_bytes(), line["offset"] + 9))
        data = path.read_bytes()[line["offset"] : line["offset"] + line["bytes"]]
        place = f"{path}, {line['source']} at byte {line['offset']}"
        return place, line["sha256"], hashlib.sha256(data).hexdigest()

    return change


def break_label(copy: Any, flipped: Any) -> tuple[str, str, str]:
    """Flips the label beside an image in a shard."""
    line = copy.lines(f"{SHARDS}/_larder/samples.jsonl")[3]
    path = copy.volume / SHARDS / line["file"]
    before, data = sha256(path), path.read_bytes()
    at = data.index(b".cls\0", line["offset"]) // 512 * 512 + 512
    assert data[at : at + 2].strip(b"\0") == str(line["class"]).encode()
    path.write_bytes(flipped(data, at))
    return str(path), before, sha256(path)


BREAKS = {
    "raw file": ("raw", break_file("raw/training/*.jpg")),
    "raw index": ("raw", break_file("raw/_larder/index.jsonl")),
    "tree file": ("tree", break_file("Food-11/training/class_03/*.jpg")),
    "tree index": ("tree", break_file("Food-11/_larder/index.jsonl")),
    "shard member": ("webdataset", break_member(SHARDS)),
    "label in a shard": ("webdataset", break_label),
    "shard index": ("webdataset", break_file(f"{SHARDS}/_larder/index.jsonl")),
    "index of samples": ("webdataset", break_file(f"{SHARDS}/_larder/samples.jsonl")),
    "chunk member": ("litdata", break_member(CHUNKS)),
    "index of chunks": ("litdata", break_file(f"{CHUNKS}/training/index.json")),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_flipped_byte_is_named(verify: Any, copy: Any, flipped: Any, name: str) -> None:
    link, change = BREAKS[name]
    place, expected, actual = change(copy, flipped)
    found = verify("--sample=0", workers=2)
    assert found.code == 3, found.stderr
    broken = found.report["broken"]
    assert (broken["link"], broken["where"]) == (link, place)
    assert expected in broken["expected"]
    assert actual in broken["found"]
    assert f"{AGAIN[link]} LARDER_FORCE=true" in broken["next_step"]
    assert place in found.stderr
    later = LOCAL[LOCAL.index(link) + 1 :] + STORE
    assert {found.verdicts[name] for name in later} == {"not reached"}
    assert {found.verdicts[name] for name in LOCAL[: LOCAL.index(link)]} <= {"holds"}


def test_a_flipped_byte_of_the_archive(verify: Any, copy: Any, flipped: Any) -> None:
    copy.archive.write_bytes(flipped(copy.archive.read_bytes()))
    found = verify()
    assert found.code == 3
    assert found.report["broken"]["link"] == "archive"
    assert sha256(copy.archive) in found.report["broken"]["found"]
    assert "extract" in found.report["broken"]["next_step"]


def test_any_byte_of_the_data(verify: Any, copy: Any, flipped: Any) -> None:
    """Bytes all over everything but what varies from run to run: reading the whole chain sees each."""
    files = [path for path in sorted(copy.volume.rglob("*")) if path.is_file() and path.name != "run.json"]
    files = [path for path in files if ".larder" not in path.parts]
    lengths = [path.stat().st_size for path in files]
    for step in range(7):
        place = sum(lengths) * step // 7 + 131
        for path, length in zip(files, lengths, strict=True):
            if place < length:
                break
            place -= length
        before = path.read_bytes()
        rewrite(path, flipped(before, place))
        found = verify("--sample=0")
        assert found.code == 3, f"byte {place} of {path}"
        rewrite(path, before)


@pytest.mark.parametrize("folder", ["raw", "Food-11", SHARDS, CHUNKS])
def test_every_byte_of_a_manifest_counts(verify: Any, copy: Any, flipped: Any, folder: str) -> None:
    """What the manifest says of its data is compared with them, and what it says of its input with that."""
    path = copy.volume / folder / "_larder/manifest.json"
    text = path.read_text()
    manifest = json.loads(text)
    for changed in (
        text.replace('"version": 1', '"version": 2'), text.replace("  ", "   ", 1), text[:-10],
        text.replace(f'"files": {manifest["files"]}', f'"files": {manifest["files"] + 1}'),
        text.replace(manifest["index"]["sha256"], "0" * 64), text.replace('"dataset": "Food-11"', '"dataset": "Food-12"'),
    ):  # fmt: skip
        assert changed != text
        path.write_text(changed)
        found = verify()
        assert found.code == 3, changed
        assert found.report["broken"]["next_step"].startswith("run `make etl-")


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Write an index, and make the manifest beside it say so: a fault that no digest shows."""
    data = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines).encode()
    path.write_bytes(data)
    manifest = json.loads((path.parent / "manifest.json").read_bytes())
    manifest[path.stem] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path.parent / "manifest.json").write_text(json.dumps(manifest, sort_keys=True, indent=2, ensure_ascii=False) + "\n")


def relabel(lines: list[dict[str, Any]]) -> str:
    lines[5]["class"] = (lines[5]["class"] + 1) % 11
    return f"class {lines[5]['class']}"


def rename(lines: list[dict[str, Any]]) -> str:
    lines[5]["source"] += ".jpg"
    return "one that the tree doesn't have"


def drop(lines: list[dict[str, Any]]) -> str:
    return f"{lines.pop(5)['source']}, which the tree has"


def double(lines: list[dict[str, Any]]) -> str:
    other = next(line for line in lines if line["file"] == lines[0]["file"] and line["source"] != lines[0]["source"])
    lines[0] |= {key: other[key] for key in ("source", "bytes", "sha256", "class")}
    return "a second time"


def move(lines: list[dict[str, Any]]) -> str:
    lines[5]["offset"] += 1
    return "sha256"


def overlap(lines: list[dict[str, Any]]) -> str:
    lines[1]["offset"] = lines[0]["offset"] + 1
    return "a place between the bytes"


def leak(lines: list[dict[str, Any]]) -> str:
    one, other = lines[0], next(line for line in lines if line["file"].split("/")[0] != lines[0]["file"].split("/")[0])
    for key in ("source", "bytes", "sha256", "class"):
        one[key], other[key] = other[key], one[key]
    return "a file of the split"


@pytest.mark.parametrize("change", [relabel, rename, drop, double, move, overlap, leak], ids=lambda one: one.__name__)
@pytest.mark.parametrize("folder", [SHARDS, CHUNKS])
def test_an_index_of_samples_that_is_wrong_from_the_start(verify: Any, copy: Any, folder: str, change: Any) -> None:
    name = f"{folder}/_larder/samples.jsonl"
    lines = copy.lines(name)
    says = change(lines)
    write_lines(copy.volume / name, lines)
    found = verify("--sample=0")
    assert found.code == 3
    broken = found.report["broken"]
    assert broken["link"] == ("webdataset" if folder == SHARDS else "litdata")
    assert says in f"{broken['expected']} {broken['found']}"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[4].update(sha256="0" * 64), "0" * 64),
        (lambda lines: lines[4].update(source="training/none.jpg"), "as raw's index has of 'training/none.jpg'"),
        (lambda lines: lines[4].update({k: lines[5][k] for k in ("source", "bytes", "sha256")}), "a second time"),
        (lambda lines: lines.reverse(), "a path after"),
        (lambda lines: lines.pop(), "90 files"),
        (lambda lines: lines[4].update({"class": 10 - lines[4]["class"]}), "samples_per_class"),
        (lambda lines: lines[4].update({"class": 11}), "class 11"),
    ],
    ids=["other digest", "no source", "same source", "unsorted", "fewer", "other class", "no such class"],
)
def test_a_trees_index_that_is_wrong_from_the_start(verify: Any, copy: Any, change: Any, says: str) -> None:
    lines = copy.lines("Food-11/_larder/index.jsonl")
    change(lines)
    write_lines(copy.volume / "Food-11/_larder/index.jsonl", lines)
    found = verify()
    assert found.code == 3
    broken = found.report["broken"]
    assert broken["link"] == "tree"
    assert says in f"{broken['expected']} {broken['found']}"


@pytest.mark.parametrize("pattern", ["raw/training/*", "Food-11/training/*/*", f"{SHARDS}/training/*", f"{CHUNKS}/training/*"])
@pytest.mark.parametrize("how", ["gone", "longer", "link"])
def test_a_file_that_is_not_there_or_has_another_length(verify: Any, copy: Any, pattern: str, how: str) -> None:
    path = copy.find(pattern)
    data = path.read_bytes()
    path.unlink()
    if how == "longer":
        path.write_bytes(data + b"\0")
    elif how == "link":
        path.symlink_to(copy.archive)
    found = verify("--sample=1")
    assert found.code == 3
    assert found.report["broken"]["where"] == str(path)
    assert found.report["broken"]["expected"] == f"{len(data):,} bytes"
    assert found.report["broken"]["found"] == (f"{len(data) + 1:,} bytes" if how == "longer" else "nothing")


@pytest.mark.parametrize("folder", ["raw", "Food-11", SHARDS])
def test_a_missing_index_is_named(verify: Any, copy: Any, folder: str) -> None:
    (copy.volume / folder / "_larder/index.jsonl").unlink()
    found = verify()
    assert found.code == 3
    assert found.report["broken"]["where"] == str(copy.volume / folder / "_larder/index.jsonl")
    assert found.report["broken"]["found"] == "nothing"


def test_what_was_made_from_another_tree_is_named(verify: Any, copy: Any, stage: Any) -> None:
    ended = stage("transform", "--verify=none", "--force", volume=copy.volume, env={"LARDER_WORKERS": "1"})
    assert ended.code == 0, ended.stderr
    found = verify()
    assert found.code == 3
    assert found.report["broken"]["link"] == "webdataset"
    assert "made from another tree" in found.report["broken"]["cause"]
    assert found.report["broken"]["next_step"].startswith("run `make etl-wds`, "), "no force is needed"


def test_a_tree_of_another_raw_is_named(verify: Any, copy: Any, stage: Any) -> None:
    env = {"LARDER_WORKERS": "1"}
    assert stage("extract", "--source=sample", "--sample-images=40", volume=copy.volume, env=env).code == 0
    found = verify(env={"LARDER_SOURCE": ""})
    assert found.code == 3
    assert found.report["broken"]["link"] == "tree"
    assert found.report["broken"]["next_step"].startswith("run `make etl-local`, ")


@pytest.mark.parametrize("number", [0, 1])
def test_a_sample_is_followed_through_every_link(verify: Any, copy: Any, flipped: Any, number: int) -> None:
    """A flipped byte in a sample that is followed is found wherever it is; one in another isn't, as was asked for."""
    entries = {line["path"]: line for line in copy.lines("Food-11/_larder/index.jsonl")}
    selection = Selection(entries, 5, 3)
    inside = [path for path in entries if path in selection]
    assert len(inside) == 5
    outside = next(path for path in entries if path not in selection)
    for victim, code in ((inside[number], 3), (outside, 0)):
        members = {}
        for folder in (SHARDS, CHUNKS):
            line = next(x for x in copy.lines(f"{folder}/_larder/samples.jsonl") if x["source"] == victim)
            members[folder] = (copy.volume / folder / line["file"], line["offset"] + 4)
        raw, tree = copy.volume / "raw" / entries[victim]["source"], copy.volume / "Food-11" / victim
        for link, (path, at) in {
            "raw": (raw, 4), "tree": (tree, 4), "webdataset": members[SHARDS], "litdata": members[CHUNKS]
        }.items():  # fmt: skip
            before = path.read_bytes()
            rewrite(path, flipped(before, at))
            found = verify("--sample=5", "--seed=3")
            assert found.code == code, f"{link}: {found.stderr}"
            assert code == 0 or found.report["broken"]["link"] == link
            rewrite(path, before)
    found = verify("--sample=5", "--seed=3")
    assert [found.row(link)["hashed"] for link in LOCAL] == [1, 5, 5, 5, 5]
    assert [found.row(link)["compared"] for link in LOCAL] == [1, 90, 90, 90, 90]


def test_what_is_not_there_is_said_and_not_missed(verify: Any, copy: Any) -> None:
    shutil.rmtree(copy.volume / CHUNKS)
    copy.archive.unlink()
    found = verify()
    assert found.code == 0
    assert [found.verdicts[link] for link in LOCAL] == ["not checked", "holds", "holds", "holds", "not checked"]
    assert "make etl-lit" in found.row("litdata")["note"]
    assert sha256_of_the_archive(copy) in found.row("archive")["note"]


def sha256_of_the_archive(copy: Any) -> str:
    return str(copy.manifest("raw")["input"]["sha256"])


def test_without_raw_or_tree_the_rest_is_followed(verify: Any, copy: Any, flipped: Any) -> None:
    shutil.rmtree(copy.volume / "raw")
    found = verify("--sample=0")
    assert (found.code, found.verdicts["tree"]) == (0, "holds")
    assert found.row("tree")["bytes"] > 0
    shutil.rmtree(copy.volume / "Food-11")
    found = verify("--sample=0")
    assert (found.code, found.verdicts["webdataset"], found.verdicts["litdata"]) == (0, "holds", "holds")
    assert "the tree isn't there" in found.row("webdataset")["note"]
    path = copy.find(f"{CHUNKS}/*/chunk*")
    path.write_bytes(flipped(path.read_bytes()))
    assert verify("--sample=0").report["broken"]["link"] == "litdata"


def test_nothing_at_all_is_an_error(stage: Any, volume: Path) -> None:
    ended = stage("verify", volume=volume)
    assert ended.code == 3
    assert "make etl-local" in ended.stderr
    assert ended.stdout == ""


def test_only_the_links_that_were_asked_for(verify: Any, copy: Any, flipped: Any) -> None:
    path = copy.find("raw/training/*.jpg")
    rewrite(path, flipped(path.read_bytes()))
    found = verify("--links=tree, webdataset", "--sample=0")
    assert found.code == 0, found.stderr
    assert found.verdicts == {"tree": "holds", "webdataset": "holds"}
    assert found.row("tree")["bytes"] > 0, "raw's files weren't hashed, so the tree's are"
    missing = verify("--links=objects")
    assert missing.code == 3
    assert "S3_BUCKET isn't set" in missing.stderr
    assert verify("--links=shards").code == 2


def test_other_volumes(verify: Any, copy: Any, tmp_path: Path) -> None:
    for name, folder in (("wds", SHARDS), ("lit", CHUNKS)):
        (tmp_path / name).mkdir()
        (copy.volume / folder).rename(tmp_path / name / folder)
    found = verify(env={"LARDER_WDS_DIR": str(tmp_path / "wds"), "LARDER_LIT_DIR": str(tmp_path / "lit")})
    assert found.code == 0
    assert [found.verdicts[link] for link in LOCAL] == ["holds"] * 5
    assert str(tmp_path / "wds") not in json.dumps(verify().report)


@pytest.mark.parametrize(
    ("settings", "verdict", "says"),
    [
        ({"LARDER_SOURCE": "https://example.org/photos.zip"}, "not checked", "is a URL"),
        ({"LARDER_SOURCE": "/nowhere/photos.zip"}, "not checked", "no file here"),
        ({"LARDER_SOURCE": "", "LARDER_SOURCE_SHA256": "right"}, "holds", "is what raw names"),
        ({"LARDER_SOURCE": "", "LARDER_SOURCE_SHA256": "0" * 64}, "broken", "0" * 64),
    ],
    ids=["URL", "elsewhere", "published digest", "another published digest"],
)
def test_an_archive_that_is_not_at_hand(
    verify: Any, copy: Any, settings: dict[str, str], verdict: str, says: str
) -> None:
    if settings.get("LARDER_SOURCE_SHA256") == "right":
        settings = settings | {"LARDER_SOURCE_SHA256": sha256_of_the_archive(copy)}
    found = verify(env=settings)
    assert found.code == (3 if verdict == "broken" else 0)
    assert found.verdicts["archive"] == verdict
    assert says in found.row("archive")["note"]


def test_what_is_in_the_way_is_said(verify: Any, copy: Any) -> None:
    (copy.volume / "Food-11/training/class_03/mine.jpg").write_bytes(b"mine")
    found = verify()
    assert found.code == 0
    assert "training/class_03/mine.jpg" in found.row("tree")["note"]


def test_a_stage_at_work_is_waited_for_and_readers_are_not(verify: Any, copy: Any) -> None:
    with (copy.volume / ".larder/lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert verify().code == 0
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = verify()
    assert found.code == 3
    assert "another run is writing" in found.stderr


def test_nothing_is_written(verify: Any, copy: Any) -> None:
    state = ["find", copy.volume, "-printf", "%p %s %T@ %C@\n"]
    before = subprocess.check_output(state)
    assert verify("--sample=0").code == 0
    assert subprocess.check_output(state) == before
