"""Every kind of source leaves the same data, and a second run does nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Store
from tests.integration.conftest import Stage
from tests.integration.extract.conftest import Faults, Raw, WriteArchive


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.zst", "tar.bz2", "tar.xz", "nested.zip", "folder"])
@pytest.mark.parametrize("wrapper", ["", "Food-11/"], ids=["bare", "wrapped and littered"])
def test_every_kind_gives_the_same_index(
    stage: Stage,
    raw: Raw,
    pack: WriteArchive,
    files: dict[str, bytes],
    litter: dict[str, bytes],
    tmp_path: Path,
    kind: str,
    wrapper: str,
) -> None:
    content = {wrapper + name: value for name, value in files.items()} | (litter if wrapper else {})
    source = write(tmp_path / "source", content) if kind == "folder" else pack(f"food 图.{kind}", content)
    result = stage("extract", f"--source={source}", env={"LARDER_WORKERS": "1" if wrapper else "2"})
    assert result.code == 0, result.stderr
    assert raw.content() == files


def test_settings_that_change_the_files_extract_again(
    stage: Stage, raw: Raw, pack: WriteArchive, files: dict[str, bytes], tmp_path: Path
) -> None:
    source = f"--source={pack('a.nested.zip')}"
    assert stage("extract", source).code == 0
    assert raw.content() == files
    assert json.loads(raw.meta("manifest.json"))["input"]["inner_archives"] == 3
    assert stage("extract", source, "--inner-archives=false").code == 0
    assert set(raw.content()) == {"training.tar.gz", "validation.zip", "evaluation.tar.gz"}
    assert "inner_archives" not in json.loads(raw.meta("manifest.json"))["input"]
    again = stage("extract", source, "--inner-archives=false", env={"LARDER_LOG": "json"})
    assert again.events[0]["up_to_date"] is True


@pytest.mark.parametrize("encoding", ["utf-16", "base64", "no-such", "utf-7", "unicode_escape"])
def test_encodings_that_cannot_be_those_of_names(stage: Stage, encoding: str) -> None:
    result = stage("extract", "--source=a.zip", f"--zip-encoding={encoding}")
    assert result.code == 2
    assert "LARDER_ZIP_ENCODING" in result.stderr or "--zip-encoding" in result.stderr
    assert "cp932" in result.stderr


@pytest.mark.parametrize("name", ["-dash.zip", "new\nline.zip", "sp ace.zip", "ünï图.zip", "quote's\".zip"])
def test_odd_names_of_archives(
    stage: Stage, raw: Raw, pack: WriteArchive, files: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    path = pack("a.zip").rename(tmp_path / name)
    assert stage("extract", f"--source={path}", "--workers=1").code == 0
    assert raw.content() == files


def test_second_run_writes_nothing(stage: Stage, raw: Raw, pack: WriteArchive, volume: Path) -> None:
    path = pack("a.tar.gz")
    assert stage("extract", f"--source={path}").code == 0
    before = {item: item.stat().st_mtime_ns for item in volume.rglob("*")}
    again = stage("extract", f"--source={path}", env={"LARDER_LOG": "json", "LARDER_FRONT_DOOR": ""})
    assert (again.code, again.stdout) == (0, "")
    assert [event["event"] for event in again.events] == ["done", "next"]
    assert again.events[0]["up_to_date"] is True
    assert {item: item.stat().st_mtime_ns for item in volume.rglob("*")} == before


def test_sample_and_events(stage: Stage, raw: Raw) -> None:
    env = {"LARDER_SOURCE": "sample", "LARDER_LOG": "json", "LARDER_FRONT_DOOR": ""}  # by make, transform follows
    result = stage("extract", "--sample-images=33", env=env)
    assert result.code == 0, result.stderr
    assert len(raw.content()) == 33
    assert json.loads(raw.meta("manifest.json"))["input"]["kind"] == "sample"
    assert {event["stage"] for event in result.events} == {"extract"}
    assert result.events[-1]["event"] == "next"


def test_changed_source_replaces_the_data(stage: Stage, raw: Raw, pack: WriteArchive, files: dict[str, bytes]) -> None:
    pack("a.zip")
    path = pack("a.zip", {"training/only.jpg": b"new"})
    assert stage("extract", f"--source={pack('b.zip')}", "--workers=1").code == 0
    result = stage("extract", f"--source={path}", "--workers=1")
    assert result.code == 0
    assert "stays until its replacement is complete" in result.stderr
    assert raw.content() == {"training/only.jpg": b"new"}


@pytest.mark.parametrize("harm", ["deleted", "truncated", "folder gone", "folder is a file"])
def test_damaged_data_is_repaired(
    stage: Stage, raw: Raw, pack: WriteArchive, files: dict[str, bytes], volume: Path, harm: str
) -> None:
    path = pack("a.zip")
    assert stage("extract", f"--source={path}", "--workers=1").code == 0
    victim = volume / "raw" / "training" / "0_0.jpg"
    if harm == "deleted":
        victim.unlink()
    elif harm == "truncated":
        victim.write_bytes(b"")
    else:
        victim.parent.rename(volume / "gone")
        if harm == "folder is a file":
            victim.parent.touch()
    result = stage("extract", f"--source={path}", "--workers=1")
    assert result.code == 0, result.stderr
    assert "missing or has changed" in result.stderr
    assert raw.content() == files


@pytest.mark.parametrize("harm", ["manifest.json", "index.jsonl"])
def test_damaged_contract_says_how_to_go_on(
    stage: Stage, raw: Raw, pack: WriteArchive, files: dict[str, bytes], volume: Path, harm: str
) -> None:
    path = pack("a.zip")
    assert stage("extract", f"--source={path}", "--workers=1").code == 0
    (volume / "raw" / "_larder" / harm).write_bytes(b"{}")
    result = stage("extract", f"--source={path}", "--workers=1")
    assert result.code == 3
    assert "LARDER_FORCE=true" in result.stderr
    assert stage("extract", f"--source={path}", "--workers=1", "--force").code == 0
    assert raw.content() == files


def test_http_and_s3_sources(
    stage: Stage, raw: Raw, pack: WriteArchive, files: dict[str, bytes], server: Faults, s3: Store
) -> None:
    server.content = pack("a.tar.zst").read_bytes()
    url = server.url("/private/food.tar.zst?token=s3cr3t-query", user="me:s3cr3t-word@")
    result = stage("extract", env={"LARDER_SOURCE": url})
    assert result.code == 0, result.stderr
    assert raw.content() == files
    assert "s3cr3t" not in result.stderr + raw.meta("manifest.json").decode() + raw.meta("run.json").decode()
    first = raw.meta("manifest.json")

    s3.client.create_bucket(Bucket="extract-sources")
    s3.client.put_object(Bucket="extract-sources", Key="in here/food 图.tar.zst", Body=server.content)
    result = stage("extract", env=s3.env | {"LARDER_SOURCE": "s3://extract-sources/in here/food 图.tar.zst"})
    assert result.code == 0, result.stderr
    assert raw.content() == files
    assert raw.meta("manifest.json") == first


@pytest.mark.parametrize(
    ("uri", "keys", "code", "says"),
    [
        ("s3://extract-nothing/food.zip", {}, 3, "does not exist"),
        ("s3://larder-tests-ready/nothing.zip", {}, 3, "does not exist"),
        ("s3://larder-tests-ready/ready", {"AWS_SECRET_ACCESS_KEY": "s3cr3t-wrong"}, 2, "the secret key is wrong"),
        ("s3://larder-tests-ready/ready", {}, 3, "not an archive"),
        ("s3://larder-tests-ready/ready", {"AWS_ACCESS_KEY_ID": ""}, 2, "belong together"),
        ("s3://larder-tests-ready/ready", {"AWS_PROFILE": "none-such", "AWS_CONFIG_FILE": "/none"}, 2, "none-such"),
    ],
    ids=["bucket", "key", "credentials", "content", "half the keys", "profile"],
)
def test_s3_faults(stage: Stage, s3: Store, uri: str, keys: dict[str, str], code: int, says: str) -> None:
    result = stage("extract", f"--source={uri}", env=s3.env | keys)
    assert result.code == code, result.stderr
    assert says in result.stderr
    assert "next step" in result.stderr
    assert "s3cr3t" not in result.stderr
    assert "Traceback" not in result.stderr
