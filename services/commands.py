"""Turn the names of stages in messages into the commands that the user types.

Errors and next steps name stages (larder.next_step). This module replaces each name by a command when a stage starts.
LARDER_FRONT_DOOR selects the form of the command. The command `larder` sets it for the stages that it starts;
compose/stage.yaml sets it for stages started with docker compose. If it is unset, the stage was started as
`python -m services.<stage>`. LARDER_REPEATED has the command line that the user typed, without secrets: a suggested
command needs some of its settings, too, and the same command needs all of them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import larder.stage
from larder.cli.invocation import INVOCATIONS
from larder.commands import TARGETS
from larder.errors import ConfigurationError
from larder.next_step import StageRun, parse_run, replace_runs
from larder.progress import Reporter
from larder.settings import Settings
from larder.stage import StageOutcome
from larder.typed_line import VARIABLE, settings_for
from services.host_paths import show_host_paths

S = TypeVar("S", bound=Settings)

INVOCATION_VARIABLE = "LARDER_FRONT_DOOR"
KNOWN_INVOCATIONS = (*INVOCATIONS, "compose", "")
HELP = "--help"

_SHORT_NAMES = {"LARDER_ARM": "ARM", ("s3-bucket", "S3_BUCKET"): "BUCKET"}
"""Short names of settings, for all targets or for one."""
_COMPOSE_FILES = {
    "extract": "local",
    "transform": "local",
    "shard": "wds",
    "shards": "wds",
    "optimize": "lit",
    "chunks": "lit",
}
"""Compose files whose name differs from their stage, by stage or by loaded artifact."""
_LOADED_ARTIFACTS = {"shards": "webdataset", "chunks": "litdata"}
"""Values of LARDER_LOAD, by task."""
_SERVERS = {"mount": "mount", "s3": "minio", "jupyter": "jupyter", "ray": "ray-head ray-worker"}
_SERVER_SUBCOMMANDS = {
    "up": "up -d --wait {}",
    "down": "rm --stop --force {}",
    "unmount": "rm --stop --force {}",
    "logs": "logs --no-log-prefix {}",
    "url": "exec {} python -m services.jupyter --task url",
}
"""Compose subcommands for servers, by task."""
_RAY_COMMANDS = {"up": "ray start --head", "down": "ray stop"}


def main(
    stage: str,
    kind: type[S],
    work: Callable[[S, Reporter], StageOutcome],
    about: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Run a stage with `larder.stage.main`, show commands in its messages, and return its exit code."""
    invocation = os.environ.get(INVOCATION_VARIABLE, "")

    def run_checked(settings: S, reporter: Reporter) -> StageOutcome:
        if invocation not in KNOWN_INVOCATIONS:
            raise ConfigurationError(
                f"{INVOCATION_VARIABLE}={invocation!r} must be one of {', '.join(filter(None, KNOWN_INVOCATIONS))}",
                next_step="unset it: it is set by the command that starts a stage",
            )
        outcome = work(settings, reporter)
        return outcome._replace(next_step="") if _runs_next_step(stage, outcome.next_step, invocation) else outcome

    program = command(StageRun(stage), "compose") if invocation == "compose" else None
    return larder.stage.main(
        stage,
        kind,
        run_checked,
        about,
        argv,
        program=program or f"python -m services.{stage}",
        to_commands=partial(replace_stage_names, invocation=invocation),
        rewrite=show_host_paths,
    )


def replace_stage_names(text: str, invocation: str | None = None) -> str:
    """Replace the names of stages in a message by commands. `invocation` overrides LARDER_FRONT_DOOR."""
    chosen = os.environ.get(INVOCATION_VARIABLE, "") if invocation is None else invocation

    def shown(run: StageRun) -> str | None:
        if run.stage == "clean" and chosen not in INVOCATIONS:
            return "remove the volume"
        words = command(run, chosen)
        return words and f"`{words}`"

    return replace_runs(text, shown)


def command(run: StageRun, invocation: str) -> str | None:
    """Return the command for a run, or None if `run` names an unknown stage."""
    target = TARGETS.get((run.stage, "" if run.task == HELP else run.task))
    if target is None:
        return None
    if invocation in INVOCATIONS and run.task == HELP:
        return f"{INVOCATIONS['module' if invocation == 'make' else invocation]} {target} {HELP}"
    if invocation in INVOCATIONS:
        named = [
            (_SHORT_NAMES.get(name) or _SHORT_NAMES.get((target, name), name), value) for name, value in run.settings
        ]
        own = {name for pair in zip(named, run.settings, strict=True) for name, _ in pair}
        repeated = settings_for(os.environ.get(VARIABLE, ""), target, own)
        return " ".join([INVOCATIONS[invocation], target, *_assignments(named), *([repeated] if repeated else [])])
    if run.stage == "report":  # which is no stage, and needs no image
        return f"{INVOCATIONS['module']} report"
    if invocation == "compose":
        return " ".join([*_assignments(run.settings), _by_compose(run)])
    loaded = (
        [("LARDER_LOAD", _LOADED_ARTIFACTS[run.task])] if run.stage == "load" and run.task in _LOADED_ARTIFACTS else []
    )
    return " ".join([*_assignments([*run.settings, *loaded]), _by_python(run)])


def _by_compose(run: StageRun) -> str:
    file = _COMPOSE_FILES.get(run.task) or _COMPOSE_FILES.get(run.stage, run.stage)
    task = "up" if (run.stage, run.task) in (("mount", ""), ("jupyter", "")) else run.task
    if run.stage in _SERVERS and task in _SERVER_SUBCOMMANDS:
        return f"docker compose -f compose/{file}.yaml {_SERVER_SUBCOMMANDS[task].format(_SERVERS[run.stage])}"
    return f"docker compose -f compose/{file}.yaml run --rm {run.stage}{_flags(run)}"


def _by_python(run: StageRun) -> str:
    return _RAY_COMMANDS[run.task] if run.stage == "ray" else f"python -m services.{run.stage}{_flags(run)}"


def _flags(run: StageRun) -> str:
    if run.task in ("", *_LOADED_ARTIFACTS):
        return ""
    return f" --{run.task.removeprefix('--')}" if run.task in (HELP, "unmount") else f" --task {run.task}"


def _assignments(settings: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{name}={shlex.quote(value)}" for name, value in settings]


def _runs_next_step(stage: str, next_step: str, invocation: str) -> bool:
    """Return whether the target runs the next stage itself."""
    run = parse_run(next_step.strip("`"))
    if invocation not in INVOCATIONS or run is None or run.stage == stage:
        return False
    target = TARGETS.get((stage, ""))
    return target is not None and target == TARGETS.get((run.stage, run.task))
