"""The link from raw data to its source."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import pytest
import zstandard

from tests.archives import DOS, ZipEntry, zip_of
from tests.conftest import Store, own_bucket
from tests.integration.conftest import MakePicture, Result, Stage
from tests.integration.verify.conftest import Broken, Copy, Outcome, Verify
from tests.parquet import packed, picture

SPLITS = ("training", "validation", "evaluation")
CHANGED = "training/0_0.jpg"
Write = Callable[[Path, Mapping[str, bytes]], Path]


@pytest.fixture(scope="session")
def files(picture: MakePicture) -> dict[str, bytes]:
    """Images as in Food-11's archive, in a wrapping folder, with junk files."""
    images = {f"Food-11/{SPLITS[n % 3]}/{n % 11}_{n}.jpg": picture(n) for n in range(60)}
    return images | {"Food-11/.DS_Store": b"litter", "__MACOSX/Food-11/._x": b"litter"}


def as_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tar_bytes(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("Food-11/training/0_1000.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "0_0.jpg"
        archive.addfile(link)
    return stream.getvalue()


def as_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    path.write_bytes(tar_bytes(files))
    return path


def as_tar_zst(path: Path, files: Mapping[str, bytes]) -> Path:
    path.write_bytes(zstandard.compress(tar_bytes(files)))
    return path


def as_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def as_nested(path: Path, files: Mapping[str, bytes]) -> Path:
    return as_zip(path, {"Food-11.tar": tar_bytes(files)})


@pytest.fixture(params=[as_zip, as_tar, as_tar_zst, as_nested, as_folder])
def write(request: pytest.FixtureRequest) -> Write:
    """Runs a test with every kind of source."""
    writer: Write = request.param
    return writer


class Follow(Protocol):
    """What the fixture `follow` gives."""

    def __call__(self, source: Path | str | None, samples: str = "all", **env: str) -> Result: ...


@pytest.fixture
def follow(stage: Stage, volume: Path, tmp_path: Path) -> Follow:
    """Runs the stage on the data volume alone: `follow(source, samples="20")`."""

    def follow(source: Path | str | None, samples: str = "all", **env: str) -> Result:
        nothing = {"LARDER_WDS_DIR": str(tmp_path / "wds"), "LARDER_LIT_DIR": str(tmp_path / "lit")}
        given = {"LARDER_SOURCE": str(source)} if source else {}
        return stage("verify", env=nothing | given | {"LARDER_VERIFY_SAMPLES": samples} | env)

    return follow


def extract(stage: Stage, source: Path, transform: bool = True) -> None:
    ended = stage("extract", env={"LARDER_SOURCE": str(source)})
    assert ended.code == 0, ended.stderr
    if transform:
        ended = stage("transform")
        assert ended.code == 0, ended.stderr


@pytest.mark.parametrize(
    ("samples", "workers"),
    [
        ("all", "1"),
        ("35", "2"),
        pytest.param("all", "2", marks=pytest.mark.exhaustive),
        pytest.param("35", "1", marks=pytest.mark.exhaustive),
    ],
)
def test_members_are_followed_to_their_files(
    stage: Stage,
    follow: Follow,
    outcome: Outcome,
    tmp_path: Path,
    files: dict[str, bytes],
    write: Write,
    samples: str,
    workers: str,
) -> None:
    source = write(tmp_path / "photos", files)
    extract(stage, source)
    ended = follow(source, samples, LARDER_WORKERS=workers)
    assert ended.code == 0, ended.stderr
    assert outcome(ended.stdout)["archive"] == outcome(ended.stdout)["raw"] == "ok"


def test_names_in_a_code_page_are_followed(stage: Stage, follow: Follow, outcome: Outcome, tmp_path: Path) -> None:
    entries = [ZipEntry(f"画像/{number}能.jpg".encode("cp932"), b"%d" % number, host=DOS) for number in range(9)]
    (source := tmp_path / "photos").write_bytes(zip_of(entries))
    ended = stage("extract", f"--source={source}", "--zip-encoding=cp932")
    assert ended.code == 0, ended.stderr
    ended = follow(source)
    assert outcome(ended.stdout)["archive"] == "ok", ended.stderr


def test_without_a_tree_raw_is_followed_by_itself(
    stage: Stage, follow: Follow, outcome: Outcome, tmp_path: Path, files: dict[str, bytes]
) -> None:
    extract(stage, source := as_zip(tmp_path / "photos", files), transform=False)
    ended = follow(source, "20")
    assert ended.code == 0, ended.stderr
    assert outcome(ended.stdout)["archive"] == "ok"
    assert "20 of 60 files" in ended.stdout


def test_an_archive_that_is_gone_is_not_followed(
    stage: Stage, follow: Follow, outcome: Outcome, tmp_path: Path, files: dict[str, bytes]
) -> None:
    source = as_zip(tmp_path / "photos", files)
    extract(stage, source)
    source.unlink()
    for named in (None, source):
        ended = follow(named)
        assert ended.code == 0, ended.stderr
        assert outcome(ended.stdout)["archive"] == "not followed"
        assert "the archive isn't kept; LARDER_SOURCE=" in ended.stdout


def test_another_archive(stage: Stage, follow: Follow, broken: Broken, tmp_path: Path, files: dict[str, bytes]) -> None:
    extract(stage, source := as_zip(tmp_path / "photos", files))
    before = sha256(source.read_bytes()).hexdigest()
    after = sha256(as_zip(source, files | {"Food-11/training/0_99.jpg": b"more"}).read_bytes()).hexdigest()
    ended = follow(source)
    broken(ended, "archive", before, after, str(source), "LARDER_SOURCE names another source", "next step: name the")


def test_a_folder_in_place_of_an_archive(
    stage: Stage, follow: Follow, broken: Broken, tmp_path: Path, files: dict[str, bytes]
) -> None:
    extract(stage, as_zip(tmp_path / "photos", files))
    broken(follow(as_folder(tmp_path / "other", files)), "archive", "another source: archive")


def other_bytes(files: dict[str, bytes]) -> dict[str, bytes]:
    path = f"Food-11/{CHANGED}"
    return files | {path: files[path][:-1] + b"x"}


def one_less(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in files.items() if not path.endswith("1_1.jpg")}


def one_more(files: dict[str, bytes]) -> dict[str, bytes]:
    return files | {"Food-11/training/0_99.jpg": b"more"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_bytes, ("than the source's member", CHANGED, "expected  sha256", "found     sha256")),
        (one_less, ("a file that the source lacks", "1_1.jpg")),
        (one_more, ("lacks a member of the source", "0_99.jpg")),
    ],
)
def test_a_source_whose_members_are_others(
    stage: Stage,
    follow: Follow,
    broken: Broken,
    chain_of: type[Copy],
    volume: Path,
    tmp_path: Path,
    files: dict[str, bytes],
    write: Write,
    change: Any,
    words: tuple[str, ...],
) -> None:
    """The manifest has the changed archive's digest, so only its members show the change."""
    source = tmp_path / "photos"
    extract(stage, write(source, files))
    if source.is_dir():
        shutil.rmtree(source)
    write(source, change(files))
    if source.is_file():
        made_from = {"kind": "archive", "sha256": sha256(source.read_bytes()).hexdigest(), "bytes": 1}
        made_from |= {"inner_archives": 1} if write is as_nested else {}
        chain_of(volume).forge(volume / "raw", input=made_from)
    broken(follow(source), "archive", *words)


