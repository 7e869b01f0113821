"""The command that runs a stage, as the one who reads a message would type it.

Errors and next steps name stages (larder.next_step). Here, where a stage starts, each name becomes a command.
LARDER_FRONT_DOOR says which: the front door sets it for the stages that it starts, and compose/stage.yaml for those
that people start by compose alone. Without it, the stage was started as `python -m services.<stage>`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import larder.stage
from larder.cli.front_doors import FRONT_DOORS
from larder.errors import ConfigurationError
from larder.next_step import Run, parse_run, replace_runs
from larder.progress import Reporter
from larder.settings import Settings
from larder.stage import Outcome

S = TypeVar("S", bound=Settings)

VARIABLE = "LARDER_FRONT_DOOR"
WAYS = (*FRONT_DOORS, "compose", "")
HELP = "--help"

TARGETS = {
    ("extract", ""): "etl-local", ("transform", ""): "etl-local", ("load", ""): "etl-load",
    ("shard", ""): "etl-wds", ("load", "shards"): "etl-wds", ("optimize", ""): "etl-lit", ("load", "chunks"): "etl-lit",
    ("index", ""): "index", ("verify", ""): "verify", ("bench", ""): "bench", ("bench", "train"): "train",
    ("mount", ""): "mount", ("mount", "unmount"): "unmount",
    ("s3", ""): "s3-check", ("s3", "check"): "s3-check", ("s3", "bucket"): "s3-bucket", ("s3", "up"): "s3-up",
    ("s3", "down"): "s3-down", ("jupyter", ""): "jupyter", ("jupyter", "up"): "jupyter",
    ("jupyter", "down"): "jupyter-down", ("jupyter", "url"): "jupyter-url", ("jupyter", "logs"): "jupyter-logs",
    ("ray", "up"): "ray-up", ("ray", "down"): "ray-down", ("clean", "wds"): "clean-wds", ("clean", "lit"): "clean-lit",
}  # fmt: skip
"""What the front doors call each stage and task."""
_SHORT = {"LARDER_ARM": "ARM", ("s3-bucket", "S3_BUCKET"): "BUCKET"}
"""Settings that a target takes under a shorter name."""
_FILES = {"extract": "local", "transform": "local", "shard": "wds", "shards": "wds", "optimize": "lit", "chunks": "lit"}
"""The compose files that aren't called as their stage is, by stage or by what is loaded."""
_LOADED = {"shards": "webdataset", "chunks": "litdata"}
"""What load calls what is loaded."""
_SERVERS = {"mount": "mount", "s3": "minio", "jupyter": "jupyter", "ray": "ray-head ray-worker"}
_ON_SERVERS = {
    "up": "up -d --wait {}", "down": "rm --stop --force {}", "unmount": "rm --stop --force {}",
    "logs": "logs --no-log-prefix {}", "url": "exec {} python -m services.jupyter --task url",
}  # fmt: skip
"""What compose does with a server, by task."""
_RAY = {"up": "ray start --head", "down": "ray stop"}


def main(
    stage: str, kind: type[S], work: Callable[[S, Reporter], Outcome], about: str, argv: Sequence[str] | None = None
) -> int:
    """Run a stage as `larder.stage.main` does, with commands in its messages. Returns its exit code."""
    way = os.environ.get(VARIABLE, "")

    def checked(settings: S, reporter: Reporter) -> Outcome:
        if way not in WAYS:
            raise ConfigurationError(
                f"{VARIABLE}={way!r} must be one of {', '.join(filter(None, WAYS))}",
                next_step="unset it: the command that starts a stage sets it",
            )
        outcome = work(settings, reporter)
        return outcome._replace(next_step="") if _follows(stage, outcome.next_step, way) else outcome

    program = command(Run(stage), "compose") if way == "compose" else None
    return larder.stage.main(
        stage, kind, checked, about, argv, program=program or f"python -m services.{stage}",
        in_commands=partial(in_commands, way=way),
    )  # fmt: skip


def in_commands(text: str, way: str | None = None) -> str:
    """Replace the stages that a message names by commands. `way` is LARDER_FRONT_DOOR's value, or another."""
    chosen = os.environ.get(VARIABLE, "") if way is None else way

    def shown(run: Run) -> str | None:
        if run.stage == "clean" and chosen not in FRONT_DOORS:
            return "remove the volume"
        found = command(run, chosen)
        return found and f"`{found}`"

    return replace_runs(text, shown)


def command(run: Run, way: str) -> str | None:
    """Return the command for a run, or None where `run` names no stage of ours."""
    target = TARGETS.get((run.stage, "" if run.task == HELP else run.task))
    if target is None:
        return None
    if way in FRONT_DOORS and run.task == HELP:
        return f"{FRONT_DOORS['module' if way == 'make' else way]} {target} {HELP}"
    if way in FRONT_DOORS:
        named = [(_SHORT.get(name) or _SHORT.get((target, name), name), value) for name, value in run.settings]
        return " ".join([FRONT_DOORS[way], target, *_assigned(named)])
    if way == "compose":
        return " ".join([*_assigned(run.settings), _by_compose(run)])
    loaded = [("LARDER_LOAD", _LOADED[run.task])] if run.stage == "load" and run.task in _LOADED else []
    return " ".join([*_assigned([*run.settings, *loaded]), _by_python(run)])


def _by_compose(run: Run) -> str:
    file = _FILES.get(run.task) or _FILES.get(run.stage, run.stage)
    task = "up" if (run.stage, run.task) in (("mount", ""), ("jupyter", "")) else run.task
    if run.stage in _SERVERS and task in _ON_SERVERS:
        return f"docker compose -f compose/{file}.yaml {_ON_SERVERS[task].format(_SERVERS[run.stage])}"
    return f"docker compose -f compose/{file}.yaml run --rm {run.stage}{_flags(run)}"


def _by_python(run: Run) -> str:
    return _RAY[run.task] if run.stage == "ray" else f"python -m services.{run.stage}{_flags(run)}"


def _flags(run: Run) -> str:
    if run.task in ("", *_LOADED):
        return ""
    return f" --{run.task.removeprefix('--')}" if run.task in (HELP, "unmount") else f" --task {run.task}"


def _assigned(settings: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{name}={shlex.quote(value)}" for name, value in settings]


def _follows(stage: str, next_step: str, way: str) -> bool:
    """Whether the front door's target goes on with the next stage by itself."""
    run = parse_run(next_step.strip("`"))
    if way not in FRONT_DOORS or run is None or run.stage == stage:
        return False
    target = TARGETS.get((stage, ""))
    return target is not None and target == TARGETS.get((run.stage, run.task))
