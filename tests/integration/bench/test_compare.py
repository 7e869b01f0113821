"""Compare arms over a real tree and a real store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from larder.bench import peer_environments
from larder.bench.advice import way_of
from larder.bench.arms import ARMS, install_command, missing_packages
from larder.bench.comparison.data import find_data
from larder.bench.comparison_record import Comparison, read_comparison
from larder.bench.peer_data import layout_of
from larder.bench.report.read import read_record
from larder.bench.report.render import render_report
from larder.bench.summarize import AGAIN, NOTHING
from larder.distant.link import Link
from larder.distant.process import open_distant_store
from services.bench.settings import BenchSettings
from services.commands import replace_stage_names
from tests.conftest import Proxy, Store, Until
from tests.integration.bench.conftest import OURS, MountBucket, RunBench, StartBench, load, make_tree
from tests.integration.bench.packed_arms import SHARDS, one_store

COMPARE = ("--task", "compare", "--rounds", "1", "--extra-seconds", "0")
PEERS = {
    "dali": 20, "hf_datasets": 0, "litdata_raw": 0, "mosaicml": 0, "s3torchconnector": 0,
    "simplejpeg_local": 1, "spdl": 0, "turboloader": 10,
}  # fmt: skip
"""Arms of other libraries over the tree and its objects, and how many levels their pixels may differ from PIL's."""
CONNECTOR = "s3torchconnector_shards"
PACKED = ("imagefolder_local", "litdata_streaming", "stream", "webdataset")


def only_record(tmp_path: Path) -> Comparison:
    [path] = (tmp_path / "results").glob("compare-*.json")
    return read_comparison(path)


@one_store
def test_measures_every_arm_that_the_data_allow(
    run_bench: RunBench, packed: dict[str, str], store: Store, tmp_path: Path
) -> None:
    others = [name for name in ARMS if name != "dali"]  # which shows noise so differently that it isn't recognized
    code, out, err = run_bench(*COMPARE, "--arms", ",".join(others), **packed)
    assert code == 0, err
    record = only_record(tmp_path)
    peers = {name for name in others if ARMS[name].is_peer and ARMS[name].layout in ("tree", "webdataset")}
    peers -= {name for name in peers if missing_packages(name)}
    assert {arm.name for arm in record.arms} == {*PACKED, *peers, f"stream{AGAIN}", NOTHING}
    assert {one.arm for one in record.left_out} >= {"imagefolder_rclone_mount", "litdata_raw", "remote_one_sample"}
    [objects] = [one for one in record.left_out if one.arm == "remote_one_sample"]
    assert objects.command == "make etl-load"
    left_out = [line for line in err.splitlines() if "left out: " in line]
    assert sum("remote_one_sample" in line for line in left_out) == 1
    assert sum("make etl-load" in line for line in left_out) == 1, "once for the layout, with all arms that read it"
    assert record.status == "complete"
    assert not record.failures
    for arm in record.summary.arms:
        assert arm.exactly_once, arm.arm
        assert arm.rounds == 1
    for one in record.arms:
        if one.name != NOTHING:
            assert one.pixel_error is not None
            assert one.pixel_error.max <= (1 if one.name == "simplejpeg_local" else 0), one.name
    [litdata] = [one for one in record.arms if one.name == "litdata_streaming"]
    assert litdata.settings == {"LITDATA_BATCH_DECODE": "all"}
    assert {one.name for one in record.rooflines} == {
        "decode", "decode_pil", "stream_from_memory", "disk_read", "store_read",
    }  # fmt: skip
    measured = [one for one in record.rounds if one.round == 1 and one.arm != NOTHING]
    assert all(one.epochs[0].images == 40 for one in measured)
    assert all(len(one.epochs) == 2 for one in measured)
    assert {one.epochs[0].samples_digest for one in measured} == {record.data.samples_digest}
    on_disk = {"imagefolder_local", *(name for name in peers if ARMS[name].layout == "tree")}
    cached = {one.arm: one.epochs[0].page_cache.resident_before for one in measured}
    assert {name for name, share in cached.items() if share is not None} == on_disk & cached.keys()
    assert all(share is None or 0 < share <= 1 for share in cached.values())  # the kernel may drop a page
    assert record.summary.instrument is not None
    assert record.summary.instrument.within_limit is (record.summary.instrument.share_of_fastest < 0.01)
    assert f"Overhead of measuring: {record.summary.instrument.share_of_fastest:.2%} of the fastest arm's time" in out
    assert store.env["AWS_SECRET_ACCESS_KEY"] not in record.as_json()
    assert record.provenance.endpoint == store.endpoint
    assert out.startswith(record.summary.answer)
    [last] = [line for line in err.splitlines() if "next: " in line]
    way = way_of(record.summary.arms[0].arm)
    assert f"next: {way.page}, shows how to train with {way.loader}; " in last
    assert f"`make compare LARDER_ARMS={','.join(others)} LARDER_SWEEP=1,2,4`" in last
    assert "Use " in out.splitlines()[0]
    assert "left out" not in out, "it was said before the rounds"
    assert "by its times, the rounds take about" in err
    [markdown] = (tmp_path / "results").glob("compare-*.md")
    assert f"| {record.summary.arms[0].arm} |" in markdown.read_text()
    assert not list((tmp_path / "results").glob(".compare-*"))


