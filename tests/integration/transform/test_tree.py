"""The stage's result when nothing fails."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from larder.errors import InputError
from tests.integration.conftest import MakePicture
from tests.integration.transform.conftest import Extract, ReadRejects, ReadTree, Snapshot, Transform


def test_makes_the_tree_of_hard_links(
    extract: Extract, transform: Transform, tree: ReadTree, food11: dict[str, bytes], volume: Path, snapshot: Snapshot
) -> None:
    raw = extract(food11 | {"README.txt": b"not part of it"})
    before = snapshot(raw)
    used = sum(os.stat(path).st_blocks for path in {p.stat().st_ino: p for p in volume.rglob("*.jpg")}.values())
    result = transform()
    assert result.code == 0, result.stderr
    lines = tree().lines()
    assert lines["training/class_03/3_0.jpg"] == {
        "path": "training/class_03/3_0.jpg",
        "bytes": len(food11["training/3_0.jpg"]),
        "sha256": before["training/3_0.jpg"],
        "class": 3,
        "width": 32,
        "height": 24,
        "source": "training/3_0.jpg",
    }
    assert set(lines) == {
        f"{split}/class_{label:02}/{label}_{number}.jpg"
        for split in ("training", "validation", "evaluation")
        for label in (3, 10)
        for number in (0, 1)
    }
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


def test_second_run_does_nothing(
    extract: Extract, transform: Transform, food11: dict[str, bytes], volume: Path
) -> None:
    extract(food11)
    assert transform().code == 0
    manifest = volume / "Food-11" / "_larder" / "manifest.json"
    before = manifest.stat()
    result = transform()
    assert result.code == 0 and result.events[0]["up_to_date"] is True
    after = manifest.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_same_bytes_whatever_the_workers_and_however_often(
    extract: Extract,
    transform: Transform,
    tree: ReadTree,
    rejects: ReadRejects,
    picture: MakePicture,
    food11: dict[str, bytes],
) -> None:
    extract(food11 | {f"training/{n % 11}_{n}.jpg": picture(n) for n in range(10, 300)} | {"training/1_x.jpg": b"no"})
    flags = ("--force", "--max-rejects=1")
    assert transform(*flags).code == 0
    first, reasons = tree(), rejects()
    for workers in ("3", "1"):
        assert transform(*flags, env={"LARDER_WORKERS": workers}).code == 0
        assert (tree(), rejects()) == (first, reasons)


def test_manifest_names_its_input_and_settings(
    extract: Extract, transform: Transform, tree: ReadTree, food11: dict[str, bytes]
) -> None:
    extract(food11)
    assert transform("--verify=decode").code == 0
    manifest = json.loads(tree().manifest)
    assert manifest["artifact"] == "tree" and manifest["dataset"] == "Food-11"
    assert manifest["settings"] == {"recipe": "food11", "verify": "decode"}
    assert manifest["input"]["kind"] == "raw" and len(manifest["input"]["manifest"]) == 64
    assert len(manifest["classes"]) == 11


def test_another_setting_makes_the_tree_again(
    extract: Extract, transform: Transform, tree: ReadTree, food11: dict[str, bytes]
) -> None:
    extract(food11)
    assert transform().code == 0
    assert "width" in tree().lines()["training/class_03/3_0.jpg"]
    assert transform("--verify=none").code == 0
    assert not {"width", "height"} & set(tree().lines()["training/class_03/3_0.jpg"])


def test_more_than_a_hundred_classes_sort_as_their_numbers_do(
    extract: Extract, transform: Transform, tree: ReadTree, picture: MakePicture
) -> None:
    extract({f"train/{number:03}/a.jpg": picture(number) for number in range(101)})
    assert transform("--recipe=imagefolder").code == 0
    lines = tree().lines()
    folders = sorted({path.split("/")[1] for path in lines})
    assert folders[0] == "class_000" and folders[-1] == "class_100"
    assert [lines[f"training/{folder}/a.jpg"]["class"] for folder in folders] == list(range(101))


@pytest.mark.parametrize("name", ["a b.jpg", "naïve 拉面 🍜.jpg", "-rf.jpg", "'\"$(x)`.jpg", "UPPER.JPEG"])
def test_odd_names_are_kept(
    extract: Extract, transform: Transform, tree: ReadTree, picture: MakePicture, name: str
) -> None:
    extract({f"train/-a class/{name}": picture(0), "train/b/1.jpg": picture(1)})
    result = transform("--recipe=imagefolder")
    assert result.code == 0, result.stderr
    assert tree().lines()[f"training/class_00/{name}"]["source"] == f"train/-a class/{name}"


def test_csv_gives_names_labels_and_splits(
    extract: Extract, transform: Transform, tree: ReadTree, picture: MakePicture
) -> None:
    table = '\ufefffile,label,split\nimages/a.jpg,dog,train\n"images/b, c.jpg",cat,test\n'
    extract({"images/a.jpg": picture(0), "images/b, c.jpg": picture(1), "tables/t.csv": table.encode()})
    result = transform("--recipe=csv", env={"LARDER_CSV": "tables/t.csv"})
    assert result.code == 0, result.stderr
    assert set(tree().lines()) == {"training/class_01/a.jpg", "evaluation/class_00/b, c.jpg"}
    assert json.loads(tree().manifest)["classes"] == ["cat", "dog"]


def test_a_file_that_vanished_from_the_tree_is_repaired(
    extract: Extract, transform: Transform, tree: ReadTree, food11: dict[str, bytes], volume: Path
) -> None:
    extract(food11)
    assert transform().code == 0
    whole = tree()
    (volume / "Food-11" / "training" / "class_03" / "3_0.jpg").unlink()
    result = transform()
    assert result.code == 0 and result.events[0]["event"] == "repair"
    assert tree() == whole


def test_new_data_replaces_the_tree(
    extract: Extract, transform: Transform, tree: ReadTree, food11: dict[str, bytes], picture: MakePicture
) -> None:
    extract(food11)
    assert transform().code == 0
    extract({"training/5_9.jpg": picture(99)})
    assert transform().code == 0
    assert "training/class_05/5_9.jpg" in tree().lines() and len(tree().files) == 13


def test_csv_table_that_changed_after_extract(
    extract: Extract, transform: Transform, picture: MakePicture, volume: Path
) -> None:
    extract({"a.jpg": picture(0), "t.csv": b"file,label\na.jpg,bread\n"})
    (volume / "raw/t.csv").write_text("file,label\na.jpg,soup\n")
    result = transform("--recipe=csv")
    assert result.code == 3
    assert "t.csv has changed since it was extracted" in result.stderr


def labels_by_image_folder(folder: Path) -> dict[str, int]:
    """Return the labels of torchvision's own ImageFolder for a split, by path below it."""
    from torchvision.datasets import ImageFolder

    samples = ImageFolder(str(folder), allow_empty=True).samples
    return {str(Path(path).relative_to(folder)): label for path, label in samples}


