"""Prepare the arm of another library: make its environment, and the layout that only it reads.

`python -m larder.bench.prepare_peer` does so without a checkout, as the command `larder peers`.
"""

from __future__ import annotations

import sys
from typing import Annotated

from pydantic import AfterValidator, Field

from larder.bench import peer_environments
from larder.bench.arm_errors import map_arm_errors, require_bucket
from larder.bench.arms import ARMS, arm_names, describe_missing, install_command, missing_packages
from larder.bench.peer_data import layout_of, write_peer_data
from larder.bench.settings import LoaderSettings
from larder.errors import ConfigurationError
from larder.next_step import CREATED_BY, StageRun
from larder.progress import Reporter
from larder.stage import StageOutcome, main

ABOUT = "Prepare the arm of another library for a comparison: its environment, and data that only it reads."


def _validated_arm(name: str) -> str:
    if name not in arm_names():
        raise ValueError(f"unknown arm; must be one of: {', '.join(arm_names())}")
    return name


class PeerSettings(LoaderSettings):
    """The arm to prepare, and where data are."""

    arm: Annotated[str, AfterValidator(_validated_arm)] = Field(alias="LARDER_ARM", description="the arm to prepare")


def _needs_preparation(name: str) -> bool:
    return bool(ARMS[name].environment) or layout_of(name) is not None


def prepare_peer(name: str, settings: LoaderSettings, reporter: Reporter) -> StageOutcome:
    """Create what an arm needs besides its packages and larder's layouts, and replace what exists already.

    Raises:
        ConfigurationError: If the arm needs nothing of this kind, or a package is missing.
        LarderError: What `peer_environments.install` and `peer_data.write_peer_data` raise.
    """
    environment, layout = ARMS[name].environment, layout_of(name)
    if not _needs_preparation(name):
        others = ", ".join(filter(_needs_preparation, ARMS))
        raise ConfigurationError(
            f"{name} needs no data or environment of its own",
            next_step=f"set LARDER_ARM to one of {others}; or run {StageRun('bench', 'compare')}",
        )
    if environment and missing_packages(name):
        reporter.event("installing", f"making the environment of {name}, {peer_environments.folder_of(environment)}")
        peer_environments.install(environment)
    if missing := missing_packages(name):
        raise ConfigurationError(f"{name} can't run: {describe_missing(missing)}", next_step=install_command(name))
    where = ""
    if layout is not None:
        with map_arm_errors(type(settings), CREATED_BY["tree"]):
            if layout != "tar":
                require_bucket(settings, name)
            where = write_peer_data(settings, layout, reporter)
    return StageOutcome(
        f"{name} is ready" + (f": it reads {where}" if where else ""), f"{StageRun('bench', 'compare')}"
    )


def _run(settings: PeerSettings, reporter: Reporter) -> StageOutcome:
    return prepare_peer(settings.arm, settings, reporter)


if __name__ == "__main__":
    from larder.bench.comparison.__main__ import to_commands

    sys.exit(main("peers", PeerSettings, _run, ABOUT, program="larder peers", to_commands=to_commands))
