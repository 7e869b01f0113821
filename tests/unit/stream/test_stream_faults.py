"""Damaged shards, hostile indexes and impossible arguments."""

import hashlib
import io
import itertools
import json
import os
import re
import tarfile
from typing import Any

import pytest

from larder.errors import ConfigurationError, InputError
from larder.stream import array_stream, batch_reader, read_plan
from larder.stream.array_stream import ArrayStream
from larder.stream.shard_folders import LocalShards, open_folder
from tests.unit.stream.conftest import MakeShards, Packed, jpeg, tar_of
from tests.unit.stream.streams import CROP, ROOT, numbers_of, pixels_of, stream_of


@pytest.mark.parametrize("indexed", [True, False], ids=["index", "anybody-s"])
def test_every_sample_once_in_each_epoch_in_another_order(make_shards: MakeShards, indexed: bool):
    packed = make_shards(37, 4, indexed=indexed)
    stream = stream_of(packed)
    epochs = [numbers_of(stream, packed) for _ in range(3)]
    assert all(sorted(epoch) == list(range(37)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert (len(stream), stream.epoch) == (10, 3)
    assert stream.classes == (["cat", "dog", "eel"] if indexed else None)


@pytest.mark.parametrize(("rank", "world_size"), [("3", ""), ("", "2"), ("x", "2"), ("2", "2")])
def test_ranks_of_the_environment_that_are_none(
    make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch, rank: str, world_size: str
):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world_size)
    with pytest.raises(ConfigurationError, match="they must be a rank and the number of ranks"):
        next(stream_of(make_shards(4)).arrays())


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
        ({"a.jpg": jpeg(1), "a.cls": b"5" + b" " * 30 + b"7"}, "a label is a decimal number"),
        ({"a.jpg": jpeg(1), "a.png": jpeg(2, kind="PNG"), "a.cls": b"1"}, "has several images: jpg, png"),
        ({}, "has 0 samples"),
    ],
    ids=["no-label", "a-word", "negative", "two-numbers", "two-images", "empty"],
)
def test_samples_that_cannot_be_used(tmp_path, members, message):
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    with pytest.raises((InputError, ConfigurationError), match=message):
        next(ArrayStream(str(tmp_path)).arrays())


def test_samples_are_read_whatever_their_labels_are(tmp_path):
    members = {"a.jpg": jpeg(1), "a.cls": b"cat"}
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    with pytest.raises(InputError) as error:
        ArrayStream(str(tmp_path))
    assert "`label_extension` that no member has" in error.value.next_step
    [sample] = ArrayStream(str(tmp_path), label_extension="none").samples()
    assert sample == {"__key__": "a", "jpg": members["a.jpg"], "cls": b"cat"}


def test_a_sparse_member_is_refused(tmp_path):
    content = bytearray(tar_of({"a.jpg": jpeg(1), "a.cls": b"1"}, tarfile.GNU_FORMAT))
    content[156:157] = b"S"
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(InputError, match="sparse"):
        ArrayStream(str(tmp_path))


def test_a_sparse_member_of_pax_is_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("GNUSparseFile.0/a.jpg")
        info.size = len(jpeg(1))
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a.jpg"}
        archive.addfile(info, io.BytesIO(jpeg(1)))
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


def test_an_image_that_claims_30000_pixels_a_side_is_named(make_shards: MakeShards):
    packed = make_shards(12, 2, indexed=False)
    shard = packed.folder / "shard-000000.tar"
    image = packed.images[3]
    sides = image.index(b"\xff\xc0") + 5
    huge = image[:sides] + 2 * (30_000).to_bytes(2) + image[sides + 4 :]
    shard.write_bytes(shard.read_bytes().replace(image, huge))
    with pytest.raises(InputError, match=r"shard-000000\.tar, byte [0-9,]+, '.*0003\.jpg' can't be read: .*pixels"):
        numbers_of(stream_of(packed), packed)
    stream = stream_of(packed, on_damage="skip")
    assert sorted(numbers_of(stream, packed)) == [number for number in range(12) if number != 3]


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


