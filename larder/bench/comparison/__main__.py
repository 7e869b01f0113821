"""`python -m larder.bench.comparison`: compare arms, as the installed command `larder compare` does."""

from __future__ import annotations

import sys

from larder.errors import ConfigurationError
from larder.progress import Reporter
from larder.stage import StageOutcome, main

try:
    from larder.bench.comparison.settings import ComparisonSettings
except ModuleNotFoundError as error:
    sys.exit(f"larder: compare needs {error.name}: `pip install 'larder-data[bench]'`")

ABOUT = "Measure arms in turn: which one feeds a training loop fastest on this machine, from this store?"


def run(settings: ComparisonSettings, reporter: Reporter) -> StageOutcome:
    """Compare, and print the table."""
    try:
        from larder.bench.comparison.report import compare_and_print
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"compare needs {error.name}, which is not installed", next_step="`pip install 'larder-data[bench]'`"
        ) from error
    return compare_and_print(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("compare", ComparisonSettings, run, ABOUT, program="larder compare"))
