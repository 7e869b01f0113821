"""Parquet files: which columns and splits are found, what becomes of the rows, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from larder.errors import InputError, LarderError
from larder.sources import parquet, parquet_labels, parquet_reader
from larder.sources.parts import SourcePart
from tests.parquet import IMAGE, features, picture
from tests.unit.extract.conftest import Write

Run = Callable[..., Any]
Raw = Callable[[], Mapping[str, bytes]]


def rows(count: int, start: int = 0) -> list[tuple[bytes, int]]:
    return [(picture(start + number), number % 2) for number in range(count)]


def classes(files: Mapping[str, bytes]) -> list[str]:
    return json.loads(files["classes.json"])["classes"]


def test_rows_become_files_below_split_and_label(write: Write, run: Run, raw: Raw, tmp_path: Path) -> None:
    train, test = rows(7), rows(4, 7)
    write("data/train-00000-of-00002.parquet", train[:4], ("zebra", "a/b"))
    write("data/train-00001-of-00002.parquet", train[4:], ("zebra", "a/b"))
    write("data/test-00000-of-00001.parquet", test, ("zebra", "a/b"))
    run(tmp_path / "set")
    files = raw()
    assert classes(files) == ["zebra", "a/b"], "in the dataset's order, as they are"
    expected = {
        f"train/00{number % 2}/data-train-00000-of-00002-{number:07d}.jpg": train[number][0] for number in range(4)
    }
    expected |= {
        f"train/00{number % 2}/data-train-00001-of-00002-{number:07d}.jpg": train[4 + number][0] for number in range(3)
    }
    expected |= {
        f"test/00{number % 2}/data-test-00000-of-00001-{number:07d}.jpg": test[number][0] for number in range(4)
    }
    assert {name: content for name, content in files.items() if name != "classes.json"} == expected


def test_one_file_alone_and_the_same_bytes_again(write: Write, run: Run, raw: Raw, tmp_path: Path) -> None:
    path = write("train.parquet", rows(5))
    run(path)
    first, manifest = raw(), (tmp_path / "volume/raw/_larder/manifest.json").read_bytes()
    assert len(first) == 6
    assert run(path).figures["up_to_date"] is True
    run(path, force=True)
    assert (raw(), (tmp_path / "volume/raw/_larder/manifest.json").read_bytes()) == (first, manifest)
    assert json.loads(manifest)["input"]["kind"] == "parquet"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_ending_is_the_contents(write: Write, run: Run, raw: Raw, kind: str) -> None:
    endings = {"JPEG": "jpg", "TIFF": "tif"}
    run(write("train.parquet", [(picture(1, kind), 0), (b"none of these", 1)]))
    assert sorted(name.rpartition(".")[2] for name in raw()) == sorted(["json", endings.get(kind, kind.lower()), "bin"])


@pytest.mark.parametrize(
    ("kind", "labels", "expected"),
    [
        (pa.string(), ["dog", "cat", "dog"], ["cat", "dog"]),
        (pa.dictionary(pa.int8(), pa.string()), ["dog", "cat", "dog"], ["cat", "dog"]),
        (pa.int32(), [10, 9, 10], ["9", "10"]),
        (pa.bool_(), [True, False, True], ["False", "True"]),
    ],
    ids=["text", "dictionary", "number", "bool"],
)
def test_labels_without_names(
    write: Write, run: Run, raw: Raw, kind: pa.DataType, labels: list[Any], expected: Any
) -> None:
    run(write("train.parquet", [(picture(n), label) for n, label in enumerate(labels)], None, label=kind))
    files = raw()
    assert classes(files) == expected
    assert {name.split("/")[1] for name in files if "/" in name and files[name] == picture(1)} == {"000"}


def test_columns_of_splits_that_say_nothing_else(write: Write, run: Run, raw: Raw) -> None:
    table = pa.table(
        {
            "image": pa.array([{"bytes": picture(n), "path": None} for n in range(3)], IMAGE),
            "label": [0, 1, 0],
            "split": ["Training", None, "train"],
            "subset": ["easy", "hard", ""],
        }
    )
    run(write.table("train.parquet", table))
    assert len(raw()) == 4


def test_images_without_a_struct_and_columns_by_name(write: Write, run: Run, raw: Raw) -> None:
    table = pa.table(
        {
            "left": pa.array([picture(1), picture(2)], pa.large_binary()),
            "right": [picture(3), picture(4)],
            "fine": [0, 1],
            "coarse": [0, 0],
        }
    )
    run(write.table("train.parquet", table), image_column="right", label_column="fine")
    files = raw()
    assert files["train/001/train-0000001.jpg"] == picture(4)
    assert classes(files) == ["0", "1"]


def test_names_of_classes_from_the_card(write: Write, run: Run, raw: Raw, tmp_path: Path) -> None:
    write("data/train-00000-of-00001.parquet", rows(2), None)
    (tmp_path / "set/README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n    dtype:\n"
        "      class_label:\n        names:\n          '0': tench\n          '1': goldfish\n---\n# Fish\n"
    )
    run(tmp_path / "set")
    assert classes(raw()) == ["tench", "goldfish"]


def test_a_split_without_labels_is_left_out_with_a_warning(
    write: Write, run: Run, raw: Raw, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("data/train-00000-of-00001.parquet", rows(4))
    write("data/test-00000-of-00001.parquet", [(picture(9), -1), (picture(8), None)])
    run(tmp_path / "set")
    assert not [name for name in raw() if name.startswith("test/")]
    assert "leaving out the split 'test': 2 rows, none with a label" in capsys.readouterr().err


def of(**columns: Any) -> pa.Table:
    return pa.table(columns)


BYTES = pa.array([{"bytes": b"\xff\xd8\xff", "path": None}], IMAGE)
TWO = pa.chunked_array([BYTES, BYTES])


@pytest.mark.parametrize(
    ("table", "says", "step"),
    [
        (of(text=["a"], label=[0]), "no column of images", "LARDER_IMAGE_COLUMN"),
        (of(a=BYTES, b=BYTES, label=[0]), "several columns of images: 'a', 'b'", "LARDER_IMAGE_COLUMN"),
        (of(image=BYTES, width=[3]), "no column of classes", "LARDER_LABEL_COLUMN"),
        (of(image=BYTES, label=[0], target=[1]), "several columns of classes: 'label', 'target'", "LARDER_LABEL"),
        (of(image=pa.array([[b"a"]]), label=[0]), "no column of images", "LARDER_IMAGE_COLUMN"),
        (of(image=BYTES, label=[[0, 1]]), "the column 'label' holds list<", "LARDER_LABEL_COLUMN"),
        (of(image=BYTES, label=[0.5]), "holds double, and classes must be numbers or texts", "LARDER_LABEL_COLUMN"),
        (of(image=BYTES, label=pa.array([None], pa.int64())), "no row has a label", "LARDER_LABEL_COLUMN"),
        (of(image=pa.array([None], IMAGE), label=[0]), "row 0 has no image", "fix the dataset"),
        (of(image=pa.array([{"bytes": None, "path": "a.jpg"}], IMAGE), label=[0]), "or only its path", "fix the data"),
        (of(image=BYTES, label=[2]).replace_schema_metadata(features(["a", "b"])), "row 0 has the label 2, and", "fix"),
        (of(image=BYTES, label=[-2]).replace_schema_metadata(features(["a", "b"])), "row 0 has the label -2", "fix"),
        (of(image=BYTES, label=[0]).replace_schema_metadata(features(["a", "a"])), "are not a list of names", "fix"),
        (of(image=BYTES, label=[0]).replace_schema_metadata(features(["Café", "cafe\u0301 "])), "look alike", "fix"),
        (of(image=pa.chunked_array([BYTES, BYTES]), label=["Cat", "cat"]), "look alike: 'Cat' and 'cat'", "fix"),
        (of(image=TWO, label=["a b", "a_b"]), "look alike: 'a b' and 'a_b'", "fix"),
        (of(image=TWO, label=["a cat on a mat", "two dogs run away"]), "holds texts", "LABEL"),
        (of(image=BYTES, label=[0], split=["a/b"]), "the column 'split' has the split 'a/b', which can't be", "fix"),
        (of(image=BYTES, label=[0], split=[0.5]), "'split' holds double, and splits must be texts or numbers", "out"),
        (of(image=BYTES, label=[0], split=[["train"]]), "'split' holds list<", "leave the column out"),
        (of(image=pa.array([], IMAGE), label=pa.array([], pa.int64())), "train.parquet holds no rows", "LARDER_SOURCE"),
        (of(image=BYTES, label=[0], split=["../x"]), "'../x', which can't be a folder's name", "fix"),
        (of(image=BYTES, label=[0], set=["val"], subset=["val"]), "may be the split: 'set' and 'subset'", "split"),
    ],
)
def test_what_is_refused(write: Write, run: Run, table: pa.Table, says: str, step: str) -> None:
    path = write.table("train.parquet", table)
    with pytest.raises(InputError) as error:
        run(path)
    assert says in error.value.what
    assert step in error.value.next_step


@pytest.mark.parametrize(
    ("column", "values", "folders"),
    [
        ("split", ["train", "test", "Validation "], ["Validation", "test", "train"]),
        ("Subset", ["val", "val", "train"], ["train", "val"]),
        ("split", ["fold 1", None, ""], ["fold 1", "null"]),
        ("split", pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b"]),
        ("split", [0, 1, 1], ["0", "1"]),
        ("split", ["Cafe\u0301", "Café", "x"], ["Café", "x"]),
        ("set", ["train", "easy", "test"], ["easy", "test", "train"]),
        ("set", ["a", "b", "c"], ["train"]),
    ],
)
def test_a_column_of_splits_counts(
    write: Write, run: Run, raw: Raw, column: str, values: Any, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """In a file whose name says nothing else: `datasets` calls a dataset without splits train, too."""
    images = pa.array([{"bytes": picture(n), "path": None} for n in range(3)], IMAGE)
    run(
        write.table(
            "data/train-00000-of-00001.parquet", pa.table({"image": images, "label": [0, 1, 0], column: values})
        )
    )
    files = raw()
    assert sorted({name.split("/")[0] for name in files if "/" in name}) == folders
    assert len(files) == 4, "and each row is in one"
    assert ("rows by the column" in capsys.readouterr().err) is (folders != ["train"])


def test_a_file_without_rows_beside_others(write: Write, run: Run, raw: Raw, tmp_path: Path) -> None:
    """`datasets` writes one for a split that is empty."""
    write("data/train-00000-of-00001.parquet", rows(2))
    write("data/test-00000-of-00001.parquet", [])
    run(tmp_path / "set")
    assert len(raw()) == 3


@pytest.mark.parametrize("splits", [[0, 1], ["train", "test"]])
def test_splits_that_are_numbers_with_names(write: Write, run: Run, raw: Raw, splits: list[Any]) -> None:
    """Names of values that are texts themselves don't count."""
    described = {
        "image": {"_type": "Image"},
        "label": {"names": ["a", "b"], "_type": "ClassLabel"},
        "split": {"names": ["train", "test"], "_type": "ClassLabel"},
    }
    notes = {b"huggingface": json.dumps({"info": {"features": described}}).encode()}
    table = of(image=TWO, label=[0, 1], split=splits).replace_schema_metadata(notes)
    run(write.table("x.parquet", table))
    assert sorted(raw()) == ["classes.json", "test/001/x-0000001.jpg", "train/000/x-0000000.jpg"]