def test_an_epoch_of_damaged_images_alone_is_an_error(make_shards: MakeShards):
    packed = make_shards(8, 1)
    (packed.folder / "shard-000000.tar").unlink()
    with pytest.raises(InputError, match="all 4 images of a batch are damaged"):
        list(stream_of(packed, on_damage="skip"))


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_batch_of_damaged_images_alone_is_left_out(make_shards: MakeShards, missing: int):
    packed = make_shards(12, 3)
    stream = stream_of(packed, on_damage="skip", shuffle=False)
    (packed.folder / f"shard-{missing:06d}.tar").unlink()
    assert numbers_of(stream, packed) == [number for number in range(12) if number // 4 != missing]
    assert (len(stream.skipped), stream.epoch) == (4, 1)


def test_with_several_ranks_a_batch_of_damaged_images_alone_is_an_error(make_shards: MakeShards):
    """The others have one more batch."""
    packed = make_shards(24, 6)
    stream = stream_of(packed, on_damage="skip", shuffle=False, rank=0, world_size=2)
    (packed.folder / "shard-000001.tar").unlink()
    batches = iter(stream)
    first = numbers_of([next(batches)], packed)
    with pytest.raises(InputError, match="all 4 images of a batch are damaged"):
        next(batches)
    assert [first, numbers_of(stream, packed)] == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert len(stream.skipped) == 4


def test_an_index_that_is_not_the_manifest_s(make_shards: MakeShards):
    packed = make_shards(12)
    samples = packed.folder.parent / "_larder/samples.jsonl"
    samples.write_bytes(samples.read_bytes().replace(b'"class":0', b'"class":1', 1))
    with pytest.raises(InputError, match="is not what its manifest says"):
        stream_of(packed)


def change_index(packed: Packed, sample: int, change: dict[str, object]) -> None:
    """Change a line of the index, and its digest in the manifest."""
    samples, manifest = (packed.folder.parent / "_larder" / name for name in ("samples.jsonl", "manifest.json"))
    lines = samples.read_text().splitlines()
    lines[sample] = json.dumps(json.loads(lines[sample]) | change, separators=(",", ":"))
    samples.write_text("".join(f"{line}\n" for line in lines))
    found = json.loads(manifest.read_text())
    found["samples"] = {"bytes": samples.stat().st_size, "sha256": hashlib.sha256(samples.read_bytes()).hexdigest()}
    manifest.write_text(json.dumps(found))


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
    change_index(packed, 5, change)
    with pytest.raises(InputError, match=message):
        stream_of(packed)


@pytest.mark.parametrize("options", [{}, {"check_digests": False}], ids=["digests", "no-digests"])
@pytest.mark.parametrize(
    ("sample", "more_bytes", "message"),
    [(5, -1, "has other bytes"), (5, 1, "has other bytes"), (11, 1 << 20, r"the shard ends before byte [\d,]+")],
    ids=["shorter", "longer", "behind-the-end"],
)
def test_a_wrong_length_in_the_index(
    make_shards: MakeShards, options: dict[str, Any], sample: int, more_bytes: int, message: str
):
    packed = make_shards(12, 2)
    change_index(packed, sample, {"bytes": len(packed.images[sample]) + more_bytes})
    if options and more_bytes != 1 << 20:
        message = "truncated|no end of image" if more_bytes < 0 else ""
    if not message:
        assert sorted(numbers_of(stream_of(packed, **options), packed)) == list(range(12))
        return
    with pytest.raises(InputError, match=rf"{packed.keys[sample]}\.jpg' can't be read: .*({message})"):
        list(stream_of(packed, **options))
    skipping = stream_of(packed, on_damage="skip", **options)
    assert sorted(numbers_of(skipping, packed)) == [number for number in range(12) if number != sample]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, "batch_size=2.5: not an integer"),
        ({"seed": None}, "seed=None: not an integer"),
        ({"threads": "2"}, "threads='2': not an integer"),
        ({"threads": 0}, "threads=0"),
        ({"ahead_bytes": 10}, "ahead_bytes=10"),
        ({"rank": 1}, "belong together"),
        ({"rank": 2, "world_size": 2}, "ranks are 0 to 1"),
        ({"rank": 0.5, "world_size": 2}, "rank=0.5: not an integer"),
        ({"last": "Keep"}, "last='Keep': unknown; did you mean keep?"),
        ({"on_damage": "ignore"}, "on_damage='ignore': unknown"),
        ({"decode": "Fast"}, "decode='Fast': unknown"),
        ({"transform": len}, "not a transform of larder.stream"),
    ],
    ids=[
        "batch",
        "half",
        "seed",
        "text",
        "threads",
        "memory",
        "rank-alone",
        "rank",
        "half-a-rank",
        "last",
        "damage",
        "decode",
        "transform",
    ],
)
def test_impossible_arguments(make_shards: MakeShards, options: dict[str, Any], message: str):
    with pytest.raises(ConfigurationError, match=message):
        stream_of(make_shards(4), **options)


def test_more_ranks_than_samples(make_shards: MakeShards):
    with pytest.raises(ConfigurationError, match="has 3 samples for 4 ranks"):
        next(stream_of(make_shards(3), rank=0, world_size=4).arrays())


def test_more_workers_than_samples(make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ArrayStream, "_find_worker", lambda stream: (0, 2))
    with pytest.raises(ConfigurationError, match="has 3 samples for 2 ranks with 2 workers each") as error:
        next(stream_of(make_shards(3), rank=0, world_size=2).arrays())
    assert error.value.next_step == "train with at most as many ranks, times workers, as samples"


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


@pytest.mark.parametrize("state", [{}, {"version": 2}, [], {"version": "2", "seed": 0}], ids=repr)
def test_states_that_are_none(make_shards: MakeShards, state: Any):
    stream = stream_of(make_shards(8))
    with pytest.raises(ConfigurationError, match="isn't the state of a stream"):
        stream.load_state_dict(state)


