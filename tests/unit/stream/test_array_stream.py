import hashlib
import io
import itertools
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from larder.errors import ConfigurationError, InputError
from larder.stream import CenterCrop, RandomResizedCrop, array_stream, batch_reader
from larder.stream.array_stream import ArrayStream
from larder.stream.decode import apply_crop
from tests.unit.stream.conftest import MakeShards, Packed, jpeg, tar_of

ROOT = Path(__file__).resolve().parents[3]
CROP = CenterCrop(32, 28)


def stream_of(packed: Packed, **options: Any) -> ArrayStream:
    usual: dict[str, Any] = {"batch_size": 4, "transform": CROP, "threads": 2}
    return ArrayStream(str(packed.folder), **(usual | options))


def pixels_of(image: bytes) -> np.ndarray:
    rgb = Image.open(io.BytesIO(image)).convert("RGB")
    return np.asarray(apply_crop(rgb, CROP.crop(*rgb.size, np.empty(0)), 28))


def numbers_of(batches, packed: Packed) -> list[int]:
    """Which images are in the batches, after a check of their labels."""
    known = {pixels_of(image).tobytes(): number for number, image in enumerate(packed.images)}
    numbers = []
    for images, labels in batches:
        found = [known[image.tobytes()] for image in images]
        assert labels.tolist() == [packed.labels[number] for number in found]
        numbers += found
    return numbers


@pytest.mark.parametrize("indexed", [True, False], ids=["index", "anybody-s"])
def test_every_sample_once_in_each_epoch_in_another_order(make_shards: MakeShards, indexed: bool):
    packed = make_shards(37, 4, indexed=indexed)
    stream = stream_of(packed)
    epochs = [numbers_of(stream, packed) for _ in range(3)]
    assert all(sorted(epoch) == list(range(37)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert (len(stream), stream.epoch) == (10, 3)
    assert stream.classes == (["cat", "dog", "eel"] if indexed else None)


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


@pytest.mark.parametrize(("rank", "world_size"), [("3", ""), ("", "2"), ("x", "2"), ("2", "2")])
def test_ranks_of_the_environment_that_are_none(
    make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch, rank: str, world_size: str
):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world_size)
    with pytest.raises(ConfigurationError, match="they must be a rank and the number of ranks"):
        next(stream_of(make_shards(4)).arrays())


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
    assert second.epoch == (read == 10), "the next epoch begins after the last batch"
    rest = numbers_of(second, packed) if read < 10 else []
    assert begun + rest == whole
    assert second.epoch == 1


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


def test_samples_without_images_or_labels(tmp_path):
    (tmp_path / "a.tar").write_bytes(tar_of({"a.txt": b"x", "a.bin": b"y" * 5000, "b.txt": b"z"}))
    samples = list(ArrayStream(str(tmp_path), shuffle=False).samples())
    assert samples == [{"__key__": "a", "txt": b"x", "bin": b"y" * 5000}, {"__key__": "b", "txt": b"z"}]
    with pytest.raises(InputError, match=r"a\.tar, byte 0, 'a\.txt': the sample has no image"):
        next(ArrayStream(str(tmp_path)).arrays())


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.jpg": jpeg(1)}, "has no label"),
        ({"a.jpg": jpeg(1), "a.cls": b"cat"}, "is b'cat', and a label is a decimal number"),
        ({"a.jpg": jpeg(1), "a.cls": b"-1"}, "a label is a decimal number"),
        ({"a.jpg": jpeg(1), "a.png": jpeg(2, kind="PNG"), "a.cls": b"1"}, "has several images: jpg, png"),
        ({}, "has 0 samples"),
    ],
    ids=["no-label", "a-word", "negative", "two-images", "empty"],
)
def test_samples_that_cannot_be_used(tmp_path, members, message):
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    with pytest.raises((InputError, ConfigurationError), match=message):
        next(ArrayStream(str(tmp_path)).arrays())


def test_one_of_several_images_can_be_chosen(tmp_path):
    members = {"a.left.jpg": jpeg(1), "a.right.jpg": jpeg(2), "a.label": b"7"}
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    stream = ArrayStream(str(tmp_path), image_extension="right.jpg", label_extension="label", transform=CROP)
    [(images, labels)] = stream
    assert (images[0] == pixels_of(jpeg(2))).all()
    assert labels.tolist() == [7]


def test_a_sparse_member_is_refused(tmp_path):
    content = bytearray(tar_of({"a.jpg": jpeg(1), "a.cls": b"1"}, tarfile.GNU_FORMAT))
    content[156:157] = b"S"
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(InputError, match="sparse"):
        ArrayStream(str(tmp_path))


