"""Loaders as a training script uses them, over a real store."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal

import pytest

import larder.loaders
from larder.contract import IndexEntry, Manifest, SplitSummary, write_index
from larder.errors import ConfigurationError, InputError, LarderError
from larder.loaders.image_folder import ImageFolderLoader
from larder.loaders.shards import ShardLoader
from larder.store import make_store
from tests.conftest import Store
from tests.integration.conftest import MakePicture
from tests.integration.loaders.conftest import Stored
from tests.integration.loaders.forged import Forged
from tests.markdown import blocks

ROOT = Path(__file__).resolve().parents[3]
LOADERS = {
    "image_folder": "ImageFolderLoader",
    "objects": "ObjectLoader",
    "shards": "ShardLoader",
    "chunks": "ChunkLoader",
}


def run_script(text: str, folder: Path, environ: dict[str, str]) -> str:
    """Run a script outside of the checkout, and return its stdout."""
    script = folder / "script.py"
    script.write_text(text)
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        env=known | {"PYTHONPATH": str(ROOT)} | environ,
        timeout=300,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def example_of_the_readme() -> str:
    """The script in the README."""
    [script] = blocks("README.md", "python")
    return script.text


def example_of_the_package() -> str:
    """The script in the docstring of larder.loaders."""
    return dedent("    import torch\n" + (larder.loaders.__doc__ or "").partition("import torch\n")[2])


@pytest.mark.one_in(2)
@pytest.mark.parametrize("example", [example_of_the_readme(), example_of_the_package()], ids=["readme", "docstring"])
def test_a_few_lines_train_from_shards_in_a_bucket(stored: Stored, tmp_path: Path, example: str) -> None:
    """The library's own examples, with the bucket's name in them."""
    assert len([line for line in example.splitlines() if line.strip()]) <= 11
    script = example.replace("s3://my-bucket/photos-webdataset", stored.uris["shards"]) + "\nprint(loss.item())\n"
    assert float(run_script(script, tmp_path, stored.env).splitlines()[-1]) > 0


def test_the_examples_in_the_docstrings_run(stored: Stored, tmp_path: Path) -> None:
    script = []
    for module, name in LOADERS.items():
        docstring = inspect.getdoc(getattr(importlib.import_module(f"larder.loaders.{module}"), name)) or ""
        example = dedent(docstring.partition("Example:\n")[2]).replace("s3://my-bucket/photos", stored.uris["objects"])
        example = example.replace("/mnt/photos", str(stored.tree)).replace("/tmp/photos", str(tmp_path / "photos"))
        assert "with " in example, module
        script += [f"from larder.loaders.{module} import {name}", example, f"print('{module}')"]
    out = run_script("\n".join(script), tmp_path, stored.env).splitlines()
    assert [line for line in out if line in LOADERS] == list(LOADERS)
    shown = [line for line in out if line not in LOADERS]
    assert len(shown) >= len(LOADERS)
    assert all(re.fullmatch(r"tensor\(.*\) class_0\d", line) for line in shown)


WARM = """
import json
from larder.bench.own_loaders import measure_each
from larder.loaders.chunks import ChunkLoader
from services.jupyter import lab

sizes = lab.cache_sizes("training")
whole = max(sizes, key=sizes.get)

def make(name):
    options = {"cache_dir": lab.scratch("litdata"), "max_cache_size": sizes[name]}
    return ChunkLoader(lab.find("chunks").uri, "training", batch_size=5, workers=1, **options)

by_size = measure_each("", [whole], make, rounds=2, passes=("cold", "warm"))
print(json.dumps(list(by_size.medians(lambda figures: figures["network_bytes"]).values())))
"""


def test_the_larger_cache_of_the_notebook_holds_the_split(stored: Stored, tmp_path: Path) -> None:
    bucket, _, prefix = stored.uris["chunks"].removeprefix("s3://").partition("/")
    place = {"S3_BUCKET": bucket, "S3_PREFIX": prefix.rpartition("/")[0], "LARDER_CACHE_DIR": str(tmp_path / "cache")}
    cold, warm = json.loads(run_script(WARM, tmp_path, stored.env | place).splitlines()[-1])
    assert cold > 0
    assert warm == 0


EPOCHS = """
import json, os, sys
from larder.loaders.chunks import ChunkLoader
from larder.loaders.image_folder import ImageFolderLoader
from larder.loaders.objects import ObjectLoader
from larder.loaders.shards import ShardLoader
from larder.store import make_store
from tests.integration.loaders.forged import Forged

def height(image):
    return image.height

def epochs_of(loader):
    with loader:
        pairs = [[pair for heights, labels in loader for pair in zip(heights.tolist(), labels.tolist())] for _ in "12"]
        return [[sorted(epoch) for epoch in pairs], len(loader), loader.classes, loader.network()]

