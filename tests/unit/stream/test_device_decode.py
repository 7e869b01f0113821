"""Decoding on a device, with the CPU and torchvision in place of a GPU and torchcodec. All around the call is real."""

from __future__ import annotations

import io
import itertools
import sys
import threading
import types
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor

from larder.errors import ConfigurationError, InputError
from larder.stream import CenterCrop, RandomResizedCrop, ShardStream, array_stream, device_decode, shard_stream
from larder.stream.array_stream import ArrayStream
from larder.stream.decode import Decoder, apply_crop
from larder.stream.device_decode import DeviceDecoder, crop_and_resize, deliver, find_device, open_decoder, parse_device
from larder.stream.kernel import JpegKernel
from larder.stream.transforms import Crop
from tests.unit.stream.conftest import MakeShards, Packed, jpeg

CPU = torch.device("cpu")
SMALL = CenterCrop(32, 28)
ROTATED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


class Device:
    """Decodes with torchvision as torchcodec does: all files or none, and rotated as their EXIF says."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.files: list[bytes] = []
        self.calls = 0

    def decode(self, files: Sequence[bytes], device: torch.device) -> list[Tensor]:
        assert device == CPU
        assert files
        self.calls += 1
        self.asked += files
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            contents = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
            mode = torchvision.io.ImageReadMode.RGB
            images = [torchvision.io.decode_jpeg(one, mode, apply_exif_orientation=True) for one in contents]
        self.files += files
        return images


@pytest.fixture
def kernel(library: Path, monkeypatch: pytest.MonkeyPatch) -> JpegKernel:
    loaded = JpegKernel(library)
    monkeypatch.setattr(array_stream, "_load_kernel", lambda: loaded)
    return loaded


@pytest.fixture
def device(kernel: JpegKernel, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A GPU that is the CPU."""
    stand_in = Device()
    monkeypatch.setattr(device_decode, "decode_jpegs", stand_in.decode)
    monkeypatch.setattr(shard_stream, "find_device", lambda device: CPU)
    device_decode._decode_a_sample(CPU)
    stand_in.files.clear()
    stand_in.calls = 0
    return stand_in


@pytest.fixture
def _no_notice_yet() -> Iterator[None]:
    device_decode._tell.cache_clear()
    yield
    device_decode._tell.cache_clear()


def stream_of(packed: Packed, **options: Any) -> ShardStream:
    usual: dict[str, Any] = {"batch_size": 4, "transform": SMALL, "threads": 2, "mode": "thread"}
    return ShardStream(packed.folder, **(usual | options))


def difference(one: Tensor, other: Tensor) -> Tensor:
    return (one.int() - other.int()).abs()


def test_batches_are_those_of_the_cpu_but_for_the_last_bits(make_shards: MakeShards, device: Device) -> None:
    packed = make_shards([jpeg(number, (90 + number, 70)) for number in range(22)])
    batches = list(zip(stream_of(packed, device="cuda"), stream_of(packed), strict=True))
    for (images, labels), (expected, expected_labels) in batches:
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert images.shape == (len(labels), 3, 28, 28)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert (labels == expected_labels).all()
        assert difference(images, expected).max() <= 1
    assert len(batches) == 6
    assert sorted(device.files) == sorted(packed.images), "each image was decoded on the device, once"
    assert device.calls < 22, "several images in a call"


def test_random_crops_are_those_of_the_cpu(make_shards: MakeShards, device: Device) -> None:
    packed = make_shards([jpeg(number, (90 + number, 70)) for number in range(12)])
    transform = RandomResizedCrop(28)
    streams = [stream_of(packed, device=name, transform=transform) for name in ("cuda", None)]
    for (images, _), (expected, _) in zip(*streams, strict=True):
        assert difference(images, expected).max() <= 1


