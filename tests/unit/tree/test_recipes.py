"""What all recipes have in common, and the recipe food11."""

from __future__ import annotations

from pathlib import Path

import pytest

from larder.errors import InputError
from larder.tree import recipes
from larder.tree.recipes import AssignedSample, RecipeFiles, RejectError
from tests.unit.tree.conftest import Open


def test_a_recipe_is_one_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there = [
        "auto",
        "csv",
        "food101",
        "food11",
        "imagefolder",
        "imagenet",
        "metadata",
        "oxford_pet",
        "parquet",
        "webdataset",
    ]
    assert recipes.recipe_names() == there
    (tmp_path / "flat.py").write_text(
        "from larder.tree.recipes import AssignedSample\n"
        "class Flat:\n"
        "    classes = ['all']\n"
        "    def assign(self, path): return AssignedSample('training', 0, path)\n"
        "    def missing_files(self): return ()\n"
        "def open(files): return Flat()\n"
    )
    monkeypatch.setattr(recipes, "__path__", [*recipes.__path__, str(tmp_path)])
    assert recipes.recipe_names() == sorted([*there, "flat"])
    recipe = recipes.open_recipe("flat", RecipeFiles(tmp_path, lambda: iter(()), lambda _: None, tmp_path, ""))
    assert recipe.assign("a.jpg") == AssignedSample("training", 0, "a.jpg")


FOOD11 = ["training/0_0.jpg", "validation/0_0.jpg", "evaluation/0_0.jpg"]


@pytest.mark.parametrize(
    ("path", "sample"),
    [
        ("training/3_17.jpg", AssignedSample("training", 3, "3_17.jpg")),
        ("validation/10_a b.jpg", AssignedSample("validation", 10, "10_a b.jpg")),
        ("evaluation/0_拉面.jpg", AssignedSample("evaluation", 0, "0_拉面.jpg")),
        ("training/1_a\nb.jpg", AssignedSample("training", 1, "1_a\nb.jpg")),  # its name is judged elsewhere
        ("README.txt", None),
        ("extra/3_1.jpg", None),
    ],
)
def test_food11_assigns(open_recipe: Open, path: str, sample: AssignedSample | None) -> None:
    assert open_recipe("food11", FOOD11).assign(path) == sample


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("training/bread.jpg", "no class in its name"),
        ("training/_1.jpg", "no class in its name"),
        ("training/-3_1.jpg", "no class in its name"),
        ("training/٣_1.jpg", "no class in its name"),
        ("training/11_0.jpg", "class 11 in its name, beyond 10"),
        ("training/3/0.jpg", "deeper than"),
    ],
)
def test_food11_rejects(open_recipe: Open, path: str, reason: str) -> None:
    with pytest.raises(RejectError, match=reason):
        open_recipe("food11", FOOD11).assign(path)


def test_food11_names_every_missing_split(open_recipe: Open) -> None:
    with pytest.raises(InputError, match="splits validation, evaluation; the source has the folders training") as fault:
        open_recipe("food11", ["training/0_0.jpg"])
    assert "LARDER_RECIPE" in fault.value.next_step


@pytest.mark.parametrize("name", ["food11", "imagefolder", "csv", "auto"])
def test_names_in_messages_are_escaped(open_recipe: Open, name: str) -> None:
    """Names of folders and files can't forge a line of output."""
    evil = "x\nerror: all is well\x1b[2J"
    for files in (
        ["train/cat/1.jpg", f"{evil}/cat/1.jpg"],
        [f"{evil}.csv", f"b{evil}.csv"],
        [f"{evil}.zip"],
        ["training/1.jpg", "validation/1.jpg", f"{evil}/1.jpg"],
    ):
        with pytest.raises(InputError) as fault:
            open_recipe(name, files)
        assert "\n" not in fault.value.what + fault.value.next_step
        assert "\x1b" not in fault.value.what + fault.value.next_step


def test_food11_with_other_names_of_splits(open_recipe: Open) -> None:
    recipe = open_recipe("food11", ["Food/Train/0_0.jpg", "Food/val/1_0.jpg", "Food/TEST/2_0.jpg", "README.txt"])
    assert recipe.assign("Food/TEST/2_0.jpg") == AssignedSample("evaluation", 2, "2_0.jpg")


def test_food11_over_class_folders_names_the_recipe(open_recipe: Open) -> None:
    files = [f"{split}/Bread/0.jpg" for split in ("training", "validation", "evaluation")]
    with pytest.raises(InputError, match="lie in class folders, such as evaluation/Bread") as fault:
        open_recipe("food11", files)
    assert "LARDER_RECIPE=imagefolder" in fault.value.next_step


def test_food11_drops_no_split_quietly(open_recipe: Open) -> None:
    with pytest.raises(InputError, match="more holds images") as fault:
        open_recipe("food11", [*FOOD11, "more/0_1.jpg"])
    assert "more=-" in fault.value.next_step
    open_recipe("food11", [*FOOD11, "more/0_1.jpg"], splits="more=-")


@pytest.mark.parametrize("name", ["food11", "imagefolder", "auto"])
def test_archives_are_named(open_recipe: Open, name: str) -> None:
    with pytest.raises(InputError, match=r"no images, but archives: images\.zip, more/part\.tar\.gz") as fault:
        open_recipe(name, ["images.zip", "more/part.tar.gz", "README.txt"])
    assert "unpack them" in fault.value.next_step
