"""The recipe imagefolder: folders as splits and classes."""

from __future__ import annotations

import pytest

from larder.errors import InputError
from larder.tree.assign import assign
from larder.tree.recipes import AssignedSample, LeftOutError, RejectError
from tests.unit.tree.conftest import Open, split_of


def test_imagefolder_without_splits(open_recipe: Open) -> None:
    recipe = open_recipe("imagefolder", ["zebra/1.jpg", "Bee/1.jpg", "ant/1.jpg", "-x y/2.jpg", "README"])
    assert recipe.classes == sorted(["zebra", "Bee", "ant", "-x y"])
    assert recipe.assign("zebra/1.jpg") == AssignedSample("training", 3, "1.jpg")
    assert recipe.assign("README") is None


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("training", "training"),
        ("train", "training"),
        ("validation", "validation"),
        ("val", "validation"),
        ("valid", "validation"),
        ("evaluation", "evaluation"),
        ("eval", "evaluation"),
        ("test", "evaluation"),
        ("Train", "training"),
        ("TRAINING", "training"),
        ("training_set", "training"),
        ("train_set", "training"),
        ("Train Images", "training"),
        ("dev", "validation"),
        ("Val-Set", "validation"),
        ("Testing", "evaluation"),
        ("test_set", "evaluation"),
        ("Test", "evaluation"),
        ("ＴＥＳＴ", "evaluation"),
    ],
)
def test_imagefolder_knows_the_names_of_splits(open_recipe: Open, folder: str, split: str) -> None:
    recipe = open_recipe("imagefolder", [f"{folder}/cat/1.jpg", f"{folder}/dog/1.jpg", "docs/notes.txt"])
    assert recipe.classes == ["cat", "dog"]
    assert recipe.assign(f"{folder}/dog/1.jpg") == AssignedSample(split, 1, "1.jpg")
    assert recipe.assign("docs/notes.txt") is None


def test_imagefolder_takes_classes_from_all_splits(open_recipe: Open) -> None:
    recipe = open_recipe("imagefolder", ["train/b/1.jpg", "val/a/1.jpg"])
    assert recipe.classes == ["a", "b"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("train/cat/deep/1.jpg", "deeper than <split>/<class>"), ("train/1.jpg", "higher than <split>")],
)
def test_imagefolder_rejects(open_recipe: Open, path: str, reason: str) -> None:
    with pytest.raises(RejectError, match=reason):
        open_recipe("imagefolder", ["train/cat/1.jpg"]).assign(path)


