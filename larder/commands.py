"""The command of each stage, for errors that end a script which uses the library.

What a stage says goes through services/commands.py, which knows how the user started it. A script was started by none
of these ways, but has the command `larder`.
"""

from __future__ import annotations

import shlex

from larder.next_step import StageRun, replace_runs

TARGETS = {
    ("extract", ""): "etl-local",
    ("transform", ""): "etl-local",
    ("load", ""): "etl-load",
    ("shard", ""): "etl-wds",
    ("load", "shards"): "etl-wds",
    ("optimize", ""): "etl-lit",
    ("load", "chunks"): "etl-lit",
    ("index", ""): "index",
    ("verify", ""): "verify",
    ("bench", ""): "bench",
    ("bench", "train"): "train",
    ("bench", "compare"): "compare",
    ("report", ""): "report",
    ("bench", "peers"): "peers",
    ("mount", ""): "mount",
    ("mount", "unmount"): "unmount",
    ("s3", ""): "s3-check",
    ("s3", "check"): "s3-check",
    ("s3", "bucket"): "s3-bucket",
    ("s3", "up"): "s3-up",
    ("s3", "down"): "s3-down",
    ("jupyter", ""): "jupyter",
    ("jupyter", "up"): "jupyter",
    ("jupyter", "down"): "jupyter-down",
    ("jupyter", "url"): "jupyter-url",
    ("jupyter", "logs"): "jupyter-logs",
    ("ray", "up"): "ray-up",
    ("ray", "down"): "ray-down",
    ("clean", "wds"): "clean-wds",
    ("clean", "lit"): "clean-lit",
}
"""Command of larder, or target of make, for each stage and task."""


def name_commands(text: str) -> str:
    """Replace the names of stages in a message by commands of `larder`.

    Example:
        >>> name_commands("run `shard` and `load shards`, or `s3 bucket S3_BUCKET=photos`")
        'run `larder etl-wds`, or `larder s3-bucket S3_BUCKET=photos`'
    """
    return replace_runs(text, _command)


def _command(run: StageRun) -> str | None:
    target = TARGETS.get((run.stage, run.task))
    if target is None:
        return None
    words = (f"{name}={shlex.quote(value)}" for name, value in run.settings)
    return f"`{' '.join(['larder', target, *words])}`"
