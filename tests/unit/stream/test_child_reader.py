"""A stream that reads in a child process gives what one with threads gives, and leaves no process behind."""

import gc
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image, ImageFile

from larder.errors import ConfigurationError, InputError, LarderError, ResourceError, StorageError
from larder.stream import CenterCrop, RandomResizedCrop
from larder.stream.array_stream import ArrayStream
from larder.stream.child_messages import pack_error, unpack
from larder.stream.transforms import Crop
from tests.unit.stream.conftest import MakeShards, Packed, jpeg
from tests.unit.stream.streams import ROOT, numbers_of, stream_of

_SECONDS = 60


def copies_of(stream: ArrayStream) -> list[tuple[bytes, list[int]]]:
    return [(images.tobytes(), labels.tolist()) for images, labels in stream]


def children() -> list[psutil.Process]:
    """The child processes of streams, except for zombies."""
    living = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in living if "larder.stream.child" in " ".join(child.cmdline())]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it didn't come true"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert not children()


@pytest.mark.parametrize(
    "options",
    [
        {"transform": RandomResizedCrop(28), "seed": 3},
        {"rank": 1, "world_size": 3, "batch_size": 5},
        {"last": "pad", "shuffle": False},
        {"rank": 2, "world_size": 8, "batch_size": 1, "last": "keep"},
    ],
    ids=["crops", "rank", "pad", "longer-last"],
)
def test_batches_are_the_same(make_shards: MakeShards, options: dict[str, Any]) -> None:
    packed = make_shards(39, 3)
    here, there = stream_of(packed, **options), stream_of(packed, mode="process", **options)
    for _ in range(2):
        assert copies_of(there) == copies_of(here)
    assert there.state_dict() == here.state_dict()
    assert (there.bytes_read, there.requests) == (here.bytes_read, here.requests)
    assert here.requests >= 2
    there.close()


def test_a_state_works_in_both_modes(make_shards: MakeShards) -> None:
    packed = make_shards(37, 4)
    whole = copies_of(stream_of(packed))
    read: list[tuple[bytes, list[int]]] = []
    state = stream_of(packed).state_dict()
    for mode, batches in (("thread", 3), ("process", 2), ("thread", 1), ("process", 9)):
        stream = stream_of(packed, mode=mode)
        stream.load_state_dict(state)
        read += copies_of(itertools.islice(stream, batches))  # type: ignore[arg-type]
        state = stream.state_dict()
        stream.close()
    assert read == whole


def test_moving_and_leaving(make_shards: MakeShards) -> None:
    packed = make_shards(37, 4)
    here, there = stream_of(packed), stream_of(packed, mode="process")
    for stream in (here, there):
        stream.set_epoch(2)
    assert copies_of(itertools.islice(there, 3)) == copies_of(itertools.islice(here, 3))  # type: ignore[arg-type]
    assert copies_of(there) == copies_of(here)
    for stream in (here, there):
        stream.restart(2)
    assert copies_of(there) == copies_of(here)
    assert (there.epoch, here.epoch) == (3, 3)
    with pytest.raises(ConfigurationError, match="another loop over it has begun"):
        list(zip(there, there, strict=True))


def test_one_child_reads_all_epochs(make_shards: MakeShards) -> None:
    packed = make_shards(20)
    stream = stream_of(packed, mode="process")
    seen = set()
    for _ in range(3):
        assert sorted(numbers_of(itertools.islice(stream, len(stream)), packed)) == list(range(20))
        [child] = children()
        seen.add(child.pid)
    assert len(seen) == 1
    stream.close()
    assert not children()
    assert sorted(numbers_of(stream, packed)) == list(range(20)), "the next loop starts another one"
    assert len(children()) == 1
    del stream


@pytest.mark.parametrize("end", ["break", "error", "forgotten"])
def test_no_process_is_left_by(make_shards: MakeShards, end: str) -> None:
    packed = make_shards(40)
    stream = stream_of(packed, mode="process")
    try:
        for number, _ in enumerate(stream):
            assert len(children()) == 1
            if number == 2 and end == "break":
                break
            if number == 2 and end == "error":
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    if end == "forgotten":
        del stream
    assert not children()


