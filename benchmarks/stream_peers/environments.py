"""Find the Python that runs a contestant: the one that runs the arm of the same library."""

from __future__ import annotations

import sys
from pathlib import Path

from larder.bench import arms, peer_environments
from services.commands import replace_stage_names


def python_of(arm: str) -> Path | None:
    """Return the Python that runs an arm, or None if its packages are missing; for any other name, this Python."""
    if arm not in arms.ARMS:
        return Path(sys.executable)
    if arms.missing_packages(arm):
        return None
    elsewhere = arms.is_elsewhere(arm)
    return peer_environments.python_of(arms.ARMS[arm].environment) if elsewhere else Path(sys.executable)


def install_command(arm: str) -> str:
    """Return the command that installs an arm's packages."""
    return replace_stage_names(arms.install_command(arm), "larder").strip("`")
