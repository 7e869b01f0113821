"""What the stage leaves behind when all goes well."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


def test_makes_the_tree_of_hard_links(
    extract: Any, transform: Any, tree: Any, food11: Any, volume: Path, snapshot: Any
) -> None:
    raw = extract(food11 | {"README.txt": b"not part of it"})
    before = snapshot(raw)
    used = sum(os.stat(path).st_blocks for path in {p.stat().st_ino: p for p in volume.rglob("*.jpg")}.values())
    result = transform()
    assert result.code == 0, result.stderr
    lines = tree().lines()
    assert lines["training/class_03/3_0.jpg"] == {
        "path": "training/class_03/3_0.jpg", "bytes": len(food11["training/3_0.jpg"]),
        "sha256": before["training/3_0.jpg"], "class": 3, "width": 32, "height": 24, "source": "training/3_0.jpg",
    }  # fmt: skip
    assert set(lines) == {f"{split}/class_{label:02}/{label}_{number}.jpg"
                          for split in ("training", "validation", "evaluation")
                          for label in (3, 10) for number in (0, 1)}  # fmt: skip
    for path, line in lines.items():
        assert (volume / "Food-11" / path).samefile(raw / line["source"])
        assert (volume / "Food-11" / path).stat().st_nlink == 2
    after = sum(os.stat(path).st_blocks for path in {p.stat().st_ino: p for p in volume.rglob("*.jpg")}.values())
    assert after == used
    assert snapshot(raw) == before
    assert not (volume / "rejects").exists()
    assert not (volume / ".larder" / "Food-11").exists()
    left_out, _, done, following = result.events[-4:]
    assert left_out["files"] == 1 and "'README.txt'" in left_out["message"]
    assert done["event"] == "done" and done["images"] == 12 and done["rejects"] == 0
    assert following["event"] == "next" and "make bench" in following["message"]
    assert result.stdout == ""


def test_second_run_does_nothing(extract: Any, transform: Any, food11: Any, volume: Path) -> None:
    extract(food11)
    assert transform().code == 0
    manifest = volume / "Food-11" / "_larder" / "manifest.json"
    before = manifest.stat()
    result = transform()
    assert result.code == 0 and result.events[0]["up_to_date"] is True
    after = manifest.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_same_bytes_whatever_the_workers_and_however_often(
    extract: Any, transform: Any, tree: Any, rejects: Any, picture: Any, food11: Any
) -> None:
    extract(food11 | {f"training/{n % 11}_{n}.jpg": picture(n) for n in range(10, 300)} | {"training/1_x.jpg": b"no"})
    flags = ("--force", "--max-rejects=1")
    assert transform(*flags).code == 0
    first, reasons = tree(), rejects()
    for workers in ("3", "1"):
        assert transform(*flags, env={"LARDER_WORKERS": workers}).code == 0
        assert (tree(), rejects()) == (first, reasons)


def test_manifest_names_its_input_and_settings(extract: Any, transform: Any, tree: Any, food11: Any) -> None:
    extract(food11)
    assert transform("--verify=decode").code == 0
    manifest = json.loads(tree().manifest)
    assert manifest["artifact"] == "tree" and manifest["dataset"] == "Food-11"
    assert manifest["settings"] == {"recipe": "food11", "verify": "decode"}
    assert manifest["input"]["kind"] == "raw" and len(manifest["input"]["manifest"]) == 64
    assert len(manifest["classes"]) == 11


def test_another_setting_makes_the_tree_again(extract: Any, transform: Any, tree: Any, food11: Any) -> None:
    extract(food11)
    assert transform().code == 0
    assert "width" in tree().lines()["training/class_03/3_0.jpg"]
    assert transform("--verify=none").code == 0
    assert not {"width", "height"} & set(tree().lines()["training/class_03/3_0.jpg"])


def test_more_than_a_hundred_classes_sort_as_their_numbers_do(
    extract: Any, transform: Any, tree: Any, picture: Any
) -> None:
    extract({f"train/{number:03}/a.jpg": picture(number) for number in range(101)})
    assert transform("--recipe=imagefolder").code == 0
    lines = tree().lines()
    folders = sorted({path.split("/")[1] for path in lines})
    assert folders[0] == "class_000" and folders[-1] == "class_100"
    assert [lines[f"training/{folder}/a.jpg"]["class"] for folder in folders] == list(range(101))


@pytest.mark.parametrize("name", ["a b.jpg", "naïve 拉面 🍜.jpg", "-rf.jpg", "'\"$(x)`.jpg", "UPPER.JPEG"])
def test_odd_names_are_kept(extract: Any, transform: Any, tree: Any, picture: Any, name: str) -> None:
    extract({f"train/-a class/{name}": picture(0), "train/b/1.jpg": picture(1)})
    result = transform("--recipe=imagefolder")
    assert result.code == 0, result.stderr
    assert tree().lines()[f"training/class_00/{name}"]["source"] == f"train/-a class/{name}"


def test_csv_gives_names_labels_and_splits(extract: Any, transform: Any, tree: Any, picture: Any) -> None:
    table = '\ufefffile,label,split\nimages/a.jpg,dog,train\n"images/b, c.jpg",cat,test\n'
    extract({"images/a.jpg": picture(0), "images/b, c.jpg": picture(1), "tables/t.csv": table.encode()})
    result = transform("--recipe=csv", env={"LARDER_CSV": "tables/t.csv"})
    assert result.code == 0, result.stderr
    assert set(tree().lines()) == {"training/class_01/a.jpg", "evaluation/class_00/b, c.jpg"}
    assert json.loads(tree().manifest)["classes"] == ["cat", "dog"]


def test_a_file_that_vanished_from_the_tree_is_repaired(
    extract: Any, transform: Any, tree: Any, food11: Any, volume: Path
) -> None:
    extract(food11)
    assert transform().code == 0
    whole = tree()
    (volume / "Food-11" / "training" / "class_03" / "3_0.jpg").unlink()
    result = transform()
    assert result.code == 0 and result.events[0]["event"] == "repair"
    assert tree() == whole


def test_new_data_replaces_the_tree(extract: Any, transform: Any, tree: Any, food11: Any, picture: Any) -> None:
    extract(food11)
    assert transform().code == 0
    extract({"training/5_9.jpg": picture(99)})
    assert transform().code == 0
    assert "training/class_05/5_9.jpg" in tree().lines() and len(tree().files) == 13


def test_csv_table_that_changed_after_extract(extract: Any, transform: Any, picture: Any, volume: Path) -> None:
    extract({"a.jpg": picture(0), "t.csv": b"file,label\na.jpg,bread\n"})
    (volume / "raw/t.csv").write_text("file,label\na.jpg,soup\n")
    result = transform("--recipe=csv")
    assert result.code == 3
    assert "t.csv has changed since it was extracted" in result.stderr