@pytest.mark.parametrize(
    ("number", "message"),
    [(signal.SIGKILL, "was killed, most likely because memory ran out"), (signal.SIGSEGV, "was ended by SIGSEGV")],
    ids=["killed", "crashed"],
)
def test_a_child_that_dies(make_shards: MakeShards, number: signal.Signals, message: str) -> None:
    packed = make_shards(37, 4)
    stream = stream_of(packed, mode="process")
    read = []
    with pytest.raises(ResourceError, match=message) as error:
        for images, labels in stream:
            read.append((images.tobytes(), labels.tolist()))
            if len(read) == 2:
                children()[0].send_signal(number)
    assert "load_state_dict" in error.value.next_step
    assert ("memory" in error.value.next_step) == (number == signal.SIGKILL)
    assert 2 <= len(read) <= 4, "what was sent ahead"
    assert read + copies_of(stream) == copies_of(stream_of(packed)), "it goes on where it was"
    stream.close()


def test_a_child_that_dies_between_epochs(make_shards: MakeShards) -> None:
    packed = make_shards(12)
    stream = stream_of(packed, mode="process")
    list(stream)
    children()[0].kill()
    wait_for(lambda: not children())
    with pytest.raises(ResourceError, match="was killed"):
        list(stream)
    assert sorted(numbers_of(stream, packed)) == list(range(12))
    stream.close()


TRAINER = """
import os, sys, time
import psutil
from larder.stream import CenterCrop
from larder.stream.array_stream import ArrayStream

batches = iter(ArrayStream(sys.argv[1], batch_size=4, transform=CenterCrop(32, 28), threads=2, mode="process"))
next(batches)
fork = os.fork() if sys.argv[2] == "forked" else 0
if sys.argv[2] == "forked" and not fork:
    time.sleep(600)
print(fork, psutil.Process().children()[0].pid, flush=True)
if sys.argv[2] != "ends":
    time.sleep(600)
"""


@pytest.mark.parametrize("how", ["alone", "forked", "ends"])
def test_a_dead_trainer_leaves_no_process(make_shards: MakeShards, how: str) -> None:
    packed = make_shards(400)
    command = [sys.executable, "-c", TRAINER, str(packed.folder), how]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout
        fork, child = map(int, trainer.stdout.readline().split())
        try:
            if how == "ends":
                assert trainer.wait(_SECONDS) == 0
            else:
                trainer.kill()
            wait_for(lambda: not psutil.pid_exists(child))
        finally:
            if fork:
                os.kill(fork, signal.SIGKILL)