@pytest.mark.parametrize(
    "segment",
    [[0, 4, "keep", 1], [10**12, 4, "keep", 1], [1, 0, "keep", 1], [1, 4, "all", 1], [1, 4, "keep", -1]],
    ids=repr,
)
def test_states_that_no_stream_has_made(make_shards: MakeShards, segment: list[Any]):
    stream = stream_of(make_shards(8))
    with pytest.raises(ConfigurationError, match="isn't the state of a stream"):
        stream.load_state_dict(stream.state_dict() | {"segments": [segment]})


def test_a_state_of_an_earlier_version(make_shards: MakeShards):
    stream = stream_of(make_shards(8))
    with pytest.raises(ConfigurationError, match="the state has version 1"):
        stream.load_state_dict(stream.state_dict() | {"version": 1})


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"seed": 1}, "it has seed=0, and this stream seed=1"),
        ({"shuffle": False}, "it has shuffle=True, and this stream shuffle=False"),
        ({"window_bytes": 20_000}, "its window_bytes made a window of "),
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
    with pytest.raises(
        ConfigurationError, match="another order: its shards were others, with 8 samples, and these have 9"
    ):
        stream_of(make_shards(9, name="other")).load_state_dict(state)


@pytest.mark.parametrize("thread", ["_take_block", "_take_samples"])
def test_a_thread_that_fails_ends_the_loop(
    make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch, thread: str
) -> None:
    def fail(self: batch_reader.BatchReader[Any]) -> None:
        raise MemoryError("no memory left")

    monkeypatch.setattr(batch_reader.BatchReader, thread, fail)
    with pytest.raises(MemoryError, match="no memory left"):
        next(stream_of(make_shards(8)).arrays())


def test_a_shard_that_is_replaced_on_a_disk(make_shards: MakeShards):
    packed = make_shards(12, 1, indexed=False)
    stream = stream_of(packed, shuffle=False)
    shard = packed.folder / "shard-000000.tar"
    os.utime(shard, (1, 1))
    with pytest.raises(InputError, match="the shard was replaced"):
        list(stream)


def test_a_shard_with_an_index_that_is_replaced_on_a_disk(make_shards: MakeShards):
    packed = make_shards(12, 1)
    folder = open_folder(str(packed.folder), None)
    folder.read("shard-000000.tar", 0, 512)
    os.utime(packed.folder / "shard-000000.tar", (1, 1))
    with pytest.raises(InputError, match=r"shard-000000\.tar was replaced"):
        folder.read("shard-000000.tar", 512, 1024)


def test_litter_and_upper_case(tmp_path):
    members = {"d/._0.jpg": b"litter", "d/0.JPG": jpeg(1), "__MACOSX/d/0.jpg": b"litter", "d/0.CLS": b"1"}
    (tmp_path / "a.tar").write_bytes(tar_of(members | {"d/0.__key__": b"x"}))
    [(images, labels)] = ArrayStream(str(tmp_path), transform=CROP)
    assert (images[0] == pixels_of(jpeg(1))).all()
    assert labels.tolist() == [1]
    [sample] = ArrayStream(str(tmp_path)).samples()
    assert sample == {"JPG": jpeg(1), "CLS": b"1", "__key__": "d/0"}


def test_keys_that_may_not_read_the_manifest_are_told(make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch):
    packed = make_shards(12)

    def refuse(self: LocalShards) -> None:
        raise ConfigurationError("the store refuses access", next_step="check the keys")

    monkeypatch.setattr(LocalShards, "manifest", refuse)
    with pytest.warns(UserWarning, match="no digest is checked: the store refuses access.* to read _larder/ beside"):
        stream = stream_of(packed)
    assert sorted(numbers_of(stream, packed)) == list(range(12))


@pytest.mark.parametrize("undecoded", [False, True], ids=["images", "samples"])
def test_all_damaged_samples_are_counted_and_the_first_are_kept(
    make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch, undecoded: bool
):
    monkeypatch.setattr(array_stream, "MAX_SKIPPED", 5)
    packed = make_shards(24, 2)
    shard = packed.folder / "shard-000001.tar"
    content = bytearray(shard.read_bytes())
    for image in packed.images[16:]:
        content[content.index(image) + 40] ^= 1
    shard.write_bytes(content)
    stream = stream_of(packed, on_damage="skip", batch_size=12)
    for _ in range(2):
        assert len(list(stream.samples()) if undecoded else numbers_of(stream, packed)) == 16
    assert (len(stream.skipped), stream.skipped_count) == (5, 16)


def test_a_block_that_was_released_is_an_error_without_assertions():
    released = read_plan.Block("a.tar", 0, 512, first_batch=0, unused=1, is_read=True)
    with pytest.raises(ConfigurationError, match="the stream was closed in another thread"):
        batch_reader._content_of(released, 0, 512)


def test_no_assertion_checks_data():
    """With `python -O`, it would check nothing."""
    modules = (ROOT / "larder/stream").glob("*.py")
    found = [path.name for path in modules if re.search(r"^ +assert ", path.read_text(), re.M)]
    assert found == []
