"""The links on volumes: each broken in its own way, one at a time, and named."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration.conftest import Stage
from tests.integration.verify.conftest import Broken, Copy, Outcome, Tools, Verify

LOCAL = ("archive", "raw", "tree", "shards", "chunks")
HEX = "0" * 64


class Case(NamedTuple):
    """A way to damage the chain, the link that must report it, and the message."""

    name: str
    damage: Callable[[Any, Any, str], None]
    link: str
    words: tuple[str, ...] = ()
    reading: bool = False
    """Whether it is found by reading the sample alone."""


def source_of(path: str) -> str:
    """Return the path in raw of a sample of the tree."""
    return path.split("/")[0] + "/" + path.split("/")[2]


def sever(path: Path) -> None:
    """Replace a hard link in the tree by a copy."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def raw_byte(chain: Copy, tools: Tools, path: str) -> None:
    tools.flip(chain.raw / source_of(path), 99)


def tree_byte(chain: Copy, tools: Tools, path: str) -> None:
    sever(chain.tree / path)
    tools.flip(chain.tree / path, 99)


def raw_of_another_data_set(chain: Copy, tools: Tools, path: str) -> None:
    chain.forge(chain.raw, dataset="Food-12")


def tree_from_another_raw(chain: Copy, tools: Tools, path: str) -> None:
    chain.forge(chain.tree, input={"kind": "raw", "manifest": HEX})


def digest_in_the_trees_index(chain: Copy, tools: Tools, path: str) -> None:
    digest = sha256((chain.tree / path).read_bytes()).hexdigest()
    tools.edit(chain.tree / "_larder/index.jsonl", digest, HEX)
    chain.forge(chain.tree)


def class_in_the_trees_index(chain: Copy, tools: Tools, path: str) -> None:
    index = chain.tree / "_larder/index.jsonl"
    line = next(line for line in index.read_text().splitlines() if f'"{path}"' in line)
    tools.edit(index, line, json.dumps(json.loads(line) | {"class": 0}, separators=(",", ":")))
    chain.forge(chain.tree)


def source_in_the_trees_index(chain: Copy, tools: Tools, path: str) -> None:
    tools.edit(chain.tree / "_larder/index.jsonl", f'"source":"{source_of(path)}"', '"source":"nowhere.jpg"')
    chain.forge(chain.tree)


def line_of_the_trees_index(chain: Copy, tools: Tools, path: str) -> None:
    index = chain.tree / "_larder/index.jsonl"
    index.write_text("".join(line for line in index.open() if f'"{path}"' not in line))
    chain.forge(chain.tree)


def image_in(artifact: str, by: int = 0) -> Callable[[Any, Any, str], None]:
    def damage(chain: Any, tools: Any, path: str) -> None:
        folder = getattr(chain, artifact)
        sample = chain.sample(folder, path)
        tools.flip(folder / sample.file, sample.offset + (by if by <= 0 else sample.bytes + by - 1))

    return damage


def label_in_a_shard(chain: Copy, tools: Tools, path: str) -> None:
    sample = chain.sample(chain.shards, path)
    label = sample.offset + sample.bytes + -sample.bytes % 512 + 512
    tools.flip(chain.shards / sample.file, label)


def end_of_a_shard(chain: Copy, tools: Tools, path: str) -> None:
    shard = chain.shards / chain.sample(chain.shards, path).file
    tools.flip(shard, shard.stat().st_size - 1)


def head_of_a_chunk(at: int) -> Callable[[Any, Any, str], None]:
    def damage(chain: Any, tools: Any, path: str) -> None:
        sample = chain.sample(chain.chunks, path)
        chunk = (chain.chunks / sample.file).read_bytes()
        begin = chunk.index((sample.offset - 8).to_bytes(4, "little")) if at else 0
        tools.flip(chain.chunks / sample.file, begin)

    return damage


def litdata_index(chain: Copy, tools: Tools, path: str) -> None:
    tools.flip(chain.chunks / "evaluation/index.json", 5)


def litdata_index_that_the_index_vouches_for(chain: Copy, tools: Tools, path: str) -> None:
    place = chain.chunks / "evaluation/index.json"
    before = sha256(place.read_bytes()).hexdigest()
    tools.edit(place, '"chunk_size": 10', '"chunk_size": 11')
    tools.edit(chain.chunks / "_larder/index.jsonl", before, sha256(place.read_bytes()).hexdigest())
    chain.forge(chain.chunks)


def bit_of(artifact: str, file: str) -> Callable[[Any, Any, str], None]:
    return lambda chain, tools, path: tools.flip(getattr(chain, artifact) / "_larder" / file, 30)