@pytest.mark.parametrize(
    ("mode", "kind", "options", "is_for_the_device"),
    [
        ("RGB", "JPEG", {}, True),
        ("RGB", "JPEG", {"subsampling": 0}, True),
        ("L", "JPEG", {}, True),
        ("RGB", "JPEG", {"progressive": True}, True),
        ("RGB", "JPEG", {"exif": ROTATED}, True),
        ("RGB", "JPEG", {"keep_rgb": True}, False),
        ("CMYK", "JPEG", {}, False),
        ("RGB", "PNG", {}, False),
        ("RGB", "WEBP", {}, False),
    ],
    ids=["jpeg", "444", "gray", "progressive", "exif-rotated", "rgb", "cmyk", "png", "webp"],
)
def test_every_kind_of_image(
    make_shards: MakeShards, device: Device, mode: str, kind: str, options: dict[str, Any], is_for_the_device: bool
) -> None:
    kinds = [jpeg(3, (150, 131), mode, kind, **options), jpeg(4, (150, 131))]
    packed = make_shards(kinds, 1)
    [(images, labels)] = stream_of(packed, device="cuda", shuffle=False)
    [(expected, _)] = stream_of(packed, shuffle=False)
    assert labels.tolist() == [0, 1]
    assert len(device.files) == 1 + is_for_the_device
    assert difference(images[0], expected[0]).max() <= is_for_the_device
    assert difference(images[1], expected[1]).max() <= 1


@pytest.mark.parametrize("fault", ["other-bytes", "cut-off", "no-image"])
def test_damaged_images(make_shards: MakeShards, device: Device, fault: str) -> None:
    good = [jpeg(number, (90, 70)) for number in range(12)]
    damaged = {"other-bytes": good[5], "cut-off": good[5][:-300], "no-image": b"no image"}[fault]
    packed = make_shards([*good[:5], damaged, *good[6:]], indexed=fault == "other-bytes")
    if fault == "other-bytes":
        shard = packed.folder / "shard-000001.tar"
        shard.write_bytes(shard.read_bytes().replace(good[5][-90:], good[5][-90:-9] + b"damaged!" + good[5][-1:]))
    with pytest.raises(InputError, match=r"0005\.jpg' can't be read: "):
        list(stream_of(packed, device="cuda"))

    stream = stream_of(packed, device="cuda", on_damage="skip")
    batches = list(stream)
    assert sum(len(labels) for _, labels in batches) == 11
    assert len(stream.skipped) == 1
    expected = stream_of(packed, on_damage="skip")
    for (images, labels), (images_of_cpu, labels_of_cpu) in zip(batches, expected, strict=True):
        assert (labels == labels_of_cpu).all()
        assert difference(images, images_of_cpu).max() <= 1
    assert damaged not in device.asked, "nvJPEG doesn't tell that an end is missing"


