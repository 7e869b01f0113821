"""Other programs read the packs: GNU tar, WebDataset, wids, torchdata and LitData."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Stage
from tests.integration.packing.conftest import MakeTree


def test_gnu_tar_reads_shards(stage: Stage, volume: Path, tree: Path, images: dict[str, bytes], tmp_path: Path) -> None:
    assert stage("shard", "--shard-bytes=60000").code == 0
    for split in ("training", "validation"):
        (tmp_path / split).mkdir()
        for shard in sorted((volume / "Food-11-webdataset" / split).glob("*.tar")):
            ended = subprocess.run(["tar", "xvf", shard, "-C", tmp_path / split], capture_output=True, text=True)
            assert ended.returncode == 0
            assert not ended.stderr
    for path, content in images.items():
        assert (tmp_path / path).read_bytes() == content
        assert (tmp_path / path).with_suffix(".cls").read_text() == str(int(path.split("/")[1][-2:]))
    listed = subprocess.run(
        ["tar", "tvf", volume / "Food-11-webdataset/training/shard-000000.tar"], capture_output=True, text=True
    )
    assert all(line.startswith("-rw-r--r-- 0/0 ") and "1970-01-01" in line for line in listed.stdout.splitlines())


def test_webdataset_reads_shards(stage: Stage, volume: Path, tree: Path, images: dict[str, bytes]) -> None:
    import webdataset

    assert stage("shard", "--shard-bytes=60000").code == 0
    shards = [str(path) for path in sorted((volume / "Food-11-webdataset/training").glob("*.tar"))]
    reader = webdataset.WebDataset(shards, shardshuffle=False)
    samples = {sample["__key__"]: (sample["jpg"], sample["cls"]) for sample in reader}
    assert samples == by_key(images)


def test_wids_reads_shards(stage: Stage, volume: Path, tree: Path, images: dict[str, bytes], tmp_path: Path) -> None:
    import wids

    assert stage("shard", "--shard-samples=22").code == 0
    shards = sorted((volume / "Food-11-webdataset/training").glob("*.tar"))
    listed = [{"url": str(shard), "nsamples": 22} for shard in shards]
    dataset = wids.ShardListDataset(listed, cache_dir=str(tmp_path / "cache"), transformations=[])
    samples = [dataset[number] for number in range(len(dataset))]
    contents = {sample["__key__"]: (sample[".jpg"].read(), sample[".cls"].read()) for sample in samples}
    assert contents == by_key(images)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_datapipes_read_shards(stage: Stage, volume: Path, tree: Path, images: dict[str, bytes]) -> None:
    from torchdata.datapipes.iter import FileOpener, IterableWrapper

    assert stage("shard", "--shard-bytes=60000").code == 0
    shards = [str(path) for path in sorted((volume / "Food-11-webdataset/training").glob("*.tar"))]
    pipe = FileOpener(IterableWrapper(shards), mode="b").load_from_tar().webdataset()
    contents = {
        sample["__key__"].partition("training/")[2].partition(".tar/")[2]: (
            sample[".jpg"].read(),
            sample[".cls"].read(),
        )
        for sample in pipe
    }
    assert contents == by_key(images)


def by_key(images: dict[str, bytes]) -> dict[str, tuple[bytes, bytes]]:
    """Return the training samples as readers yield them: image and label by key."""
    return {
        path.partition("/")[2].removesuffix(".jpg"): (content, str(int(path.split("/")[1][-2:])).encode())
        for path, content in images.items()
        if path.startswith("training/")
    }


def test_litdata_reads_chunks(
    stage: Stage, volume: Path, tree: Path, images: dict[str, bytes], lines: Callable[[Path], list[dict[str, Any]]]
) -> None:
    from litdata import StreamingDataset

    assert stage("optimize", "--chunk-bytes=60000").code == 0
    folder = volume / "Food-11-litdata"
    dataset = StreamingDataset(str(folder / "training"))
    samples = [line for line in lines(folder / "_larder/samples.jsonl") if line["file"].startswith("training/")]
    assert len(dataset) == len(samples) == 110
    for number in (0, 17, 100, 109):
        assert bytes(dataset[number]["image"]) == images[samples[number]["source"]]
        assert dataset[number]["label"] == samples[number]["class"]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["a"], "no extension"),
        ([".jpg"], "no name"),
        (["a.cls"], "extension of labels"),
    ],
    ids=["no-extension", "no-name", "a-label"],
)
def test_keys_that_webdataset_cannot_have(
    stage: Stage, volume: Path, make_tree: MakeTree, names: list[str], says: str
) -> None:
    make_tree({f"training/class_00/{name}": b"x" for name in [*names, "z.jpg"]})
    result = stage("shard")
    assert result.code == 3, result.stderr
    assert says in result.stderr
    assert all(name in result.stderr for name in names)
    assert not (volume / "Food-11-webdataset").exists()


def test_long_and_foreign_names(stage: Stage, volume: Path, make_tree: MakeTree, tmp_path: Path) -> None:
    names = ["ß" * 45, "n" * 120, "é" * 100, "7"]
    make_tree({f"training/class_01/{name}.jpg": name.encode() for name in names})
    assert stage("shard").code == 0
    shard = volume / "Food-11-webdataset/training/shard-000000.tar"
    subprocess.run(["tar", "xf", shard, "-C", tmp_path], check=True)
    for name in names:
        assert (tmp_path / f"class_01/{name}.jpg").read_text() == name
        assert (tmp_path / f"class_01/{name}.cls").read_text() == "1"
