"""LitData's cache on disk: cold, warm, too small, in use, without room."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Proxy, Store
from tests.integration.bench.conftest import Packs, RunArm, StartBench
from tests.integration.bench.packed_arms import CHUNKS, fetched, one_store


@one_store
def test_litdata_cold_and_warm(run_packed: RunArm, store: Store, proxy: Proxy, tmp_path: Path) -> None:
    code, out, err, record = run_packed("litdata_streaming", "--workers=2", S3_ENDPOINT_URL=proxy.endpoint)
    assert code == 0, err
    [warm] = record["then"]
    assert (record["pass"], warm["pass"]) == ("cold", "warm")
    assert (record["images"], warm["images"]) == (40, 40)
    assert record["network_bytes"] >= record["dataset"]["bytes"]["training"]
    assert (warm["network_bytes"], warm["network_requests"], record["network_requests"]) == (0, None, None)
    assert (record["warmup_batches"], record["warmup_seconds"]) == (0, 0)
    assert "\npass                  cold            warm\n" in out
    assert "imgs/s cold, " in err
    assert (tmp_path / "cache").is_dir()
    assert not any(secret in out + err + json.dumps(record) for secret in (store.secret_key, store.access_key))


@one_store
def test_litdata_of_part_of_an_epoch(run_packed: RunArm) -> None:
    code, _, err, record = run_packed("litdata_streaming", "--batches", "3")
    assert code == 0, err
    assert [record["images"], record["then"][0]["images"]] == [24, 24]


@one_store
@pytest.mark.parametrize(("ahead", "most"), [("", 5), ("2", 4)], ids=["litdata's-choice", "2"])
def test_how_many_chunks_are_fetched_ahead(run_packed: RunArm, proxy: Proxy, ahead: str, most: int) -> None:
    # One worker makes three batches of 2 before it is stopped, so it reads only from the first chunk.
    flags = ("--batches", "1", "--batch-size", "2", "--workers", "1")
    code, _, err, _ = run_packed(
        "litdata_streaming", *flags, LARDER_MAX_PRE_DOWNLOAD=ahead, S3_ENDPOINT_URL=proxy.endpoint
    )
    assert code == 0, err
    chunks = {path for _, path in fetched(proxy, CHUNKS)}
    assert len(chunks) == 5 if not ahead else len(chunks) <= 3


@one_store
def test_a_cache_smaller_than_the_split_is_refilled(run_packed: RunArm, packs: Packs) -> None:
    largest = max(path.stat().st_size for path in (packs.volumes["optimize"] / "Food-11-litdata/training").iterdir())
    code, _, err, record = run_packed("litdata_streaming", "--workers", "1", "--max-cache-size", str(4 * largest))
    assert code == 0, err
    assert record["then"][0]["network_bytes"] > largest
    assert record["then"][0]["images"] == 40


@pytest.mark.one_in(3)
@one_store
@pytest.mark.parametrize(
    ("flags", "part"),
    [
        pytest.param(["--max-cache-size", "1000"], "LARDER_MAX_CACHE_SIZE=1000: 2 workers fetching 2", id="small"),
        pytest.param(
            ["--max-cache-size", "1.5MB", "--max-pre-download", "9"],
            "LARDER_MAX_CACHE_SIZE=1500000: 2 workers fetching 9 chunks ahead, each",
            id="small-for-so-many-ahead",
        ),
        pytest.param(["--max-pre-download", "1"], "--max-pre-download='1': ", id="one-ahead"),
        pytest.param(["--max-cache-size", "some"], "--max-cache-size='some'", id="no-size"),
    ],
)
def test_caches_in_which_litdata_would_wait_for_good(run_packed: RunArm, flags: list[str], part: str) -> None:
    code, out, err, record = run_packed("litdata_streaming", "--workers=2", *flags)
    assert (code, out, record) == (2, "", None), err
    assert part in err


@one_store
def test_a_cache_that_another_run_uses(run_packed: RunArm, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    lock = tmp_path / "cache/.larder-litdata.lock"
    with subprocess.Popen(
        ["flock", str(lock), "-c", "echo held; read _"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        code, _, err, _ = run_packed("litdata_streaming")
        holder.stdin.write(b"\n")
    assert code == 3, err
    assert "another run uses" in err
    assert "LARDER_CACHE_DIR" in err


@one_store
@pytest.mark.parametrize("place", ["/dev/null/cache", "/proc/cache"])
def test_a_cache_that_cannot_be_written(run_packed: RunArm, place: str) -> None:
    code, out, err, record = run_packed("litdata_streaming", LARDER_CACHE_DIR=place)
    assert (code, out, record) == (3, "", None), err
    assert f"LARDER_CACHE_DIR='{place}' can't be used" in err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on its own small file system, with 2 MiB more than the chunks need."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, f"run the tests as root, or as root of a user namespace: {made.stderr}"
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a worker may be about to end


@one_store
def test_a_cache_without_room(run_packed: RunArm, small_disk: Path) -> None:
    (small_disk / "other").write_bytes(bytes(3 << 20))
    code, out, err, record = run_packed(
        "litdata_streaming", LARDER_CACHE_DIR=str(small_disk), LARDER_MAX_CACHE_SIZE="1GiB"
    )
    assert (code, out, record) == (3, "", None), err
    assert "MiB free, and the cache may grow to" in err
    code, out, err, record = run_packed("litdata_streaming", LARDER_CACHE_DIR=str(small_disk))
    assert (code, out, record) == (3, "", None), err
    assert "three quarters of what is free" in err


@one_store
def test_a_disk_that_fills_up(run_packed: RunArm, proxy: Proxy, small_disk: Path) -> None:
    def fault(method: str, path: str, number: int) -> int | str | None:
        if path.endswith(".bin"):
            with (small_disk / "other").open("ab", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(1 << 12))
        return None

    proxy.fault = fault
    code, out, err, record = run_packed(
        "litdata_streaming", LARDER_CACHE_DIR=str(small_disk), S3_ENDPOINT_URL=proxy.endpoint
    )
    assert (code, out, record) == (3, "", None), err
    assert "the disk is full" in err
    assert [path.name for path in small_disk.iterdir() if path.is_dir()] == []


@one_store
def test_what_cannot_be_removed_from_the_cache(start_packed: StartBench, tmp_path: Path) -> None:
    place = tmp_path / "cache/larder-litdata"
    place.mkdir(parents=True)
    subprocess.run(["chattr", "+i", str(place)], check=True)
    try:
        with start_packed("litdata_streaming") as process:
            err = process.communicate()[1]
    finally:
        subprocess.run(["chattr", "-i", str(place)], check=True)
    assert process.returncode == 3, err
    assert "LARDER_CACHE_DIR" in err
    assert "Traceback" not in err, err
