"""The fast reader over real stores, with faults on the way."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any, get_args

import numpy as np
import psutil
import pytest

from larder.errors import ConfigurationError, InputError, ServiceError
from larder.store import StoreSettings
from larder.store import make_store as settings_of
from larder.stream import CenterCrop, ShardStream, normalize
from larder.stream.array_stream import ArrayStream, Mode
from larder.stream.decode import apply_crop
from larder.stream.shard_folders import open_folder
from tests.conftest import Proxy, Store
from tests.integration.loaders.conftest import Stored
from tests.liar import Liar, Request, Talk, lying

ROOT = Path(__file__).resolve().parents[3]
SAMPLES, SHARDS = 240, 3
SMALL = CenterCrop(32, 28)


def reach(endpoint: str, store: Store, **changes: object) -> StoreSettings:
    settings = settings_of(endpoint_url=endpoint, access_key_id=store.access_key, secret_access_key=store.secret_key)
    return settings.model_copy(update=changes)


@pytest.fixture
def shards(store: Store, bucket: str) -> Iterator[str]:
    """Shards of noise in a bucket, 13 MB, without an index: several blocks in each."""
    from PIL import Image

    for shard in range(SHARDS):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            for number in range(shard, SAMPLES, SHARDS):
                noise = np.random.default_rng(number).integers(0, 255, (150, 140, 3), np.uint8)
                Image.fromarray(noise).save(image := io.BytesIO(), "JPEG", quality=95, subsampling=0)
                for name, content in ((f"{number:03d}.jpg", image.getvalue()), (f"{number:03d}.cls", b"%d" % number)):
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        store.client.put_object(Bucket=bucket, Key=f"noise/{shard}.tar", Body=file.getvalue())
    yield f"s3://{bucket}/noise"


def labels_of(stream: ArrayStream) -> list[int]:
    return [label for _, labels in stream for label in labels.tolist()]


def stream_of(uri: str, settings: StoreSettings, **options: Any) -> ArrayStream:
    usual: dict[str, Any] = {"store": settings, "batch_size": 16, "transform": SMALL, "threads": 2, "mode": "thread"}
    return ArrayStream(uri, **(usual | options))


def test_larder_s_shards(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    from larder.loaders.shards import ShardLoader

    for name, value in stored.env.items():
        monkeypatch.setenv(name, value)
    stream = ShardStream(f"{stored.uris['shards']}/training", batch_size=16)
    with ShardLoader(stored.uris["shards"], "training", batch_size=16, workers=0) as loader:
        expected = {int(label): images for images, labels in loader for label in labels}
        assert stream.classes == loader.classes
    batches = list(stream)
    assert [tuple(images.shape) for images, _ in batches] == [(16, 3, 224, 224), (16, 3, 224, 224), (8, 3, 224, 224)]
    assert all(images.is_contiguous(memory_format=_channels_last()) for images, _ in batches)
    assert {int(label) for _, labels in batches for label in labels} == set(expected)


def _channels_last() -> Any:
    import torch

    return torch.channels_last


def test_normalized_images_are_those_of_the_other_loaders(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    from larder.loaders.shards import ShardLoader

    for name, value in stored.env.items():
        monkeypatch.setenv(name, value)
    with ShardLoader(stored.uris["shards"], "validation", batch_size=50, workers=0) as loader:
        [(expected, _)] = list(loader)
    [(images, _)] = list(ShardStream(f"{stored.uris['shards']}/validation", batch_size=50))
    ours = sorted(normalize(images), key=lambda image: float(image.sum()))
    theirs = sorted(expected, key=lambda image: float(image.sum()))
    assert max(float((one - other).abs().max()) for one, other in zip(ours, theirs, strict=True)) < 1e-5


def test_anybody_s_shards_are_read_exactly_once(shards: str, store: Store, proxy: Proxy) -> None:
    settings = reach(proxy.endpoint, store)
    stream = stream_of(shards, settings)
    proxy.requests.clear()
    proxy.body_bytes_sent = 0
    first, second = labels_of(stream), labels_of(stream)
    assert sorted(first) == sorted(second) == list(range(SAMPLES))
    assert first != second
    assert proxy.count("HEAD") == 0
    stored_bytes = sum(item["Size"] for item in store.client.list_objects_v2(Bucket=shards.split("/")[2])["Contents"])
    assert proxy.body_bytes_sent <= 1.02 * 2 * stored_bytes
    assert proxy.count("GET") <= 2 * (stored_bytes / (4 << 20) + SHARDS)


@pytest.mark.parametrize("fault", ["reset-response", 503, 500])
def test_a_store_that_fails_now_and_then(shards: str, store: Store, proxy: Proxy, fault: int | str) -> None:
    stream = stream_of(shards, reach(proxy.endpoint, store))
    proxy.requests.clear()
    proxy.fault = lambda method, path, number: fault if number % 3 == 1 else None
    assert sorted(labels_of(stream)) == list(range(SAMPLES))
    assert len(proxy.requests) > SHARDS


def test_a_broken_transfer_goes_on_where_it_broke(shards: str, store: Store, proxy: Proxy) -> None:
    stream = stream_of(shards, reach(proxy.endpoint, store))
    stored_bytes = sum(item["Size"] for item in store.client.list_objects_v2(Bucket=shards.split("/")[2])["Contents"])
    proxy.requests.clear()
    proxy.body_bytes_sent = 0
    proxy.fault = lambda method, path, number: "reset-response" if number <= 3 else None
    assert sorted(labels_of(stream)) == list(range(SAMPLES))
    assert proxy.body_bytes_sent < 1.1 * stored_bytes, "what had arrived was not read again"


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_a_shard_that_changes_in_mid_epoch(shards: str, store: Store, change: str) -> None:
    bucket = shards.split("/")[2]
    stream = stream_of(shards, reach(store.endpoint, store), shuffle=False)
    if change == "deleted":
        store.client.delete_object(Bucket=bucket, Key="noise/2.tar")
    else:
        store.client.copy_object(Bucket=bucket, Key="noise/2.tar", CopySource={"Bucket": bucket, "Key": "noise/1.tar"})
    with pytest.raises(InputError, match=r"noise/2\.tar, byte [\d,]+.* the shard was deleted or replaced"):
        labels_of(stream)
    skipping = stream_of(shards, reach(store.endpoint, store))
    if change == "deleted":
        assert len(labels_of(skipping)) == SAMPLES * 2 // 3


def test_a_shard_with_an_index_that_is_replaced(shards: str, store: Store) -> None:
    """The index of samples has no ETags, so shards aren't listed: the first response says which version is read."""
    bucket = shards.split("/")[2]
    folder = open_folder(shards, reach(store.endpoint, store))
    before = bytes(folder.read("1.tar", 0, 1000))
    assert bytes(folder.read("2.tar", 0, 1000)) != before
    store.client.copy_object(Bucket=bucket, Key="noise/2.tar", CopySource={"Bucket": bucket, "Key": "noise/1.tar"})
    assert bytes(folder.read("1.tar", 0, 1000)) == before
    with pytest.raises(InputError, match=r"noise/2\.tar was deleted or replaced"):
        folder.read("2.tar", 1000, 2000)
    assert bytes(open_folder(shards, reach(store.endpoint, store)).read("2.tar", 0, 1000)) == before


