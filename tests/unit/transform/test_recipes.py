"""How each recipe finds split and class, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from larder.errors import InputError
from services.transform import recipes
from services.transform.recipes import Files, Recipe, RejectError, Sample

Open = Callable[..., Recipe]


@pytest.fixture
def open_recipe(tmp_path: Path) -> Open:
    """Opens a recipe over files, given as names or as a mapping from name to content."""

    def open_recipe(name: str, files: Mapping[str, str | bytes] | list[str], csv: str = "") -> Recipe:
        content = files if isinstance(files, Mapping) else dict.fromkeys(files, "")
        raw, scratch = tmp_path / "raw", tmp_path / "scratch"
        scratch.mkdir()
        for path, text in content.items():
            (raw / path).parent.mkdir(parents=True, exist_ok=True)
            (raw / path).write_bytes(text.encode() if isinstance(text, str) else text)
        return recipes.load(name, Files(raw, lambda: iter(sorted(content)), lambda _: None, scratch, csv))

    return open_recipe


def test_a_recipe_is_one_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert recipes.names() == ["csv", "food11", "imagefolder", "metadata", "parquet"]
    (tmp_path / "flat.py").write_text(
        "from services.transform.recipes import Sample\n"
        "class Flat:\n"
        "    classes = ['all']\n"
        "    def assign(self, path): return Sample('training', 0, path)\n"
        "    def absent(self): return ()\n"
        "def open(files): return Flat()\n"
    )
    monkeypatch.setattr(recipes, "__path__", [*recipes.__path__, str(tmp_path)])
    assert recipes.names() == ["csv", "flat", "food11", "imagefolder", "metadata", "parquet"]
    recipe = recipes.load("flat", Files(tmp_path, lambda: iter(()), lambda _: None, tmp_path, ""))
    assert recipe.assign("a.jpg") == Sample("training", 0, "a.jpg")


FOOD11 = ["training/0_0.jpg", "validation/0_0.jpg", "evaluation/0_0.jpg"]


@pytest.mark.parametrize(
    ("path", "sample"),
    [
        ("training/3_17.jpg", Sample("training", 3, "3_17.jpg")),
        ("validation/10_a b.jpg", Sample("validation", 10, "10_a b.jpg")),
        ("evaluation/0_拉面.jpg", Sample("evaluation", 0, "0_拉面.jpg")),
        ("training/1_a\nb.jpg", Sample("training", 1, "1_a\nb.jpg")),  # its name is judged elsewhere
        ("README.txt", None),
        ("extra/3_1.jpg", None),
    ],
)
def test_food11_assigns(open_recipe: Open, path: str, sample: Sample | None) -> None:
    assert open_recipe("food11", FOOD11).assign(path) == sample


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("training/bread.jpg", "no class in its name"), ("training/_1.jpg", "no class in its name"),
        ("training/-3_1.jpg", "no class in its name"), ("training/٣_1.jpg", "no class in its name"),
        ("training/11_0.jpg", "class 11 in its name, beyond 10"), ("training/3/0.jpg", "deeper than"),
    ],
)  # fmt: skip
def test_food11_rejects(open_recipe: Open, path: str, reason: str) -> None:
    with pytest.raises(RejectError, match=reason):
        open_recipe("food11", FOOD11).assign(path)


def test_food11_names_every_missing_split(open_recipe: Open) -> None:
    with pytest.raises(InputError, match="splits validation, evaluation; the source has the folders training") as fault:
        open_recipe("food11", ["training/0_0.jpg"])
    assert "LARDER_RECIPE" in fault.value.next_step


def test_imagefolder_without_splits(open_recipe: Open) -> None:
    recipe = open_recipe("imagefolder", ["zebra/1.jpg", "Ant/1.jpg", "ant/1.jpg", "-x y/2.jpg", "README"])
    assert recipe.classes == sorted(["zebra", "Ant", "ant", "-x y"])
    assert recipe.assign("zebra/1.jpg") == Sample("training", 3, "1.jpg")
    assert recipe.assign("README") is None


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("training", "training"), ("train", "training"), ("validation", "validation"), ("val", "validation"),
        ("valid", "validation"), ("evaluation", "evaluation"), ("eval", "evaluation"), ("test", "evaluation"),
    ],
)  # fmt: skip
def test_imagefolder_knows_the_names_of_splits(open_recipe: Open, folder: str, split: str) -> None:
    recipe = open_recipe("imagefolder", [f"{folder}/cat/1.jpg", f"{folder}/dog/1.jpg", "docs/cat/2.jpg"])
    assert recipe.assign(f"{folder}/dog/1.jpg") == Sample(split, 1, "1.jpg")
    assert recipe.assign("docs/cat/2.jpg") is None


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
    "table",
    [
        "file,label\na.jpg,cat\nb.jpg,dog\n", "label,file,note\ncat,a.jpg,x\ndog,b.jpg,y\n",
        "\ufefffile,label\r\na.jpg,cat\r\nb.jpg,dog\r\n", '"file","label"\n"./a.jpg","cat"\n"b.jpg","dog"',
    ],
    ids=["plain", "other-columns", "byte-order-mark-and-crlf", "quoted"],
)  # fmt: skip
def test_csv_reads(open_recipe: Open, table: str) -> None:
    recipe = open_recipe("csv", {"labels.csv": table, "a.jpg": "", "b.jpg": ""})
    assert recipe.classes == ["cat", "dog"]
    assert recipe.assign("b.jpg") == Sample("training", 1, "b.jpg")
    assert recipe.assign("labels.csv") is None
    assert list(recipe.absent()) == [("a.jpg", "is named in labels.csv, line 2, but is not in the source")]


def test_csv_quoting_holds_commas_and_newlines(open_recipe: Open) -> None:
    recipe = open_recipe("csv", {"labels.csv": 'file,label\n"a, b.jpg","x\ny"\n"c""d.jpg",x\n'})
    assert recipe.classes == ["x", "x\ny"]
    assert recipe.assign("a, b.jpg") == Sample("training", 1, "a, b.jpg")
    assert recipe.assign('c"d.jpg') == Sample("training", 0, 'c"d.jpg')


def test_csv_numbers_are_sorted_as_numbers(open_recipe: Open) -> None:
    rows = "".join(f"{number}.jpg,{number}\n" for number in (10, 9, 0))
    recipe = open_recipe("csv", {"labels.csv": "file,label\n" + rows})
    assert recipe.classes == ["0", "9", "10"]


def test_csv_split_column(open_recipe: Open) -> None:
    recipe = open_recipe("csv", {"labels.csv": "file,label,split\na.jpg,x,held out\nb.jpg,x,\n"})
    assert recipe.assign("a.jpg") == Sample("held out", 0, "a.jpg")
    assert recipe.assign("b.jpg") == Sample("training", 0, "b.jpg")


@pytest.mark.parametrize("setting", ["meta/labels.csv", "./meta/labels.csv"])
def test_csv_in_a_subfolder(open_recipe: Open, setting: str) -> None:
    files = {"meta/labels.csv": "file,label\na.jpg,x\nimages/b.jpg,y\n", "meta/a.jpg": "", "images/b.jpg": ""}
    recipe = open_recipe("csv", files, setting)
    assert recipe.assign("meta/a.jpg") == Sample("training", 0, "a.jpg")
    assert recipe.assign("images/b.jpg") == Sample("training", 1, "b.jpg")
    assert recipe.assign("meta/labels.csv") is None
    assert list(recipe.absent()) == []


def test_csv_rejects_a_file_that_it_does_not_name(open_recipe: Open) -> None:
    with pytest.raises(RejectError, match=r"not named in labels\.csv"):
        open_recipe("csv", {"labels.csv": "file,label\na.jpg,x\n"}).assign("b.jpg")


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ("", "line 1: is empty"),
        ("file;label\na.jpg;x\n", "line 1: has the columns file;label"),
        ("path,label\na.jpg,x\n", "file and label are needed"),
        ("file,label\na.jpg,x\na.jpg,y\n", "line 3: names 'a.jpg' a second time"),
        ("file,label\na.jpg,x\n./a.jpg,x\n", "line 3: names"),
        ("file,label\na.jpg,\n", "line 2: lacks the file or the label"),
        ("file,label\n,x\n", "line 2: lacks the file or the label"),
        ("file,label\na.jpg\n", "line 2: lacks the file or the label"),
        ("file,label,split\na.jpg,x,../up\n", "line 2: has the split '../up'"),
        ("file,label,split\na.jpg,x,..\n", "line 2: has the split"),
        ("file,label,split\na.jpg,x,_larder\n", "line 2: has the split '_larder'"),
        ('file,label,split\na.jpg,x,"a\nb"\n', "line 3: has the split"),
        ("file,label,split\na.jpg,x,a\0b\n", "line 2: has the split"),
        (b"file,label\ncaf\xe9.jpg,x\n", "is no CSV in UTF-8"),
        (b"file,label\n" + b"b" * 200_000 + b",x\n", "is no CSV in UTF-8"),
    ],
    ids=[
        "empty", "semicolons", "no-file-column", "twice", "twice-spelt-otherwise", "no-label", "no-file", "short-row",
        "split-with-slash", "split-dots", "split-of-ours", "split-with-newline", "split-with-nul", "latin-1",
        "huge-field",
    ],
)  # fmt: skip
def test_csv_refuses_a_faulty_table_and_names_the_line(open_recipe: Open, table: str | bytes, what: str) -> None:
    with pytest.raises(InputError) as fault:
        open_recipe("csv", {"labels.csv": table})
    assert what in fault.value.what
    assert "correct the table" in fault.value.next_step


@pytest.mark.parametrize(
    ("files", "setting", "what"),
    [
        (["a.jpg"], "", "no CSV file"), (["a.csv", "b.csv"], "", "a.csv, b.csv at its top"),
        (["sub/a.csv"], "", "no CSV file"), (["a.csv"], "b.csv", "no file b.csv"),
        (["sub/a.csv"], "sub", "no file sub"),
    ],
)  # fmt: skip
def test_csv_without_its_table(open_recipe: Open, files: list[str], setting: str, what: str) -> None:
    with pytest.raises(InputError) as fault:
        open_recipe("csv", files, setting)
    assert what in fault.value.what
    assert "LARDER_CSV" in fault.value.next_step
