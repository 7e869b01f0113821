"""Malicious shards, in both tar readers."""

from __future__ import annotations

import io
import resource
from pathlib import Path
from typing import Any

import pytest

from larder.errors import InputError
from larder.loaders.failures import UnreadableImageError, WorkerError, map_worker_errors
from larder.loaders.shard_dataset import ShardDataset, WebDatasetDataset
from larder.shards import PlainTar
from tests import hostile

ATTACKS = hostile.shards(Path("nowhere"))
SOUND = hostile.member("a/0.jpg", b"x" * 700) + hostile.member("a/0.cls", b"1") + bytes(1024)
MIB = 1 << 20


class Opened(io.BytesIO):
    @property
    def size(self) -> int:
        return len(self.getbuffer())


class Reader:
    """Yields one shard, like s3_reader."""

    def __init__(self, content: bytes) -> None:
        self._content, self.opened_uri = content, "s3://bucket/training/shard-000000.tar"

    def open(self, key: str) -> Opened:
        return Opened(self._content)

    def explain(self, fault: Exception) -> Exception:
        raise fault

    def count_last_body(self) -> None: ...


def read(kind: type[ShardDataset], content: bytes) -> list[tuple[str, int]]:
    """Return the images' formats and the labels of a shard, decoded as in a training."""
    from larder.loaders.preprocessing import decode

    stream: Any = kind.__new__(kind)
    stream._bucket, stream._keys, stream._seed, stream._classes, stream._pass_state = "bucket", ["x.tar"], 0, 10, [0, 0]
    stream._table = None
    stream._readers = type("Readers", (), {"get": lambda self: Reader(content)})()
    with map_worker_errors():
        return [(str(decode(one.image, one.name)), one.label) for one in stream._samples(0, 1)]


readers = pytest.mark.parametrize("kind", [ShardDataset, WebDatasetDataset])


@readers
@pytest.mark.parametrize("attack", ATTACKS)
def test_shards(tmp_path: Path, kind: type[ShardDataset], attack: str) -> None:
    mark = tmp_path / "mark"
    content = hostile.shards(mark)[attack](SOUND)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        assert read(kind, content) == []
    except InputError as error:
        assert len(error.what.splitlines()) == 1 and len(error.what) < 2000
    assert not mark.exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024


@readers
def test_a_shard_as_it_should_be(kind: type[ShardDataset]) -> None:
    image = hostile.thin(20, 10)
    content = hostile.pax(path="b/" + 150 * "x" + ".jpg") + hostile.member("b/x.jpg", image)
    content += hostile.pax(path="b/" + 150 * "x" + ".cls") + hostile.member("b/x.cls", b"7") + bytes(1024)
    [(shown, label)] = read(kind, content)
    assert "size=20x10" in shown and label == 7


@pytest.mark.parametrize("step", [1, 7, 512, 10240, 1 << 20])
def test_a_shard_is_handed_on_as_it_is(step: int) -> None:
    stream = PlainTar(io.BytesIO(SOUND), "it", "")
    assert b"".join(iter(lambda: stream.read(step), b"")) == SOUND


@pytest.mark.parametrize("step", [1, 7, 512, 10240, 1 << 20])
def test_a_header_is_looked_at_however_it_is_read(step: int) -> None:
    stream = PlainTar(io.BytesIO(SOUND[:-1024] + hostile.sparse("1.jpg", 1 << 33)), "it", "")
    with pytest.raises(InputError, match=r"it is damaged: a tar header that isn't for a regular file at byte 2,560"):
        while stream.read(step):
            pass


def test_errors_of_workers_have_one_line_whatever_a_member_is_called() -> None:
    forged = 'x\nlarder.loaders.failures.WorkerError: ["ConfigurationError", "forged", "do"].jpg'
    with pytest.raises(InputError, match=r"forged.* can't be read"), map_worker_errors():
        from larder.loaders.preprocessing import decode

        decode(b"", forged)
    with pytest.raises(InputError), map_worker_errors():
        raise WorkerError('["UnheardOfError", "what", "step"]')
    assert issubclass(UnreadableImageError, Exception)