def test_a_missing_shard_is_skipped_on_request(shards: str, store: Store) -> None:
    stream = stream_of(shards, reach(store.endpoint, store), on_damage="skip")
    store.client.delete_object(Bucket=shards.split("/")[2], Key="noise/2.tar")
    assert sorted(labels_of(stream)) == [number for number in range(SAMPLES) if number % SHARDS != 2]
    assert len(stream.skipped) == SAMPLES // SHARDS


def test_keys_that_expire_in_mid_epoch(shards: str, store: Store, proxy: Proxy) -> None:
    stream = stream_of(shards, reach(proxy.endpoint, store))
    proxy.fault = lambda method, path, number: 403
    with pytest.raises(ConfigurationError, match="access is denied"):
        labels_of(stream)


def test_names_that_need_escapes(shards: str, store: Store) -> None:
    bucket = shards.split("/")[2]
    odd = "noise/odd a b+c%20&ü~'()=@:,;!*/ü 0+%.tar"
    store.client.copy_object(Bucket=bucket, Key=odd, CopySource={"Bucket": bucket, "Key": "noise/1.tar"})
    stream = stream_of(f"s3://{bucket}/{odd}".rpartition("/")[0], reach(store.endpoint, store))
    assert sorted(labels_of(stream)) == list(range(1, SAMPLES, SHARDS))