@pytest.mark.parametrize("indexed", [True, False], ids=["index", "anybody-s"])
def test_a_damaged_sample_is_named(make_shards: MakeShards, indexed: bool):
    packed = make_shards(12, 2, indexed=indexed)
    shard = packed.folder / "shard-000001.tar"
    content = shard.read_bytes()
    at = content.index(packed.images[8])
    shard.write_bytes(content[: at + 2] + b"damaged!" + content[at + 10 :])
    with pytest.raises(InputError, match=rf"shard-000001\.tar, byte {at:,}, 'class_02/0008\.jpg' can't be read: "):
        numbers_of(stream_of(packed), packed)

    stream = stream_of(packed, on_damage="skip")
    assert sorted(numbers_of(stream, packed)) == [number for number in range(12) if number != 8]
    [(path, offset, reason)] = stream.skipped
    assert (path.endswith("shard-000001.tar"), offset) == (True, at)
    assert not indexed or reason == "it has other bytes than the dataset's index says"
    assert len(list(stream_of(packed, on_damage="skip").samples())) == (11 if indexed else 12)


def test_other_bytes_that_decode_are_found_by_their_digest(make_shards: MakeShards):
    packed = make_shards(12, 2)
    shard = packed.folder / "shard-000000.tar"
    other = bytearray(packed.images[0])
    other[-10] ^= 1
    shard.write_bytes(shard.read_bytes().replace(packed.images[0], bytes(other)))
    with pytest.raises(InputError, match=r"0000\.jpg' can't be read: it has other bytes"):
        list(stream_of(packed))
    assert len(list(stream_of(packed, check_digests=False))) == 3


@pytest.mark.parametrize("change", ["missing", "cut"])
def test_a_shard_that_goes_away(make_shards: MakeShards, change: str):
    packed = make_shards(12, 3)
    stream = stream_of(packed, shuffle=False)
    batches = iter(stream)
    shard = packed.folder / "shard-000002.tar"
    if change == "missing":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:600])
    assert numbers_of(itertools.islice(batches, 2), packed) == list(range(8))
    with pytest.raises(InputError, match=r"shard-000002\.tar, byte .*: the shard (is missing|ends before)"):
        next(batches)
    assert len(numbers_of(stream_of(packed, on_damage="skip", batch_size=12), packed)) == 8


def test_a_batch_of_damaged_images_alone_is_an_error(make_shards: MakeShards):
    packed = make_shards(4, 1)
    (packed.folder / "shard-000000.tar").unlink()
    with pytest.raises(InputError, match="all 4 images of a batch are damaged"):
        list(stream_of(packed, on_damage="skip"))


def test_an_index_that_is_not_the_manifest_s(make_shards: MakeShards):
    packed = make_shards(12)
    samples = packed.folder.parent / "_larder/samples.jsonl"
    samples.write_bytes(samples.read_bytes().replace(b'"class":0', b'"class":1', 1))
    with pytest.raises(InputError, match="is not what its manifest says"):
        stream_of(packed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": 10}, "aren't listed together"),
        ({"bytes": 1 << 40}, "is too large"),
        ({"class": 3}, "the manifest names 3"),
        ({"offset": (1 << 63) - 1}, "is too large|aren't listed together"),
        ({"file": "training/shard-000002.tar"}, "aren't listed together"),
        ({"file": "validation/shard-000002.tar"}, "has 11 samples in 'training', its manifest 12"),
    ],
    ids=["offset", "length", "label", "far", "shard", "split"],
)
def test_a_hostile_index(make_shards: MakeShards, change: dict[str, object], message: str):
    packed = make_shards(12)
    samples = packed.folder.parent / "_larder/samples.jsonl"
    lines = samples.read_text().splitlines()
    lines[5] = json.dumps(json.loads(lines[5]) | change)
    samples.write_text("".join(f"{line}\n" for line in lines))
    manifest = packed.folder.parent / "_larder/manifest.json"
    found = json.loads(manifest.read_text())
    found["samples"] = {"bytes": samples.stat().st_size, "sha256": hashlib.sha256(samples.read_bytes()).hexdigest()}
    manifest.write_text(json.dumps(found))
    with pytest.raises(InputError, match=message):
        stream_of(packed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"threads": 0}, "threads=0"),
        ({"ahead_bytes": 10}, "ahead_bytes=10"),
        ({"rank": 1}, "belong together"),
        ({"rank": 2, "world_size": 2}, "ranks are 0 to 1"),
        ({"last": "Keep"}, "last='Keep': unknown"),
        ({"on_damage": "ignore"}, "on_damage='ignore': unknown"),
        ({"transform": len}, "not a transform of larder.stream"),
    ],
    ids=["batch", "threads", "memory", "rank-alone", "rank", "last", "damage", "transform"],
)
def test_impossible_arguments(make_shards: MakeShards, options: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        stream_of(make_shards(4), **options)


def test_more_ranks_than_samples(make_shards: MakeShards):
    with pytest.raises(ConfigurationError, match="has 3 samples for 4 ranks"):
        next(stream_of(make_shards(3), rank=0, world_size=4).arrays())


def test_folders_that_are_none(tmp_path, make_shards: MakeShards):
    packed = make_shards(4)
    with pytest.raises(ConfigurationError, match="isn't a folder"):
        ArrayStream(str(tmp_path / "nothing" / "training"))
    with pytest.raises(ConfigurationError, match=r"has no split 'evaluation'"):
        ArrayStream(str(packed.folder.parent / "evaluation"))
    with pytest.raises(ConfigurationError, match=r"holds webdataset data of 1 splits") as error:
        ArrayStream(str(packed.folder.parent))
    assert error.value.next_step.endswith("packed/training")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no tar files"):
        ArrayStream(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"version": 2},
        [],
        {"version": 1, "seed": 0, "samples": 8, "window": 1, "epoch": 0, "segments": [[0, 4, "keep", 1]]},
    ],
    ids=["empty", "version", "list", "ranks"],
)
def test_states_that_are_none(make_shards: MakeShards, state: Any):
    stream = stream_of(make_shards(8))
    with pytest.raises(ConfigurationError, match="isn't the state of a stream"):
        stream.load_state_dict(state)


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"seed": 1}, "seed 0 (here 1)"),
        ({"shuffle": False}, "(here -1)"),
        ({"window_bytes": 20_000}, "window "),
    ],
    ids=["seed", "shuffle", "window"],
)
def test_a_state_of_another_order(make_shards: MakeShards, options: dict[str, Any], difference: str):
    packed = make_shards(40)
    state = stream_of(packed).state_dict()
    with pytest.raises(ConfigurationError, match=re.escape(difference)):
        stream_of(packed, **options).load_state_dict(state)


