"""Artifacts by their manifests, and which are out of date."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from larder.cli import inventory, staleness
from larder.cli.inventory import ArtifactSummary, Contents
from tests.unit.cli.engine import ROOT, put_artifact


def test_finished_and_unfinished_artifacts_are_told_apart(tmp_path: Path) -> None:
    digest = put_artifact(tmp_path, "raw", "raw")
    (tmp_path / "not an artifact").mkdir()
    (tmp_path / ".larder" / "Food-11" / "new").mkdir(parents=True)
    (tmp_path / ".larder" / "load").mkdir()  # emptied
    (tmp_path / ".larder" / "lock").touch()
    volume = inventory.read_volume(tmp_path)
    assert [
        (artifact.name, artifact.kind, artifact.files, artifact.bytes, artifact.samples, artifact.digest)
        for artifact in volume.artifacts
    ] == [("raw", "raw", 3, 3_000_000, 3, digest)]
    assert volume.unfinished == ("Food-11",)


def test_the_digest_is_the_one_that_later_stages_name(tmp_path: Path) -> None:
    from larder.contract import IndexSummary, Manifest

    manifest = Manifest(
        artifact="raw",
        dataset="Größe",
        classes=[],
        splits={},
        input={"kind": "folder"},
        settings={},
        files=0,
        bytes=0,
        index=IndexSummary(bytes=0, sha256=""),
    )
    (tmp_path / "raw" / "_larder").mkdir(parents=True)
    (tmp_path / "raw" / inventory.MANIFEST).write_text(manifest.to_json(), "utf-8")
    assert inventory.read_volume(tmp_path).artifacts[0].digest == manifest.digest()


def test_what_was_made_from_an_index_is_compared_with_no_tree() -> None:
    made = {
        "artifact": "webdataset",
        "dataset": "Food-11",
        "files": 2,
        "bytes": 20,
        "splits": {},
        "settings": {},
        "input": {"kind": "index", "manifest": "i1"},
    }
    artifact = inventory.parse("Food-11-webdataset", json.dumps(made).encode())
    assert staleness.check_stored(artifact, DATA, Contents()) == staleness.CURRENT


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"artifact": "raw"}', '"text"', "null", "\x80"])
def test_a_damaged_manifest_is_shown_as_such(tmp_path: Path, text: str) -> None:
    (tmp_path / "raw" / "_larder").mkdir(parents=True)
    (tmp_path / "raw" / inventory.MANIFEST).write_text(text, "latin-1")
    (found,) = inventory.read_volume(tmp_path).artifacts
    assert (found.name, found.kind) == ("raw", "")
    assert "can't be read" in staleness.check_local(found, Contents()).text


def test_a_folder_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    assert inventory.read_volume(tmp_path / "none").fault


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    put_artifact(tmp_path / "elsewhere", "raw", "raw")
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "raw").symlink_to(tmp_path / "elsewhere" / "raw")
    assert inventory.read_volume(tmp_path / "volume").artifacts == ()


def test_it_runs_with_the_standard_library_alone_and_is_read_back(tmp_path: Path) -> None:
    put_artifact(tmp_path / "volume", "raw", "raw")
    folders = [str(tmp_path / "volume"), str(tmp_path / "none")]
    printed = subprocess.check_output(
        [
            sys.executable,
            "-ISc",
            (
                f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
                "from larder.cli.inventory import main; main(sys.argv[1:])"
            ),
            *folders,
        ],
        text=True,
    )
    assert inventory.from_json(printed) == {folder: inventory.read_volume(Path(folder)) for folder in folders}


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {}}', json.dumps({"a": {"artifacts": [{"x": 1}]}})])
def test_what_another_version_prints_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        inventory.from_json(text)


RAW = ArtifactSummary("raw", "raw", "Food-11", digest="r1")
TREE = ArtifactSummary("Food-11", "tree", "Food-11", digest="t1", made_from="r1")
SHARDS = ArtifactSummary("Food-11-webdataset", "webdataset", "Food-11", 2, 20, 3, "w1", "t1", {"seed": 0})
OBJECTS = ArtifactSummary("Food-11", "objects", "Food-11", digest="o1", made_from="t1")
STORED = SHARDS._replace(digest="w2", settings={"seed": 0, "part_bytes": 8})
DATA = Contents((RAW, TREE))
NEW_TREE = Contents((RAW._replace(digest="r2"), TREE._replace(digest="t2", made_from="r2")))


@pytest.mark.parametrize(
    ("artifact", "data", "text", "command"),
    [
        (RAW, DATA, "", ""),
        (TREE, DATA, "", ""),
        (TREE, Contents((RAW._replace(digest="r2"), TREE)), "OUT OF DATE", "etl-local"),
        (TREE, Contents((TREE,)), "unknown", ""),
        (SHARDS, DATA, "", ""),
        (SHARDS, NEW_TREE, "OUT OF DATE", "etl-wds"),
        (SHARDS._replace(kind="litdata"), NEW_TREE, "OUT OF DATE", "etl-lit"),
        (SHARDS, Contents(), "unknown", ""),
        (SHARDS._replace(dataset="photos"), NEW_TREE, "unknown", ""),
        (SHARDS._replace(kind="of somebody else"), NEW_TREE, "OUT OF DATE", ""),
    ],
    ids=[
        "raw",
        "tree",
        "tree of older raw data",
        "tree without raw data",
        "shards",
        "shards of an older tree",
        "chunks of an older tree",
        "shards without a tree",
        "shards of another dataset",
        "a kind that larder doesn't know",
    ],
)
def test_what_is_out_of_date_on_volumes(artifact: ArtifactSummary, data: Contents, text: str, command: str) -> None:
    state = staleness.check_local(artifact, data)
    assert state.text.startswith(text)
    assert bool(state.text) == bool(text)
    assert state.command == command


@pytest.mark.parametrize(
    ("artifact", "data", "packs", "text", "command"),
    [
        (OBJECTS, DATA, Contents(), "", ""),
        (OBJECTS, NEW_TREE, Contents(), "OUT OF DATE", "etl-load"),
        (OBJECTS, Contents(), Contents(), "unknown", ""),
        (STORED, DATA, Contents((SHARDS,)), "", ""),
        (STORED, DATA, Contents(), "", ""),
        (STORED, DATA, Contents((SHARDS._replace(settings={"seed": 1}),)), "OUT OF DATE", "etl-wds"),
        (STORED, NEW_TREE, Contents((SHARDS,)), "OUT OF DATE", "etl-wds"),
        (STORED, Contents(), Contents((SHARDS._replace(made_from="t2"),)), "OUT OF DATE", "etl-wds"),
    ],
    ids=[
        "objects",
        "objects of an older tree",
        "objects without a tree",
        "shards",
        "shards, volume removed",
        "shards packed otherwise",
        "shards of an older tree",
        "shards newly packed",
    ],
)
def test_what_is_out_of_date_in_the_store(
    artifact: ArtifactSummary, data: Contents, packs: Contents, text: str, command: str
) -> None:
    state = staleness.check_stored(artifact, data, packs)
    assert state.text.startswith(text)
    assert bool(state.text) == bool(text)
    assert state.command == command


@pytest.mark.parametrize(
    ("arm", "digest", "store", "text"),
    [
        ("imagefolder_local", "t1", None, ""),
        ("imagefolder_local", "t0", None, "OUT OF DATE"),
        ("webdataset", "w2", Contents((STORED,)), ""),
        ("webdataset", "w0", Contents((STORED,)), "OUT OF DATE"),
        ("webdataset", "w0", None, "unknown"),
        ("webdataset", "w0", Contents(fault="refused"), "unknown"),
    ],
)
def test_which_records_measured_other_data(arm: str, digest: str, store: Contents | None, text: str) -> None:
    state = staleness.check_record(arm, digest, DATA, store)
    assert staleness.check_record("imagefolder_local", digest, Contents(), store).text.startswith("unknown")
    assert state.text.startswith(text)
    assert bool(state.text) == bool(text)