def without(artifact: str, file: str) -> Callable[[Any, Any, str], None]:
    return lambda chain, tools, path: (getattr(chain, artifact) / file.format(path=path, raw=source_of(path))).unlink()


def longer(artifact: str, file: str) -> Callable[[Any, Any, str], None]:
    def damage(chain: Any, tools: Any, path: str) -> None:
        with (getattr(chain, artifact) / file.format(path=path, raw=source_of(path))).open("ab") as target:
            target.write(b"more")

    return damage


def from_another_tree(artifact: str) -> Callable[[Any, Any, str], None]:
    return lambda chain, tools, path: chain.forge(getattr(chain, artifact), input={"kind": "tree", "manifest": HEX})


def samples_without(chain: Copy, tools: Tools, path: str) -> None:
    samples = chain.shards / "_larder/samples.jsonl"
    samples.write_text("".join(line for line in samples.open() if f'"{path}"' not in line))
    chain.forge(chain.shards)


def repeated_sample(chain: Copy, tools: Tools, path: str) -> None:
    samples = chain.shards / "_larder/samples.jsonl"
    lines = samples.read_text().splitlines(keepends=True)
    number = next(number for number, line in enumerate(lines) if f'"{path}"' in line)
    samples.write_text("".join([*lines[: number + 1], lines[number], *lines[number + 1 :]]))
    chain.forge(chain.shards)


def edited_sample(**changes: Any) -> Callable[[Any, Any, str], None]:
    def damage(chain: Any, tools: Any, path: str) -> None:
        samples = chain.shards / "_larder/samples.jsonl"
        line = next(line for line in samples.read_text().splitlines() if f'"{path}"' in line)
        tools.edit(samples, line, json.dumps(json.loads(line) | changes, separators=(",", ":")))
        chain.forge(chain.shards)

    return damage


def malformed_sample(text: str) -> Callable[[Any, Any, str], None]:
    def damage(chain: Any, tools: Any, path: str) -> None:
        samples = chain.shards / "_larder/samples.jsonl"
        lines = samples.read_text().splitlines()
        samples.write_text("\n".join([*lines[:2], text, *lines[3:]]) + "\n")
        chain.forge(chain.shards)

    return damage


def counts_of(artifact: str) -> Callable[[Any, Any, str], None]:
    return lambda chain, tools, path: chain.forge(getattr(chain, artifact), files=67)


def no_json(chain: Copy, tools: Tools, path: str) -> None:
    (chain.raw / "_larder/manifest.json").write_text("{}")


def spaces_in_a_manifest(chain: Copy, tools: Tools, path: str) -> None:
    tools.edit(chain.tree / "_larder/manifest.json", '"version": 1', '"version":  1')


