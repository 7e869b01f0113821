import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from benchmarks import arms_at_their_best, stream_memory, stream_profile, stream_speed
from benchmarks.curves import Curve, draw
from benchmarks.harness import ROOT, BenchmarkReport
from benchmarks.stream_contestants import Contestant, programs, run_contestant
from benchmarks.stream_data import StreamData
from benchmarks.stream_peers import environments
from larder.bench import arms, peer_environments

CONTESTANTS = {
    **stream_speed._OURS,
    **stream_speed.PEERS,
    **stream_speed.LOCAL,
    **{f"plain {name}": arms_at_their_best.loop(name) for name in arms_at_their_best.PEERS},
}
PROGRAM = """
import sys
from benchmarks.stream_peers.contestant import run
def batches(given):
    yield 0
    for number in (3, 2):
        (given.folder / str(number)).write_bytes(bytes(100))
        given.extra["bytes"] = given.batch_size
        yield number
sys.argv = ["x", "uri", sys.argv[1], "--batch-size", "3", "--images-per-second", "1000"]
run(batches, split_start=True)
"""


@pytest.mark.parametrize("name", CONTESTANTS)
def test_each_contestant_has_a_module(name):
    assert (Path(environments.__file__).parent / f"{CONTESTANTS[name].module}.py").is_file()


def test_every_peer_is_compared_with_a_plain_loop():
    assert {name for name, entry in arms.ARMS.items() if entry.is_peer} <= arms_at_their_best.PEERS.keys()


def test_a_missing_contestant_is_left_out_with_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setattr(arms, "version_of", lambda distribution: arms.UNKNOWN)
    report = BenchmarkReport("?")
    found = StreamData({}, {}, psutil.Process(), tmp_path)
    missing = {"MosaicML": Contestant("mosaicml"), "DALI": Contestant("arm", variant="dali")}
    assert not programs(missing, found, report)
    assert [note.partition(": ")[2] for note in report.notes] == [
        "larder peers ARM=mosaicml",
        "pip install 'larder-data[bench,dali]'",
    ]


def test_a_contestant_runs_in_its_librarys_environment(monkeypatch, tmp_path):
    monkeypatch.setattr(arms, "version_of", lambda distribution: "1.0")
    monkeypatch.setattr(peer_environments, "python_of", lambda name: tmp_path / name)
    assert environments.python_of("mosaicml") == tmp_path / "mosaicml"
    assert environments.python_of("raw_reads") == Path(sys.executable)


def test_a_contestant_reports_images_time_and_what_it_wrote(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert (found["images"], found["bytes"]) == (5, 3)
    assert found["written_bytes"] >= 200
    assert found["first_seconds"] <= found["seconds"]
    assert found["busy"] > 0


def test_a_failing_contestant_is_an_error_with_its_message(tmp_path):
    found = StreamData({"shards on disk": str(tmp_path)}, {}, psutil.Process(), tmp_path / "shards")
    with pytest.raises(RuntimeError, match="raw_reads ended with 1"):
        run_contestant(Contestant("raw_reads", "shards on disk"), Path(sys.executable), found)
    assert not list(tmp_path.iterdir())


def test_a_drawing_shows_every_figure():
    curve = Curve("size, <MiB>", ["1", "2"], {"images/s": [1500, 3.25]}, usual=1)
    texts = [element.text for element in ElementTree.fromstring(draw([curve])).iter() if element.text]
    assert "images/s, by size, <MiB>" in texts
    assert {"1,500", "3.25", "1", "2"} <= set(texts)


@pytest.mark.parametrize(("samples", "image_bytes"), [(9_866, 68_000), (100_000, 110_000)])
def test_the_default_window_shuffles_nearly_as_well_as_a_permutation(samples, image_bytes):
    order = stream_memory._order(samples, image_bytes)
    assert sorted(order.tolist()) == list(range(samples))
    permutation = stream_memory.np.random.default_rng(0).permutation(samples)
    assert stream_memory._entropy(order) >= 0.98 * stream_memory._entropy(permutation)


def test_the_stream_does_not_import_torchvision():
    pytest.importorskip("torch")
    # it takes a second and 180 MB
    program = "import sys; from larder.stream import ShardStream; sys.exit('torchvision' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


def test_samples_of_a_profile_are_counted_by_part():
    script = """
  102.5: 7f0001 decode_mcu (/src/larder/stream/libjpeg_crop-0123.so)
  102.6: 7f0002 resize_rows_avx2 (/src/larder/stream/libjpeg_crop-0123.so)
  102.7: 7f0003 [unknown] (/usr/lib/libjpeg.so.62.3.0)
  102.8: 7f0004 sha256_block (a) (/usr/lib/libcrypto.so.3)
  102.9: ffff05 clear_page_erms ([kernel.kallsyms])
  103.0: ffff06 _copy_to_iter ([kernel.kallsyms])
  103.1: 7f0007 _PyEval_EvalFrameDefault (/usr/bin/python3.11)
  lost 3 events
"""
    samples = list(stream_profile.parse_script(script))
    assert samples[0] == (102.5, "/src/larder/stream/libjpeg_crop-0123.so", "7f0001 decode_mcu")
    assert list(stream_profile.count_parts(samples).values()) == [1] * 7
