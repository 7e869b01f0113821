"""What both packing stages guarantee: the same bytes every time, an index of every image, nothing lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from larder.contract import read_manifest
from larder.errors import StorageError
from larder.ledger import Ledger
from larder.packing.pack import PackLimits
from larder.packing.pack_input import FolderInput
from larder.packing.plan import plan_packs
from larder.packing.volume import VolumeTarget, VolumeWriter
from larder.progress import Reporter
from larder.volume import StagedArtifact
from services.shard.shard import ShardLayout
from tests.conftest import Until, workers_of
from tests.integration.conftest import Disk, Held, Stage
from tests.integration.packing.conftest import Digests, MakeTree, Packing


def test_the_index_leads_to_every_image(
    stage: Stage,
    volume: Path,
    tree: Path,
    packing: Packing,
    images: dict[str, bytes],
    lines: Callable[[Path], list[dict[str, Any]]],
) -> None:
    result = stage(packing.stage, packing.size)
    assert result.code == 0, result.stderr
    folder = volume / packing.folder
    samples = lines(folder / "_larder/samples.jsonl")
    assert {sample["source"] for sample in samples} == set(images)
    assert len(samples) == len(images)
    for sample in samples:
        with (folder / sample["file"]).open("rb") as file:
            file.seek(sample["offset"])
            assert file.read(sample["bytes"]) == images[sample["source"]]
        assert hashlib.sha256(images[sample["source"]]).hexdigest() == sample["sha256"]
        assert sample["source"].split("/")[1] == f"class_{sample['class']:02d}"
        assert sample["source"].split("/")[0] == sample["file"].split("/")[0]
    files = lines(folder / "_larder/index.jsonl")
    for file_line in files:
        content = (folder / file_line["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file_line["bytes"], file_line["sha256"])
    assert max(line["bytes"] for line in files) <= 60000
    manifest = json.loads((folder / "_larder/manifest.json").read_text())
    assert manifest["files"] == len(files)
    tree_manifest = (tree / "_larder/manifest.json").read_bytes()
    assert manifest["input"] == {"kind": "tree", "manifest": hashlib.sha256(tree_manifest).hexdigest()}
    assert manifest["splits"] == json.loads(tree_manifest)["splits"]


def test_the_same_bytes_with_any_number_of_workers(
    stage: Stage, volume: Path, tree: Path, packing: Packing, digests: Digests
) -> None:
    _same_bytes(stage, volume, packing, digests, ["--workers=3"])


@pytest.mark.exhaustive
def test_the_same_bytes_with_either_engine(
    stage: Stage, volume: Path, tree: Path, sharding: Packing, digests: Digests
) -> None:
    _same_bytes(stage, volume, sharding, digests, ["--engine=ray", "--workers=2"])


def _same_bytes(stage: Stage, volume: Path, packing: Packing, digests: Digests, other: list[str]) -> None:
    keys = []
    for flags in (["--workers=1"], other):
        result = stage(packing.stage, packing.size, *flags, "--force")
        assert result.code == 0, result.stderr
        keys.append(digests(volume / packing.folder))
    assert keys[0] == keys[1]


@pytest.mark.parametrize("address", ["head", "ray://head:10001", "head:port", "head:6379/x"])
def test_no_address_of_a_cluster(stage: Stage, address: str) -> None:
    result = stage("shard", "--engine=ray", f"--ray-address={address}")
    assert result.code == 2
    assert "must be host:port" in result.stderr


def test_a_worker_without_the_volume(tmp_path: Path, tree: Path) -> None:
    """A cluster node with another volume than the run writes nothing there."""
    source, layout = FolderInput(str(tree)), ShardLayout()
    folder = tmp_path / "new"
    folder.mkdir()
    writer = VolumeWriter(str(folder), str(tmp_path / "parts"), layout, source)
    packs = plan_packs(tree / "_larder/index.jsonl", layout, PackLimits(60000, 0, ""), None)
    with pytest.raises(StorageError, match="is not on"):
        writer(next(packs))
    assert not list(folder.iterdir())


def test_a_worker_of_an_earlier_run(volume: Path, tree: Path) -> None:
    """One that still writes when the next run has begun writes nothing there."""
    source, layout, staged_artifact = (
        FolderInput(str(tree)),
        ShardLayout(),
        StagedArtifact(volume, "Food-11-webdataset"),
    )
    staged_artifact.staged.mkdir(parents=True)
    packs = plan_packs(tree / "_larder/index.jsonl", layout, PackLimits(60000, 0, ""), None)
    manifest = read_manifest(tree, made_by="")
    with Ledger(staged_artifact.ledger_path, "key") as ledger:
        writers = []
        for _ in range(2):
            target = VolumeTarget(staged_artifact, Reporter("shard", "line"))
            target.begin(manifest, ledger)
            writers.append(target.writer(layout, source))
    with pytest.raises(StorageError, match="the run that made it has ended"):
        writers[0](next(packs))
    assert not list(staged_artifact.staged.iterdir())
    assert len(list(staged_artifact.work.glob("parts*"))) == 1, "the earlier run's is swept"
    writers[1](next(packs))


def test_all_faults_are_named_before_anything_is_written(
    stage: Stage, volume: Path, make_tree: MakeTree, images: dict[str, bytes], sharding: Packing
) -> None:
    make_tree(images | {"training/class_00/a.cls": b"x", "validation/class_01/z.jpg": bytes(60000)})
    result = stage(sharding.stage, sharding.size)
    assert result.code == 3, result.stderr
    assert "class_00/a.cls" in result.stderr
    assert "class_01/z.jpg takes" in result.stderr
    assert not list(volume.rglob("*.tar"))


def test_names_that_can_not_be_keys(
    stage: Stage, volume: Path, make_tree: MakeTree, lines: Callable[[Path], list[dict[str, Any]]], sharding: Packing
) -> None:
    """Names with dots, and names that differ only in the extension, are valid samples."""
    from webdataset import WebDataset

    names = ["cat.0.jpg", "cat.1.jpg", "cat_0.jpg", "IMG.2024.1.jpg", "1.jpg", "1.png", "1.0.png", "plain.jpg"]
    made = {f"training/class_0{label}/{name}": f"{label} {name}".encode() for label in range(3) for name in names}
    make_tree(made)
    result = stage("shard", "--shard-samples=5")
    assert result.code == 0, result.stderr
    folder = volume / "Food-11-webdataset"
    contents = {}
    for sample in WebDataset([str(path) for path in sorted(folder.rglob("*.tar"))], shardshuffle=False):
        [image] = [value for name, value in sample.items() if name in ("jpg", "png")]
        contents[sample["__key__"]] = (image, int(sample["cls"]))
    assert sorted(contents.values()) == sorted((data, int(data[:1])) for data in made.values())
    assert {"class_00/plain", "class_00/cat_0", "class_00/1"} < contents.keys()
    for line in lines(folder / "_larder/samples.jsonl"):
        own = line["source"].partition("/")[2].rpartition(".")[0]
        assert contents[line.get("key", own)] == (made[line["source"]], line["class"])
        assert ("key" in line) == ("." in own or line["source"].endswith("1.png"))
    places = {"LARDER_VOLUME_DIR": str(volume), "LARDER_WDS_DIR": str(volume), "LARDER_LIT_DIR": str(volume / "none")}
    env = places | {"LARDER_VERIFY_SAMPLES": "all", "LARDER_WORKERS": "1"}
    verified = stage("verify", env=env)
    [report] = [text for text in verified.stdout.splitlines() if "shards" in text and "in the store" not in text]
    assert verified.code == 0 and report.startswith("ok ") and "24" in report, verified.stdout
    shard = next(path for path in sorted(folder.rglob("*.tar")) if b"cat_1-" in path.read_bytes())
    shard.write_bytes(shard.read_bytes().replace(b"cat_1-", b"cat_2-", 1))
    assert stage("verify", env=env).code == 3


def test_another_release_of_litdata(stage: Stage, volume: Path, tree: Path, tmp_path: Path) -> None:
    from services.optimize.optimize import LITDATA_VERSION

    (tmp_path / "litdata-9.9.9.dist-info").mkdir()
    (tmp_path / "litdata-9.9.9.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: litdata\nVersion: 9.9.9\n")
    result = stage("optimize", env={"PYTHONPATH": str(tmp_path)})
    assert result.code == 2, result.stderr
    assert "litdata 9.9.9" in result.stderr
    assert f"pip install litdata=={LITDATA_VERSION}" in result.stderr
    assert not (volume / "Food-11-litdata").exists()


def test_a_second_run_does_nothing(stage: Stage, volume: Path, tree: Path, packing: Packing) -> None:
    assert stage(packing.stage, packing.size).code == 0
    before = (volume / packing.folder / "_larder/run.json").read_bytes()
    again = stage(packing.stage, packing.size)
    assert again.code == 0
    assert "up to date" in again.stderr
    assert "by sizes; `make verify` compares the content" in again.stderr
    assert (volume / packing.folder / "_larder/run.json").read_bytes() == before


@pytest.mark.parametrize("damage", ["gone", "shorter", "samples", "index", "no-index"])
def test_what_is_missing_afterwards_is_made_again(
    stage: Stage, volume: Path, tree: Path, packing: Packing, digests: Digests, damage: str
) -> None:
    assert stage(packing.stage, packing.size).code == 0
    whole = digests(volume / packing.folder)
    one = volume / packing.folder / next(path for path in sorted(whole) if path.startswith("training/"))
    if damage == "gone":
        one.unlink()
    elif damage == "shorter":
        os.truncate(one, 1000)
    elif damage == "index":
        os.truncate(volume / packing.folder / "_larder/index.jsonl", 1000)
    elif damage == "no-index":
        (volume / packing.folder / "_larder/index.jsonl").unlink()
    else:
        (volume / packing.folder / "_larder/samples.jsonl").write_text("")
    result = stage(packing.stage, packing.size)
    assert result.code == 0, result.stderr
    assert "packing all of it again" in result.stderr
    assert digests(volume / packing.folder) == whole


def test_order(
    stage: Stage,
    volume: Path,
    tree: Path,
    packing: Packing,
    images: dict[str, bytes],
    lines: Callable[[Path], list[dict[str, Any]]],
) -> None:
    contents = {}
    for flags in ("--shuffle=none", "--seed=0", "--seed=1"):
        assert stage(packing.stage, packing.size, flags).code == 0
        contents[flags] = [line["source"] for line in lines(volume / packing.folder / "_larder/samples.jsonl")]
    assert contents["--shuffle=none"] == sorted(images)
    assert len({tuple(order) for order in contents.values()}) == 3
    first = [line.split("/")[1] for line in contents["--seed=0"][:15]]
    assert len(set(first)) == 3, "a pack of class-ordered data is mixed"


def test_packs_end_by_count(
    stage: Stage, volume: Path, tree: Path, packing: Packing, lines: Callable[[Path], list[dict[str, Any]]]
) -> None:
    count = packing.size.replace("bytes=60000", "samples=7")
    assert stage(packing.stage, count).code == 0
    held: dict[str, int] = {}
    for line in lines(volume / packing.folder / "_larder/samples.jsonl"):
        held[line["file"]] = held.get(line["file"], 0) + 1
    assert sorted(held.values())[-20:] == [7] * 20
    assert len(held) == 16 + 6


@pytest.mark.one_in(2)
def test_killed_at_random_moments(
    stage: Stage, volume: Path, tree: Path, packing: Packing, digests: Digests, kill_at_random: Callable[..., None]
) -> None:
    undisturbed = stage(packing.stage, packing.size, "--workers=1")
    assert undisturbed.code == 0
    place = volume / packing.folder
    whole = digests(place)
    shutil.rmtree(place)

    def replaces(number: int) -> bool:
        """Delete the artifact before every other run."""
        return number % 2 == 1

    def check(number: int, complete: bool) -> None:
        if complete or replaces(number) or place.exists():
            assert digests(place) == whole, "what can be seen is whole"
        if complete and not replaces(number + 1):
            shutil.rmtree(place)

    def flags(workers: int, number: int) -> list[str]:
        return [packing.size, f"--workers={workers}", *(["--force"] if replaces(number) else [])]

    kills = 5 if os.environ.get("REQUIRE") == "all" else 2
    kill_at_random(packing.stage, partial(flags, 1), 2 * kills, undisturbed.seconds, check)
    undisturbed = stage(packing.stage, packing.size, "--workers=2")
    shutil.rmtree(place)
    kill_at_random(packing.stage, partial(flags, 2), kills, undisturbed.seconds, check)


def test_goes_on_where_it_was_killed(stage: Stage, volume: Path, tree: Path, until: Until, held: Held) -> None:
    flags = ("--shard-bytes=12000", "--workers=1")
    staged = volume / ".larder/Food-11-webdataset/new/training"
    with held(tree / "validation/class_00/0_0.jpg"):  # training is packed before
        process = stage.start("shard", *flags)
        until(lambda: len(list(staged.glob("*.tar"))) > 3 or process.poll() is not None, "some shards are there")
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = {path.name: path.stat().st_ino for path in sorted(staged.glob("*.tar"))[:3]}
    result = stage("shard", *flags)
    assert result.code == 0
    assert "continuing an earlier run" in result.stderr
    placed = volume / "Food-11-webdataset/training"
    assert {name: (placed / name).stat().st_ino for name in kept} == kept, "they were not written again"


def test_a_killed_worker(
    stage: Stage, volume: Path, tree: Path, packing: Packing, digests: Digests, until: Until, held: Held
) -> None:
    assert stage(packing.stage, packing.size).code == 0
    whole = digests(volume / packing.folder)
    with held(tree / "training/class_00/0_0.jpg"):
        process = stage.start(packing.stage, packing.size, "--workers=2", "--force")
        until(lambda: process.poll() is not None or bool(workers_of(process)), "a worker runs")
        workers_of(process)[0].kill()
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    assert "worker process was killed" in stderr
    assert stage(packing.stage, packing.size, "--force").code == 0
    assert digests(volume / packing.folder) == whole


@pytest.mark.parametrize("how", ["same-size", "longer", "gone", "a-folder"])
def test_an_input_that_changed(
    stage: Stage, volume: Path, tree: Path, packing: Packing, digests: Digests, how: str, images: dict[str, bytes]
) -> None:
    assert stage(packing.stage, packing.size).code == 0
    whole = digests(volume / packing.folder)
    path = "training/class_01/1_100.jpg"
    (tree / path).unlink()
    if how == "same-size":
        (tree / path).write_bytes(bytes(len(images[path])))
    elif how == "longer":
        (tree / path).write_bytes(images[path] + b"x")
    elif how == "a-folder":
        (tree / path).mkdir()
    result = stage(packing.stage, packing.size, "--force")
    assert result.code == 3, result.stderr
    assert path in result.stderr
    assert "etl-local" in result.stderr
    assert digests(volume / packing.folder) == whole


def test_an_unreadable_file(stage: Stage, volume: Path, tree: Path, packing: Packing) -> None:
    path = tree / "training/class_01/1_100.jpg"
    path.chmod(0)
    without_rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    result = stage(packing.stage, packing.size, prefix=without_rights)
    assert result.code == 3, result.stderr
    assert str(path) in result.stderr
    assert "permission denied" in result.stderr


def test_a_sample_larger_than_a_pack(stage: Stage, volume: Path, make_tree: MakeTree, packing: Packing) -> None:
    make_tree({"training/class_00/0_1.jpg": bytes(100), "training/class_01/1_1.jpg": bytes(60000)})
    result = stage(packing.stage, packing.size)
    assert result.code == 2, result.stderr
    assert "training/class_01/1_1.jpg" in result.stderr
    assert packing.size.split("=")[0].strip("-").replace("-", "_").upper() in result.stderr
    assert not (volume / packing.folder).exists()


def test_no_space_left(stage: Stage, volume: Path, tree: Path, packing: Packing, mounts: None, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = 'mount -t tmpfs -o size=200k larder "$0" && exec "$@"'
    prefix = ["unshare", "--mount", *user, "sh", "-c", script, str(small)]
    result = stage(packing.stage, packing.size, f"--input={tree}", volume=small, prefix=prefix)
    assert result.code == 3, result.stderr
    assert "packing 150 images needs" in result.stderr


@pytest.mark.one_in(2)
def test_a_disk_that_fills_up(
    stage: Stage,
    volume: Path,
    make_tree: MakeTree,
    images: dict[str, bytes],
    packing: Packing,
    digests: Digests,
    disk: Disk,
) -> None:
    def pack() -> Any:
        return stage(
            packing.stage, packing.size, f"--input={volume / 'Food-11'}", volume=disk.volume, prefix=disk.prefix
        )

    make_tree(dict(list(images.items())[:30]))
    assert pack().code == 0
    whole = digests(disk.seen / packing.folder)
    shutil.rmtree(volume / "Food-11")
    # So small that headers, index and ledger take more than the images, but the check before packing counts only
    # the images.
    make_tree({f"training/class_00/0_{number}.jpg": b"%0100d" % number for number in range(1500)})
    disk.remount(f"size={shutil.disk_usage(disk.seen).used + 260_000}")
    full = pack()
    assert full.code == 3, full.stderr
    assert "is full" in full.stderr, "while it was writing"
    assert digests(disk.seen / packing.folder) == whole
    disk.remount("size=50m")
    assert pack().code == 0
    again = digests(disk.seen / packing.folder)
    assert again != whole
    assert stage(packing.stage, packing.size).code == 0
    assert digests(volume / packing.folder) == again


def test_no_tree(stage: Stage, volume: Path, packing: Packing) -> None:
    result = stage(packing.stage)
    assert result.code == 3
    assert "etl-local" in result.stderr


def test_a_tree_of_another_kind(stage: Stage, volume: Path, tree: Path, packing: Packing) -> None:
    assert stage(packing.stage, packing.size).code == 0
    result = stage(packing.stage, f"--input={volume / packing.folder}")
    assert result.code == 3
    assert "LARDER_INPUT" in result.stderr
