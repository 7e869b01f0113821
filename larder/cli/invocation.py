"""How users start larder, so that messages show commands in the form that they type."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

INVOCATIONS = {"make": "make", "larder": "larder", "module": "python3 -m larder"}
"""What users type, by the value of LARDER_FRONT_DOOR for stages."""


def help_command(invocation: str, command: str = "") -> str:
    """Return the command that shows a command's settings, or all commands. Make can't forward `--help`."""
    if invocation == "make":
        return f"python3 -m larder {command} --help" if command else "make help"
    return " ".join(filter(None, (invocation, command, "--help")))


REPEATED = (
    "RUNNER",
    "LARDER_HOME",
    "LARDER_DATASET",
    "LARDER_DATA_VOLUME",
    "S3_ENDPOINT_URL",
    "S3_BUCKET",
    "RCLONE_CONTAINER",
    "S3_PREFIX",
)
"""Settings that choose the data, the store and the runner: a suggested command needs them, too."""


def repeat_settings(given: Mapping[str, str]) -> str:
    """Return the settings of a command line that the next command needs, as words for the shell.

    Example:
        >>> repeat_settings({"LARDER_DATASET": "photos", "LARDER_SOURCE": "my photos.zip"})
        'LARDER_DATASET=photos'
    """
    # A user or a password in an address isn't repeated.
    return shlex.join(f"{name}={given[name]}" for name in REPEATED if given.get(name) and "@" not in given[name])
