"""`python -m larder.bench.comparison`: compare arms, as the installed command `larder compare` does."""

from __future__ import annotations

import os
import shlex
import sys

from larder.commands import TARGETS
from larder.errors import ConfigurationError
from larder.next_step import StageRun, replace_runs
from larder.progress import Reporter
from larder.stage import StageOutcome, main
from larder.typed_line import VARIABLE, settings_for

try:
    from larder.bench.comparison.settings import ComparisonSettings
except ModuleNotFoundError as error:
    sys.exit(f"larder: compare needs {error.name}: `pip install 'larder-data[bench]'`")

_INSTALLED = {
    ("bench", "compare"): "larder compare",
    ("bench", ""): "larder compare",
    ("bench", "peers"): "larder peers",
    ("report", ""): "larder report",
}
ABOUT = "Measure arms in turn: which one feeds a training loop fastest on this machine, from this store?"


def to_commands(text: str) -> str:
    """Replace the run that compares by the command that is typed without a checkout."""
    return replace_runs(text, _command)


def _command(run: StageRun) -> str | None:
    """Return the installed command, or for what only a checkout has, that of a checkout."""
    command = _INSTALLED.get((run.stage, run.task))
    if command is not None:
        repeated = settings_for(os.environ.get(VARIABLE, ""), command.split()[-1], dict(run.settings))
        words = [command, *(f"{name}={shlex.quote(value)}" for name, value in run.settings), repeated]
        return f"`{' '.join(filter(None, words))}`"
    target = TARGETS.get((run.stage, run.task))
    return target and f"`python3 -m larder {target}` in a checkout of larder"


def run(settings: ComparisonSettings, reporter: Reporter) -> StageOutcome:
    """Compare, and print the table."""
    try:
        from larder.bench.comparison.command import compare_and_print
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"compare needs {error.name}, which is not installed", next_step="`pip install 'larder-data[bench]'`"
        ) from error
    return compare_and_print(settings, reporter, to_commands=to_commands)


if __name__ == "__main__":
    sys.exit(main("compare", ComparisonSettings, run, ABOUT, program="larder compare", to_commands=to_commands))