def test_image_folder_gives_the_labels_of_the_manifest(
    extract: Extract, transform: Transform, tree: ReadTree, picture: MakePicture, volume: Path
) -> None:
    """A class that a split lacks (the first, the last or another one) doesn't shift other labels."""
    files = {f"train/{name}/{name}.jpg": picture(number) for number, name in enumerate("abcd")}
    extract(files | {"val/b/1.jpg": picture(9), "test/a/1.jpg": picture(10), "test/d/2.jpg": picture(11)})
    assert transform().code == 0
    for split in ("training", "validation", "evaluation"):
        labels = labels_by_image_folder(volume / "Food-11" / split)
        lines = tree().lines().items()
        inside = {path.partition("/")[2]: line["class"] for path, line in lines if path.startswith(f"{split}/")}
        assert labels == inside
    empty = volume / "Food-11/validation/class_03"
    empty.rmdir()
    repaired = transform()
    assert repaired.code == 0 and repaired.events[0]["event"] == "repair"
    assert empty.is_dir()


def test_other_files_are_left_out_and_listed(
    extract: Extract, transform: Transform, tree: ReadTree, picture: MakePicture, volume: Path
) -> None:
    left_out = {
        "README.md": b"text",
        "train/cat/notes.txt": b"text",
        "train/cat/.hidden.jpg": picture(7),
        "empty/.gitkeep": b"",
        "train/.ipynb_checkpoints/1-checkpoint.jpg": picture(8),
        "train/@eaDir/cat/SYNOPHOTO_THUMB_M.jpg": picture(9),
        "meta/classes.txt": b"cat",
        "preview.jpg": picture(10),
        "meta/more.zip": b"PK\3\4",
    }
    extract({"train/cat/1.jpg": picture(0), "train/dog/1.jpg": picture(1)} | left_out)
    result = transform()
    assert result.code == 0, result.stderr
    assert set(tree().lines()) == {"training/class_00/1.jpg", "training/class_01/1.jpg"}
    listed = (volume / "Food-11/_larder/left-out.jsonl").read_text().splitlines()
    reasons = {line["path"]: line["reason"] for line in map(json.loads, listed)}
    assert reasons == {
        "README.md": "no images",
        "train/cat/notes.txt": "no images",
        "meta/classes.txt": "no images",
        "train/cat/.hidden.jpg": "hidden",
        "empty/.gitkeep": "hidden",
        "train/.ipynb_checkpoints/1-checkpoint.jpg": "hidden",
        "train/@eaDir/cat/SYNOPHOTO_THUMB_M.jpg": "litter of desktop or storage systems",
        "preview.jpg": "outside of the layout that the recipe reads",
        "meta/more.zip": "archives beside images, which aren't unpacked",
    }
    left_out = {event["reason"]: event["files"] for event in result.events if event["event"] == "left_out"}
    assert left_out == {reason: list(reasons.values()).count(reason) for reason in set(reasons.values())}
    assert "cat" in result.events[-2]["message"], "the table of classes"


