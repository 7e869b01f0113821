"""A dataset's name: which names are valid, and what is named after it."""

import subprocess
import sys
from pathlib import Path

import pytest

from larder import dataset

NAMES = {
    "the default": (
        dataset.DEFAULT,
        ("Food-11", "Food-11-webdataset", "Food-11-litdata"),
        ("food11_local_baseline", "food11-webdataset_wds_out", "food11-litdata_lit_out"),
        "food11_demo",
    ),
    "a user's": (
        "photos",
        ("photos", "photos-webdataset", "photos-litdata"),
        ("photos_local_baseline", "photos-webdataset_wds_out", "photos-litdata_lit_out"),
        "photos_demo",
    ),
    "all that is allowed": (
        "9.Photos_of-2026",
        ("9.Photos_of-2026", "9.Photos_of-2026-webdataset", "9.Photos_of-2026-litdata"),
        ("9.Photos_of-2026_local_baseline", "9.Photos_of-2026-webdataset_wds_out", "9.Photos_of-2026-litdata_lit_out"),
        "9.Photos_of-2026_demo",
    ),
}


@pytest.mark.parametrize(("name", "folders", "volumes", "demo"), NAMES.values(), ids=NAMES)
def test_names_are_derived(name: str, folders: tuple[str, ...], volumes: tuple[str, ...], demo: str) -> None:
    assert dataset.validated_dataset(name) == name
    assert tuple(dataset.folder_of(name, layout) for layout in dataset.LAYOUTS) == folders
    assert tuple(dataset.volume_of(name, layout) for layout in dataset.LAYOUTS) == volumes
    assert dataset.demo_volume_of(name) == demo
    assert tuple(map(dataset.layout_of, folders)) == dataset.LAYOUTS
    assert set(map(dataset.dataset_of, folders)) == {name}


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../x", "a/b", "/etc", "a\\b", "-photos", ".photos", "_photos", " photos", "photos ",
        "my photos", "photos\n", "pho\ntos", "pho\0tos", "photös", "фото", "１", "a" * 200, "$HOME", "$(id)", "`id`",
        "a;b", 'a"b', "a'b", "a:b", "a=b", "a*b",
    ],
)  # fmt: skip
def test_no_path_no_flag_and_nothing_for_a_shell(name: str) -> None:
    assert not dataset.is_dataset(name)
    with pytest.raises(ValueError, match="must "):
        dataset.validated_dataset(name)


def test_longest_name() -> None:
    assert dataset.is_dataset("a" * dataset.MAX_NAME_LENGTH)
    with pytest.raises(ValueError, match="at most 100 characters"):
        dataset.validated_dataset("a" * (dataset.MAX_NAME_LENGTH + 1))


@pytest.mark.parametrize("name", ["raw", "Raw", "rejects", "tree", "objects", "webdataset", "litdata"])
def test_names_of_what_lies_beside_it_are_taken(name: str) -> None:
    with pytest.raises(ValueError, match="must be another word"):
        dataset.validated_dataset(name)


@pytest.mark.parametrize("name", ["photos-webdataset", "photos-litdata"])
def test_a_name_is_no_other_ones_layout(name: str) -> None:
    with pytest.raises(ValueError, match="must not end in -"):
        dataset.validated_dataset(name)


def test_imports_without_what_pip_installs() -> None:
    code = (
        "import sys; from larder import dataset; print(dataset.volume_of('photos')); print('pydantic' in sys.modules)"
    )
    words = (sys.executable, "-S", "-c", code)  # without site-packages
    ended = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert ended.stdout.split() == ["photos_local_baseline", "False"], ended.stderr