def test_a_prefix_without_shards(store: Store, bucket: str) -> None:
    with pytest.raises(InputError, match="has no tar files"):
        stream_of(f"s3://{bucket}/nothing", reach(store.endpoint, store))


HEAD = b"HTTP/1.1 %s\r\nConnection: close\r\nx-amz-request-id: 1\r\nContent-Length: %d\r\n"


@pytest.fixture
def liar(shards: str, store: Store) -> Iterator[Liar]:
    """A store that hands on the listing, and lies about objects."""
    with lying() as server:
        yield server


@pytest.mark.parametrize("lie", ["mute", "silent", "crawling"])
def test_a_store_that_falls_silent(shards: str, store: Store, liar: Liar, lie: str) -> None:
    stream = stream_of(shards, reach(store.endpoint, store))

    def answer(request: Request, talk: Talk) -> None:
        if lie == "mute":
            talk.hush()
            return
        start, end = request.headers["range"].removeprefix("bytes=").split("-")
        size = int(end) - int(start) + 1
        talk.send(HEAD % (b"206 Partial Content", size) + f"Content-Range: bytes {start}-{end}/{size}\r\n\r\n".encode())
        talk.hush() if lie == "silent" else talk.drip(bytes(100_000))

    liar.answer = answer
    folder = open_folder(shards, reach(liar.url, store, stall_seconds=1))
    stream._setup = stream._setup._replace(checks=replace(stream._setup.checks, folder=folder))
    begin = time.monotonic()
    with pytest.raises(ServiceError) as caught:
        labels_of(stream)
    assert "stopped sending" in caught.value.what or "makes no progress" in caught.value.what
    assert time.monotonic() - begin < 100


@pytest.mark.parametrize("ranks", [{}, {"rank": 0, "world_size": 1}], ids=["found", "given"])
@pytest.mark.parametrize(("workers", "mode"), [(0, "thread"), (2, "thread"), (2, "process")])
def test_it_works_under_a_dataloader(
    shards: str, store: Store, workers: int, mode: Mode, ranks: dict[str, int]
) -> None:
    from torch.utils.data import DataLoader

    settings = reach(store.endpoint, store)
    stream = ShardStream(shards, batch_size=16, transform=SMALL, store=settings, threads=1, mode=mode, **ranks)
    loader = DataLoader(stream, batch_size=None, num_workers=workers)
    for _ in range(2):
        labels = [label for _, labels in loader for label in labels.tolist()]
        assert sorted(labels) == list(range(SAMPLES)), "workers share the samples out"


TRAIN = """
import os, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from larder.stream import CenterCrop, ShardStream, normalize

dist.init_process_group("gloo")
stream = ShardStream(sys.argv[1], batch_size=7, transform=CenterCrop(32, 28), threads=1)
model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(28 * 28 * 3, 240)))
optimizer = torch.optim.SGD(model.parameters(), 0.001)
seen = []
for images, labels in stream:
    loss = torch.nn.functional.cross_entropy(model(normalize(images)), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    seen += labels.tolist()
gathered = [None] * dist.get_world_size()
dist.all_gather_object(gathered, seen)
if dist.get_rank() == 0:
    print(sorted(sum(gathered, [])) == list(range(240)), [len(part) for part in gathered])
dist.barrier()
sys.stdout.flush()
os._exit(0)  # without the end of gloo's threads, which now and then aborts
"""


