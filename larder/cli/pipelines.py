"""The steps of each command, as data."""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """One run of a stage.

    Attributes:
        file: The compose file, `compose/<file>.yaml`; on the host it determines the volume that is written.
        stage: The stage, `services.<stage>`, and the service of that name.
        flags: The stage's flags.
        unless: A setting that skips the step if it is set.
    """

    file: str
    stage: str
    flags: tuple[str, ...] = ()
    unless: str = ""


REACH = ("--task", "reach")
PIPELINES: dict[str, tuple[Step, ...]] = {
    "etl-local": (
        Step("local", "transform", ("--check",)),  # report mistakes in settings before downloading gigabytes
        Step("local", "extract"),
        Step("local", "transform"),
    ),
    "etl-load": (Step("load", "load"),),
    "etl-wds": (
        # Check the store before packing. The data volume determines the dataset.
        Step("load", "load", (*REACH, "--folder", "webdataset"), unless="LARDER_DEST"),
        Step("wds", "shard"),
        Step("wds", "load", unless="LARDER_DEST"),
    ),
    "etl-lit": (
        Step("load", "load", (*REACH, "--folder", "litdata"), unless="LARDER_DEST"),
        Step("lit", "optimize"),
        Step("lit", "load", unless="LARDER_DEST"),
    ),
    "index": (Step("index", "index"),),
    "verify": (Step("verify", "verify"),),
    "bench": (Step("bench", "bench"),),
    "train": (Step("bench", "bench", ("--task", "train")),),
    "compare": (Step("bench", "bench", ("--task", "compare")),),
    "peers": (Step("bench", "bench", ("--task", "peers")),),
    "s3-check": (Step("s3", "s3", ("--task", "check")),),
    "s3-bucket": (Step("s3", "s3", ("--task", "bucket")),),
}
STAGES = ("extract", "transform", "load", "index", "shard", "optimize", "verify", "s3", "mount", "bench", "jupyter")
COMPOSE_FILES = {"extract": "local", "transform": "local", "shard": "wds", "optimize": "lit"}
"""Compose files whose names differ from their stage's."""


def compose_file(stage: str) -> str:
    """Return the compose file that builds a stage's image."""
    return COMPOSE_FILES.get(stage, stage)


def stages_of(steps: tuple[Step, ...]) -> tuple[str, ...]:
    """Return the distinct stages of some steps, in order."""
    return tuple(dict.fromkeys(step.stage for step in steps))