def test_an_interrupted_comparison_resumes(
    start_bench: StartBench, run_bench: RunBench, tmp_path: Path, tree: Path, until: Until
) -> None:
    flags = (*COMPARE, "--arms", "imagefolder_local")

    def kept() -> list[Path]:
        return list((tmp_path / "results").glob(".compare-*/run-0*.json"))

    with start_bench(*flags) as process:
        until(kept, "a round is kept")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    before = {path.name: json.loads(path.read_text()) for path in kept()}
    code, _, err = run_bench(*flags)
    assert code == 0, err
    assert "resuming a comparison" in err
    assert len([line for line in err.splitlines() if " runs, about " in line]) <= 9 - len(before), "only what is new"
    record = only_record(tmp_path)
    starts = {one.position: one.started_utc for one in record.rounds}
    for result in before.values():
        if "round" in result:
            assert starts[result["round"]["position"]] == result["round"]["started_utc"]
    assert {one.arm for one in record.rounds} == {"imagefolder_local", f"imagefolder_local{AGAIN}", NOTHING}


def test_rounds_are_removed_if_the_data_have_changed_since(
    start_bench: StartBench, run_bench: RunBench, tmp_path: Path, tree: Path, until: Until
) -> None:
    flags = (*COMPARE, "--arms", "imagefolder_local")

    def kept() -> list[Path]:
        return list((tmp_path / "results").glob(".compare-*/run-0*.json"))

    with start_bench(*flags) as process:
        until(kept, "a round is kept")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    manifest = tree / "_larder" / "manifest.json"
    changed = json.loads(manifest.read_text()) | {"settings": {"made": "again"}}
    manifest.write_text(json.dumps(changed))
    code, _, err = run_bench(*flags)
    assert code == 0, err
    assert "results of an interrupted comparison don't count: data, code, libraries or machine have changed" in err
    assert "resuming" not in err
    assert not list((tmp_path / "results").glob(".compare-*"))


def running_round(stage: int) -> tuple[psutil.Process, list[psutil.Process]] | None:
    """Return the process of the running round, and its workers."""
    with suppress(psutil.NoSuchProcess):
        for template in psutil.Process(stage).children():
            for job in template.children():
                return job, job.children()
    return None


def runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


