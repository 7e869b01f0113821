"""The stages that a message tells people to run.

A message names a stage in backticks, with its task and its settings: "run `load LARDER_FORCE=true` again". That holds
however larder is used. `Run` writes such a name, and `replace_runs` finds it again: the program at the outermost layer
puts the command there that its user types.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import NamedTuple

_NAME = re.compile(r"[a-z][a-z0-9]*")
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*=.*", re.DOTALL)
_CHAIN = re.compile(r"`[^`\n]+`(?: and `[^`\n]+`)*")


class Run(NamedTuple):
    """A stage to run, or one of its tasks, with settings for it.

    Its text is its name in a message:

    >>> f"run {Run('load').having(LARDER_FORCE='true')} again"
    'run `load LARDER_FORCE=true` again'
    """

    stage: str
    task: str = ""
    settings: tuple[tuple[str, str], ...] = ()

    def having(self, **settings: str) -> Run:
        """Return the same run with more settings, by environment variable. Empty ones are left out."""
        return self._replace(settings=(*self.settings, *((name, value) for name, value in settings.items() if value)))

    def __str__(self) -> str:
        words = [self.stage, self.task, *(f"{name}={shlex.quote(value)}" for name, value in self.settings)]
        return f"`{' '.join(filter(None, words))}`"


def parse_run(words: str) -> Run | None:
    """Return the run that a text between backticks names; None where it names none, as in `pip install ray`."""
    try:
        stage, *rest = shlex.split(words)
    except ValueError:  # no words, or an open quote
        return None
    settings = [word for word in rest if _SETTING.fullmatch(word)]
    tasks = rest[: len(rest) - len(settings)]
    if not _NAME.fullmatch(stage) or len(tasks) > 1 or rest[len(tasks) :] != settings:
        return None
    pairs = (word.partition("=") for word in settings)
    return Run(stage, "".join(tasks), tuple((name, value) for name, _, value in pairs))


def replace_runs(text: str, shown: Callable[[Run], str | None]) -> str:
    """Replace each run that `text` names by what `shown` returns for it.

    Runs that are joined by "and" and that one command does are named once. A name for which `shown` returns None
    stays as it is.

    >>> replace_runs("run `shard` and `load`, then `dmesg`", {Run("shard"): "make wds", Run("load"): "make wds"}.get)
    'run make wds, then `dmesg`'
    """

    def replaced(chain: re.Match[str]) -> str:
        names = chain[0].strip("`").split("` and `")
        return " and ".join(dict.fromkeys(_shown(name, shown) for name in names))

    return _CHAIN.sub(replaced, text)


def _shown(name: str, shown: Callable[[Run], str | None]) -> str:
    run = parse_run(name)
    return (shown(run) if run else None) or f"`{name}`"


def forced(text: str) -> str:
    """Return `text` with LARDER_FORCE=true for each run that it names, which then works though all is up to date."""
    return replace_runs(text, lambda run: str(run.having(LARDER_FORCE="true")))


MAKES = {
    "raw": f"{Run('extract')}",
    "tree": f"{Run('extract')} and {Run('transform')}",
    "objects": f"{Run('load')}",
    "index": f"{Run('index')}",
    "webdataset": f"{Run('shard')} and {Run('load', 'shards')}",
    "litdata": f"{Run('optimize')} and {Run('load', 'chunks')}",
}
"""What makes each artifact (larder.contract), packs in a store."""
