"""Batches of every sample once, in order, resumed, and shared out."""

import itertools
import json
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import warnings
from contextlib import nullcontext

import numpy as np
import pytest

from larder.errors import ConfigurationError
from larder.stream import RandomResizedCrop, array_stream, batch_reader
from larder.stream.array_stream import ArrayStream
from tests.unit.stream.conftest import MakeShards, jpeg, tar_of
from tests.unit.stream.streams import CROP, ROOT, numbers_of, pixels_of, stream_of


def test_the_order_is_the_same_for_any_threads_and_with_headers_or_an_index(make_shards: MakeShards):
    packed, other = make_shards(50, 3), make_shards(50, 3, indexed=False, name="other")
    orders = [
        numbers_of(stream_of(packed, threads=1), packed),
        numbers_of(stream_of(packed, threads=5, ahead_bytes=1 << 20, window_bytes=1 << 28), packed),
        numbers_of(stream_of(other), other),
    ]
    assert orders[0] == orders[1] == orders[2]


def test_without_shuffling_samples_keep_the_order_of_the_shards(make_shards: MakeShards):
    packed = make_shards(23)
    assert numbers_of(stream_of(packed, shuffle=False), packed) == list(range(23))


@pytest.mark.parametrize("world_size", [2, 8])
def test_ranks_share_one_shard_out(make_shards: MakeShards, world_size: int):
    packed = make_shards(19, 1)
    streams = [stream_of(packed, rank=rank, world_size=world_size) for rank in range(world_size)]
    found = [numbers_of(stream, packed) for stream in streams]
    assert sorted(itertools.chain(*found)) == list(range(19))
    assert len({len(stream) for stream in streams}) == 1


def test_ranks_are_those_of_torchrun(make_shards: MakeShards, monkeypatch):
    packed = make_shards(20)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert numbers_of(stream_of(packed), packed) == numbers_of(stream_of(packed, rank=1, world_size=2), packed)


@pytest.mark.parametrize("read", [0, 1, 4, 9, 10])
def test_resuming_at_any_batch(make_shards: MakeShards, read: int):
    packed = make_shards(37, 4)
    whole = numbers_of(stream_of(packed), packed)
    first = stream_of(packed)
    begun = numbers_of(itertools.islice(first, read), packed)
    state = json.loads(json.dumps(first.state_dict()))
    assert len(json.dumps(state)) < 1024
    second = stream_of(packed, threads=1)
    second.load_state_dict(state)
    assert second.batch == first.batch == read % 10
    assert second.epoch == (read == 10), "the next epoch begins after the last batch"
    rest = numbers_of(second, packed) if read < 10 else []
    assert begun + rest == whole
    assert second.epoch == 1