@pytest.mark.parametrize("on_damage", ["raise", "skip"])
def test_damage_is_told_alike(make_shards: MakeShards, on_damage: str) -> None:
    packed = make_shards(24, 2)
    shard = packed.folder / "shard-000001.tar"
    content = bytearray(shard.read_bytes())
    for number in (14, 15, 20):
        content[content.index(packed.images[number]) + 5] ^= 255
    shard.write_bytes(content)

    def outcome(mode: str) -> object:
        stream = stream_of(packed, mode=mode, on_damage=on_damage, shuffle=False, threads=1, batch_size=8)
        try:
            return copies_of(stream), stream.skipped
        except InputError as error:
            return error.what, error.next_step, stream.state_dict()
        finally:
            stream.close()

    assert outcome("process") == outcome("thread")
    if on_damage == "skip":
        assert len(outcome("process")[1]) == 3  # type: ignore[index]


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_pillow_s_settings_are_those_of_the_program(
    make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    whole = jpeg(1, (64, 64), kind="PNG")
    packed = make_shards([whole[: len(whole) // 2], jpeg(2)], 1)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with closing(stream_of(packed, mode=mode)) as stream:
        assert [len(labels) for _, labels in stream] == [2]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    with (
        closing(stream_of(packed, mode=mode)) as stream,
        pytest.raises(InputError, match="exceeds limit of 4000 pixels"),
    ):
        list(stream)


def test_a_batch_of_damaged_images_alone(make_shards: MakeShards) -> None:
    packed = make_shards(4, 1)
    (packed.folder / "shard-000000.tar").unlink()
    with pytest.raises(InputError, match="all 4 images of a batch are damaged"):
        list(stream_of(packed, on_damage="skip", mode="process"))


class Failing(CenterCrop):
    """A transform with a bug."""

    def crop(self, width: int, height: int, draws: np.ndarray) -> Crop:
        raise MemoryError("no memory left")


def test_an_unexpected_error_keeps_its_class(make_shards: MakeShards) -> None:
    with pytest.raises(MemoryError, match="no memory left") as error:
        list(stream_of(make_shards(8), transform=Failing(32, 28), mode="process"))
    assert "in the stream's child process" in error.value.__notes__[0]
    assert "in crop" in error.value.__notes__[0]


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError.of_faults(["one", "two"], next_step="correct \x1b them"),
        type("Special", (StorageError,), {})("full", next_step="free some space"),
        OSError(28, "No space left on device"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        type("Foreign", (Exception,), {})("unknown"),
        KeyboardInterrupt(),
    ],
    ids=["lines", "subclass", "os", "other-arguments", "foreign", "interrupt"],
)
def test_errors_cross(error: BaseException) -> None:
    found = unpack(pack_error(error))
    assert isinstance(found, Exception)
    if isinstance(error, LarderError):
        assert isinstance(found, LarderError)
        assert isinstance(error, type(found))
        assert type(found) is not LarderError
        assert (found.what, found.next_step, found.format()) == (error.what, error.next_step, error.format())
    else:
        assert type(found) in (type(error), RuntimeError)
        assert str(error) in str(found)


def test_a_batch_that_somebody_holds_is_not_overwritten(make_shards: MakeShards) -> None:
    packed = make_shards(120)
    stream = stream_of(packed, mode="process", batch_size=2)
    held, copies, addresses = [], [], set()
    for number, (images, _) in enumerate(stream):
        addresses.add(images.ctypes.data)
        if number % 7 == 0:
            held.append(images[1:])  # a slice of a batch holds its slot
            copies.append(images[1:].copy())
    assert len(held) == 9
    assert all((images == copy).all() for images, copy in zip(held, copies, strict=True))
    assert len(addresses) < 9 + 10, "slots are used again"
    stream.close()
    assert all((images == copy).all() for images, copy in zip(held, copies, strict=True)), "they outlive the child"


def test_all_batches_may_be_held(make_shards: MakeShards) -> None:
    packed = make_shards(90)
    stream = stream_of(packed, mode="process", batch_size=1)
    assert sorted(numbers_of(list(stream), packed)) == list(range(90))
    assert sorted(numbers_of(list(stream), packed)) == list(range(90))
    stream.close()


def test_two_streams_at_once(make_shards: MakeShards) -> None:
    packed, other = make_shards(30), make_shards([jpeg(100 + number) for number in range(30)], name="other")
    first, second = stream_of(packed, mode="process"), stream_of(other, mode="process")
    pairs = list(zip(first, second, strict=True))
    assert len(children()) == 2
    assert sorted(numbers_of([one for one, _ in pairs], packed)) == list(range(30))
    assert sorted(numbers_of([two for _, two in pairs], other)) == list(range(30))
    first.close()
    second.close()


def test_a_copy_of_a_stream_has_its_own_child(make_shards: MakeShards) -> None:
    packed = make_shards(20)
    stream = stream_of(packed, mode="process")
    expected = copies_of(stream)
    again = pickle.loads(pickle.dumps(stream))
    again.restart(0)
    assert copies_of(again) == expected
    assert len(children()) == 2
    again.close()
    stream.close()


def test_samples_are_read_in_threads(make_shards: MakeShards) -> None:
    packed = make_shards(20)
    here, there = stream_of(packed), stream_of(packed, mode="process")
    assert list(there.samples()) == list(here.samples())
    assert copies_of(there) == copies_of(here)
    assert list(there.samples()) == list(here.samples())
    assert (there.bytes_read, there.requests) == (here.bytes_read, here.requests)
    there.close()


def in_fork(check: Callable[[], bool]) -> int:
    """The exit code of a fork: 17 if the check holds."""
    fork = os.fork()
    if not fork:
        try:
            os._exit(17 if check() else 1)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])


def test_reading_on_in_a_forked_process_is_an_error(make_shards: MakeShards) -> None:
    packed = make_shards(40)
    batches = iter(stream_of(packed, mode="process"))
    next(batches)

    def is_refused() -> bool:
        try:
            next(batches)
        except ConfigurationError as error:
            return "forked" in error.what
        return False

    assert in_fork(is_refused) == 17
    assert len(numbers_of(batches, packed)) == 36, "the child still reads for its parent"


def test_a_forked_process_may_begin_to_read(make_shards: MakeShards) -> None:
    packed = make_shards(16)
    stream = stream_of(packed, mode="process")
    numbers_of(stream, packed)

    def reads() -> bool:
        found = sorted(numbers_of(stream, packed)) == list(range(16))
        stream.close()
        return found

    assert in_fork(reads) == 17
    assert len(children()) == 1
    assert sorted(numbers_of(stream, packed)) == list(range(16))
    stream.close()


def _count(stream: ArrayStream, samples: Any) -> None:
    samples.value = sum(len(labels) for _, labels in stream)
    stream.close()


def test_a_daemonic_process_may_read(make_shards: MakeShards) -> None:
    context = multiprocessing.get_context("fork")
    samples = context.Value("i", 0)
    stream = stream_of(make_shards(16), mode="process")
    worker = context.Process(target=_count, args=(stream, samples), daemon=True)
    worker.start()
    worker.join(_SECONDS)
    assert (worker.exitcode, samples.value) == (0, 16)


def test_a_worker_of_a_dataloader_reads_in_threads(make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch) -> None:
    from larder.stream import ShardStream, shard_stream

    monkeypatch.setattr(shard_stream, "get_worker_info", lambda: SimpleNamespace(id=0, num_workers=1))
    stream = ShardStream(make_shards(8).folder, transform=CenterCrop(32, 28), mode="process", batch_size=4)
    assert [len(children()) for _ in stream] == [0, 0]


def test_a_transform_that_cannot_be_sent(make_shards: MakeShards) -> None:
    class Local(CenterCrop):
        pass

    with pytest.raises(ConfigurationError, match="can't be sent to the stream's child process") as error:
        list(stream_of(make_shards(4), transform=Local(32, 28), mode="process"))
    assert "mode='thread'" in error.value.next_step


SCRIPT = """
import sys
from larder.errors import ConfigurationError
from larder.stream import CenterCrop
from larder.stream.array_stream import ArrayStream

class Own(CenterCrop):
    pass

print(sum(len(labels) for _, labels in ArrayStream(sys.argv[1], mode="process")))
try:
    list(ArrayStream(sys.argv[1], transform=Own(32, 28), mode="process"))
except ConfigurationError as error:
    print(error.what, error.next_step)
"""


def test_a_script_without_a_main_guard(make_shards: MakeShards, tmp_path: Path) -> None:
    packed = make_shards(9)
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(packed.folder)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=_SECONDS)
    images, refused = done.stdout.splitlines()
    assert images == "9"
    assert "can't load the transform" in refused
    assert "define their classes in a module" in refused
    assert not done.stderr


def test_a_child_that_cannot_be_started(make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = make_shards(4)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ResourceError, match="can't be started: No such file"):
        list(stream_of(packed, mode="process"))


def test_the_child_imports_no_torch(make_shards: MakeShards) -> None:
    from larder.stream import ShardStream

    packed: Packed = make_shards(8)
    stream = ShardStream(packed.folder, transform=CenterCrop(32, 28), mode="process", batch_size=4)
    assert sum(len(labels) for _, labels in stream) == 8
    [child] = children()
    assert "torch" not in Path(f"/proc/{child.pid}/maps").read_text()
    assert "torch" in Path("/proc/self/maps").read_text()
    stream.close()


def test_where_there_is_a_gpu_batches_are_copied_to_pinned_memory(
    make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from larder.stream import ShardStream

    packed: Packed = make_shards(8)
    pinned = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    stream = ShardStream(packed.folder, transform=CenterCrop(32, 28), mode="process", batch_size=4)
    batches = [(images.permute(0, 2, 3, 1).numpy(), labels.numpy()) for images, labels in stream]
    assert sorted(numbers_of(batches, packed)) == list(range(8))
    assert [images.ctypes.data for images, _ in batches] == [tensor.data_ptr() for tensor in pinned]
    stream.close()