def test_imagefolder_without_class_folders(open_recipe: Open) -> None:
    with pytest.raises(InputError, match=r"no class folders.*the source has the folders train") as fault:
        open_recipe("imagefolder", ["train/1.jpg"])
    assert "LARDER_RECIPE" in fault.value.next_step


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["images/1.png", "masks/1.png"], "folders named 'images' and 'masks', which say nothing"),
        (["train/Images/1.png", "train/Labels/1.png", "val/Images/2.png"], "folders named 'Images' and 'Labels'"),
        (["JPEGImages/1.jpg", "SegmentationClass/1.png"], "which say nothing about their classes"),
        (["shard/1.jpg", "shard/1.json", "shard/2.jpg", "shard/2.json"], "may hold its label, such as 'shard/1.json'"),
        (["shard/1.jpg", "shard/1.txt"], "may hold its label, such as 'shard/1.txt'"),
    ],
)
def test_auto_does_not_take_other_folders_for_classes(open_recipe: Open, paths: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        open_recipe("auto", paths)
    assert "LARDER_RECIPE=imagefolder" in error.value.next_step


@pytest.mark.parametrize(
    "paths",
    [
        ["masks/1.png", "hats/1.png"],
        ["labels/1.png", "tags/2.png"],
        ["cat/1.jpg", "cat/1.json", "dog/2.jpg"],
        ["cat/1.jpg", "cat/2.jpg", "cat/3.jpg", "cat/notes.txt"],
    ],
)
def test_auto_takes_folders_for_classes(open_recipe: Open, paths: list[str]) -> None:
    assert open_recipe("auto", paths).classes == sorted({path.split("/")[0] for path in paths})


@pytest.mark.parametrize(
    ("folder", "split"), [("1-train", "training"), ("testA", "evaluation"), ("holdout", "validation")]
)
def test_the_split_that_a_folder_may_mean_is_proposed(open_recipe: Open, folder: str, split: str) -> None:
    with pytest.raises(InputError) as error:
        open_recipe("imagefolder", [f"{folder}/cat/1.jpg", "zz/cat/2.jpg"])
    assert f"LARDER_SPLITS={folder}={split} (or" in error.value.next_step


@pytest.mark.parametrize(
    ("files", "splits", "what"),
    [
        (["train/cat/1.jpg", "dev2/cat/1.jpg"], "", "dev2 holds images, and train"),
        (["train/cat/1.jpg", "holdout/cat/1.jpg", "fold/cat/1.jpg"], "", "fold, holdout hold images, and train"),
        (["train/cat/1.jpg", "bus/1.jpg"], "", "bus holds images"),
        (["day/cat/1.jpg", "night/cat/1.jpg"], "", "day, night hold images"),
        (["train/cat/1.jpg", "x/1.gif"], "", "x holds images"),
        (["train/1.jpg", "test/1.jpg", "bus/1.jpg"], "", "may be splits or classes"),
        (["train/1.jpg", "test/1.jpg"], "", "no class folders"),
        (["train/cat/1.jpg"], "dev=validation", "LARDER_SPLITS names dev"),
        (["bus/1.jpg", "extra/1.jpg"], "extra=-,bus=-", "no class folders"),
        (["trainA/1.jpg", "trainB/1.jpg", "testA/1.jpg", "testB/1.jpg"], "", "testA, .* may be splits or classes"),
        (["train2017/1.jpg", "val2017/1.jpg", "annotations/a.json"], "", "train2017, val2017 may be splits or classes"),
        (["coco/train2017/1.jpg", "coco/unlabeled/1.jpg"], "", "train2017 may be splits or classes"),
        (["Train_v2/1.jpg"], "", "Train_v2 may be splits"), (["traina/1.jpg", "cat/1.jpg"], "", "traina may be"),
        (["mini-train/1.jpg", "mini-test/1.jpg", "more/1.jpg"], "", "mini-test, mini-train may be"),
        (["train/cat/1.jpg", "train/dog/1.jpg", "test/1.jpg"], "", "images in test don't lie in class folders"),
        (["train/images/cat/1.jpg", "val/images/cat/1.jpg"], "", "as in train/images/cat"),
        (["data/logo.png", "data/images/train/cat/1.jpg"], "", "deeper, as in data/images/train/cat, .* in data"),
        (["cat/train/1.jpg", "cat/more/1.jpg", "dog/test/1.jpg"], "", "more holds images, and test, train beside"),
    ],
    ids=["unknown", "two-unknown", "class-beside-split", "all-unknown", "other-format", "ambiguous", "no-classes",
         "unused-setting", "nothing-left", "cyclegan", "coco", "coco-and-unknown", "version", "letter", "words",
         "unlabelled-test", "deeper", "deeper-beside-others", "some-splits-in-classes"],
)  # fmt: skip
def test_imagefolder_drops_nothing_quietly(open_recipe: Open, files: list[str], splits: str, what: str) -> None:
    with pytest.raises(InputError, match=what) as fault:
        open_recipe("imagefolder", files, splits=splits)
    assert "LARDER_" in fault.value.next_step
    assert len(f"{fault.value.what}\n{fault.value.next_step}".splitlines()) <= 3


def test_imagefolder_splits_by_the_setting(open_recipe: Open) -> None:
    files = ["a/cat/1.jpg", "b/cat/2.jpg", "junk/cat/3.jpg", "Test/dog/4.jpg", "c/dog/5.jpg"]
    recipe = open_recipe("imagefolder", files, splits="A=training,b=dev,junk=-,c=my own")
    assert recipe.classes == ["cat", "dog"]
    assert [recipe.assign(path) for path in files if not path.startswith("junk")] == [
        AssignedSample("training", 0, "1.jpg"),
        AssignedSample("validation", 0, "2.jpg"),
        AssignedSample("evaluation", 1, "4.jpg"),
        AssignedSample("my own", 1, "5.jpg"),
    ]
    with pytest.raises(LeftOutError):
        recipe.assign("junk/cat/3.jpg")


@pytest.mark.parametrize(
    "folders",
    [
        ["bus", "car", "train"],
        ["Test", "result"],
        ["valid", "invalid"],
        ["dev", "prod"],
        ["tests", "trains"],
        ["bullet train", "test tube", "cat", "dog", "evaluator"],
    ],
)
def test_imagefolder_a_class_may_be_called_as_a_split(open_recipe: Open, folders: list[str]) -> None:
    recipe = open_recipe("imagefolder", [f"{name}/1.jpg" for name in folders])
    assert recipe.classes == sorted(folders)
    assert {split_of(recipe, f"{name}/1.jpg") for name in folders} == {"training"}


def test_imagefolder_no_folder_is_a_split(open_recipe: Open) -> None:
    recipe = open_recipe("imagefolder", ["train/1.jpg", "test/1.jpg"], splits="none")
    assert recipe.classes == ["test", "train"]


def test_imagefolder_splits_in_class_folders(open_recipe: Open) -> None:
    files = ["x/cat/train/1.jpg", "x/cat/Test/2.jpg", "x/dog/train/1.jpg"]
    recipe = open_recipe("auto", files)
    assert recipe.classes == ["cat", "dog"]
    assert [recipe.assign(path) for path in files] == [
        AssignedSample("training", 0, "1.jpg"),
        AssignedSample("evaluation", 0, "2.jpg"),
        AssignedSample("training", 1, "1.jpg"),
    ]
    with pytest.raises(RejectError, match="deeper than <class>/<split>/<file>"):
        recipe.assign("x/cat/train/more/1.jpg")
    with pytest.raises(LeftOutError):
        open_recipe("imagefolder", files, splits="test=-").assign("x/cat/Test/2.jpg")


@pytest.mark.parametrize(
    "litter",
    [
        "cat/Folder.jpg",
        "dog/AlbumArtSmall.jpg",
        "AlbumArt_{5FA05D35-A682-4AF6}_Large.jpg",
        "new/folder.jpg",
        ".ipynb_checkpoints/1.jpg",
        "cat/.ipynb_checkpoints/1.jpg",
        ".hidden/cat/1.jpg",
        "@eaDir/cat/1.jpg",
        "meta/1.txt",
        "meta/classes.txt",
        "cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
        "#recycle/1.jpg",
        "$RECYCLE.BIN/1.jpg",
        "lost+found/1.jpg",
        "__MACOSX/cat/._1.jpg",
        "Thumbs.db",
        "README.md",
        "cat/.gitkeep",
        "empty/.gitkeep",
    ],
)
def test_imagefolder_litter_is_no_class(open_recipe: Open, litter: str) -> None:
    assert open_recipe("imagefolder", ["cat/1.jpg", "dog/1.jpg", litter]).classes == ["cat", "dog"]
    with_splits = ["train/cat/1.jpg", "train/dog/1.jpg", f"train/{litter}", litter]
    assert open_recipe("imagefolder", with_splits).classes == ["cat", "dog"]


def test_a_folder_with_larders_own_name_is_no_class(open_recipe: Open) -> None:
    for folder in ("_larder", "train/_Larder"):
        recipe = open_recipe("imagefolder", ["train/cat/1.jpg", f"{folder}/1.jpg", "_larder/manifest.json"])
        with pytest.raises(InputError, match=rf"'{folder}/1\.jpg' lies in a folder _larder, .* reserved"):
            assign(recipe, f"{folder}/1.jpg", bool)
        with pytest.raises(LeftOutError):
            assign(recipe, "_larder/manifest.json", bool)


def test_nothing_but_litter_is_named(open_recipe: Open) -> None:
    with pytest.raises(InputError, match=r"no images but hidden files and litter, such as 'cat/folder\.jpg'"):
        open_recipe("auto", ["cat/folder.jpg", "dog/folder.jpg"])


@pytest.mark.parametrize("around", ["photos/", "a/b/"])
def test_imagefolder_inside_other_folders(open_recipe: Open, around: str) -> None:
    recipe = open_recipe("imagefolder", [f"{around}train/cat/1.jpg", f"{around}val/dog/1.jpg", "README.md"])
    assert recipe.classes == ["cat", "dog"]
    assert recipe.assign(f"{around}val/dog/1.jpg") == AssignedSample("validation", 1, "1.jpg")
