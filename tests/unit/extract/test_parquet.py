"""Parquet files: which columns and splits are found, what becomes of the rows, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from larder.errors import InputError, LarderError
from larder.sources import parquet
from tests.parquet import IMAGE, features, picture

Run = Callable[..., Any]
Raw = Callable[[], Mapping[str, bytes]]


def rows(count: int, start: int = 0) -> list[tuple[bytes, int]]:
    return [(picture(start + number), number % 2) for number in range(count)]


def classes(files: Mapping[str, bytes]) -> list[str]:
    return json.loads(files["classes.json"])["classes"]


def test_rows_become_files_below_split_and_label(write: Run, run: Run, raw: Raw, tmp_path: Path) -> None:
    train, test = rows(7), rows(4, 7)
    write("data/train-00000-of-00002.parquet", train[:4], ("zebra", "a/b"))
    write("data/train-00001-of-00002.parquet", train[4:], ("zebra", "a/b"))
    write("data/test-00000-of-00001.parquet", test, ("zebra", "a/b"))
    run(tmp_path / "set")
    files = raw()
    assert classes(files) == ["zebra", "a/b"], "in the data set's order, as they are"
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


def test_one_file_alone_and_the_same_bytes_again(write: Run, run: Run, raw: Raw, tmp_path: Path) -> None:
    path = write("train.parquet", rows(5))
    run(path)
    first, manifest = raw(), (tmp_path / "volume/raw/_larder/manifest.json").read_bytes()
    assert len(first) == 6
    assert run(path).figures["up_to_date"] is True
    run(path, force=True)
    assert (raw(), (tmp_path / "volume/raw/_larder/manifest.json").read_bytes()) == (first, manifest)
    assert json.loads(manifest)["input"]["kind"] == "parquet"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_the_ending_is_the_contents(write: Run, run: Run, raw: Raw, kind: str) -> None:
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
    write: Run, run: Run, raw: Raw, kind: pa.DataType, labels: list[Any], expected: Any
) -> None:
    run(write("train.parquet", [(picture(n), label) for n, label in enumerate(labels)], None, label=kind))
    files = raw()
    assert classes(files) == expected
    assert {name.split("/")[1] for name in files if "/" in name and files[name] == picture(1)} == {"000"}


def test_images_without_a_struct_and_columns_by_name(write: Run, run: Run, raw: Raw) -> None:
    table = pa.table({
        "left": pa.array([picture(1), picture(2)], pa.large_binary()), "right": [picture(3), picture(4)],
        "fine": [0, 1], "coarse": [0, 0],
    })  # fmt: skip
    run(write.table("train.parquet", table), image_column="right", label_column="fine")  # type: ignore[attr-defined]
    files = raw()
    assert files["train/001/train-0000001.jpg"] == picture(4)
    assert classes(files) == ["0", "1"]


def test_names_of_classes_from_the_card(write: Run, run: Run, raw: Raw, tmp_path: Path) -> None:
    write("data/train-00000-of-00001.parquet", rows(2), None)
    (tmp_path / "set/README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n    dtype:\n"
        "      class_label:\n        names:\n          '0': tench\n          '1': goldfish\n---\n# Fish\n"
    )
    run(tmp_path / "set")
    assert classes(raw()) == ["tench", "goldfish"]


def test_a_split_without_labels_is_left_out_and_said(
    write: Run, run: Run, raw: Raw, tmp_path: Path, capsys: Any
) -> None:
    write("data/train-00000-of-00001.parquet", rows(4))
    write("data/test-00000-of-00001.parquet", [(picture(9), -1), (picture(8), None)])
    run(tmp_path / "set")
    assert not [name for name in raw() if name.startswith("test/")]
    assert "leaving out the split 'test': 2 rows, none with a label" in capsys.readouterr().err


def of(**columns: Any) -> pa.Table:
    return pa.table(columns)


BYTES = pa.array([{"bytes": b"\xff\xd8\xff", "path": None}], IMAGE)


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
        (of(image=pa.array([None], IMAGE), label=[0]), "row 0 has no image", "fix the data set"),
        (of(image=pa.array([{"bytes": None, "path": "a.jpg"}], IMAGE), label=[0]), "or only its path", "fix the data"),
        (of(image=BYTES, label=[2]).replace_schema_metadata(features(["a", "b"])), "row 0 has the label 2, and", "fix"),
        (of(image=BYTES, label=[-2]).replace_schema_metadata(features(["a", "b"])), "row 0 has the label -2", "fix"),
        (of(image=BYTES, label=[0]).replace_schema_metadata(features(["a", "a"])), "are no list of names", "fix"),
        (of(image=BYTES, label=[0]).replace_schema_metadata(features(["Café", "cafe\u0301 "])), "look alike", "fix"),
        (of(image=pa.chunked_array([BYTES, BYTES]), label=["Cat", "cat"]), "look alike: 'Cat' and 'cat'", "fix"),
    ],
)  # fmt: skip
def test_what_is_refused(write: Run, run: Run, table: pa.Table, says: str, step: str) -> None:
    path = write.table("train.parquet", table)  # type: ignore[attr-defined]
    with pytest.raises(InputError) as error:
        run(path)
    assert says in error.value.what
    assert step in error.value.next_step


def test_a_row_without_label_among_others_is_named(write: Run, run: Run) -> None:
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
def test_files_of_different_data_sets_are_named(write: Run, run: Run, tmp_path: Path, other: Any, says: str) -> None:
    write("train-1.parquet", rows(2))
    value = "x" if other.get("label") else 0
    write("train-2.parquet", [(picture(1), value)], **other)
    with pytest.raises(
        InputError, match=r"train-1\.parquet and train-2\.parquet belong to different data sets"
    ) as error:
        run(tmp_path / "set")
    assert says in error.value.what


@pytest.mark.parametrize("harm", ["cut", "footer", "page", "length", "nothing but magic"])
def test_a_damaged_file_is_named(write: Run, run: Run, tmp_path: Path, harm: str) -> None:
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


def test_more_rows_than_files_are_allowed(write: Run, run: Run) -> None:
    with pytest.raises(InputError, match="more than 4 rows") as error:
        run(write("train.parquet", rows(5)), max_files=4)
    assert "LARDER_MAX_FILES" in error.value.next_step


@pytest.mark.parametrize("step", [97, pytest.param(7, marks=pytest.mark.exhaustive)])
def test_any_change_of_a_byte_ends_in_an_error_of_ours_or_in_files(write: Run, run: Run, step: int) -> None:
    path = write("train.parquet", rows(3))
    data = path.read_bytes()
    for at in range(0, len(data), step):
        changed = bytearray(data)
        changed[at] ^= 0xFF
        path.write_bytes(changed)
        try:
            run(path)
        except LarderError as error:
            assert error.next_step


@pytest.mark.parametrize("column", ["images", "labels"])
def test_pages_that_unpack_to_more_than_is_read_at_once(
    write: Run, run: Run, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    """Small in the file: a page of zeros, and a dictionary of one long label."""
    monkeypatch.setattr(parquet, "_MOST_PAGE_BYTES", 1 << 20)
    monkeypatch.setattr(parquet, "_MOST_LABELS_BYTES", 1 << 10)
    image, label = bytes((2 << 20) if column == "images" else 9), "x" * (20 if column == "images" else 2000)
    path = write("train.parquet", [(image, label), (picture(1), "y")], None, label=pa.string())
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InputError, match=r"row group 0 has a page of [0-9,]+ bytes in the column") as error:
        run(path)
    assert "smaller pages" in error.value.next_step


def test_many_rows_of_one_large_image_of_a_dictionary(
    write: Run, run: Run, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_MOST_ROWS_BYTES", 2_000_000)
    seen: list[int] = []
    batches = parquet._batches
    monkeypatch.setattr(
        parquet, "_batches", lambda table, part, group, rows, columns: (
            seen.append(rows), batches(table, part, group, rows, columns)
        )[1],
    )  # fmt: skip
    run(write("train.parquet", [(bytes(900_000), 0)] * 5, group=5))
    assert seen[-1] == 2
    assert len(raw()) == 6