def test_an_image_is_never_left_out_for_its_name(
    extract: Extract, transform: Transform, rejects: ReadRejects, picture: MakePicture
) -> None:
    faulty = {
        "cat/2": picture(1),
        "cat/3.dat": picture(2),
        "cat/4.gif": b"GIF89a",
        "cat/5.heic": b"",
        "cat/6.jpg": b"damaged",
        "cat/7.JFIF": picture(3),
    }
    extract({"cat/1.jpg": picture(0), "cat/8.txt": b"text"} | faulty)
    assert transform("--recipe=imagefolder").code == 4
    assert set(rejects()) == set(faulty)


def test_a_data_set_without_splits_is_divided(
    extract: Extract, transform: Transform, tree: ReadTree, picture: MakePicture
) -> None:
    files = {f"{name}/{number}.jpg": picture(number + 1000 * ord(name)) for number in range(150) for name in "ab"}
    extract(files)
    flags = ("--split=0.6,0.2,0.2", "--split-seed=3")
    result = transform(*flags)
    assert result.code == 0, result.stderr
    before = {line["source"]: path.partition("/")[0] for path, line in tree().lines().items()}
    manifest = json.loads(tree().manifest)
    assert manifest["settings"]["split"] == "0.6,0.2,0.2" and manifest["settings"]["split_seed"] == 3
    for split, least, most in (("training", 65, 115), ("validation", 15, 48), ("evaluation", 15, 48)):
        assert all(least <= count <= most for count in manifest["splits"][split]["samples_per_class"])
    extract(
        {f"{name}/more{number}.jpg": picture(number + 1000 * ord(name)) for number in range(200, 230) for name in "ab"}
    )
    assert transform(*flags).code == 0
    after = {line["source"]: path.partition("/")[0] for path, line in tree().lines().items()}
    assert len(after) == 360 and before.items() <= after.items()
    assert transform("--split=0.6,0.2,0.2", "--split-seed=4").code == 0
    assert {line["source"]: path.partition("/")[0] for path, line in tree().lines().items()} != after