CHANGED = ("sample    {path}", "expected  sha256 ", "found     sha256 ", "likely    it was edited")
IMAGE = ("the bytes of an image have changed", "place     ", ", bytes ", *CHANGED)
CASES = (
    Case("a byte in raw", raw_byte, "raw", ("sample    {raw}", *CHANGED[1:], "make etl-local LARDER_FORCE=true"), True),
    Case("a file of raw is gone", without("raw", "{raw}"), "raw", ("is missing", "raw/{raw}")),
    Case("a longer file in raw", longer("raw", "{raw}"), "raw", ("another length", "{raw}")),
    Case("raw's index", bit_of("raw", "index.jsonl"), "raw", ("an index differs from the manifest", *CHANGED[1:])),
    Case("raw's index is gone", without("raw", "_larder/index.jsonl"), "raw", ("an index in the manifest is missing",)),
    Case("raw's manifest is none", no_json, "raw", ("not a manifest that this version reads",)),
    Case("raw's manifest counts wrong", counts_of("raw"), "raw", ("counts differ", "67 files", "66 files")),
    Case("raw of another dataset", raw_of_another_data_set, "tree", ("made from another raw", "input.manifest")),
    Case("a byte in the tree", tree_byte, "tree", CHANGED, True),
    Case("a file of the tree is gone", without("tree", "{path}"), "tree", ("is missing", "Food-11/{path}")),
    Case("the tree's index", bit_of("tree", "index.jsonl"), "tree", ("an index differs from the manifest",)),
    Case("the tree's manifest, respaced", spaces_in_a_manifest, "tree", ("isn't as larder writes it",)),
    Case("a tree from another raw", tree_from_another_raw, "tree", ("another raw than the current one", HEX)),
    Case("another digest in the tree's index", digest_in_the_trees_index, "tree", ("than raw's", HEX, "{path}")),
    Case("another class in the tree's index", class_in_the_trees_index, "tree", ("folder of another class", "{path}")),
    Case("another source in the tree's index", source_in_the_trees_index, "tree", ("not a file of raw", "nowhere.jpg")),
    Case("a line less in the tree's index", line_of_the_trees_index, "tree", ("66 files", "65 files")),
    Case("an image in a shard", image_in("shards"), "shards", (*IMAGE, "make etl-wds LARDER_FORCE=true"), True),
    Case("a label in a shard", label_in_a_shard, "shards", ("holds another class", "{path}"), True),
    Case("a name in a shard", image_in("shards", -512), "shards", ("no readable tar header", "{path}"), True),
    Case("the end of a shard", end_of_a_shard, "shards", ("doesn't end after its last sample",)),
    Case("a shard is gone", without("shards", "evaluation/shard-000001.tar"), "shards", ("is missing", "-000001.tar")),
    Case("a longer shard", longer("shards", "training/shard-000000.tar"), "shards", ("another length",)),
    Case(
        "the index of shards", bit_of("shards", "index.jsonl"), "shards", ("index.jsonl", "differs from the manifest")
    ),
    Case("the index of samples", bit_of("shards", "samples.jsonl"), "shards", ("samples.jsonl", *CHANGED[1:])),
    Case("shards of another tree", from_another_tree("shards"), "shards", ("made from another tree", HEX)),
    Case("a sample less in the index", samples_without, "shards", ("is not packed", "{path}")),
    Case("a sample twice in the index", repeated_sample, "shards", ("packed twice", "{path}")),
    Case("another class of a sample", edited_sample(**{"class": 0}), "shards", ("class 0", "{path}")),
    Case("another digest of a sample", edited_sample(sha256=HEX), "shards", ("than the tree's", HEX, "{path}")),
    Case("a sample outside of its shard", edited_sample(offset=10**9), "shards", ("outside of its pack", "{path}")),
    Case("a sample before its shard", edited_sample(offset=0), "shards", ("outside of its pack", "{path}")),
    Case("an unknown sample", edited_sample(source="evaluation/x.jpg"), "shards", ("isn't in", "x.jpg")),
    Case("a sample in no shard", edited_sample(file="training/x.tar"), "shards", ("index doesn't name", "x.tar")),
    *(
        Case(
            f"an invalid line in the index of samples: {text}",
            malformed_sample(text),
            "shards",
            ("line 3 of", "samples.jsonl"),
        )
        for text in ("no JSON", "[1]", "{}", '{"class":"1","file":"a","offset":1,"bytes":1,"sha256":"0","source":5}')
    ),
    Case("an image in a chunk", image_in("chunks"), "chunks", (*IMAGE, "make etl-lit LARDER_FORCE=true"), True),
    Case("a label in a chunk", image_in("chunks", 1), "chunks", ("the label after an image is wrong", "{path}"), True),
    Case("the sizes in a chunk", image_in("chunks", -8), "chunks", ("sizes before an image", "{path}"), True),
    Case("a chunk's number of samples", head_of_a_chunk(0), "chunks", ("another number of samples",)),
    Case("an offset in a chunk", head_of_a_chunk(4), "chunks", ("another offset for {path}",), True),
    Case("LitData's index", litdata_index, "chunks", ("index.json", *CHANGED[1:])),
    Case("LitData's index, vouched for", litdata_index_that_the_index_vouches_for, "chunks", ("11 samples",)),
    Case("a chunk is gone", without("chunks", "training/chunk-0-1.bin"), "chunks", ("is missing", "chunk-0-1.bin")),
    Case("chunks of another tree", from_another_tree("chunks"), "chunks", ("made from another tree", HEX)),
)


@pytest.mark.one_in(8)
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_first_break_is_named(
    verify: Verify, chain: Copy, tools: Tools, broken: Broken, outcome: Outcome, lonely: str, case: Case
) -> None:
    case.damage(chain, tools, lonely)
    ended = verify()
    words = (word.format(path=lonely, raw=source_of(lonely)) for word in case.words)
    broken(ended, case.link, *words)
    before = LOCAL[: LOCAL.index(case.link)]
    links = outcome(ended.stdout)
    if case.link != "raw":  # else the archive has nothing to be compared with
        assert [links[link] for link in before] == ["ok"] * len(before)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("case", [case for case in CASES if case.reading], ids=lambda case: case.name)