def test_ddp_with_two_processes(shards: str, store: Store, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), shards]
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env |= store.env | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True [120, 120]"


def test_keys_reach_the_child_process_and_nobody_else(shards: str, store: Store) -> None:
    stream = stream_of(shards, reach(store.endpoint, store), mode="process")
    for _ in range(2):
        assert sorted(labels_of(stream)) == list(range(SAMPLES))
    found = [child for child in psutil.Process().children() if "larder.stream.child" in " ".join(child.cmdline())]
    [child] = found
    assert store.secret_key not in " ".join(child.cmdline())
    assert store.access_key not in " ".join(child.cmdline())
    stream.close()
    assert not child.is_running()


@pytest.mark.parametrize("change", ["deleted", "denied"])
def test_a_store_that_fails_in_the_child_process(shards: str, store: Store, proxy: Proxy, change: str) -> None:
    stream = stream_of(shards, reach(proxy.endpoint, store), shuffle=False, mode="process")
    if change == "deleted":
        store.client.delete_object(Bucket=shards.split("/")[2], Key="noise/2.tar")
        expected: tuple[type[Exception], str] = InputError, "the shard was deleted or replaced"
    else:
        proxy.fault = lambda method, path, number: 403
        expected = ConfigurationError, "access is denied"
    with pytest.raises(expected[0], match=expected[1]):
        labels_of(stream)


INTERRUPTED = """
import sys, time
from larder.stream import CenterCrop
from larder.stream.array_stream import ArrayStream

for images, labels in ArrayStream(
    sys.argv[1], batch_size=8, transform=CenterCrop(32, 28), threads=2, mode=sys.argv[3]
):
    print(len(labels), flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize("mode", get_args(Mode))
@pytest.mark.parametrize("after", range(4))
def test_ctrl_c_at_any_moment(shards: str, store: Store, after: int, mode: str) -> None:
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env |= store.env | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", INTERRUPTED, shards, "0.05", mode]
    with subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        for _ in range(after * 3 + 1):
            assert process.stdout
            assert process.stdout.readline() == "8\n"
        children = psutil.Process(process.pid).children()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, said = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)
    assert said.strip().endswith("KeyboardInterrupt")
    assert said.count("Traceback") == 1
    assert len(children) == (mode == "process")
    psutil.wait_procs(children)


DOCS = (ROOT / "docs/stream.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)


def run_example(script: str, stored: Stored, folder: Path) -> str:
    """Run a script that reads the training split, in a folder that isn't the checkout's; what it prints."""
    env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env |= stored.env | {"PYTHONPATH": str(ROOT)}
    script = script.replace("s3://my-bucket/photos-webdataset", stored.uris["shards"])
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_examples_of_the_page(stored: Stored, tmp_path: Path, number: int) -> None:
    run_example(EXAMPLES[number], stored, tmp_path)


def test_example_of_the_package(stored: Stored, tmp_path: Path) -> None:
    import larder.stream

    text = larder.stream.__doc__ or ""
    example = dedent(text[text.index("    from larder.stream import") : text.index("\nInstall the extra")])
    script = example.replace("s3://bucket/", "s3://my-bucket/").replace("    ...", "    print(images.shape)")
    assert run_example(script, stored, tmp_path).strip() == "torch.Size([40, 3, 224, 224])"


def test_the_pixels_are_pil_s(shards: str, store: Store) -> None:
    from PIL import Image

    settings = reach(store.endpoint, store)
    images = {
        int(sample["cls"]): Image.open(io.BytesIO(bytes(sample["jpg"])))
        for sample in stream_of(shards, settings).samples()
    }
    for batch, labels in stream_of(shards, settings):
        for image, label in zip(batch, labels.tolist(), strict=True):
            crop = SMALL.crop(*images[label].size, np.empty(0))
            assert (image == np.asarray(apply_crop(images[label].convert("RGB"), crop, 28))).all()
