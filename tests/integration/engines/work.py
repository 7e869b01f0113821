"""The tasks of these tests, and a stage that runs them: a module that workers can import."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from pydantic import Field

from larder.engines import open_engine
from larder.errors import InputError
from larder.progress import Reporter
from larder.settings import Settings
from larder.stage import StageOutcome, main


def refuse(number: int) -> int:
    """Fail like a stage's work."""
    raise InputError(f"{number} is not wanted", next_step="give another number")


def who(number: int) -> tuple[int, int]:
    """Return the task and the worker that does it."""
    return number, os.getpid()


def lack(number: int) -> int:
    """Import code that isn't on the node."""
    import services.no_such_stage  # type: ignore[import-not-found]

    return number + len(services.no_such_stage.__name__)


def whose(folder: Path, number: int) -> int:
    """Write the worker's process id to `folder`, wait until there are two, and return it."""
    (folder / str(os.getpid())).touch()
    end = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    return os.getpid()


def die_once(folder: Path, number: int) -> int:
    """Kill the worker at the first try of the third task."""
    mark = folder / "died"
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die(number: int) -> int:
    """Kill the worker at every try."""
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def hold(folder: Path, number: int) -> int:
    """Write the worker's process id to `folder`, and wait for the file `go`."""
    note = folder / f"{number}.new"
    note.write_text(str(os.getpid()))
    note.rename(folder / str(number))
    while not (folder / "go").exists():
        time.sleep(0.02)
    return number


class HoldSettings(Settings):
    """The settings of the stage `hold`."""

    address: str = Field("", alias="RAY_ADDRESS", description="the cluster")
    folder: Path = Field(alias="LARDER_TEST_FOLDER", description="where its workers leave their process ids")


def hold_all(settings: HoldSettings, reporter: Reporter) -> StageOutcome:
    """Run `hold` for twenty tasks on a cluster."""
    engine = open_engine("ray", 2, 0, settings.address, reporter.event)
    with engine(partial(hold, settings.folder), range(20)) as results:
        return StageOutcome(f"{sum(results)}", "")


if __name__ == "__main__":
    # From the module by its name: a worker has another __main__.
    from tests.integration.engines import work

    sys.exit(main("hold", work.HoldSettings, work.hold_all, "Holds until it is let go."))