def test_a_sample_is_enough_to_find_its_own_break(
    verify: Verify, chain: Copy, tools: Tools, broken: Broken, lonely: str, case: Case
) -> None:
    case.damage(chain, tools, lonely)
    broken(verify(samples="40"), case.link, lonely.rpartition("/")[2])


def test_a_sample_says_nothing_of_the_rest(verify: Verify, chain: Copy, tools: Tools, lonely: str) -> None:
    end_of_a_shard(chain, tools, lonely)
    assert verify(samples="40").code == 0


@pytest.mark.parametrize("workers", ["1", "3"])
def test_a_chain_that_holds(verify: Verify, outcome: Outcome, chain: Copy, workers: str) -> None:
    ended = verify(env={"LARDER_WORKERS": workers})
    assert ended.code == 0, ended.stderr
    links = outcome(ended.stdout)
    assert [links[link] for link in LOCAL] == ["ok"] * len(LOCAL)
    assert [links[link] for link in links if link not in LOCAL] == ["not followed"] * 3
    assert ended.stdout.count("66 of 66") == len(LOCAL)
    assert "5 of 8 links followed (" in ended.stderr
    assert "every sample read at each" in ended.stderr


def test_a_sample_of_it(verify: Verify, outcome: Outcome) -> None:
    ended = verify(samples="40")
    assert ended.code == 0, ended.stderr
    shares = {line.split()[2 + (line.startswith("not"))] for line in ended.stdout.splitlines() if " of 66 " in line}
    [looked_at] = shares
    assert 40 <= int(looked_at) < 66
    assert "LARDER_VERIFY_SAMPLES=all" in ended.stderr


def test_json_for_machines(verify: Verify, chain: Copy, tools: Tools, lonely: str) -> None:
    raw_byte(chain, tools, lonely)
    ended = verify(env={"LARDER_LOG": "json"})
    lines = {line["link"]: line for line in map(json.loads, ended.stdout.splitlines())}
    assert lines["archive"]["looked_at"] == lines["archive"]["of"] == 66
    assert lines["archive"]["bytes"] == sum(path.stat().st_size for path in chain.raw.rglob("*.jpg"))
    assert lines["raw"]["result"] == lines["tree"]["result"] == "BROKEN"
    assert lines["raw"]["sample"] == source_of(lonely)
    assert lines["raw"]["place"] == str(chain.raw / source_of(lonely))
    damaged = sha256((chain.raw / source_of(lonely)).read_bytes()).hexdigest()
    assert lines["raw"]["found"] == f"sha256 {damaged}"
    assert lines["shards"]["result"] == "ok"
    error = ended.events[-1]
    assert (error["event"], error["exit_code"]) == ("error", 3)


def test_a_sample_finds_what_it_holds_and_nothing_else(verify: Verify, chain: Copy, tools: Tools) -> None:
    """Two images of one class: whatever the seed, one of them is chosen, and only its damage is found."""
    paths = sorted(str(path.relative_to(chain.tree)) for path in (chain.tree / "training/class_03").iterdir())[:2]
    tools.flip(chain.shards / (sample := chain.sample(chain.shards, paths[0])).file, sample.offset)
    codes = {verify(samples="33", env={"LARDER_SEED": str(seed)}).code for seed in range(6)}
    assert codes == {0, 3}
    assert verify(samples="33").code == verify(samples="33").code


def test_of_two_breaks_the_first_in_the_chain_is_named(
    verify: Verify, chain: Copy, tools: Tools, broken: Broken, outcome: Outcome, lonely: str
) -> None:
    image_in("chunks")(chain, tools, lonely)
    label_in_a_shard(chain, tools, lonely)
    ended = verify()
    broken(ended, "shards", "holds another class")
    assert outcome(ended.stdout)["chunks"] == "BROKEN"
    assert outcome(ended.stdout)["tree"] == "ok"


def test_of_two_breaks_in_a_link_the_first_in_its_order_is_named(
    verify: Verify, chain: Copy, tools: Tools, broken: Broken
) -> None:
    lines = (chain.shards / "_larder/samples.jsonl").read_text().splitlines()
    early, late = json.loads(lines[3]), json.loads(lines[-1])
    for sample in (late, early):
        tools.flip(chain.shards / sample["file"], sample["offset"])
    broken(verify(env={"LARDER_WORKERS": "3"}), "shards", f"sample    {early['source']}")


