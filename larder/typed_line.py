"""Repeat the settings of the command line that the user typed, in the commands that messages suggest."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping

VARIABLE = "LARDER_REPEATED"
"""The environment variable in which the command `larder` passes the line to stages."""
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
"""Settings that choose the data, the store and the runner: a suggestion of another command needs them, too."""
_NEVER_REPEATED = re.compile(r"YES|.*(SECRET|TOKEN|PASSWORD|ACCESS_KEY).*")
_HAS_SECRET = re.compile(r"//[^/]*@|://.*\?", re.DOTALL)
"""A user or a password in an address, or what follows its path, such as a signature."""


def describe_line(command: str, given: Mapping[str, str]) -> str:
    """Return a command line without secrets: the command's name, and the settings that were given with it.

    Example:
        >>> describe_line("index", {"LARDER_SOURCE": "s3://my photos/", "AWS_SECRET_ACCESS_KEY": "key"})
        "index 'LARDER_SOURCE=s3://my photos/'"
    """
    return shlex.join([command, *(f"{name}={value}" for name, value in given.items() if _is_repeated(name, value))])


def settings_for(line: str, command: str, own: Collection[str] = ()) -> str:
    """Return the settings of a command line that a suggested command needs, as words for the shell.

    The same command needs all of them: without its settings, it would do something else. Another one needs REPEATED.

    Args:
        line: The command line, from `describe_line`.
        command: Name of the suggested command.
        own: Names of settings that the suggestion has already.

    Example:
        >>> line = describe_line("index", {"LARDER_DATASET": "photos", "LARDER_SOURCE": "s3://photos/"})
        >>> settings_for(line, "index"), settings_for(line, "etl-wds")
        ('LARDER_DATASET=photos LARDER_SOURCE=s3://photos/', 'LARDER_DATASET=photos')
    """
    typed, *words = shlex.split(line) or [""]
    given = {name: value for name, _, value in (word.partition("=") for word in words) if name not in own}
    names = given if typed == command else [name for name in REPEATED if name in given]
    return shlex.join(f"{name}={given[name]}" for name in names)


def _is_repeated(name: str, value: str) -> bool:
    return bool(value) and not _NEVER_REPEATED.fullmatch(name) and not _HAS_SECRET.search(value)
