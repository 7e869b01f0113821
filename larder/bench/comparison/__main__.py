"""`python -m larder.bench.comparison`: compare arms, as the installed command `larder compare` does."""

from __future__ import annotations

import sys

from larder.errors import ConfigurationError
from larder.next_step import StageRun, replace_runs
from larder.progress import Reporter
from larder.stage import StageOutcome, main

try:
    from larder.bench.comparison.settings import ComparisonSettings
except ModuleNotFoundError as error:
    sys.exit(f"larder: compare needs {error.name}: `pip install 'larder-data[bench]'`")

ABOUT = "Measure arms in turn: which one feeds a training loop fastest on this machine, from this store?"


def to_commands(text: str) -> str:
    """Replace the run that compares by the command that is typed without a checkout."""
    return replace_runs(text, _command)


def _command(run: StageRun) -> str | None:
    if (run.stage, run.task) not in (("bench", "compare"), ("bench", "")):
        return None
    return f"`{' '.join(['larder compare', *(f'{name}={value}' for name, value in run.settings)])}`"


def run(settings: ComparisonSettings, reporter: Reporter) -> StageOutcome:
    """Compare, and print the table."""
    try:
        from larder.bench.comparison.report import compare_and_print
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"compare needs {error.name}, which is not installed", next_step="`pip install 'larder-data[bench]'`"
        ) from error
    return compare_and_print(settings, reporter, to_commands=to_commands)


if __name__ == "__main__":
    sys.exit(main("compare", ComparisonSettings, run, ABOUT, program="larder compare", to_commands=to_commands))
