"""Names that compose derives from LARDER_DATASET, without make and without Python."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from larder.dataset import DEFAULT, ArtifactLayout, volume_of

Run = Callable[..., "subprocess.CompletedProcess[str]"]
VOLUMES: dict[str, dict[str, ArtifactLayout]] = {
    "local": {"baseline": "tree"},
    "load": {"baseline": "tree"},
    "bench": {"baseline": "tree"},
    "wds": {"baseline": "tree", "wds_out": "webdataset"},
    "lit": {"baseline": "tree", "lit_out": "litdata"},
    "ray": {"baseline": "tree", "shard": "webdataset"},  # LARDER_RAY_STAGE chooses
    "index": {"baseline": "tree"},
    "verify": {"baseline": "tree", "wds_out": "webdataset", "lit_out": "litdata"},
    "jupyter": {"baseline": "tree"},
}
OVERRIDDEN = {"LARDER_DATA_VOLUME": "", "LARDER_WDS_VOLUME": "", "LARDER_LIT_VOLUME": ""}


def config(run: Run, file: str, **settings: str) -> dict[str, Any]:
    command = ("docker", "compose", "-f", f"compose/{file}.yaml", "config", "--format", "json")
    return dict(json.loads(run(*command, check=True, **OVERRIDDEN | settings).stdout))


@pytest.mark.parametrize("file", VOLUMES)
@pytest.mark.parametrize("dataset", ["", "Photos.2026"])
def test_volumes_are_named_as_by_the_library(run: Run, file: str, dataset: str) -> None:
    named = config(run, file, LARDER_DATASET=dataset)["volumes"]
    for key, layout in VOLUMES[file].items():
        assert named[key]["name"] == volume_of(dataset or DEFAULT, layout)


def test_a_volume_that_is_named_wins(run: Run) -> None:
    named = config(run, "local", LARDER_DATASET="photos", LARDER_DATA_VOLUME="mine")["volumes"]
    assert named["baseline"]["name"] == "mine"


@pytest.mark.parametrize("file", sorted(VOLUMES.keys() - {"ray"}))
def test_stages_get_the_name(run: Run, file: str) -> None:
    for service in config(run, file, LARDER_DATASET="photos")["services"].values():
        assert service["environment"]["LARDER_DATASET"] == "photos"


@pytest.mark.parametrize(("file", "layout"), [("wds", "webdataset"), ("lit", "litdata")])
def test_what_was_packed_is_what_is_loaded(run: Run, file: str, layout: str) -> None:
    environment = config(run, file, LARDER_LOAD="tree")["services"]["load"]["environment"]
    assert environment["LARDER_LOAD"] == layout
