"""How each recipe finds split and class, and what it refuses."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from larder.errors import InputError
from larder.tree import recipes
from larder.tree.assign import assign
from larder.tree.recipes import AssignedSample, LeftOutError, Recipe, RecipeFiles, RejectError
from larder.tree.splits import parse_split_names

Open = Callable[..., Recipe]


@pytest.fixture
def open_recipe(tmp_path: Path) -> Open:
    """Opens a recipe over files, given as names or as a mapping from name to content."""

    def open_recipe(name: str, files: Mapping[str, str | bytes] | list[str], csv: str = "", splits: str = "") -> Recipe:
        content = files if isinstance(files, Mapping) else dict.fromkeys(files, "")
        raw, scratch = tmp_path / "raw", tmp_path / "scratch"
        shutil.rmtree(raw, ignore_errors=True)
        scratch.mkdir(exist_ok=True)
        for path, text in content.items():
            (raw / path).parent.mkdir(parents=True, exist_ok=True)
            (raw / path).write_bytes(text.encode() if isinstance(text, str) else text)
        names = parse_split_names(splits)
        return recipes.open_recipe(
            name, RecipeFiles(raw, lambda: iter(sorted(content)), lambda _: None, scratch, csv, names)
        )

    return open_recipe


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
    "table",
    [
        "file,label\na.jpg,cat\nb.jpg,dog\n",
        "label,file,note\ncat,a.jpg,x\ndog,b.jpg,y\n",
        "\ufefffile,label\r\na.jpg,cat\r\nb.jpg,dog\r\n",
        '"file","label"\n"./a.jpg","cat"\n"b.jpg","dog"',
    ],
    ids=["plain", "other-columns", "byte-order-mark-and-crlf", "quoted"],
)
def test_csv_reads(open_recipe: Open, table: str) -> None:
    recipe = open_recipe("csv", {"labels.csv": table, "a.jpg": "", "b.jpg": ""})
    assert recipe.classes == ["cat", "dog"]
    assert recipe.assign("b.jpg") == AssignedSample("training", 1, "b.jpg")
    assert recipe.assign("labels.csv") is None
    assert list(recipe.missing_files()) == [("a.jpg", "is named in labels.csv, line 2, but is not in the source")]


@pytest.mark.parametrize(
    ("table", "file"),
    [("file,label\nCaf\u00e9.jpg,x\n", "Cafe\u0301.jpg"), ("file,label\ngone.jpg,x\nb.jpg,y\n", "b.jpg")],
    ids=["another Unicode form", "the first file is missing"],
)
def test_auto_finds_tables_of_some_files(open_recipe: Open, table: str, file: str) -> None:
    assert open_recipe("auto", {"labels.csv": table, file: ""}).assign(file) is not None


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("file,label\n1,cat\n", "labels.csv names '1' first, which is no file of the source"),
        ("file,label\nA.JPG,cat\n", "labels.csv names 'A.JPG' first"),
        ("image,cat,dog\na.jpg,1,0\n", "labels.csv, line 1: has the columns image, cat, dog"),
        ("file,label\na.jpg,x\n".encode("utf-16"), "labels.csv, line 1: is in UTF-16"),
        ("file,label\na.jpg,cr\u00e8me\n".encode("latin-1"), "labels.csv, line .: is not CSV in UTF-8"),
        ("file,label\n", "labels.csv has no rows"),
        ("file,label,set,subset\na.jpg,x,1,2\n", "several columns that may be the split"),
    ],
)
def test_auto_says_why_a_table_does_not_fit(open_recipe: Open, table: str | bytes, says: str) -> None:
    with pytest.raises(InputError, match="no recipe recognizes the layout") as error:
        open_recipe("auto", {"labels.csv": table, "a.jpg": ""})
    assert re.search(says, error.value.what)


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


def test_csv_quoting_holds_commas_and_newlines(open_recipe: Open) -> None:
    recipe = open_recipe("csv", {"labels.csv": 'file,label\n"a, b.jpg","x\ny"\n"c""d.jpg",x\n'})
    assert recipe.classes == ["x", "x\ny"]
    assert recipe.assign("a, b.jpg") == AssignedSample("training", 1, "a, b.jpg")
    assert recipe.assign('c"d.jpg') == AssignedSample("training", 0, 'c"d.jpg')


def test_csv_numbers_are_sorted_as_numbers(open_recipe: Open) -> None:
    rows = "".join(f"{number}.jpg,{number}\n" for number in (10, 9, 0))
    recipe = open_recipe("csv", {"labels.csv": "file,label\n" + rows})
    assert recipe.classes == ["0", "9", "10"]


def test_csv_split_column(open_recipe: Open) -> None:
    recipe = open_recipe("csv", {"labels.csv": "file,label,split\na.jpg,x,held out\nb.jpg,x,train\n"})
    assert recipe.assign("a.jpg") == AssignedSample("held out", 0, "a.jpg")
    assert recipe.assign("b.jpg") == AssignedSample("training", 0, "b.jpg")


@pytest.mark.parametrize("value", ["", " ", "NaN", "None", "null", "NULL", "N/A", "<NA>"])
@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("csv", ("labels.csv", "file,label,{}\na.jpg,x,train\nb.jpg,y,{}\n")),
        ("metadata", ("metadata.csv", "file_name,label,{}\na.jpg,x,train\nb.jpg,y,{}\n")),
        (
            "metadata",
            (
                "metadata.jsonl",
                '{{"file_name": "a.jpg", "label": "x", "{0}": "train"}}\n'
                '{{"file_name": "b.jpg", "label": "y", "{0}": "{1}"}}\n',
            ),
        ),
    ],
    ids=["csv", "metadata.csv", "metadata.jsonl"],
)
def test_a_row_without_a_split_is_in_none(open_recipe: Open, name: str, table: tuple[str, str], value: str) -> None:
    files = {table[0]: table[1].format("split", value), "a.jpg": "", "b.jpg": ""}
    with pytest.raises(InputError, match=rf"rows without a split.*: {table[0]}, line [23]$") as fault:
        open_recipe(name, files)
    assert "LARDER_SPLITS=null=training" in fault.value.next_step
    assert open_recipe(name, files, splits="null=val").assign("b.jpg").split == "validation"
    recipe = open_recipe(name, files, splits="null=-")
    assert recipe.classes == ["x"]
    with pytest.raises(LeftOutError):
        recipe.assign("b.jpg")
    for column in ("Split", "set", "subset", "Partition"):
        split = files | {table[0]: table[1].format(column, "test")}
        assert open_recipe(name, split).assign("b.jpg") == AssignedSample("evaluation", 1, "b.jpg")


def test_rows_without_a_split_are_counted(open_recipe: Open) -> None:
    rows = "".join(f"{number}.jpg,x\n" for number in range(1234))
    with pytest.raises(InputError, match=r"line 2; labels\.csv, line 3; labels\.csv, line 4 and 1,231 more$"):
        open_recipe("csv", {"labels.csv": f"file,label,split\n{rows}"})


def test_images_that_no_table_names_are_left_out_by_their_folder(open_recipe: Open) -> None:
    """The form of many contests: a table for train/, and test/ without labels."""
    files = {
        "train.csv": "file,label\ntrain/a.jpg,x\n",
        "metadata.csv": "file_name,label\ntrain/a.jpg,x\n",
        "train/a.jpg": "",
        "test/b.jpg": "",
    }
    for name, csv in (("csv", "train.csv"), ("metadata", "")):
        with pytest.raises(RejectError, match="LARDER_SPLITS=test=- leaves such images out"):
            open_recipe(name, files, csv=csv).assign("test/b.jpg")
        with pytest.raises(LeftOutError):
            open_recipe(name, files, csv=csv, splits="test=-").assign("test/b.jpg")


@pytest.mark.parametrize("setting", ["meta/labels.csv", "./meta/labels.csv"])
def test_csv_in_a_subfolder(open_recipe: Open, setting: str) -> None:
    files = {"meta/labels.csv": "file,label\na.jpg,x\nimages/b.jpg,y\n", "meta/a.jpg": "", "images/b.jpg": ""}
    recipe = open_recipe("csv", files, setting)
    assert recipe.assign("meta/a.jpg") == AssignedSample("training", 0, "a.jpg")
    assert recipe.assign("images/b.jpg") == AssignedSample("training", 1, "b.jpg")
    assert recipe.assign("meta/labels.csv") is None
    assert list(recipe.missing_files()) == []


def test_csv_rejects_a_file_that_it_does_not_name(open_recipe: Open) -> None:
    with pytest.raises(RejectError, match=r"not named in labels\.csv"):
        open_recipe("csv", {"labels.csv": "file,label\na.jpg,x\n"}).assign("b.jpg")


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ("", "line 1: is empty"),
        ("file:label\na.jpg:x\n", "line 1: has the columns file:label"),
        ("where,label\na.jpg,x\n", "file and label are needed"),
        ("file,class,category\na.jpg,x,y\n", "several columns that may be the label: class and category"),
        ("File,file,label\na.jpg,a.jpg,x\n", "several columns that may be the file: File and file"),
        ("file,label\na, b.jpg,x\n", "line 2: has 3 values for 2 columns"),
        ("file,label\na.jpg,x\n a.jpg ,y\n", "line 3: names 'a.jpg' a second time"),
        ("file,label\nau\u0308.jpg,x\na\u00fc.jpg,y\n", "line 3: names 'aü.jpg' a second time"),
        ("file,label\na.jpg,x\n".encode("utf-16"), "line 1: is in UTF-16"),
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
        (b"file,label\ncaf\xe9.jpg,x\n", "is not CSV in UTF-8"),
        (b"file,label\n" + b"b" * 200_000 + b",x\n", "is not CSV in UTF-8"),
    ],
    ids=[
        "empty", "colons", "no-file-column", "two-labels", "two-files", "comma-in-a-name", "twice-but-for-spaces",
        "twice-in-two-forms", "utf-16", "twice", "twice-spelt-otherwise", "no-label", "no-file", "short-row",
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
        (["a.jpg"], "", "no CSV file"),
        (["a.csv", "b.csv"], "", "a.csv, b.csv at its top"),
        (["sub/a.csv"], "", "no CSV file"),
        (["a.csv"], "b.csv", "no file b.csv"),
        (["sub/a.csv"], "sub", "no file sub"),
    ],
)
def test_csv_without_its_table(open_recipe: Open, files: list[str], setting: str, what: str) -> None:
    with pytest.raises(InputError) as fault:
        open_recipe("csv", files, setting)
    assert what in fault.value.what
    assert "LARDER_CSV" in fault.value.next_step


@pytest.mark.parametrize(
    "header", ["File,Label", " FILE , label ", "image,class", "Image Path,Class_Name", "path,target"]
)
def test_csv_knows_the_names_of_columns(open_recipe: Open, header: str) -> None:
    recipe = open_recipe("csv", {"labels.csv": f"{header}\na.jpg,cat\n"})
    assert recipe.assign("a.jpg") == AssignedSample("training", 0, "a.jpg")


def test_csv_takes_the_column_of_the_very_name(open_recipe: Open) -> None:
    recipe = open_recipe("csv", {"labels.csv": "image,file,class,label\nx,a.jpg,y,cat\n"})
    assert recipe.classes == ["cat"]
    assert recipe.assign("a.jpg") == AssignedSample("training", 0, "a.jpg")


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
def test_csv_finds_the_separator(open_recipe: Open, separator: str) -> None:
    rows = [["\ufefffile", "label", "split"], ["a, b; c.jpg", "cat", "val"]]
    text = "\n".join(
        separator.join(f'"{value}"' if number else value for value in row) for number, row in enumerate(rows)
    )
    recipe = open_recipe("csv", {"labels.csv": text})
    assert recipe.assign("a, b; c.jpg") == AssignedSample("validation", 0, "a, b; c.jpg")


def test_csv_spaces_around_values_are_none(open_recipe: Open) -> None:
    table = "file,label,split\n a.jpg , cat,train\nb.jpg,cat ,Train \nc.jpg,\u00a0cat,TRAIN\nd.jpg,cat,\ttest\n"
    recipe = open_recipe("csv", {"labels.csv": table})
    assert recipe.classes == ["cat"]
    assert [recipe.assign(f"{name}.jpg").split for name in "abcd"] == ["training"] * 3 + ["evaluation"]


@pytest.mark.parametrize(
    ("listed", "there"), [("cre\u0300me.jpg", "cr\u00e8me.jpg"), ("cr\u00e8me.jpg", "cre\u0300me.jpg")]
)
def test_csv_files_are_compared_in_one_form(open_recipe: Open, listed: str, there: str) -> None:
    recipe = open_recipe("csv", {"labels.csv": f"file,label\nimages/{listed},cat\n"})
    assert recipe.assign(f"images/{there}") == AssignedSample("training", 0, listed)
    assert list(recipe.missing_files()) == []
    with pytest.raises(RejectError, match="the same name as"):
        recipe.assign(f"images/{listed}")


ALIKE = [
    ("cat", "Cat"),
    ("no tumor", "no  tumor"),
    ("ice cream", "icecream"),
    ("cr\u00e8me", "cre\u0300me"),
    ("a\u200bb", "ab"),
    ("\ufb01sh", "fish"),
    ("Ⅳ", "IV"),
    ("T-shirt", "T\u2011shirt"),
    ("chef's", "chef\u2019s"),
    ("cat", "cat\ufe0f"),
    ("ice_cream", "ice cream"),
    ("cat", "c\u0430t"),
    ("ICE", "I\u0421\u0415"),
    ("Beta fish", "\u0392eta fish"),
    ("ice cocoa", "ice \u0441\u043e\u0441\u043e\u0430"),
    ("fish", "f\u0131sh"),
    ("FISH", "F\u0130SH"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_classes_that_look_alike_are_shown_escaped(open_recipe: Open, one: str, other: str) -> None:
    for name, files in (
        ("csv", {"labels.csv": f'file,label\na.jpg,"{one}"\nb.jpg,"{other}"\n'}),
        ("metadata", {"metadata.csv": f'file_name,label\na.jpg,"{one}"\nb.jpg,"{other}"\n'}),
        ("imagefolder", {f"train/{one}/1.jpg": "", f"val/{other}/1.jpg": ""}),
        ("imagefolder", {f"{one}/1.jpg": "", f"{other}/1.jpg": ""}),
    ):
        with pytest.raises(InputError, match="differ only in case, spaces or Unicode form") as fault:
            open_recipe(name, files)
        assert ascii(one) in fault.value.what
        assert ascii(other) in fault.value.what
        assert fault.value.what.isascii()


@pytest.mark.parametrize(
    ("one", "other"),
    [("1_11", "11_1"), ("1 11", "11 1"), ("\u03b1-helix", "a-helix"), ("\u0441\u043e\u0440", "cop"), ("-1", "1")],
)
def test_classes_that_do_not_look_alike(open_recipe: Open, one: str, other: str) -> None:
    assert len(open_recipe("csv", {"labels.csv": f"file,label\na.jpg,{one}\nb.jpg,{other}\n"}).classes) == 2


@pytest.mark.parametrize("separator", [",", ";", "|"])
def test_quotes_after_a_space_are_quotes(open_recipe: Open, separator: str) -> None:
    table = 'file, "label", "note"\na.jpg, "cat", "x,y"\nb.jpg,cat,\n'.replace(",", separator)
    assert open_recipe("csv", {"labels.csv": table}).classes == ["cat"]
    if separator == ",":
        assert open_recipe("metadata", {"metadata.csv": table.replace("file", "file_name")}).classes == ["cat"]


def test_labels_that_are_one_number(open_recipe: Open) -> None:
    for one in ("01", "1.0"):
        with pytest.raises(InputError, match=r"the same number: '(01|1)' and '(1|1\.0)'"):
            open_recipe("csv", {"labels.csv": f"file,label\na.jpg,1\nb.jpg,{one}\nc.jpg,2\n"})


def test_numbers_are_classes_in_their_order(open_recipe: Open) -> None:
    rows = "".join(f"{number}.jpg,{number}.0\n" for number in (10, 2, 0))
    for name, table, column in (("csv", "labels.csv", "file"), ("metadata", "metadata.csv", "file_name")):
        assert open_recipe(name, {table: f"{column},label\n{rows}"}).classes == ["0.0", "2.0", "10.0"]


def test_a_number_of_any_length_is_a_label(open_recipe: Open) -> None:
    recipe = open_recipe("csv", {"labels.csv": f"file,label\na.jpg,{'9' * 5000}\nb.jpg,2\n"})
    assert recipe.classes == ["2", "9" * 5000]


def test_splits_that_look_alike(open_recipe: Open) -> None:
    with pytest.raises(InputError, match=r"has splits that differ only in case, .*'Fold' and 'fold'"):
        open_recipe("csv", {"labels.csv": "file,label,split\na.jpg,x,fold\nb.jpg,x,Fold\n"})


def test_csv_same_file_name_twice(open_recipe: Open) -> None:
    rows = [
        "a/1.jpg,cat",
        "b/1.jpg,cat",
        "c/1.jpg,dog",
        "b/2.jpg,cat",
        "1.jpg,cat",
        "x_y/3.jpg,cat",
        "x/y/3.jpg,cat",
        "x/y_3.jpg,cat",
        "x/y_4.jpg,cat",
        "q/x_y_4.jpg,cat",
        "x/q/x_y_4.jpg,cat",
    ]
    recipe = open_recipe("csv", {"labels.csv": "\n".join(["file,label", *rows])})
    names = {row.split(",")[0]: recipe.assign(row.split(",")[0]).name for row in rows}
    assert names["a/1.jpg"] == "a_1.jpg"
    assert names["b/1.jpg"] == "b_1.jpg"
    assert names["1.jpg"] == "1.jpg"
    assert names["c/1.jpg"] == "1.jpg", "it is alone in its class"
    assert names["b/2.jpg"] == "2.jpg"
    assert re.fullmatch(r"x_y_3-[0-9a-f]{8}\.jpg", names["x_y/3.jpg"])
    assert re.fullmatch(r"x_y_3-[0-9a-f]{8}\.jpg", names["x/y/3.jpg"])
    cats = [name for file, name in names.items() if file != "c/1.jpg"]
    assert len(set(cats)) == len(cats)
    turned = open_recipe("csv", {"labels.csv": "\n".join(["file,label", *reversed(rows)])})
    assert {file: turned.assign(file).name for file in names} == names


def test_csv_long_names_stay_names(open_recipe: Open) -> None:
    files = [f"{letter * 200}/{'ü' * 100}.jpg" for letter in "ab"]
    recipe = open_recipe("csv", {"labels.csv": "\n".join(["file,label", *(f"{file},cat" for file in files)])})
    names = {recipe.assign(file).name for file in files}
    assert len(names) == 2
    assert max(len(name.encode()) for name in names) <= 255


def test_csv_with_the_slashes_of_windows(open_recipe: Open) -> None:
    recipe = open_recipe("csv", {"labels.csv": "file,label\nimages\\a.jpg,cat\n", "images/a.jpg": ""})
    assert recipe.assign("images/a.jpg") == AssignedSample("training", 0, "a.jpg")


def test_csv_takes_the_one_table_that_has_the_columns(open_recipe: Open) -> None:
    recipe = open_recipe("csv", {"a.csv": "id,note\n1,x\n", "b.csv": "file,label\na.jpg,cat\n"})
    assert recipe.classes == ["cat"]


def test_csv_splits_by_the_setting(open_recipe: Open) -> None:
    table = "file,label,split\na.jpg,x,held out\nb.jpg,y,junk\nc.jpg,x,Train\n"
    recipe = open_recipe("csv", {"labels.csv": table}, splits="Held Out=test, junk=-")
    assert recipe.classes == ["x"]
    assert recipe.assign("a.jpg") == AssignedSample("evaluation", 0, "a.jpg")
    assert recipe.assign("c.jpg") == AssignedSample("training", 0, "c.jpg")
    with pytest.raises(LeftOutError):
        recipe.assign("b.jpg")
    assert list(recipe.missing_files()) == []


def test_csv_without_a_split_that_the_setting_names(open_recipe: Open) -> None:
    with pytest.raises(InputError, match=r"LARDER_SPLITS names dev, and labels\.csv has the splits train"):
        open_recipe("csv", {"labels.csv": "file,label,split\na.jpg,x,train\n"}, splits="dev=validation")


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
    assert {recipe.assign(f"{name}/1.jpg").split for name in folders} == {"training"}


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