def test_rows_of_a_split_without_labels_are_left_out(
    write: Write, run: Run, raw: Raw, capsys: pytest.CaptureFixture[str]
) -> None:
    images = pa.array([{"bytes": picture(n), "path": None} for n in range(4)], IMAGE)
    table = of(image=images, label=["a", None, "b", ""], split=["train", "test", "train", "test"])
    run(write.table("all.parquet", table))
    assert sorted(raw()) == ["classes.json", "train/000/all-0000000.jpg", "train/001/all-0000002.jpg"]
    assert "leaving out the split 'test': 2 rows, none with a label" in capsys.readouterr().err
    with pytest.raises(InputError, match="row 2 has no label"):
        run(write.table("all.parquet", table.set_column(1, "label", [["a", "b", None, "b"]])))


@pytest.mark.parametrize("name", ["validation.parquet", "data/test-00000-of-00001.parquet"])
def test_a_column_of_splits_must_agree_with_names(write: Write, run: Run, tmp_path: Path, name: str) -> None:
    write.table(name, of(image=TWO, label=[0, 1], split=["fold 1", None]))
    with pytest.raises(InputError, match="column 'split' says 'fold 1', and the file's name or folder says") as error:
        run(tmp_path / "set")
    assert "a file of its own" in error.value.next_step