tree, uris, workers, keys = json.loads(sys.stdin.readline())
options = {"batch_size": 5, "workers": workers, "transform": height}
store = make_store(**keys)
print(json.dumps({
    "image_folder": epochs_of(ImageFolderLoader(tree, "validation", **options)),
    "objects": epochs_of(ObjectLoader(uris["objects"], "validation", store=store, **options)),
    "shards": epochs_of(ShardLoader(uris["shards"], "validation", store=store, **options)),
    "chunks": epochs_of(ChunkLoader(uris["chunks"], "validation", store=store, cache_dir="cache", **options)),
}))
"""


REPLACED = """
import json
from larder.errors import InputError
from larder.loaders.chunks import ChunkLoader
from larder.loaders.image_folder import ImageFolderLoader
from larder.loaders.objects import ObjectLoader
from larder.loaders.shards import ShardLoader

def outcome(kind, *place, **options):
    try:
        with kind(*place, "validation", workers=0, transform=lambda image: image.height, **options) as loader:
            return sum(len(labels) for _, labels in loader)
    except InputError as error:
        return error.what

tree, uris = json.loads(PLACES)
print(json.dumps([{
    "image_folder": outcome(ImageFolderLoader, tree, check_digests=check),
    "objects": outcome(ObjectLoader, uris["objects"], check_digests=check),
    "shards": outcome(ShardLoader, uris["shards"], check_digests=check),
    "webdataset": outcome(ShardLoader, uris["shards"], check_digests=check, library="webdataset"),
    "chunks": outcome(ChunkLoader, uris["chunks"], check_digests=check, cache_dir="cache"),
} for check in (True, False)]))
"""


def altered(content: bytes) -> bytes:
    """Return the same with one byte changed near the end of the first JPEG's coded data."""
    end = content.index(b"\xff\xd9", content.index(b"\xff\xd8"))
    return content[: end - 9] + bytes([content[end - 9] ^ 1]) + content[end - 8 :]


@pytest.fixture(scope="session")
def forged(stored: Stored, s3: Store) -> dict[str, Forged]:
    """Copies of all layouts in the store, to be changed."""
    split = {kind: uri.removeprefix("s3://").partition("/") for kind, uri in stored.uris.items()}
    return {kind: Forged(s3.client, bucket, key, f"altered/{kind}") for kind, (bucket, _, key) in split.items()}


@pytest.mark.exhaustive
def test_what_was_replaced_in_place_is_not_decoded(stored: Stored, forged: dict[str, Forged], tmp_path: Path) -> None:
    """In every layout, replace a file by another valid image of the same length, which no listing shows."""
    tree = shutil.copytree(stored.tree, tmp_path / "tree")
    image = next(iter(sorted((tree / "validation").rglob("*.jpg"))))
    image.unlink()  # a hard link may be
    image.write_bytes(altered(next(iter(sorted((stored.tree / "validation").rglob("*.jpg")))).read_bytes()))
    for kind, end in (("objects", ".jpg"), ("shards", ".tar"), ("chunks", ".bin")):
        path = next(path for path in forged[kind].paths(end) if path.startswith("validation/"))
        forged[kind].replace(path, altered)
    places = json.dumps([str(tree), {kind: place.uri for kind, place in forged.items()}])
    out = run_script(REPLACED.replace("PLACES", repr(places)), tmp_path, stored.env)
    checked, unchecked = json.loads(out.splitlines()[-1])
    assert all("has other bytes than the dataset's index says" in what for what in checked.values()), checked
    assert set(unchecked.values()) == {12}, unchecked


def height(image: Any) -> Any:
    """A transform that is fast."""
    return image.height


@pytest.mark.parametrize("library", ["larder", "webdataset"])
@pytest.mark.parametrize("change", ["class", "less"])
def test_a_shard_with_other_samples_than_its_index(
    stored: Stored,
    forged: dict[str, Forged],
    keys: dict[str, str],
    library: Literal["larder", "webdataset"],
    change: str,
) -> None:
    def relabelled(shard: bytes) -> bytes:
        at = shard.index(b".cls\0") // 512 * 512 + 512
        return shard[:at] + (b"1" if shard[at : at + 1] == b"0" else b"0") + shard[at + 1 :]

    def shortened(shard: bytes) -> bytes:
        at = shard.rindex(b".jpg\0") // 512 * 512
        return shard[:at] + bytes(len(shard) - at)

    path = next(path for path in forged["shards"].paths(".tar") if path.startswith("validation/"))
    forged["shards"].replace(path, relabelled if change == "class" else shortened)
    what = {"class": r"has class \d, and the index says \d", "less": "lacks 1 samples|tar header"}[change]
    with (
        pytest.raises(InputError, match=what),
        ShardLoader(
            forged["shards"].uri,
            "validation",
            workers=0,
            store=make_store(**keys),
            library=library,
            transform=height,
        ) as loader,
    ):
        list(loader)


