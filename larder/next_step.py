"""Name the stages that a message tells users to run, and replace these names by commands.

A message names a stage in backticks, with its task and settings: "run `load LARDER_FORCE=true` again". The library
doesn't know which command starts the stage. `StageRun` writes such a name. The program that shows the message replaces
it, with `replace_runs`, by the command that its users type.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import NamedTuple

_NAME = re.compile(r"[a-z][a-z0-9]*")
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*=.*", re.DOTALL)
_CHAIN = re.compile(r"`[^`\n]+`(?: and `[^`\n]+`)*")


class StageRun(NamedTuple):
    """A stage to run, or one of its tasks, with settings. As a string, it is the name in a message.

    Example:
        >>> f"run {StageRun('load').with_settings(LARDER_FORCE='true')} again"
        'run `load LARDER_FORCE=true` again'
    """

    stage: str
    task: str = ""
    settings: tuple[tuple[str, str], ...] = ()

    def with_settings(self, **settings: str) -> StageRun:
        """Return the same run with more settings, given by environment variable. Empty values are left out."""
        return self._replace(settings=(*self.settings, *((name, value) for name, value in settings.items() if value)))

    def __str__(self) -> str:
        words = [self.stage, self.task, *(f"{name}={shlex.quote(value)}" for name, value in self.settings)]
        return f"`{' '.join(filter(None, words))}`"


def parse_run(words: str) -> StageRun | None:
    """Parse the text between two backticks. Return None if it doesn't name a stage, as in `pip install ray`."""
    try:
        stage, *rest = shlex.split(words)
    except ValueError:  # no words, or an open quote
        return None
    settings = [word for word in rest if _SETTING.fullmatch(word)]
    tasks = rest[: len(rest) - len(settings)]
    if not _NAME.fullmatch(stage) or len(tasks) > 1 or rest[len(tasks) :] != settings:
        return None
    pairs = (word.partition("=") for word in settings)
    return StageRun(stage, "".join(tasks), tuple((name, value) for name, _, value in pairs))


def replace_runs(text: str, shown: Callable[[StageRun], str | None]) -> str:
    """Replace each run named in `text` by what `shown` returns for it.

    If runs joined by "and" become the same command, it appears once. A name stays as it is if `shown` returns None.

    Example:
        >>> commands = {StageRun("shard"): "pack", StageRun("load"): "pack"}
        >>> replace_runs("run `shard` and `load`, then `dmesg`", commands.get)
        'run pack, then `dmesg`'
    """

    def replaced(chain: re.Match[str]) -> str:
        names = chain[0].strip("`").split("` and `")
        return " and ".join(dict.fromkeys(_shown(name, shown) for name in names))

    return _CHAIN.sub(replaced, text)


def _shown(name: str, shown: Callable[[StageRun], str | None]) -> str:
    run = parse_run(name)
    return (shown(run) if run else None) or f"`{name}`"


def with_force(text: str) -> str:
    """Add LARDER_FORCE=true to each run named in `text`, so that the stage runs even if its result is up to date."""
    return replace_runs(text, lambda run: str(run.with_settings(LARDER_FORCE="true")))


CREATED_BY = {
    "raw": f"{StageRun('extract')}",
    "tree": f"{StageRun('extract')} and {StageRun('transform')}",
    "objects": f"{StageRun('load')}",
    "index": f"{StageRun('index')}",
    "webdataset": f"{StageRun('shard')} and {StageRun('load', 'shards')}",
    "litdata": f"{StageRun('optimize')} and {StageRun('load', 'chunks')}",
}
"""The runs that make each artifact (`larder.contract`); for shards and chunks, those that make them in a store."""
