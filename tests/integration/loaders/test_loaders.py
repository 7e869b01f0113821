"""Loaders as a training script uses them, over a real store."""

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import larder.loaders
from larder.errors import ConfigurationError, InputError
from larder.loaders.image_folder import ImageFolderLoader
from larder.loaders.shards import ShardLoader
from larder.store import make_store

ROOT = Path(__file__).resolve().parents[3]
LOADERS = {
    "image_folder": "ImageFolderLoader", "objects": "ObjectLoader", "shards": "ShardLoader", "chunks": "ChunkLoader",
}  # fmt: skip
pytestmark = pytest.mark.parametrize("store", ["seaweedfs"], indirect=True)


def run_script(text: str, folder: Path, environ: dict[str, str]) -> str:
    """Run a script in a folder that isn't the checkout's, as its user does; its stdout."""
    script = folder / "script.py"
    script.write_text(text)
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=known | {"PYTHONPATH": str(ROOT)} | environ, timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def uri(environ: dict[str, str], name: str) -> str:
    return f"s3://{environ['S3_BUCKET']}/{environ['S3_PREFIX']}/{name}"


def test_ten_lines_train_from_shards_in_a_bucket(packed, tmp_path):
    """The library's own example, with the bucket's name in it."""
    example = "import torch\n" + larder.loaders.__doc__.partition("import torch\n")[2]
    script = dedent(example.replace("\n    ", "\n")).replace(
        "s3://my-bucket/photos-webdataset", uri(packed, "Food-11-webdataset")
    )
    assert len([line for line in script.splitlines() if line.strip()]) <= 10
    store = {name: packed[name] for name in ("S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    assert float(run_script(f"{script}\nprint(loss.item())\n", tmp_path, store)) > 0


@pytest.mark.parametrize("module", LOADERS)
def test_the_example_in_the_docstring_runs(packed, loaded, tree, tmp_path, module):
    name = LOADERS[module]
    docstring = inspect.getdoc(getattr(importlib.import_module(f"larder.loaders.{module}"), name))
    example = dedent(docstring.partition("Example:\n")[2]).replace("batch_size=64", "batch_size=16")
    example = example.replace("s3://my-bucket/photos", uri(loaded, "Food-11"))
    example = example.replace("/mnt/photos", str(tree)).replace("/tmp/photos", str(tmp_path / "photos"))
    out = run_script(f"from larder.loaders.{module} import {name}\n{example}", tmp_path, packed)
    assert len(out.splitlines()) >= 3
    assert all(re.fullmatch(r"tensor\(.*\) class_0\d", line) for line in out.splitlines())


EPOCHS = """
import json, os
from larder.loaders.{module} import {name}
from larder.store import make_store

def height(image):
    return image.height

place, cache, workers = {arguments}
store = make_store(
    endpoint_url=os.environ["ENDPOINT"], access_key_id=os.environ["ACCESS"], secret_access_key=os.environ["SECRET"]
)
with {name}(place, "validation", batch_size=5, workers=workers, transform=height, **{more}) as loader:
    epochs = [
        sorted(pair for heights, labels in loader for pair in zip(heights.tolist(), labels.tolist())) for _ in range(2)
    ]
    print(json.dumps([epochs, len(loader), loader.classes, loader.network()]))
"""


@pytest.mark.parametrize("workers", [0, 2], ids=["no-workers", "two-workers"])
@pytest.mark.parametrize("module", LOADERS)
def test_every_image_once_an_epoch_by_a_transform_of_the_caller(packed, loaded, packs, tmp_path, module, workers):
    """The keys are arguments here, and nothing is in the environment."""
    name = {"image_folder": "", "objects": "Food-11", "shards": "Food-11-webdataset", "chunks": "Food-11-litdata"}[
        module
    ]
    place = uri(packed, name) if name else str(packs.tree)
    more = {"image_folder": "{}", "chunks": "{'store': store, 'cache_dir': cache}"}.get(module, "{'store': store}")
    script = EPOCHS.format(
        module=module, name=LOADERS[module], more=more, arguments=(place, str(tmp_path / "cache"), workers)
    )
    keys = {"ENDPOINT": packed["S3_ENDPOINT_URL"], "ACCESS": packed["AWS_ACCESS_KEY_ID"]}
    out = run_script(script, tmp_path, keys | {"SECRET": packed["AWS_SECRET_ACCESS_KEY"]})
    epochs, batches, classes, network = json.loads(out)
    assert epochs[0] == epochs[1]
    assert [sum(label == number for _, label in epochs[0]) for number in range(3)] == [4, 4, 4]
    assert (batches, classes) == (3, ["class_00", "class_01", "class_02"])
    assert (network is None) == (module == "image_folder")
    assert not list(tmp_path.glob("cache/larder-*"))


def test_errors_speak_of_arguments_and_name_no_command(packed, packs, tmp_path):
    store = make_store(
        endpoint_url=packed["S3_ENDPOINT_URL"], access_key_id=packed["AWS_ACCESS_KEY_ID"],
        secret_access_key=packed["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    for make, kind, what in (
        (
            lambda: ShardLoader(uri(packed, "Food-11-webdataset"), "test", store=store),
            ConfigurationError,
            "split='test'",
        ),
        (lambda: ShardLoader(uri(packed, "nothing"), "training", store=store), InputError, "holds no finished data"),
        (lambda: ShardLoader(f"s3://{packed['S3_BUCKET']}", "training", store=store), ConfigurationError, "uri='s3://"),
        (lambda: ShardLoader("/mnt/shards", "training", store=store), ConfigurationError, "uri='/mnt/shards'"),
        (lambda: ImageFolderLoader(tmp_path, "training"), InputError, "holds no finished data"),
    ):
        with pytest.raises(kind, match=re.escape(what)) as caught:
            make()
        assert "make " not in caught.value.next_step.removeprefix("make the data")
