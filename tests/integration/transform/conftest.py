"""Volumes filled by the real extract stage, and readers of transform's result."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from larder.contract import find_manifest, read_index
from larder.progress import Reporter
from services.extract.extract import extract as run_extract
from services.extract.settings import ExtractSettings
from tests.integration.conftest import MakePicture, Result, Stage


@dataclass(frozen=True)
class Tree:
    """What transform wrote and must not vary from run to run."""

    manifest: bytes
    index: bytes
    files: dict[str, str]

    def lines(self) -> dict[str, dict[str, Any]]:
        """The index by path."""
        return {line["path"]: line for line in map(json.loads, self.index.decode().splitlines())}


Extract = Callable[[Mapping[str, bytes]], Path]


@pytest.fixture
def extract(tmp_path: Path, volume: Path) -> Extract:
    """Makes a folder of files and extracts it into the volume. Returns the folder with the extracted files."""

    def extract(files: Mapping[str, bytes]) -> Path:
        source = tmp_path / "source"
        for path, data in files.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes(data)
        flags = [f"--source={source}", f"--volume={volume}", "--workers=1"]
        run_extract(ExtractSettings.load("extract", flags, {}), Reporter("extract", "line"))
        return volume / "raw"

    return extract


@pytest.fixture
def food11(picture: MakePicture) -> dict[str, bytes]:
    """A small Food-11: two images in each of two classes of each split."""
    names = [
        f"{split}/{label}_{number}.jpg"
        for split in ("training", "validation", "evaluation")
        for label in (3, 10)
        for number in (0, 1)
    ]
    return {name: picture(number) for number, name in enumerate(names)}


def content(folder: Path) -> dict[str, str]:
    """The sha256 of every file below a folder."""
    return {
        os.fsdecode(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


Snapshot = Callable[[Path], dict[str, str]]


@pytest.fixture(scope="session")
def snapshot() -> Snapshot:
    """The sha256 of every file below a folder."""
    return content


ReadTree = Callable[[], Tree]


@pytest.fixture
def tree(volume: Path) -> ReadTree:
    """Verifies the tree on the volume, every byte of it, and returns it."""

    def tree() -> Tree:
        folder = volume / "Food-11"
        manifest = find_manifest(folder)
        assert manifest is not None
        files = {path: digest for path, digest in content(folder).items() if not path.startswith("_larder/")}
        entries = list(read_index(folder, manifest))
        assert {entry.path: entry.sha256 for entry in entries} == files
        assert [entry.path for entry in entries] == sorted(files, key=str.encode)
        for entry in entries:
            assert (folder / entry.path).stat().st_size == entry.bytes
        assert manifest.files == len(entries) == sum(split.samples for split in manifest.splits.values())
        assert manifest.bytes == sum(entry.bytes for entry in entries)
        for name, split in manifest.splits.items():
            labels = [entry.label for entry in entries if entry.path.startswith(f"{name}/")]
            assert split.samples == len(labels)
            assert split.samples_per_class == [labels.count(label) for label in range(len(manifest.classes))]
        meta = folder / "_larder"
        return Tree((meta / "manifest.json").read_bytes(), (meta / "index.jsonl").read_bytes(), files)

    return tree


class Transform(Protocol):
    """What the fixture `transform` gives."""

    def __call__(self, *flags: str, **options: Any) -> Result: ...


@pytest.fixture
def transform(stage: Stage) -> Transform:
    """Runs the stage in one process unless told otherwise: `transform("--recipe=csv")`."""

    def transform(*flags: str, **options: Any) -> Result:
        env = {"LARDER_WORKERS": "1", "LARDER_LOG": "json"} | options.pop("env", {})
        return stage("transform", *flags, env=env, **options)

    return transform


ReadRejects = Callable[[], dict[str, str]]


@pytest.fixture
def rejects(volume: Path) -> ReadRejects:
    """The rejects: path and reason."""

    def rejects() -> dict[str, str]:
        lines = (volume / "rejects" / "rejects.jsonl").read_text().splitlines()
        return {line["path"]: line["reason"] for line in map(json.loads, lines)}

    return rejects
