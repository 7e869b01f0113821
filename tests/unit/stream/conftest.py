"""Shards of generated images, with larder's index and without."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from larder import tar
from larder.contract import IndexEntry, IndexWriter, Manifest, SampleEntry, SplitSummary
from larder.stream import build
from larder.stream.kernel import JpegKernel

CLASSES = ["cat", "dog", "eel"]


class Packed(NamedTuple):
    """A split's shards, and what is in them."""

    folder: Path
    keys: list[str]
    images: list[bytes]
    labels: list[int]


MakeShards = Callable[..., Packed]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernel, freshly compiled, with all warnings being errors."""
    try:
        return build.build(tmp_path_factory.mktemp("kernel"), ["-Wall", "-Wextra", "-Wshadow", "-Werror"])
    except build.BuildError as error:
        why = f"the JPEG kernel can't be compiled: install gcc and libjpeg62-turbo-dev ({error})"
        pytest.fail(why) if os.environ.get("REQUIRE") == "all" else pytest.skip(why)


@pytest.fixture(params=["pil", "kernel"])
def kernel_or_none(request: pytest.FixtureRequest) -> JpegKernel | None:
    """What decodes: PIL alone, or the kernel and PIL."""
    return JpegKernel(request.getfixturevalue("library")) if request.param == "kernel" else None


def jpeg(
    number: int, size: tuple[int, int] = (48, 40), mode: str = "RGB", kind: str = "JPEG", **options: object
) -> bytes:
    """A small image of noise and a gradient; each number gives different pixels."""
    random = np.random.default_rng(number)
    noise = random.integers(0, 64, (size[1], size[0], 3)) + np.linspace(0, 190, size[0])[None, :, None]
    file = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).convert(mode).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def make_shards(tmp_path: Path) -> MakeShards:
    """Write shards: make_shards(samples, shards, indexed=True)."""

    def make(
        samples: int | Sequence[bytes] = 20, shards: int = 3, *, indexed: bool = True, name: str = "packed"
    ) -> Packed:
        images = [jpeg(number) for number in range(samples)] if isinstance(samples, int) else list(samples)
        keys = [f"class_{number % 3:02d}/{number:04d}" for number in range(len(images))]
        labels = [number % 3 for number in range(len(images))]
        folder = tmp_path / name
        (folder / "training").mkdir(parents=True)
        entries, files = [], []
        for shard, numbers in enumerate(np.array_split(np.arange(len(images)), shards)):
            content = bytearray()
            path = f"training/shard-{shard:06d}.tar"
            for number in numbers.tolist():
                content += tar.header(f"{keys[number]}.jpg", len(images[number]))
                offset = len(content)
                content += images[number] + tar.padding(len(images[number]))
                content += tar.header(f"{keys[number]}.cls", 1) + b"%d" % labels[number] + tar.padding(1)
                digest = hashlib.sha256(images[number]).hexdigest()
                source = f"training/{keys[number]}.jpg"
                entries.append(SampleEntry(path, offset, len(images[number]), digest, labels[number], source))
            content += tar.END
            (folder / path).write_bytes(content)
            files.append(IndexEntry(path, len(content), hashlib.sha256(content).hexdigest()))
        if indexed:
            _write_manifest(folder, files, entries, labels)
        return Packed(folder / "training", keys, images, labels)

    return make


def _write_manifest(folder: Path, files: list[IndexEntry], entries: list[SampleEntry], labels: list[int]) -> None:
    (folder / "_larder").mkdir()
    with IndexWriter(folder / "_larder/index.jsonl") as index, IndexWriter(folder / "_larder/samples.jsonl") as samples:
        for file in files:
            index.add(file)
        for entry in entries:
            samples.add(entry)
    counts = [labels.count(label) for label in range(len(CLASSES))]
    split = SplitSummary(samples=len(labels), bytes=sum(entry.bytes for entry in entries), samples_per_class=counts)
    manifest = Manifest(
        artifact="webdataset",
        dataset="test",
        classes=CLASSES,
        splits={"training": split},
        input={},
        settings={},
        files=len(files),
        bytes=sum(file.bytes for file in files),
        index=index.summary,
        samples=samples.summary,
    )
    (folder / "_larder/manifest.json").write_text(manifest.to_json())


def tar_of(members: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar archive, written by Python's tarfile."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()