def test_splits_of_their_own_are_not_divided(extract: Extract, transform: Transform, picture: MakePicture) -> None:
    extract({"train/a/1.jpg": picture(0), "test/a/1.jpg": picture(1)})
    result = transform("--split=0.5,0.5")
    assert result.code == 2 and "has splits of its own" in result.stderr


def test_auto_makes_the_tree_that_the_recipe_makes(
    extract: Extract, transform: Transform, tree: ReadTree, food11: dict[str, bytes]
) -> None:
    extract(food11)
    assert transform("--recipe=food11", "--force").code == 0
    whole = tree()
    result = transform("--force")
    assert result.code == 0 and tree() == whole
    [event] = [event for event in result.events if event["event"] == "recipe"]
    assert "LARDER_RECIPE=food11" in event["message"] and "<class>_<n>" in event["message"]
    assert transform("--recipe=food11").events[0]["up_to_date"] is True
    assert transform().events[0]["up_to_date"] is True


def test_auto_looks_again_when_a_setting_has_changed(
    extract: Extract, transform: Transform, tree: ReadTree, picture: MakePicture
) -> None:
    table = b"file,label\ncat/1.jpg,x\ndog/1.jpg,y\n"
    extract({"cat/1.jpg": picture(0), "dog/1.jpg": picture(1), "meta/t.csv": table})
    assert transform().code == 0
    assert json.loads(tree().manifest)["classes"] == ["cat", "dog"]
    assert transform(env={"LARDER_CSV": "meta/t.csv"}).code == 0
    assert json.loads(tree().manifest)["classes"] == ["x", "y"]
    assert transform("--splits=none").code == 0
    assert json.loads(tree().manifest)["classes"] == ["cat", "dog"]


def test_csv_two_files_of_one_name(
    extract: Extract, transform: Transform, tree: ReadTree, picture: MakePicture
) -> None:
    extract({"a/1.jpg": picture(0), "b/1.jpg": picture(1), "t.csv": b"File;Class\na/1.jpg;cat\nb/1.jpg;cat\n"})
    assert transform().code == 0
    assert {path: line["source"] for path, line in tree().lines().items()} == {
        "training/class_00/a_1.jpg": "a/1.jpg",
        "training/class_00/b_1.jpg": "b/1.jpg",
    }


def test_an_image_in_two_splits_is_said(extract: Extract, transform: Transform, picture: MakePicture) -> None:
    files = {f"{path}.jpg": picture(int(path[-1])) for path in ("train/a/0", "train/b/1", "train/b/2", "val/a/2")}
    extract(files)
    done = transform()
    assert done.code == 0, done.stderr
    said = (
        "1 image lies in more than one split (with the same sha256), such as 'training/class_01/2.jpg' and 'validation/"
    )
    assert said in done.stderr
    extract(files | {"val/a/2.jpg": picture(9)})
    assert "in more than one split" not in transform("--force").stderr


@pytest.mark.parametrize("folder", ["train/_larder", "_larder", "train/_LARDER"])
def test_a_class_with_larders_own_name(
    extract: Extract, transform: Transform, picture: MakePicture, folder: str
) -> None:
    files = {f"{path}.jpg": picture(n) for n, path in enumerate(("train/a/0", "train/b/1", f"{folder}/2"))}
    said = rf"'{folder}/2\.jpg' lies in a folder _larder, which is reserved for larder"
    if folder.endswith("_larder"):
        with pytest.raises(InputError, match=said):
            extract(files)
        return
    extract(files)
    failed = transform()
    assert failed.code == 3
    assert re.search(said, failed.stderr)