def test_an_image_that_only_libjpeg_decodes_leaves_its_batch_on_the_device(
    make_shards: MakeShards, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = make_shards([jpeg(number, (90, 70)) for number in range(8)], 1)

    def refuse(files: Sequence[bytes], at: torch.device) -> list[Tensor]:
        if packed.images[3] in files:
            raise RuntimeError("nvjpegDecode failed: 2")
        return device.decode(files, at)

    monkeypatch.setattr(device_decode, "decode_jpegs", refuse)
    pairs = zip(stream_of(packed, device="cuda", batch_size=8), stream_of(packed, batch_size=8), strict=True)
    [((images, _), (expected, _))] = pairs
    assert difference(images, expected).max() <= 1
    assert sorted(device.files) == sorted(image for image in packed.images if image != packed.images[3])


def test_lack_of_memory_is_no_damage(make_shards: MakeShards, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(files: Sequence[bytes], at: torch.device) -> list[Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device_decode, "decode_jpegs", fail)
    with pytest.raises(torch.OutOfMemoryError):
        list(stream_of(make_shards(8), device="cuda", on_damage="skip"))


def labelled(make_shards: MakeShards, samples: int) -> Packed:
    """Images of one color each, so that batches tell which samples they have."""
    colors = [(40 * (number % 6), 40 * (number // 6 % 6), 40 * (number // 36)) for number in range(samples)]
    return make_shards([solid(color) for color in colors], 3)


def solid(color: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 40), color).save(file, "JPEG", quality=95)
    return file.getvalue()


def numbers_of(batches: Any) -> list[int]:
    found = []
    for images, _ in batches:
        red, green, blue = torch.div(images[:, :, 14, 14] + 20, 40, rounding_mode="floor").T.tolist()
        found += [r + 6 * g + 36 * b for r, g, b in zip(red, green, blue, strict=True)]
    return found


@pytest.mark.parametrize("read", [0, 1, 5, 9])
def test_resuming_at_any_batch(make_shards: MakeShards, device: Device, read: int) -> None:
    packed = labelled(make_shards, 37)
    whole = numbers_of(stream_of(packed))
    assert sorted(whole) == list(range(37))
    first, second = stream_of(packed, device="cuda"), stream_of(packed, device="cuda", threads=1)
    begun = numbers_of(itertools.islice(first, read))
    second.load_state_dict(first.state_dict())
    assert begun + numbers_of(second) == whole
    assert sorted(numbers_of(second)) == list(range(37)), "the next epoch"


def test_ranks_share_the_samples_out(make_shards: MakeShards, device: Device) -> None:
    packed = labelled(make_shards, 37)
    streams = [stream_of(packed, device="cuda", rank=rank, world_size=3) for rank in range(3)]
    assert sorted(number for stream in streams for number in numbers_of(stream)) == list(range(37))


@pytest.mark.parametrize(
    "crop", [Crop(0, 0, 300, 200, 96, 64, 20, 4), Crop(40, 9, 120, 150, 56, 56, flip=True), Crop(7, 7, 20, 20, 56, 56)]
)
def test_resizing_on_a_device_is_at_most_one_level_from_pil(crop: Crop) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (200, 300, 3), np.uint8)
    found = crop_and_resize(torch.from_numpy(pixels).permute(2, 0, 1), crop, 56)
    expected = torch.from_numpy(np.array(apply_crop(Image.fromarray(pixels), crop, 56)))
    assert difference(found, expected).max() <= 1


@pytest.mark.usefixtures("_no_notice_yet")
def test_without_a_gpu_the_cpu_decodes_and_says_so_once(
    make_shards: MakeShards, kernel: JpegKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    packed = make_shards(9)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            stream, expected = stream_of(packed, device="cuda"), stream_of(packed)
            for (images, labels), (pixels, numbers) in itertools.chain(*[zip(stream, expected, strict=True)] * 2):
                assert (images == pixels).all()
                assert (labels == numbers).all()
    [notice] = [str(one.message) for one in caught]
    assert notice == (
        "the CPU decodes in place of cuda, since torch finds no GPU; to decode on the GPU, run `nvidia-smi`, and "
        "install a build of torch for CUDA"
    )


def no_torchcodec(files: Sequence[bytes], device: torch.device) -> list[Tensor]:
    raise ModuleNotFoundError("No module named 'torchcodec'")


def no_cuda_in_torchcodec(files: Sequence[bytes], device: torch.device) -> list[Tensor]:
    raise RuntimeError("decode_jpeg: torchcodec was not compiled with nvJPEG support,\nso ...")


@pytest.mark.usefixtures("_no_notice_yet")
@pytest.mark.parametrize(
    ("decode", "notice"),
    [
        (no_torchcodec, r"torchcodec 0.16 or newer isn't there: No module .* run `pip install 'larder-data\[gpu\]'`"),
        (no_cuda_in_torchcodec, "torchcodec fails: decode_jpeg: .* nvJPEG support, so .* for the same CUDA"),
    ],
    ids=["none", "without-cuda"],
)
def test_without_torchcodec_the_cpu_decodes_and_says_so_once(
    make_shards: MakeShards, device: Device, monkeypatch: pytest.MonkeyPatch, decode: Any, notice: str
) -> None:
    packed = make_shards(9)
    monkeypatch.setattr(device_decode, "decode_jpegs", decode)
    device_decode._decode_a_sample.cache_clear()
    with pytest.warns(UserWarning, match=notice):
        batches = list(stream_of(packed, device="cuda"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(stream_of(packed, device="cuda"))
    for (images, _), (expected, _) in zip(batches, stream_of(packed), strict=True):
        assert (images == expected).all()


@pytest.mark.usefixtures("_no_notice_yet")
def test_without_the_kernel_the_cpu_decodes() -> None:
    with pytest.warns(UserWarning, match="the JPEG kernel isn't compiled"):
        assert open_decoder(CPU, None, Decoder(SMALL, None)) is None


@pytest.mark.usefixtures("_no_notice_yet")
def test_gpus_that_this_process_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert find_device(torch.device("cuda")) == torch.device("cuda:1"), "the one that the script has chosen"
    assert find_device(torch.device("cuda:0")) == torch.device("cuda:0")
    with pytest.warns(UserWarning, match="this machine has 2 GPUs; .* choose one of them, counted from 0"):
        assert find_device(torch.device("cuda:2")) is None
    monkeypatch.setattr(device_decode, "get_worker_info", lambda: object())
    with pytest.warns(UserWarning, match="a worker of a DataLoader can't use CUDA; .* iterate over the stream itself"):
        assert find_device(torch.device("cuda")) is None


@pytest.mark.parametrize(
    ("name", "device"),
    [("cuda", torch.device("cuda")), (torch.device("cuda:1"), torch.device("cuda:1")), ("cpu", None), (None, None)],
)
def test_names_of_devices(name: Any, device: torch.device | None) -> None:
    assert parse_device(name) == device


@pytest.mark.parametrize("name", ["mps", "gpu", ""])
def test_other_devices_are_refused(make_shards: MakeShards, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"device='{name}': JPEG files can't be decoded there"):
        stream_of(make_shards(4), device=name)


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_a_device_decodes_for_threads_of_this_process(
    make_shards: MakeShards, device: Device, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    packed = make_shards(9)
    monkeypatch.setattr(ShardStream, "_pins", lambda stream: True)  # only memory of the CPU can be pinned
    stream = stream_of(packed, device="cuda", mode=mode)
    assert sum(len(labels) for _, labels in stream) == 9
    assert stream._child is None
    assert sorted(device.files) == sorted(packed.images)


def test_arrays_are_not_on_a_device(make_shards: MakeShards) -> None:
    with pytest.raises(ConfigurationError, match="device='cuda': ArrayStream gives arrays"):
        ArrayStream(make_shards(4).folder, device="cuda")


def test_torchcodec_is_called_once_for_all_files(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def decode_jpeg(source: Any, *, mode: str, device: Any) -> list[str]:
        calls.append((source, mode, device))
        return ["image"] * len(source)

    module = types.ModuleType("torchcodec.decoders")
    module.decode_jpeg = decode_jpeg  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchcodec", types.ModuleType("torchcodec"))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", module)
    assert device_decode.decode_jpegs([b"one", b"two"], CPU) == ["image", "image"]
    [(contents, mode, device)] = calls
    assert [bytes(content.tolist()) for content in contents] == [b"one", b"two"]
    assert (mode, device) == ("RGB", CPU)


def test_torchcodec_itself(make_shards: MakeShards, kernel: JpegKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own decoder for the CPU; a GPU's has the same interface."""
    pytest.importorskip("torchcodec", reason="needs torchcodec: pip install 'larder-data[gpu]'", exc_type=ImportError)
    monkeypatch.setattr(shard_stream, "find_device", lambda device: CPU)
    packed = make_shards([jpeg(number, (90, 70), exif=ROTATED) for number in range(9)])
    for (images, _), (expected, _) in zip(stream_of(packed, device="cuda"), stream_of(packed), strict=True):
        assert difference(images, expected).max() <= 1


class Stream:
    """A CUDA stream that tells what is done with it."""

    def __init__(self, device: torch.device) -> None:
        self.done = [f"made on {device}"]
        STREAMS.append(self)

    def synchronize(self) -> None:
        self.done.append("synchronized")

    @contextmanager
    def used(self) -> Iterator[None]:
        self.done.append("used")
        yield
        self.done.append("left")


STREAMS: list[Stream] = []


def test_a_thread_waits_for_its_stream_before_it_delivers(kernel: JpegKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    STREAMS.clear()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream.used())
    decoder = DeviceDecoder(torch.device("cuda:0"), kernel, Decoder(SMALL, kernel))

    def decode_twice() -> None:
        for _ in range(2):
            assert decoder.decode([], np.empty((0, 0)), torch.empty(0, 28, 28, 3)) == []

    threads = [threading.Thread(target=decode_twice) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    assert [stream.done for stream in STREAMS] == [["made on cuda:0", *["used", "synchronized", "left"] * 2]] * 2


def test_memory_of_a_batch_is_kept_until_its_consumer_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch gives the memory of a tensor out again when the streams that it has recorded are done."""
    recorded = []
    tensor: Any = types.SimpleNamespace(is_cuda=True, record_stream=recorded.append)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the consumer's on {device}")
    assert deliver(tensor, torch.device("cuda:1")) is tensor
    assert recorded == ["the consumer's on cuda:1"]
