"""Local faults: archives, disks, settings, processes. The old data stays."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import Until, workers_of
from tests.integration.conftest import Disk, Process, Stage
from tests.integration.extract.conftest import Raw, WriteArchive

OLD = {"training/old_0.jpg": b"old", "training/old_1.jpg": b"data"}


@pytest.fixture
def with_old_data(stage: Stage, pack: WriteArchive, raw: Raw) -> Raw:
    """The volume after a good run."""
    assert stage("extract", f"--source={pack('old.tar.gz', OLD)}").code == 0
    return raw


@pytest.mark.parametrize(
    ("name", "harm", "flags", "says"),
    [
        ("new.zip", lambda data: data[:-40], [], "cut off"),
        ("new.tar.gz", lambda data: data[: len(data) // 2], [], "damaged"),
        ("new.tar", lambda data: data[: len(data) // 2], [], "cut off"),
        ("new.zip", lambda data: b"", [], "empty file"),
        ("new.zip", lambda data: data, ["--source-sha256=" + "0" * 64], "expected 0000"),
        ("new.zip", lambda data: data, ["--max-files=10"], "LARDER_MAX_FILES"),
        ("new.tar.gz", lambda data: data, ["--max-unpacked=10kB"], "LARDER_MAX_UNPACKED"),
        ("new.tar.zst", lambda data: data, ["--max-files=10"], "LARDER_MAX_FILES"),
    ],
    ids=["truncated zip", "truncated gz", "truncated tar", "empty", "sha256", "files", "bytes", "files of a stream"],
)
def test_bad_source_loses_nothing(
    stage: Stage,
    pack: WriteArchive,
    with_old_data: Raw,
    volume: Path,
    name: str,
    harm: Callable[[bytes], bytes],
    flags: list[str],
    says: str,
) -> None:
    path = pack(name)
    path.write_bytes(harm(path.read_bytes()))
    for _ in range(2):  # the second time, too
        result = stage("extract", f"--source={path}", "--workers=1", *flags)
        assert result.code == 3, result.stderr
        assert says in result.stderr
        assert "next step" in result.stderr
        assert "Traceback" not in result.stderr
    assert with_old_data.content() == OLD


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "sample"])
def test_full_disk(stage: Stage, pack: WriteArchive, disk: Disk, raw_on: Raw, kind: str) -> None:
    """The disk has 3 MB for 6 MB. A known size fails before the first byte. With more space, the run resumes."""
    noise = random.Random(5).randbytes(60_000)
    new = {f"training/{number}.jpg": noise for number in range(100)}
    options = {"prefix": disk.prefix, "volume": disk.volume, "env": {"LARDER_WORKERS": "2"}}
    assert stage("extract", f"--source={pack('old.zip', OLD)}", **options).code == 0
    flags = ["--source=sample", "--sample-images=90"] if kind == "sample" else [f"--source={pack('new.' + kind, new)}"]
    result = stage("extract", *flags, **options)
    assert result.code == 3, result.stderr
    assert "free some space" in result.stderr
    assert "Traceback" not in result.stderr
    assert raw_on.content() == OLD
    disk.remount("size=40m")
    result = stage("extract", *flags, **options)
    assert result.code == 0, result.stderr
    assert ("continuing an earlier run" in result.stderr) == (kind == "tar.gz")
    assert len(raw_on.content()) == (90 if kind == "sample" else 100)


def test_read_only_volume(stage: Stage, pack: WriteArchive, disk: Disk, raw_on: Raw) -> None:
    options = {"prefix": disk.prefix, "volume": disk.volume, "env": {"LARDER_WORKERS": "1"}}
    old = pack("old.zip", OLD)
    assert stage("extract", f"--source={old}", **options).code == 0
    disk.remount("ro")
    result = stage("extract", f"--source={pack('new.zip')}", **options)
    assert result.code == 3, result.stderr
    assert "read-only" in result.stderr
    assert "mount it writable" in result.stderr
    assert stage("extract", f"--source={old}", **options).code == 0  # nothing to write: up to date
    assert raw_on.content() == OLD


def test_volume_that_is_no_folder(stage: Stage, pack: WriteArchive, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "nothing"):
        result = stage("extract", f"--source={pack('a.zip')}", volume=place)
        assert result.code == 3, result.stderr
        assert "LARDER_VOLUME_DIR" in result.stderr


def test_every_wrong_setting_is_reported_at_once(stage: Stage) -> None:
    result = stage(
        "extract",
        "--no-such=s3cr3t",
        "--workers=none",
        "--source-sha256=short",
        "--other",
        "s3cr3t",
        env={
            "LARDER_SOURCE": "ftp://me:s3cr3t@host/x?s3cr3t",
            "LARDER_SAMPLE_IMAGES": "3",
            "LARDER_MAX_FILES": "0",
            "LARDER_SEED": "",
            "AWS_SECRET_ACCESS_KEY": "s3cr3t",
            "LARDER_LOG": "loud",
        },
    )
    assert result.code == 2
    for name in (
        "--no-such",
        "--workers",
        "--source-sha256",
        "--other",
        "LARDER_SOURCE",
        "LARDER_SAMPLE_IMAGES",
        "LARDER_MAX_FILES",
        "LARDER_LOG",
    ):
        assert name in result.stderr
    assert "LARDER_SEED" not in result.stderr
    assert "s3cr3t" not in result.stderr
    assert "--help" in result.stderr


@pytest.mark.parametrize(
    ("source", "code"), [("/nothing/here.zip", 3), ("~nobody-here/a.zip", 3), ("/dev/null", 3), ("x" * 300, 3)]
)
def test_absent_source(stage: Stage, with_old_data: Raw, source: str, code: int) -> None:
    result = stage("extract", f"--source={source}")
    assert result.code == code, result.stderr
    assert "next step" in result.stderr
    assert "Traceback" not in result.stderr
    assert with_old_data.content() == OLD


def test_volume_inside_the_source(stage: Stage, volume: Path) -> None:
    result = stage("extract", f"--source={volume.parent}")
    assert result.code == 2
    assert "lies inside" in result.stderr


# So many that no run ends before a test has met it at work, however busy the machine is.
SAMPLE = ["--source=sample", "--sample-images=100000", "--workers=2"]


@pytest.fixture
def running(stage: Stage, with_old_data: Raw, volume: Path, until: Until) -> Iterator[Process]:
    """A run that has stored its first files, in a process group of its own."""
    process = stage.start("extract", *SAMPLE, start_new_session=True)
    until(lambda: any((volume / ".larder" / "raw" / "new").rglob("*.jpg")), "the first file is there")
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "Ctrl-C"])
def test_interrupt(stage: Stage, with_old_data: Raw, running: Process, how: str) -> None:
    if how == "Ctrl-C":  # a terminal signals the whole group
        os.killpg(running.pid, signal.SIGINT)
    else:
        running.send_signal(getattr(signal, how))
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    assert "run the same command again" in stderr
    assert "Traceback" not in stderr
    assert with_old_data.content() == OLD


def test_killed_worker(stage: Stage, with_old_data: Raw, running: Process) -> None:
    workers_of(running)[0].kill()
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 3, stderr
    assert "a worker process was killed" in stderr
    assert "LARDER_WORKERS" in stderr
    assert with_old_data.content() == OLD


def test_second_run_at_once_is_reported(stage: Stage, with_old_data: Raw, running: Process, pack: WriteArchive) -> None:
    result = stage("extract", f"--source={pack('a.zip')}")
    assert result.code == 3
    assert "another run is using" in result.stderr
    assert running.poll() is None
    assert with_old_data.content() == OLD


def test_workers_end_with_a_killed_parent(with_old_data: Raw, running: Process) -> None:
    workers = workers_of(running)
    assert workers
    processes = [*workers, workers[0].parent()]
    running.kill()
    running.wait()
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
    assert with_old_data.content() == OLD
