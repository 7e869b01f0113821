import hashlib
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from larder.contract import META, IndexEntry, IndexSummary, Manifest, SplitSummary

ROOT = Path(__file__).resolve().parents[3]
IMAGES = {"training": 40, "validation": 12}
CLASSES = 3
OURS = ("LARDER_", "FOOD11_", "S3_", "AWS_", "RCLONE_")


@pytest.fixture
def tree(tmp_path):
    """A tree as the transform stage leaves it: 40 training images, 12 for validation, 3 classes."""
    return make_tree(tmp_path / "Food-11")


def make_tree(folder: Path) -> Path:
    entries = [write_image(folder, split, number) for split, images in IMAGES.items() for number in range(images)]
    index = "".join(entry.to_json() + "\n" for entry in sorted(entries)).encode()
    manifest = Manifest(
        artifact="tree",
        dataset="Food-11",
        classes=[f"class_{label:02d}" for label in range(CLASSES)],
        splits={split: summary(split, entries) for split in IMAGES},
        input={},
        settings={},
        files=len(entries),
        bytes=sum(entry.bytes for entry in entries),
        index=IndexSummary(bytes=len(index), sha256=hashlib.sha256(index).hexdigest()),
    )
    (folder / META).mkdir()
    (folder / META / "index.jsonl").write_bytes(index)
    (folder / META / "manifest.json").write_text(manifest.to_json())
    return folder


def write_image(folder: Path, split: str, number: int) -> IndexEntry:
    label = number % CLASSES
    path = f"{split}/class_{label:02d}/{number}.jpg"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    size = random.Random(number).choice([(300, 260), (260, 300), (400, 300)])
    Image.effect_noise(size, 60).convert("L" if number == 5 else "RGB").save(folder / path)
    content = (folder / path).read_bytes()
    return IndexEntry(path, len(content), hashlib.sha256(content).hexdigest(), label)


def summary(split: str, entries: list[IndexEntry]) -> SplitSummary:
    own = [entry for entry in entries if entry.path.startswith(f"{split}/")]
    return SplitSummary(
        samples=len(own),
        bytes=sum(entry.bytes for entry in own),
        samples_per_class=[sum(entry.label == label for entry in own) for label in range(CLASSES)],
    )


@pytest.fixture
def start_bench(tree, tmp_path):
    """Start the stage as people do; flags as arguments, environment variables by keyword."""

    def start(*flags: str, **environ: str) -> subprocess.Popen[str]:
        known = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        ours = {
            "FOOD11_DATA_DIR": str(tree),
            "LARDER_RESULTS": str(tmp_path / "results"),
            "LARDER_BATCH_SIZE": "8",
            "LARDER_WARMUP_BATCHES": "2",
            "LARDER_WORKERS": "2",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "services.bench", *flags], cwd=ROOT, env={**known, **ours, **environ}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


@pytest.fixture
def run_bench(start_bench):
    """Run the stage to its end: its exit code, stdout and stderr."""

    def run(*flags: str, **environ: str) -> tuple[int, str, str]:
        with start_bench(*flags, **environ) as process:
            out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    return run
