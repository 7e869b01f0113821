"""The recipe csv: columns, labels and splits of a table."""

from __future__ import annotations

import re

import pytest

from larder.errors import InputError
from larder.tree.recipes import AssignedSample, LeftOutError, RejectError
from tests.unit.tree.conftest import Open, name_of, split_of


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
    with pytest.raises(InputError, match=rf"rows without a split.*: {table[0]}, line [23]\n") as fault:
        open_recipe(name, files)
    assert "LARDER_SPLITS=null=training" in fault.value.next_step
    assert split_of(open_recipe(name, files, splits="null=val"), "b.jpg") == "validation"
    recipe = open_recipe(name, files, splits="null=-")
    assert recipe.classes == ["x"]
    with pytest.raises(LeftOutError):
        recipe.assign("b.jpg")
    for column in ("Split", "set", "subset", "Partition"):
        split = files | {table[0]: table[1].format(column, "test")}
        assert open_recipe(name, split).assign("b.jpg") == AssignedSample("evaluation", 1, "b.jpg")


def test_rows_without_a_split_are_counted(open_recipe: Open) -> None:
    rows = "".join(f"{number}.jpg,x\n" for number in range(1234))
    with pytest.raises(InputError, match=r"line 2; labels\.csv, line 3; labels\.csv, line 4 and 1,231 more\n"):
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
    assert [split_of(recipe, f"{name}.jpg") for name in "abcd"] == ["training"] * 3 + ["evaluation"]


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


def test_csv_same_file_name_in_two_rows(open_recipe: Open) -> None:
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
    names = {row.split(",")[0]: name_of(recipe, row.split(",")[0]) for row in rows}
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
    assert {file: name_of(turned, file) for file in names} == names


def test_csv_long_names_stay_names(open_recipe: Open) -> None:
    files = [f"{letter * 200}/{'ü' * 100}.jpg" for letter in "ab"]
    recipe = open_recipe("csv", {"labels.csv": "\n".join(["file,label", *(f"{file},cat" for file in files)])})
    names = {name_of(recipe, file) for file in files}
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