def test_a_state_of_other_shards(make_shards: MakeShards):
    state = stream_of(make_shards(8)).state_dict()
    with pytest.raises(ConfigurationError, match=r"another order: samples 8 \(here 9\)"):
        stream_of(make_shards(9, name="other")).load_state_dict(state)


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


@pytest.mark.parametrize("thread", ["_take_block", "_take_samples"])
def test_a_thread_that_fails_ends_the_loop(
    make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    def fail(self: batch_reader.BatchReader[Any]) -> None:
        raise MemoryError("no memory left")

    monkeypatch.setattr(batch_reader.BatchReader, thread, fail)
    with pytest.raises(MemoryError, match="no memory left"):
        next(stream_of(make_shards(8)).arrays())


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


def test_leaving_samples_in_mid_batch_loses_none(make_shards: MakeShards):
    packed = make_shards(40)
    stream = stream_of(packed, batch_size=16)
    first = [sample["__key__"] for sample in itertools.islice(stream.samples(), 19)]
    rest = [sample["__key__"] for sample in stream.samples()]
    assert {*first, *rest} == set(packed.keys)
    assert len(rest) == 24, "from the batch on that was left"


def test_many_resumes_take_no_time(make_shards: MakeShards):
    packed = make_shards(200)
    state = stream_of(packed).state_dict()
    state["segments"] = [[7 + number % 2, 1, "keep", 1] for number in range(20)]
    stream = stream_of(packed, rank=0, world_size=3)
    stream.load_state_dict(state)
    assert len(numbers_of(stream, packed)) == (200 - 10 * 7 - 10 * 8) // 3


def test_a_relative_path_has_its_index(make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch):
    packed = make_shards(8)
    monkeypatch.chdir(packed.folder.parent)
    assert ArrayStream("training").classes == ["cat", "dog", "eel"]
    assert ArrayStream(packed.folder).classes == ["cat", "dog", "eel"]


def test_a_shard_that_is_replaced_on_a_disk(make_shards: MakeShards):
    packed = make_shards(12, 1, indexed=False)
    stream = stream_of(packed, shuffle=False)
    shard = packed.folder / "shard-000000.tar"
    os.utime(shard, (1, 1))
    with pytest.raises(InputError, match="the shard was replaced"):
        list(stream)


def test_litter_and_upper_case(tmp_path):
    members = {"d/._0.jpg": b"litter", "d/0.JPG": jpeg(1), "__MACOSX/d/0.jpg": b"litter", "d/0.CLS": b"1"}
    (tmp_path / "a.tar").write_bytes(tar_of(members | {"d/0.__key__": b"x"}))
    [(images, labels)] = ArrayStream(str(tmp_path), transform=CROP)
    assert (images[0] == pixels_of(jpeg(1))).all()
    assert labels.tolist() == [1]
    [sample] = ArrayStream(str(tmp_path)).samples()
    assert sample == {"JPG": jpeg(1), "CLS": b"1", "__key__": "d/0"}


def test_a_copy_in_another_process_reads_the_same(make_shards: MakeShards):
    packed = make_shards(20)
    stream = stream_of(packed)
    again = pickle.loads(pickle.dumps(stream))
    assert numbers_of(again, packed) == numbers_of(stream, packed)


EXIT = """
import sys
from larder.stream import CenterCrop
from larder.stream.array_stream import ArrayStream

batches = iter(ArrayStream(sys.argv[1], batch_size=4, transform=CenterCrop(1000, 900), threads=2))
next(batches)
"""


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