def test_the_number_of_the_next_batch_counts_batches_of_the_present_size(make_shards: MakeShards):
    packed = make_shards(48, 4)
    stream = stream_of(packed, batch_size=4)
    assert [(number, stream.epoch) for number, _ in enumerate(itertools.islice(stream, 6), stream.batch)][-1] == (5, 0)
    assert stream.batch == 6
    for size, batch in ((8, 3), (2, 12), (4, 6)):
        other = stream_of(packed, batch_size=size)
        other.load_state_dict(stream.state_dict())
        assert (other.batch, len(other)) == (batch, 48 // size)
        assert sum(1 for _ in other) == len(other) - batch
    list(stream)
    assert (stream.batch, stream.epoch) == (0, 1)


def test_resuming_with_other_ranks_loses_and_repeats_nothing(make_shards: MakeShards):
    packed = make_shards(61, 4)
    streams = [stream_of(packed, rank=rank, world_size=3) for rank in range(3)]
    seen = [number for stream in streams for number in numbers_of(itertools.islice(stream, 2), packed)]
    states = [stream.state_dict() for stream in streams]
    assert states[0] == states[1] == states[2]
    for rank in range(2):
        stream = stream_of(packed, rank=rank, world_size=2, batch_size=5)
        stream.load_state_dict(states[0])
        stream.set_epoch(0)  # as training loops do; it must not start the epoch again
        seen += numbers_of(stream, packed)
    assert sorted(seen) == list(range(61))


def test_numbers_may_be_those_of_numpy(make_shards: MakeShards):
    packed = make_shards(12)
    one = np.int64(1)
    stream = stream_of(packed, seed=one, batch_size=4 * one, rank=0 * one, world_size=one, window_bytes=one << 28)
    stream.set_epoch(one)
    first = numbers_of(itertools.islice(stream, 1), packed)
    again = stream_of(packed, seed=1)
    again.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    assert sorted(first + numbers_of(again, packed)) == list(range(12))


def test_any_window_that_is_larger_than_the_shards_is_a_permutation(make_shards: MakeShards):
    packed = make_shards(24)
    assert sorted(numbers_of(stream_of(packed, window_bytes=1 << 90), packed)) == list(range(24))


def test_leaving_a_loop_keeps_the_position(make_shards: MakeShards):
    packed = make_shards(37)
    stream = stream_of(packed)
    begun = numbers_of(itertools.islice(stream, 3), packed)
    assert begun + numbers_of(stream, packed) == numbers_of(stream_of(packed), packed)


def test_random_crops_do_not_depend_on_ranks_or_threads(make_shards: MakeShards):
    packed = make_shards(24)
    transform = RandomResizedCrop(28)

    def crops(epoch: int = 0, **options) -> set[bytes]:
        stream = stream_of(packed, transform=transform, **options)
        stream.set_epoch(epoch)
        return {image.tobytes() for images, _ in stream for image in images}

    whole = crops()
    assert whole == crops(threads=1, batch_size=7)
    assert whole == crops(rank=0, world_size=2) | crops(rank=1, world_size=2)
    assert whole.isdisjoint(crops(epoch=1))
    assert whole.isdisjoint(crops(seed=1))


def test_fast_decoding_is_by_request(make_shards: MakeShards):
    packed = make_shards([jpeg(number, (300, 260)) for number in range(8)])
    fast, by_child, default, exact = (
        np.concatenate([images.copy() for images, _ in stream_of(packed, **options)])
        for options in ({"decode": "fast"}, {"decode": "fast", "mode": "process"}, {}, {"decode": "exact"})
    )
    assert (default == exact).all()
    assert (fast == by_child).all()
    differences = np.abs(fast.astype(int) - exact)
    assert 0 < differences.mean() < 4


@pytest.mark.parametrize("last", ["drop", "pad"])
def test_the_incomplete_last_batch(make_shards: MakeShards, last: str):
    packed = make_shards(22)
    batches = [(images.copy(), labels) for images, labels in stream_of(packed, last=last)]
    assert [len(labels) for _, labels in batches] == [4] * (5 if last == "drop" else 6)
    numbers = numbers_of(batches, packed)
    assert len(set(numbers)) == (20 if last == "drop" else 22)


def test_samples_are_the_members_in_the_same_order(make_shards: MakeShards):
    packed = make_shards(21)
    order = numbers_of(stream_of(packed), packed)
    samples = list(stream_of(packed).samples())
    assert [sample["__key__"] for sample in samples] == [packed.keys[number] for number in order]
    assert [sample["jpg"] for sample in samples] == [packed.images[number] for number in order]
    assert [int(sample["cls"]) for sample in samples] == [packed.labels[number] for number in order]


@pytest.mark.parametrize(
    "form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["ustar", "gnu", "pax"]
)
@pytest.mark.parametrize(
    "folder", ["", "some/folder/", "a" * 120 + "/" + "ü" * 60 + "/"], ids=["flat", "folders", "long"]
)
def test_every_dialect_of_tar(tmp_path, form, folder):
    if form == tarfile.USTAR_FORMAT and len(folder) > 100:
        folder = "a" * 90 + "/" + "b" * 90 + "/"
    members = {}
    for number in range(9):
        members[f"{folder}{number:03d}.json"] = b'{"a": 1}'
        members[f"{folder}{number:03d}.cls"] = b"%d\n" % number
        members[f"{folder}{number:03d}.jpg"] = jpeg(number)
    (tmp_path / "a.tar").write_bytes(tar_of(members, form))
    stream = ArrayStream(str(tmp_path), batch_size=4, transform=CROP)
    found = {
        int(label): image.tobytes() for images, labels in stream for image, label in zip(images, labels, strict=True)
    }
    assert found == {number: pixels_of(jpeg(number)).tobytes() for number in range(9)}
    for sample in ArrayStream(str(tmp_path)).samples():
        key = sample.pop("__key__")
        assert sample == {name: members[f"{key}.{name}"] for name in ("json", "cls", "jpg")}


def test_one_of_several_images_can_be_chosen(tmp_path):
    members = {"a.left.jpg": jpeg(1), "a.right.jpg": jpeg(2), "a.label": b"7"}
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    stream = ArrayStream(str(tmp_path), image_extension="right.jpg", label_extension="label", transform=CROP)
    [(images, labels)] = stream
    assert (images[0] == pixels_of(jpeg(2))).all()
    assert labels.tolist() == [7]


def test_memory_is_bounded_and_all_is_released(make_shards: MakeShards, monkeypatch):
    packed = make_shards([jpeg(number, (300, 300)) for number in range(400)], 4, indexed=False)
    size = sum(shard.stat().st_size for shard in packed.folder.iterdir())
    held: list[int] = []
    readers: list[batch_reader.BatchReader] = []
    take = batch_reader.BatchReader._take_block

    def watch(reader):
        block = take(reader)
        held.append(reader._held)
        readers.append(reader)
        return block

    monkeypatch.setattr(batch_reader.BatchReader, "_take_block", watch)
    monkeypatch.setattr("larder.stream.samples.SampleTable.block_starts.__defaults__", (1 << 18,))
    stream = stream_of(packed, window_bytes=0, ahead_bytes=1 << 20)
    assert sorted(numbers_of(stream, packed)) == list(range(400))
    assert size > 5 << 20
    assert max(held) <= (1 << 20) + (1 << 18)
    assert readers[-1]._held == 0
    assert stream.bytes_read <= size


@pytest.mark.parametrize("end", ["break", "error", "whole"])
def test_no_thread_is_left(make_shards: MakeShards, end: str):
    packed = make_shards(40)
    before = set(threading.enumerate())
    try:
        for number, _ in enumerate(stream_of(packed)):
            if number == 2 and end == "break":
                break
            if number == 2 and end == "error":
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert set(threading.enumerate()) <= before


def test_a_caller_that_counts_batches_gets_every_epoch(make_shards: MakeShards):
    packed = make_shards(37)
    stream = stream_of(packed)
    for epoch in range(3):
        assert stream.epoch == epoch
        assert sorted(numbers_of(itertools.islice(stream, len(stream)), packed)) == list(range(37))


def test_a_rank_with_less_than_a_batch_is_padded(make_shards: MakeShards):
    packed = make_shards(40)
    numbers = numbers_of(stream_of(packed, batch_size=64, last="pad", threads=1), packed)
    assert (len(numbers), set(numbers)) == (64, set(range(40)))


def test_two_loops_over_one_stream_are_an_error(make_shards: MakeShards):
    stream = stream_of(make_shards(40))
    with pytest.raises(ConfigurationError, match="another loop over it has begun"):
        list(zip(stream, stream, strict=True))
    with pytest.raises(ConfigurationError, match="the stream was moved"):
        for _ in stream:
            stream.set_epoch(stream.epoch + 5)


@pytest.mark.parametrize("last", ["keep", "pad", "drop"])
@pytest.mark.parametrize("read", [1, 16, 19, 31, 32, 39])
def test_leaving_samples_in_mid_batch_loses_and_repeats_none(make_shards: MakeShards, read: int, last: str):
    packed = make_shards(40)
    order = [packed.keys[number] for number in numbers_of(stream_of(packed), packed)]
    stream, other = (stream_of(packed, batch_size=size, last=last) for size in (16, 5))
    read = min(read, 31) if last == "drop" else read  # with 32, the epoch is over
    first = [sample["__key__"] for sample in itertools.islice(stream.samples(), read)]
    other.load_state_dict(json.loads(json.dumps(stream.state_dict())))
    rest = [[sample["__key__"] for sample in one.samples()] for one in (stream, other)]
    for keys in rest:
        assert first + keys[: 40 - read] == order[: read + len(keys)]
        assert len(keys) >= 40 - read or last == "drop"
    assert (stream.epoch, other.epoch) == (1, 1)


@pytest.mark.parametrize("read", [3, 4, 7, 9])
def test_ranks_that_leave_samples_in_mid_batch_lose_none(make_shards: MakeShards, read: int):
    packed = make_shards(21)
    streams = [stream_of(packed, rank=rank, world_size=2) for rank in range(2)]
    seen = [sample["__key__"] for stream in streams for sample in itertools.islice(stream.samples(), read)]
    states = [stream.state_dict() for stream in streams]
    assert states[0] == states[1]
    for rank in range(3):
        stream = stream_of(packed, rank=rank, world_size=3)
        stream.load_state_dict(states[0])
        if stream.epoch == 0:
            seen += [sample["__key__"] for sample in stream.samples()]
    assert set(seen) == set(packed.keys)
    assert read > 8 or len(seen) == 21


@pytest.mark.parametrize("batches", [1, 3], ids=["the-last-batch", "an-earlier-one"])
def test_moving_in_a_batch_of_samples_skips_no_batch(make_shards: MakeShards, batches: int):
    packed = make_shards(12)
    stream = stream_of(packed, batch_size=12 // batches)
    samples = stream.samples()
    next(samples)
    stream.restart(5)
    with pytest.raises(ConfigurationError, match="the stream was moved") if batches > 1 else nullcontext():
        list(samples)
    assert stream.epoch == 5
    assert len(list(stream.samples())) == 12


def test_many_resumes_take_no_time(make_shards: MakeShards):
    packed = make_shards(200)
    state = stream_of(packed).state_dict()
    state["segments"] = [[7 + number % 2, 1, "keep", 1] for number in range(20)]
    stream = stream_of(packed, rank=0, world_size=3)
    stream.load_state_dict(state)
    assert len(numbers_of(stream, packed)) == (200 - 10 * 7 - 10 * 8) // 3


def test_the_state_stays_small_when_the_batch_size_changes_often(make_shards: MakeShards):
    packed = make_shards(200)
    state, seen = stream_of(packed).state_dict(), list[int]()
    for number in range(100):
        stream = stream_of(packed, batch_size=1 + number % 2)
        stream.load_state_dict(state)
        seen += numbers_of(itertools.islice(stream, 1), packed)
        state = json.loads(json.dumps(stream.state_dict()))
        assert len(json.dumps(state)) < 400
    stream = stream_of(packed)
    stream.load_state_dict(state)
    assert sorted(seen + numbers_of(stream, packed)) == list(range(200))


def test_a_relative_path_has_its_index(make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch):
    packed = make_shards(8)
    monkeypatch.chdir(packed.folder.parent)
    assert ArrayStream("training").classes == ["cat", "dog", "eel"]
    assert ArrayStream(packed.folder).classes == ["cat", "dog", "eel"]


def test_a_copy_in_another_process_reads_the_same(make_shards: MakeShards):
    packed = make_shards(20)
    stream = stream_of(packed)
    again = pickle.loads(pickle.dumps(stream))
    assert numbers_of(again, packed) == numbers_of(stream, packed)


EXIT = """
import sys
from larder.stream import CenterCrop
from larder.stream.array_stream import ArrayStream

batches = iter(ArrayStream(sys.argv[1], batch_size=4, transform=CenterCrop(1000, 900), threads=2, mode="thread"))
next(batches)
"""


def test_a_copy_belongs_to_the_rank_that_reads_it(make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch):
    """So one rank can read the tar headers for all."""
    packed = make_shards(20, indexed=False)
    sent = pickle.dumps(stream_of(packed))
    monkeypatch.setattr("larder.stream.open_shards.scan_shards", None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    seen = list[int]()
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        seen += numbers_of(pickle.loads(sent), packed)
    assert sorted(seen) == list(range(20))


def test_a_program_may_end_in_mid_epoch(make_shards: MakeShards):
    packed = make_shards(200)
    for _ in range(3):
        subprocess.run([sys.executable, "-c", EXIT, str(packed.folder)], cwd=ROOT, check=True, timeout=120)


def test_two_streams_in_one_process(make_shards: MakeShards):
    packed, other = make_shards(30), make_shards([jpeg(100 + number) for number in range(30)], name="other")
    pairs = list(zip(stream_of(packed), stream_of(other), strict=True))
    assert sorted(numbers_of([first for first, _ in pairs], packed)) == list(range(30))
    assert sorted(numbers_of([second for _, second in pairs], other)) == list(range(30))


def test_reading_on_in_a_forked_process_is_an_error(make_shards: MakeShards):
    batches = iter(stream_of(make_shards(40)))
    next(batches)
    child = os.fork()
    if not child:
        try:
            next(batches)
        except ConfigurationError as error:
            os._exit(17 if "forked" in error.what else 1)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17


def test_without_the_kernel_it_says_so_once_and_gives_the_same_pixels(
    make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_shards(9)
    monkeypatch.setattr(array_stream.JpegKernel, "load", lambda: None)
    array_stream._load_kernel.cache_clear()
    try:
        with pytest.warns(UserWarning, match="the JPEG kernel isn't compiled"):
            stream = stream_of(packed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            stream_of(packed)
        assert sorted(numbers_of(stream, packed)) == list(range(9))
    finally:
        array_stream._load_kernel.cache_clear()
