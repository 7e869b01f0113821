"""Archives with more members than a worker keeps in memory: read a part at a time, with the same result."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from larder.errors import InputError, ServiceError
from larder.progress import Reporter
from services.index import checkers
from services.index.index import index
from services.index.settings import IndexSettings
from services.index.source_checker import SourceChecker
from tests.conftest import Store
from tests.integration.conftest import ReadObjects
from tests.integration.index.conftest import Put, tar_of, zip_of

pytestmark = pytest.mark.any_store
Index = Callable[..., dict[str, bytes]]


@pytest.fixture
def run(
    store: Store, bucket: str, objects: ReadObjects, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Index:
    """Indexes archives in this process, `at_once` members at a time, and returns the index's files."""

    def run(archives: dict[str, bytes], at_once: int, prefix: str, **settings: Any) -> dict[str, bytes]:
        monkeypatch.setattr(checkers, "MEMBERS_AT_ONCE", at_once)
        put({f"in/{name}": content for name, content in archives.items()})
        for name, value in store.env.items():
            monkeypatch.setenv(name, value)
        volume = tmp_path / prefix
        volume.mkdir(exist_ok=True)
        given = {
            "LARDER_SOURCE": f"s3://{bucket}/in/",
            "LARDER_VOLUME_DIR": str(volume),
            "S3_BUCKET": bucket,
            "S3_PREFIX": prefix,
            "LARDER_WORKERS": 1,
            "LARDER_VERIFY": "none",
            "LARDER_MAX_REJECTS": 99,
            "LARDER_RECIPE": "auto",
            **store.env,
            **settings,
        }
        index(IndexSettings.model_validate(given), Reporter("index", "line"))
        files = objects(f"{prefix}/Food-11-index")
        return {path: content for path, content in files.items() if not path.endswith("run.json")}

    return run


def folders(count: int) -> dict[str, bytes]:
    """Return images in folders, and other files among them."""
    images = {f"{('train', 'val')[n % 2]}/c{n % 3}/{n:03d}.jpg": b"\xff\xd8\xff%d" % n for n in range(count)}
    return images | {"train/c0/notes.txt": b"x", "train/c0/.DS_Store": b"x", "README.md": b"y"}


def shard(count: int) -> dict[str, bytes]:
    """Return a shard with its labels after its images, a mask, an image without label, and a label without image."""
    images = {f"{n:03d}.jpg": b"\xff\xd8\xff%d" % n for n in range(count)}
    labels = {f"{n:03d}.cls": b"%d" % (n % 3) for n in range(1, count + 1)}
    return images | {"004.mask.png": b"\x89PNG\r\n\x1a\n4"} | labels


@pytest.mark.parametrize(
    "archives",
    [
        {"a.tar": tar_of(folders(40))},
        {"a.zip": zip_of(folders(40)), "b.tar": tar_of({f"val/c1/b{n}.jpg": b"%d" % n for n in range(3)})},
        {"a.zip": zip_of(folders(40), zipfile.ZIP_DEFLATED)},
        {"train-000.tar": tar_of(shard(30)), "train-001.tar": tar_of(shard(4)), "val-000.zip": zip_of(shard(25))},
    ],
    ids=["tar", "zip and tar", "deflated zip", "shards"],
)
@pytest.mark.parametrize("at_once", [1, 7, 43])
def test_parts_are_the_whole(run: Index, archives: dict[str, bytes], at_once: int) -> None:
    settings = {"LARDER_ARCHIVE_FOLDERS": "none"} if len(archives) == 2 else {}
    assert run(archives, at_once, "parts", **settings) == run(archives, 10_000, "whole", **settings)


def unsafe(member: str) -> bytes:
    return tar_of({"c/1.jpg": b"1", member: b"2"} | {f"c/{n}.jpg": b"3" for n in range(9)})


def joined(*several: dict[str, bytes]) -> bytes:
    """Build a tar of several mappings, in which a name may be repeated."""
    return b"".join(
        tar_of(files).rstrip(b"\0") + bytes(-len(tar_of(files).rstrip(b"\0")) % 512) for files in several
    ) + bytes(1024)


@pytest.mark.parametrize(
    ("archive", "says"),
    [
        ({"a.tar": unsafe("../x.jpg")}, "leaves the folder"),
        ({"a.tar": joined(shard(9), {"002.jpg": b"x"})}, "is in it twice"),
        ({"a.tar": joined(shard(9), {"002.cls": b"7"})}, "has the same key as another"),
        ({"a.tar": tar_of(folders(9))[:9000]}, "is damaged"),
        ({"a.zip": zip_of({f"c/{n}.jpg": b"1" for n in range(9)} | {"/etc/x.jpg": b"1"})}, "absolute path"),
    ],
)
def test_parts_are_refused_as_the_whole(run: Index, archive: dict[str, bytes], says: str) -> None:
    with pytest.raises(InputError, match=says):
        run(archive, 3, "parts")
    with pytest.raises(InputError, match=says):
        run(archive, 10_000, "whole")


def test_limits_count_all_parts(run: Index) -> None:
    with pytest.raises(InputError, match="unpacks to more than 30 files"):
        run({"a.tar": tar_of(folders(40))}, 7, "parts", LARDER_MAX_FILES=30)


@pytest.mark.parametrize("at", ["_record_part", "_finish_archive"])
def test_a_run_that_ends_between_parts_goes_on(run: Index, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    archives = {"train-000.tar": tar_of(shard(30)), "val-000.tar": tar_of(shard(2))}
    real, calls = getattr(SourceChecker, at), 0

    def broken(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == (4 if at == "_record_part" else 1):
            raise ServiceError("away", next_step="again")
        return real(*given)

    monkeypatch.setattr(SourceChecker, at, broken)
    with pytest.raises(ServiceError, match="away"):
        run(archives, 7, "parts")
    monkeypatch.setattr(SourceChecker, at, real)
    opened: list[Any] = []
    check = checkers.ArchiveChecker.__call__

    def noted(self: Any, job: Any) -> Any:
        opened.append(job.begin)
        return check(self, job)

    monkeypatch.setattr(checkers.ArchiveChecker, "__call__", noted)
    assert run(archives, 7, "parts") == run(archives, 10_000, "whole")
    assert opened[0].position > 0 or at == "_finish_archive", "parts that were recorded aren't read again"