def test_all_files_have_the_column_of_splits(write: Write, run: Run, tmp_path: Path) -> None:
    write.table("a.parquet", of(image=BYTES, label=[0], split=["test"]))
    write.table("b.parquet", of(image=BYTES, label=[0]))
    with pytest.raises(
        InputError, match=r"a\.parquet has a column of splits, 'split', and b\.parquet has none like it"
    ):
        run(tmp_path / "set")


def test_a_row_without_label_among_others_is_named(write: Write, run: Run) -> None:
    path = write("train.parquet", [*rows(5), (picture(5), None), *rows(2)])
    with pytest.raises(InputError, match="row 5 has no label in the column 'label', and other rows have one"):
        run(path)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"names": ("dog", "cat")}, "names"),
        ({"names": None}, "names"),
        ({"names": None, "label": pa.string()}, "types"),
    ],
)
def test_files_of_different_data_sets_are_named(write: Write, run: Run, tmp_path: Path, other: Any, says: str) -> None:
    write("train-1.parquet", rows(2))
    value = "x" if other.get("label") else 0
    write("train-2.parquet", [(picture(1), value)], **other)
    with pytest.raises(
        InputError, match=r"train-1\.parquet and train-2\.parquet belong to different datasets"
    ) as error:
        run(tmp_path / "set")
    assert says in error.value.what