@pytest.fixture
def keys(stored: Stored) -> dict[str, str]:
    """The store's address and keys, as arguments."""
    names = ("S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    return dict(
        zip(("endpoint_url", "access_key_id", "secret_access_key"), (stored.env[name] for name in names), strict=True)
    )


@pytest.mark.one_in(2)
@pytest.mark.parametrize("workers", [0, 2], ids=["no-workers", "two-workers"])
def test_every_image_once_an_epoch_by_a_transform_of_the_caller(
    stored: Stored, keys: dict[str, str], tmp_path: Path, workers: int
) -> None:
    """The keys are arguments here, and nothing is in the environment."""
    given = json.dumps([str(stored.tree), stored.uris, workers, keys])
    script = EPOCHS.replace("sys.stdin.readline()", repr(given))
    for module, (epochs, batches, classes, network) in json.loads(run_script(script, tmp_path, {})).items():
        assert epochs[0] == epochs[1], module
        assert [sum(label == number for _, label in epochs[0]) for number in range(3)] == [4, 4, 4], module
        assert (batches, classes) == (3, ["class_00", "class_01", "class_02"])
        assert (network is None) == (module == "image_folder")
    assert not list(tmp_path.glob("cache/larder-*"))


@pytest.mark.parametrize(
    ("place", "split", "kind", "what"),
    [
        pytest.param("{shards}", "test", ConfigurationError, "split='test': s3://", id="no-such-split"),
        pytest.param("{shards}x", "training", InputError, "holds no finished data", id="nothing-there"),
        pytest.param("{objects}", "training", InputError, "holds 'objects' data; this loader reads", id="other-layout"),
        pytest.param("s3://bucket", "training", ConfigurationError, "uri='s3://bucket'", id="no-folder"),
        pytest.param("/mnt/shards", "training", ConfigurationError, "uri='/mnt/shards'", id="no-bucket"),
    ],
)
def test_errors_speak_of_arguments_and_name_no_command(
    stored: Stored, keys: dict[str, str], place: str, split: str, kind: type[LarderError], what: str
) -> None:
    with pytest.raises(kind, match=re.escape(what)) as caught:
        ShardLoader(place.format(**stored.uris), split, store=make_store(**keys))
    assert "`make" not in caught.value.next_step


@pytest.mark.parametrize("empty_folders", [True, False], ids=["tree", "store"])
@pytest.mark.parametrize("absent", [0, 1, 2])
def test_labels_are_the_manifests_where_a_split_lacks_a_class(
    tmp_path: Path, picture: MakePicture, absent: int, empty_folders: bool
) -> None:
    """Test with the empty folder of a tree, and without it, as on a mount of foreign objects."""
    paths = [
        f"{split}/class_{label:02d}/{number}.jpg"
        for split in ("training", "validation")
        for label in range(3)
        for number in range(2)
        if (split, label) != ("validation", absent)
    ]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(picture(0))
    if empty_folders:
        (tmp_path / f"validation/class_{absent:02d}").mkdir()
    digest = hashlib.sha256(picture(0)).hexdigest()
    entries = [IndexEntry(path, 1, digest, int(path.split("/")[1][-1])) for path in sorted(paths)]
    (tmp_path / "_larder").mkdir()
    counts = {
        split: [2 * ((split, label) != ("validation", absent)) for label in range(3)]
        for split in ("training", "validation")
    }
    manifest = Manifest(
        artifact="tree",
        dataset="x",
        classes=["a", "b", "c"],
        input={},
        settings={},
        files=len(paths),
        bytes=1,
        splits={
            split: SplitSummary(samples=sum(each), bytes=1, samples_per_class=each) for split, each in counts.items()
        },
        index=write_index(tmp_path / "_larder/index.jsonl", entries),
    )
    (tmp_path / "_larder/manifest.json").write_text(manifest.to_json())
    with ImageFolderLoader(tmp_path, "validation", batch_size=3, workers=0) as loader:
        all_labels = sorted(label for _, labels in loader for label in labels.tolist())
        assert all_labels == [label for label in range(3) if label != absent for _ in "12"]
        assert pickle.loads(pickle.dumps(type(loader.dataset))) is type(loader.dataset), "workers can be spawned"
        names = {Path(path).parent.name: label for path, label in loader.dataset.samples}
        assert names == {f"class_{label:02d}": label for label in range(3) if label != absent}


def test_a_folder_without_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no finished data"):
        ImageFolderLoader(tmp_path, "training")