def as_several(path: Path) -> list[Path]:
    """Two shards of one split, and another split."""
    path.mkdir(exist_ok=True)
    train = {f"cat/{number}.jpg": b"%d" % number for number in range(6)}
    packs = {"train-000.tar": train, "train-001.tar": {"dog/1.jpg": b"x"}, "test.tar": {"cat/1.jpg": b"y"}}
    return [as_plain_tar(path / name, packed) for name, packed in packs.items()]


def as_plain_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("how", "folders"), [("list", "set"), ("pattern", "archive"), ("folder", "none"), ("folder", "set")]
)
def test_several_archives(
    stage: Stage,
    follow: Follow,
    outcome: Outcome,
    broken: Broken,
    chain_of: type[Copy],
    volume: Path,
    tmp_path: Path,
    how: str,
    folders: str,
) -> None:
    packs = as_several(tmp_path / "packs")
    if folders == "none":
        packs.pop().unlink()  # the others have files of the same names
    lists = {"list": json.dumps([str(path) for path in packs]), "pattern": f"{tmp_path}/packs/*.tar"}
    source: Any = lists.get(how, str(tmp_path / "packs"))
    ended = stage("extract", env={"LARDER_SOURCE": source, "LARDER_ARCHIVE_FOLDERS": folders})
    assert ended.code == 0, ended.stderr
    for workers in ("1", "2"):
        ended = follow(source, LARDER_WORKERS=workers)
        assert outcome(ended.stdout)["archive"] == "ok", ended.stdout + ended.stderr
    assert f"the {len(packs)} archives aren't kept; LARDER_SOURCE=" in follow(None).stdout
    as_plain_tar(packs[0], {f"cat/{number}.jpg": b"%d" % (number % 5) for number in range(6)})
    broken(follow(source), "archive", "these files aren't the ones that raw's manifest names", "train-000.tar")
    in_order = packs if how == "list" else sorted(packs)
    lines = "".join(f"{sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in in_order)
    made_from = {"kind": "archives", "files": len(packs), "bytes": 1, "sha256": sha256(lines.encode()).hexdigest()}
    chain_of(volume).forge(volume / "raw", input=made_from)
    broken(follow(source), "archive", "than the source's member", "cat/5.jpg")


def test_archives_that_are_not_here_are_named(stage: Stage, follow: Follow, outcome: Outcome, tmp_path: Path) -> None:
    packs = as_several(tmp_path / "packs")
    ended = stage("extract", env={"LARDER_SOURCE": json.dumps([str(path) for path in packs])})
    assert ended.code == 0, ended.stderr
    packs[1].unlink()
    far = "https://me:s3cr3t@example.org/test.tar?token=s3cr3t"
    ended = follow(json.dumps([str(packs[0]), str(packs[1]), far]))
    assert (ended.code, outcome(ended.stdout)["archive"]) == (0, "not followed")
    [line] = [line for line in ended.stdout.splitlines() if "not followed" in line and " archive " in line]
    assert f"{packs[1]} doesn't exist; https://example.org/test.tar was downloaded, and isn't kept" in line
    assert "s3cr3t" not in ended.stdout + ended.stderr


def test_parquet_files_are_compared_and_no_further_followed(
    stage: Stage, follow: Follow, outcome: Outcome, broken: Broken, tmp_path: Path
) -> None:
    source = tmp_path / "set"
    source.mkdir()
    for name in ("train", "test"):
        (source / f"{name}.parquet").write_bytes(packed([(picture(number), number % 2) for number in range(4)]))
    extract(stage, source)
    ended = follow(source)
    assert (ended.code, outcome(ended.stdout)["archive"]) == (0, "not followed"), ended.stderr
    assert "the 2 Parquet files match raw's manifest by sha256" in ended.stdout
    (source / "test.parquet").write_bytes(packed([(picture(9), 1)]))
    broken(follow(source), "archive", "these files aren't the ones that raw's manifest names")


@pytest.fixture
def bucket(s3: Store) -> Iterator[str]:
    """A bucket for one test."""
    with own_bucket(s3.client) as name:
        yield name


def test_objects_below_a_prefix(
    stage: Stage, follow: Follow, outcome: Outcome, broken: Broken, s3: Store, bucket: str, files: dict[str, bytes]
) -> None:
    for path, content in (files | {"Food-11/": b"", "Food-11/training/": b""}).items():
        s3.client.put_object(Bucket=bucket, Key=f"from/here/{path}", Body=content)
    source: Any = f"s3://{bucket}/from/here/"
    ended = stage("extract", env=s3.env | {"LARDER_SOURCE": source})
    assert ended.code == 0, ended.stderr
    for workers, samples in (("1", "all"), ("2", "20")):
        ended = follow(source, samples, LARDER_WORKERS=workers, **s3.env)
        assert (ended.code, outcome(ended.stdout)["archive"]) == (0, "ok"), ended.stdout + ended.stderr
    for named, why in (
        (None, "LARDER_SOURCE=s3://<bucket>/<prefix> follows them"),
        (f"s3://{bucket}/nothing", "holds no objects"),
        (f"s3://{bucket}/*", "is a pattern"),
        (f"s3://{bucket}/", "names no folder"),
    ):
        ended = follow(named, **s3.env)
        assert outcome(ended.stdout)["archive"] == "not followed", ended.stdout
        assert why in ended.stdout
    s3.client.put_object(Bucket=bucket, Key=f"from/here/Food-11/{CHANGED}", Body=files[f"Food-11/{CHANGED}"] + b"x")
    broken(follow(source, **s3.env), "archive", "than the source's member", CHANGED)
    s3.client.delete_object(Bucket=bucket, Key=f"from/here/Food-11/{CHANGED}")
    broken(follow(source, **s3.env), "archive", "a file that the source lacks", CHANGED)


def test_the_sample_by_another_generator_is_not_followed(verify: Verify, outcome: Outcome, chain: Copy) -> None:
    chain.forge(chain.raw, input={"kind": "sample", "images": 66, "seed": 0, "generator": 0})
    links = outcome(verify().stdout)
    assert (links["archive"], links["raw"], links["tree"]) == ("not followed", "ok", "BROKEN")


def test_the_sample_by_another_seed(verify: Verify, broken: Broken, chain: Copy) -> None:
    chain.forge(chain.raw, input={"kind": "sample", "images": 66, "seed": 1, "generator": 1})
    broken(verify(), "archive", "than the source's member", "place     sample: training/0_0.jpg")