@pytest.mark.parametrize("harm", ["cut", "footer", "page", "length", "nothing but magic"])
def test_a_damaged_file_is_named(write: Write, run: Run, tmp_path: Path, harm: str) -> None:
    path = write("train.parquet", rows(9))
    data = bytearray(path.read_bytes())
    if harm == "cut":
        data = data[: len(data) // 2]
    elif harm == "footer":
        data[-60:-8] = bytes(52)
    elif harm == "page":
        data[4:200] = bytes(196)
    elif harm == "length":
        data[-8:-4] = b"\xff\xff\xff\x7f"
    else:
        data = bytearray(b"PAR1")
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"train\.parquet is damaged"):
        run(path)
    assert not (tmp_path / "volume/raw").exists()


def test_more_rows_than_files_are_allowed(write: Write, run: Run) -> None:
    with pytest.raises(InputError, match="more than 4 rows") as error:
        run(write("train.parquet", rows(5)), max_files=4)
    assert "LARDER_MAX_FILES" in error.value.next_step


@pytest.mark.parametrize("step", [97, pytest.param(23, marks=pytest.mark.exhaustive)])
def test_any_change_of_a_byte_ends_in_an_error_of_ours_or_in_files(write: Write, run: Run, step: int) -> None:
    path = write("train.parquet", rows(3))
    data = path.read_bytes()
    for at in (*range(0, len(data), step), *range(len(data) - 8, len(data))):  # the footer's length and magic, too
        changed = bytearray(data)
        changed[at] ^= 0xFF
        path.write_bytes(changed)
        try:
            run(path)
        except LarderError as error:
            assert error.next_step


@pytest.mark.parametrize("column", ["images", "labels"])
def test_pages_that_unpack_to_more_than_is_read_at_once(
    write: Write, run: Run, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    """Small in the file: a page of zeros, and a dictionary of one long label."""
    monkeypatch.setattr(parquet, "_MAX_PAGE_BYTES", 1 << 20)
    monkeypatch.setattr(parquet_labels, "MAX_LABELS_BYTES", 1 << 10)
    image, label = bytes((2 << 20) if column == "images" else 9), "x" * (20 if column == "images" else 2000)
    path = write("train.parquet", [(image, label), (picture(1), "y")], None, label=pa.string())
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InputError, match=r"row group 0 has a page of [0-9,]+ bytes in the column") as error:
        run(path)
    assert "smaller pages" in error.value.next_step


def test_many_rows_of_one_large_image_of_a_dictionary(
    write: Write, run: Run, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_reader, "_MAX_ROWS_BYTES", 2_000_000)
    seen: list[int] = []
    batches = parquet.read_batches

    def recorded(table: Any, part: Any, group: int, rows: int, columns: Any) -> Any:
        seen.append(rows)
        return batches(table, part, group, rows, columns)

    monkeypatch.setattr(
        parquet,
        "read_batches",
        recorded,
    )
    run(write("train.parquet", [(bytes(900_000), 0)] * 5, group=5))
    assert seen[-1] == 2
    assert len(raw()) == 6


def test_a_limited_number_of_footers_is_remembered(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_reader, "_MAX_DESCRIBABLE", 2)
    monkeypatch.setattr(parquet_reader, "_describable", describable := set[bytes]())
    counts = []
    for rows in range(1, 5):
        path = write(f"{rows}.parquet", [(picture(1), 0)] * rows)
        with parquet_reader.open_table(SourcePart(path, path.name)):
            counts.append(len(describable))
    assert counts == [1, 2, 1, 2]


def test_labels_that_are_no_utf_8(write: Write, run: Run) -> None:
    path = write("train.parquet", [(picture(1), "cat"), (picture(2), "dog")], None, label=pa.string())
    path.write_bytes(path.read_bytes().replace(b"cat", b"\xffat"))
    with pytest.raises(InputError, match="the column of labels can't be read"):
        run(path)