def test_the_named_next_step_repairs_it(verify: Verify, stage: Stage, chain: Copy, tools: Tools, lonely: str) -> None:
    raw_byte(chain, tools, lonely)
    image_in("shards")(chain, tools, lonely)
    assert "next step: run `make etl-local LARDER_FORCE=true` " in verify().stderr
    env = {"LARDER_VOLUME_DIR": str(chain.root / "data"), "LARDER_SAMPLE_IMAGES": "66", "LARDER_FORCE": "true"}
    for name, flags in (("extract", ["--source=sample"]), ("transform", [])):
        assert stage(name, *flags, env=env).code == 0
    assert "next step: run `make etl-wds LARDER_FORCE=true`;" in verify().stderr
    env = {"LARDER_VOLUME_DIR": str(chain.root / "wds"), "LARDER_INPUT": str(chain.tree), "LARDER_FORCE": "true"}
    assert stage("shard", "--shard-samples=10", env=env).code == 0
    assert verify().code == 0


def test_what_a_stage_sees_by_itself_needs_no_force(verify: Verify, stage: Stage, chain: Copy, lonely: str) -> None:
    (chain.tree / lonely).unlink()
    (chain.raw / source_of(lonely)).unlink()
    assert "next step: run `make etl-local` with" in verify().stderr
    env = {"LARDER_VOLUME_DIR": str(chain.root / "data"), "LARDER_SAMPLE_IMAGES": "66"}
    for name, flags in (("extract", ["--source=sample"]), ("transform", [])):
        assert stage(name, *flags, env=env).code == 0
    assert verify().code == 0


def test_what_is_not_there_is_no_break(verify: Verify, outcome: Outcome, chain: Copy) -> None:
    for folder in (chain.shards, chain.chunks.parent, chain.tree):
        shutil.rmtree(folder)
    ended = verify()
    assert ended.code == 0, ended.stderr
    links = outcome(ended.stdout)
    assert [links[link] for link in LOCAL] == ["ok", "ok", "not there", "not there", "not there"]


def test_shards_alone_hold_by_themselves(
    verify: Verify, outcome: Outcome, broken: Broken, chain: Copy, tools: Tools, lonely: str
) -> None:
    shutil.rmtree(chain.root / "data")
    ended = verify(samples="40")
    assert ended.code == 0, ended.stderr
    assert [outcome(ended.stdout)[link] for link in ("raw", "tree", "shards")] == ["not there", "not there", "ok"]
    image_in("shards")(chain, tools, lonely)
    broken(verify(samples="40"), "shards", lonely)


def test_no_data_at_all(verify: Verify, tmp_path: Path) -> None:
    empty = {name: str(tmp_path / "nothing") for name in ("LARDER_VOLUME_DIR", "LARDER_WDS_DIR", "LARDER_LIT_DIR")}
    ended = verify(env=empty)
    assert ended.code == 3
    assert "nothing to verify" in ended.stderr and "next step: run `make etl-local`" in ended.stderr
    assert not (tmp_path / "nothing").exists()


def state(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in root.rglob("*")}


def test_it_writes_nothing_and_works_on_a_read_only_volume(verify: Verify, chain: Copy, mounts: None) -> None:
    before = state(chain.root)
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && ! touch "$1/x" 2>&- && shift && exec "$@"'
    prefix = ["unshare", "--mount", *user, "sh", "-c", script, "sh", str(chain.root)]
    ended = verify(prefix=prefix)
    assert ended.code == 0, ended.stderr
    assert state(chain.root) == before


def test_not_while_a_stage_writes(verify: Verify, chain: Copy) -> None:
    import fcntl

    with (chain.root / "wds/.larder/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = verify()
    assert ended.code == 3
    assert f"another run is writing to {chain.root}/wds" in ended.stderr
    with (chain.root / "wds/.larder/lock").open() as lock:  # as another run that verifies
        fcntl.flock(lock, fcntl.LOCK_SH)
        assert verify().code == 0


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(stage: Stage, chain: Copy, sent: signal.Signals) -> None:
    """A named pipe without a writer blocks verify in the middle of the raw data."""
    path = next(chain.raw.glob("training/*.jpg"))
    index = chain.raw / "_larder/index.jsonl"
    index.rename(index.with_name("kept"))
    os.mkfifo(index)
    process = stage.start("verify", env=chain.env)
    with index.open("wb"):  # this waits until the stage opens it
        process.send_signal(sent)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, (path, stderr)
    assert "interrupted" in stderr


@pytest.mark.parametrize("samples", ["-1", "some"])
def test_a_wrong_number_of_samples(verify: Verify, samples: str) -> None:
    ended = verify(samples=samples)
    assert ended.code == 2
    assert "LARDER_VERIFY_SAMPLES" in ended.stderr
