"""What each command runs: its steps, as data."""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """One run of a stage.

    Attributes:
        file: The compose file, `compose/<file>.yaml`; on the host it says which volume is written.
        stage: The stage, `services.<stage>`, and the service of that name.
        flags: The stage's flags.
        unless: A setting that leaves the step out when it is set.
    """

    file: str
    stage: str
    flags: tuple[str, ...] = ()
    unless: str = ""


REACH = ("--task", "reach")
PIPELINES: dict[str, tuple[Step, ...]] = {
    "etl-local": (
        Step("local", "transform", ("--check",)),  # a mistake in its settings shows before gigabytes are fetched
        Step("local", "extract"),
        Step("local", "transform"),
    ),
    "etl-load": (Step("load", "load"),),
    "etl-wds": (
        # Nothing is packed for a store that can't take it. The data volume says which data set it is.
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
    "s3-check": (Step("s3", "s3", ("--task", "check")),),
    "s3-bucket": (Step("s3", "s3", ("--task", "bucket")),),
}
STAGES = ("extract", "transform", "load", "index", "shard", "optimize", "verify", "s3", "mount", "bench", "jupyter")
COMPOSE_FILES = {"extract": "local", "transform": "local", "shard": "wds", "optimize": "lit"}
"""The compose files of stages that are not named like their stage."""


def compose_file(stage: str) -> str:
    """Return the compose file that builds a stage's image."""
    return COMPOSE_FILES.get(stage, stage)


def stages_of(steps: tuple[Step, ...]) -> tuple[str, ...]:
    """Return the stages of some steps, each once, in order."""
    return tuple(dict.fromkeys(step.stage for step in steps))