@one_store
@pytest.mark.parametrize(
    ("victim", "kind", "message"),
    [
        ("workers", "error", "most likely killed for lack of memory"),
        pytest.param(
            "round",
            "killed",
            "ended by SIGKILL; the kernel does so if memory runs out",
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_a_process_that_the_kernel_kills_fails_its_round_and_the_others_go_on(
    start_bench: StartBench,
    packed: dict[str, str],
    proxy: Proxy,
    tmp_path: Path,
    victim: str,
    kind: str,
    message: str,
) -> None:
    """It is killed while it waits for the store: in the middle of its epoch."""
    killed = threading.Event()

    def kill(method: str, path: str, number: int) -> None:
        if method == "GET" and path.endswith(".tar") and not killed.is_set():
            found = running_round(process.pid)
            if found is not None and found[1]:
                killed.set()
                for one in found[1] if victim == "workers" else [found[0]]:
                    one.kill()

    environ = packed | {"S3_ENDPOINT_URL": proxy.endpoint}
    with start_bench(*COMPARE, "--arms", "imagefolder_local,webdataset", **environ) as process:
        proxy.fault = kill
        _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert killed.is_set()
    record = only_record(tmp_path)
    [failure] = record.failures
    assert failure.arm.removesuffix(AGAIN) == "webdataset"
    assert failure.kind == kind
    assert message in failure.message
    assert record.status == "partial"
    assert {one.arm: one.exactly_once for one in record.summary.arms}["imagefolder_local"]
    measured = sorted((one.arm, one.round) for one in record.rounds)
    names = ("imagefolder_local", "webdataset", f"webdataset{AGAIN}", NOTHING)
    assert measured == sorted({(name, number) for name in names for number in (0, 1)} - {(failure.arm, failure.round)})


@one_store
def test_a_peer_that_hangs_is_ended_and_the_others_go_on(
    start_bench: StartBench,
    run_bench: RunBench,
    loaded: dict[str, str],
    proxy: Proxy,
    tmp_path: Path,
    until: Until,
) -> None:
    """LitData's workers wait for images that never come; it is interrupted meanwhile, and resumed."""
    hanging, over = threading.Event(), threading.Event()

    def hang(method: str, path: str, number: int) -> None:
        if path.endswith(".jpg"):
            hanging.set()
            over.wait()

    def kept() -> dict[str, str]:
        files = (tmp_path / "results").glob(".compare-*/run-0*.json")
        return {path.name: path.read_text() for path in files}

    flags = (*COMPARE, "--arms", "imagefolder_local,litdata_raw", "--round-seconds", "12")
    environ = loaded | {"S3_ENDPOINT_URL": proxy.endpoint}
    proxy.fault = hang
    try:
        with start_bench(*flags, **environ) as process:
            until(lambda: hanging.is_set() and kept(), "the peer hangs, and a round is kept")
            job, workers = running_round(process.pid) or (None, [])
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        until(lambda: not any(map(runs, (job, *workers) if job else ())), "the round's processes have ended")
        before = kept()
        code, out, err = run_bench(*flags, **environ)
    finally:
        over.set()
    assert code == 0, err
    assert "resuming a comparison" in err
    record = only_record(tmp_path)
    starts = {one.position: one.started_utc for one in record.rounds}
    results = [result["round"] for result in map(json.loads, before.values()) if "round" in result]
    assert all(starts[one["position"]] == one["started_utc"] for one in results)
    assert {(one.arm, one.round, one.kind) for one in record.failures} == {
        ("litdata_raw", number, "timeout") for number in (0, 1)
    }
    measured = sorted((one.arm, one.round) for one in record.rounds)
    names = ("imagefolder_local", f"imagefolder_local{AGAIN}", NOTHING)
    assert measured == sorted((name, number) for name in names for number in (0, 1))
    assert all(one.epochs[0].exactly_once for one in record.rounds if one.round == 1 and one.arm != NOTHING)
    assert record.status == "partial"
    named = "litdata_raw with 2 workers failed in round 1 (timeout): it took longer than 12 s, and was ended"
    assert named in out
    [path] = (tmp_path / "results").glob("compare-*.json")
    assert named in render_report(read_record(path), None, []).html


def test_rounds_are_kept_if_the_process_that_forks_them_is_killed(
    start_bench: StartBench, run_bench: RunBench, tmp_path: Path, tree: Path, until: Until
) -> None:
    flags = (*COMPARE, "--arms", "imagefolder_local")

    def kept() -> list[Path]:
        return list((tmp_path / "results").glob(".compare-*/run-0*.json"))

    with start_bench(*flags) as process:
        until(kept, "a round is kept")
        [template] = psutil.Process(process.pid).children()
        template.kill()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert "the process that starts the rounds has ended" in err
    assert "which resumes" in err
    code, _, err = run_bench(*flags)
    assert code == 0, err
    assert "resuming a comparison" in err


@pytest.mark.exhaustive
@one_store
def test_an_arm_whose_data_are_damaged_fails_and_the_others_go_on(
    own_copy: None, run_bench: RunBench, packed: dict[str, str], store: Store, tmp_path: Path
) -> None:
    listed = store.client.list_objects_v2(Bucket=packed["S3_BUCKET"], Prefix=f"{SHARDS}/training/")["Contents"]
    store.client.delete_object(Bucket=packed["S3_BUCKET"], Key=listed[-1]["Key"])
    code, out, err = run_bench(*COMPARE, "--arms", "imagefolder_local,webdataset", **packed)
    assert code == 0, err
    record = only_record(tmp_path)
    assert record.status == "partial"
    assert record.summary.confidence == "low"
    failed = {one.arm: one.message for one in record.failures}
    assert failed.keys() == {"webdataset", f"webdataset{AGAIN}"}
    assert "is missing" in failed["webdataset"]
    assert [arm.arm for arm in record.summary.arms] == ["imagefolder_local"]
    assert "webdataset with 2 workers failed" in out


@one_store
def test_a_store_that_fails_in_mid_epoch(
    run_bench: RunBench, packed: dict[str, str], proxy: Proxy, tmp_path: Path
) -> None:
    """It refuses one shard of five: what reads it fails, and the tree serves as reference."""
    proxy.fault = lambda method, path, number: 403 if path.endswith("/training/shard-000002.tar") else None
    environ = packed | {"S3_ENDPOINT_URL": proxy.endpoint}
    arms = ["imagefolder_local", "stream"] + [name for name in [CONNECTOR] if not missing_packages(name)]
    code, _, err = run_bench(*COMPARE, "--arms", ",".join(arms), **environ)
    assert code == 0, err
    record = only_record(tmp_path)
    assert {one.arm for one in record.failures} >= {*arms[1:], f"stream{AGAIN}", "store_read"}
    assert all("shard-000002.tar" in one.message for one in record.failures)
    assert [arm.arm for arm in record.summary.arms] == ["imagefolder_local"]
    assert record.summary.arms[0].exactly_once
    assert "the images can't be decoded for checks" in err


@one_store
def test_a_distant_store(run_bench: RunBench, packed: dict[str, str], store: Store, tmp_path: Path) -> None:
    flags = ("--arms", "imagefolder_local,stream", "--latency", "5ms", "--bandwidth", "800mbit")
    code, out, err = run_bench(*COMPARE, *flags, **packed)
    assert code == 0, err
    record = only_record(tmp_path)
    assert not record.failures
    assert all(arm.exactly_once for arm in record.summary.arms)
    assert (record.provenance.latency_s, record.provenance.bandwidth_bits_per_s) == (0.005, 800_000_000)
    assert record.provenance.endpoint == store.endpoint
    assert record.settings["s3_endpoint_url"] == store.endpoint
    assert f"{store.endpoint}, through a link of 5 ms and 800 Mbit/s" in out
    [near] = [one for one in record.rooflines if one.name == "store_read"]
    assert near.bytes_per_s is not None
    assert near.bytes_per_s <= 1.05 * 100e6  # which fails without a limit: 400 MB/s and more


@one_store
def test_a_link_of_the_store_itself_is_found_and_added(
    run_bench: RunBench, packed: dict[str, str], store: Store, tmp_path: Path
) -> None:
    """As after `s3-up --latency 3ms`, and with a proxy of the comparison's own."""
    folder = tmp_path / "link"
    folder.mkdir()
    with open_distant_store(store.endpoint, Link(0.003, 800_000_000), folder) as distant:
        behind = packed | {"S3_ENDPOINT_URL": distant.endpoint}
        code, out, err = run_bench("--arm", "stream", "--batches", "3", **behind)
        assert code == 0, err
        assert f"{distant.endpoint}, through a link of 3 ms and 800 Mbit/s" in out
        code, out, err = run_bench(*COMPARE, "--arms", "imagefolder_local,stream", "--latency", "5ms", **behind)
        assert code == 0, err
    assert "add a link of 5 ms to a link of 3 ms and 800 Mbit/s of s3-up" in err
    assert "arms read through a link of 8 ms and 800 Mbit/s" in err
    record = only_record(tmp_path)
    assert (record.provenance.latency_s, record.provenance.bandwidth_bits_per_s) == (0.008, 800_000_000)
    assert f"{distant.endpoint}, through a link of 8 ms and 800 Mbit/s" in out


@one_store
def test_the_proxy_counts_the_traffic_of_other_libraries(
    run_bench: RunBench, loaded: dict[str, str], tmp_path: Path
) -> None:
    code, _, err = run_bench(*COMPARE, "--arms", "imagefolder_local,litdata_raw", "--latency", "0ms", **loaded)
    assert code == 0, err
    record = only_record(tmp_path)
    by_name = {arm.arm: arm for arm in record.summary.arms}
    assert by_name["imagefolder_local"].network_bytes_per_img is None
    raw = by_name["litdata_raw"]
    assert raw.network_bytes_per_img is not None
    assert raw.network_bytes_per_img >= record.data.image_bytes // record.data.samples
    assert raw.requests_per_1000_imgs == pytest.approx(1000, rel=0.2)


@pytest.mark.parametrize("endpoint", ["https://store.example:9000", ""])
def test_a_store_that_cant_be_made_distant(run_bench: RunBench, endpoint: str) -> None:
    code, _, err = run_bench(*COMPARE, LARDER_LINK_LATENCY="20ms", S3_ENDPOINT_URL=endpoint)
    assert code == 2
    assert "LARDER_LINK_LATENCY and LARDER_LINK_BANDWIDTH make a store distant, but S3_ENDPOINT_URL" in err


def test_training_steps_on_each_arms_batches(run_bench: RunBench, tree: Path, tmp_path: Path) -> None:
    code, out, err = run_bench(*COMPARE, "--arms", "imagefolder_local", "--device", "cpu")
    assert code == 0, err
    record = only_record(tmp_path)
    steps = {(one.arm, one.round): one.steps for one in record.rounds}
    measured = steps.pop(("imagefolder_local", 1))
    assert not any(steps.values())
    assert measured is not None
    assert (measured.device, measured.steps) == ("cpu", 2)
    summary = record.summary.arms[0].steps
    assert summary is not None
    assert summary.busy_share.median == measured.busy_share
    assert "Training steps:" in out
    assert {each.threshold for each in record.summary.arms[0].utilization} == {0.9, 0.85}


def test_steps_on_a_gpu_that_isnt_there(run_bench: RunBench, tmp_path: Path) -> None:
    code, _, err = run_bench(*COMPARE, "--device", "cuda", CUDA_VISIBLE_DEVICES="")
    assert code == 2
    assert "LARDER_DEVICE='cuda': torch sees no CUDA device" in err
    assert not list((tmp_path / "results").glob("*.json"))


def test_latency_needs_a_unit(run_bench: RunBench) -> None:
    code, _, err = run_bench(*COMPARE, LARDER_LINK_LATENCY="20", LARDER_LINK_BANDWIDTH="fast")
    assert code == 2
    assert "LARDER_LINK_LATENCY (environment)='20': must be a time" in err
    assert "LARDER_LINK_BANDWIDTH (environment)='fast': must be bits per second" in err


def test_too_few_samples(run_bench: RunBench) -> None:
    code, _, err = run_bench(*COMPARE, "--arms", "imagefolder_local", LARDER_BATCH_SIZE="32")
    assert code == 2
    assert "LARDER_BATCH_SIZE=32: it takes 3 batches to measure" in err


def test_no_data_at_all(run_bench: RunBench, tmp_path: Path) -> None:
    code, _, err = run_bench(*COMPARE, FOOD11_DATA_DIR=str(tmp_path / "nothing"))
    assert code == 3
    assert "no arm can be compared:" in err
    assert "imagefolder_local" in err
    assert err.count("make etl-local") == 1, "once for all arms that read the tree"
    assert "next step: run one of these commands, or name a folder of tar shards in LARDER_SHARDS" in err


def test_shards_are_only_for_arms_that_read_them(run_bench: RunBench, tmp_path: Path) -> None:
    code, _, err = run_bench(*COMPARE, "--shards", str(tmp_path), "--arms", "dali")
    assert code == 3
    assert "no arm can be compared:\n  - dali: it doesn't read tar shards" in err
    assert "next step: leave LARDER_ARMS empty, or name s3torchconnector_shards or stream or webdataset in it" in err


def test_no_arm_could_be_measured(run_bench: RunBench, tree: Path) -> None:
    for image in (tree / "training").rglob("*.jpg"):
        image.write_bytes(b"no image".ljust(image.stat().st_size))
    code, _, err = run_bench(*COMPARE, "--arms", "imagefolder_local")
    assert code == 3
    assert "no arm could be measured:\n  - imagefolder_local: " in err
    assert "next step: " in err
    assert "shows each arm's error" not in err


def test_without_a_checkout_commands_of_one_say_so(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    ended = subprocess.run(
        [sys.executable, "-m", "larder.bench.comparison", "--arms=imagefolder_local,webdataset"],
        cwd=tmp_path,
        env=environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "FOOD11_DATA_DIR": str(tmp_path / "nothing")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 3, ended.stderr
    assert "python3 -m larder etl-local in a checkout of larder" in ended.stderr
    assert "name a folder of tar shards in LARDER_SHARDS" in ended.stderr


@pytest.mark.exhaustive
def test_after_a_sweep_the_next_step_is_the_report(run_bench: RunBench) -> None:
    code, _, err = run_bench(*COMPARE, "--arms", "imagefolder_local", "--workers", "1,2")
    assert code == 0, err
    assert "; `make report`, which makes a page of it" in err


def test_results_that_cant_be_written(run_bench: RunBench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = run_bench(*COMPARE, LARDER_RESULTS=str(tmp_path / "file"))
    assert code == 3
    assert "records can't be written there" in err
    assert "LARDER_RESULTS" in err


@pytest.fixture(scope="session")
def environments() -> None:
    """Environments of peers, where everything must be tested: they take a download of 150 MB."""
    for name in peer_environments.NAMES if os.environ.get("REQUIRE") == "all" else ():
        if peer_environments.python_of(name) is None:
            peer_environments.install(name)


@one_store
def test_peers_yield_every_sample_once(
    environments: None, run_bench: RunBench, store: Store, bucket: str, tmp_path: Path
) -> None:
    tree = make_tree(tmp_path / "smooth" / "Food-11", smooth=True)
    environ = load(tree, store, bucket) | {"LARDER_CACHE_DIR": str(tmp_path / "cache"), "FOOD11_DATA_DIR": str(tree)}
    installed = [name for name in PEERS if not missing_packages(name)]
    for name in filter(layout_of, installed):
        code, _, err = run_bench("--task", "peers", "--arm", name, **environ)
        assert code == 0, err
    code, _, err = run_bench(*COMPARE, "--arms", ",".join(PEERS), **environ)
    assert code == 0, err
    record = only_record(tmp_path)
    assert not record.failures
    commands = {one.arm: one.command for one in record.left_out}
    together = [name for name in PEERS if name not in installed and not ARMS[name].environment]
    alone = [name for name in PEERS if name not in installed and ARMS[name].environment]
    assert commands == {name: shown(install_command(*together)) for name in together} | {
        name: shown(install_command(name)) for name in alone
    }
    by_name = {arm.arm: arm for arm in record.summary.arms}
    assert by_name.keys() == set(installed)
    for name, error in ((arm.name, arm.pixel_error) for arm in record.arms if arm.name in installed):
        assert by_name[name].exactly_once, name
        assert error is not None
        assert error.max <= PEERS[name], name
    assert all(record.provenance.versions[ARMS[name].packages[0]] != "unknown" for name in installed)
    on_disk = {one.arm for one in record.rounds if one.epochs[0].page_cache.resident_before is not None}
    assert on_disk - {f"{name}{AGAIN}" for name in installed} == {
        name for name in installed if ARMS[name].layout in ("tree", "tar")
    }


@pytest.mark.exhaustive
@one_store
def test_ray_data_yields_every_sample_once(
    run_bench: RunBench, loaded: dict[str, str], tree: Path, tmp_path: Path
) -> None:
    """It takes half a minute to start Ray twice, and its workers."""
    code, _, err = run_bench(*COMPARE, "--arms", "ray_data,imagefolder_local", **loaded, FOOD11_DATA_DIR=str(tree))
    assert code == 0, err
    record = only_record(tmp_path)
    assert not record.failures
    if missing_packages("ray_data"):
        assert [one.command for one in record.left_out] == [shown(install_command("ray_data"))]
        return
    assert {arm.arm: arm.exactly_once for arm in record.summary.arms} == {"ray_data": True, "imagefolder_local": True}
    assert [arm.pixel_error.max for arm in record.arms if arm.name == "ray_data" and arm.pixel_error] == [0]


def shown(command: str) -> str:
    return replace_stage_names(command, "make").strip("`")


@one_store
def test_a_dead_mount_is_left_out(mount: MountBucket, store: Store, bucket: str, tree: Path, tmp_path: Path) -> None:
    environ = load(tree, store, bucket) | {"FOOD11_DATA_DIR": str(tree)}
    mounted = mount(store.endpoint, environ)
    settings = BenchSettings.load(
        "bench", [], environ | {"LARDER_MOUNT_DIR": str(mounted.folder), "LARDER_BATCH_SIZE": "8"}
    )
    arms = ["imagefolder_local", "imagefolder_rclone_mount"]
    assert find_data(settings, arms, str).arms == arms
    mounted.kill()
    found = find_data(settings, arms, str)
    assert found.arms == ["imagefolder_local"]
    [left_out] = found.left_out
    assert left_out.arm == "imagefolder_rclone_mount"
    assert left_out.command == "mount"


@one_store
def test_anybodys_shards_without_a_checkout(packed: dict[str, str], tmp_path: Path) -> None:
    """The folder has no manifest: shards are read as they are."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("LARDER_", "FOOD11_", "S3_"))}
    environ |= packed | {"LARDER_BATCH_SIZE": "8", "LARDER_RESULTS": str(tmp_path / "results"), "S3_BUCKET": ""}
    root = str(Path(__file__).parents[3])
    uri = f"s3://{packed['S3_BUCKET']}/{SHARDS}/training"
    command = [sys.executable, "-m", "larder.bench.comparison", *COMPARE[2:], "--workers=1", f"--shards={uri}"]
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env=environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "compare: next: docs/" in ended.stderr
    assert f"; `larder compare LARDER_SHARDS={uri} LARDER_SWEEP=1,2,4`" in ended.stderr
    record = only_record(tmp_path)
    readers = {name for name in ARMS if ARMS[name].layout == "webdataset" and not missing_packages(name)}
    assert {arm.arm: arm.exactly_once for arm in record.summary.arms} == dict.fromkeys(readers, True)
    assert {one.arm for one in record.left_out} == {CONNECTOR} - readers
    assert record.data.samples == 40
    assert record.data.classes == 3


def test_shards_that_cannot_be_read_are_named_with_their_own_next_step(run_bench: RunBench, tmp_path: Path) -> None:
    code, _, err = run_bench(*COMPARE, "--shards", str(tmp_path / "nowhere"))
    assert code == 2
    assert "nowhere isn't a folder" in err
    assert "give the folder of the shards" in err
    assert "etl-wds" not in err
    assert "one of these commands" not in err


@one_store
def test_a_quick_comparison_says_how_sure_it_is(run_bench: RunBench, packed: dict[str, str], tmp_path: Path) -> None:
    flags = ("--task", "compare", "--quick", "--arms", "imagefolder_local,stream")
    code, out, err = run_bench(*flags, **packed)
    assert code == 0, err
    record = only_record(tmp_path)
    assert record.quick
    assert record.summary.confidence == "low"
    assert "This run was quick (" in record.summary.answer
    assert {arm.arm for arm in record.summary.arms} == {"imagefolder_local", "stream"}
    fewest = min(arm.rounds for arm in record.summary.arms)
    assert (fewest < 3) == any(phrase.endswith("of 3 rounds") for phrase in record.left_out_for_time)
    assert out.startswith(record.summary.answer)
