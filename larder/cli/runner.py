"""The interface of the two runners, and the choice between them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from larder.cli import process
from larder.cli.console import ask, say
from larder.cli.pipelines import Step
from larder.cli.process import Call
from larder.cli.settings import Settings, shown
from larder.errors import ConfigurationError

ENGINE_SECONDS = 15.0


class Runner(Protocol):
    """What runs the stages. Every method is a pure function of the settings: it returns calls and runs nothing."""

    name: str

    def prepare(self, stages: Sequence[str]) -> list[Call]:
        """Return what has to run before these stages can: builds, installations."""

    def command(self, step: Step, flags: Sequence[str] = ()) -> Call:
        """Return the call that runs one step, with further flags."""

    def up(self, server: str) -> Call:
        """Return the call that starts a server in the background: minio, mount, jupyter, ray."""

    def down(self, server: str) -> Call:
        """Return the call that stops it."""

    def logs(self, server: str) -> Call:
        """Return the call that prints what it has logged."""

    def volume(self, name: str) -> str:
        """Return what a person calls a volume: its name, or its folder."""


class Engine(NamedTuple):
    """What is known of the container engine.

    Attributes:
        state: ready, missing (no engine answers), or broken: it is there, and can't be used as it is.
        fault: What is wrong with it.
        remedy: What helps.
    """

    state: str
    fault: str = ""
    remedy: str = ""


def look_for_engine(environ: Mapping[str, str]) -> Engine:
    """Return whether containers can be run, and if not, why."""
    if shutil.which("docker", path=environ.get("PATH")) is None:
        return Engine("missing", "Docker is not installed", "install Docker with its compose plugin")
    try:
        code, _, said = process.output(
            ("docker", "version", "--format", "{{.Server.Version}}"), environ, ENGINE_SECONDS
        )
    except ConfigurationError as error:
        return Engine("broken", "the container engine does not answer", error.next_step)
    if code:
        return _refusal(said)
    code, _, _ = process.output(("docker", "compose", "version"), environ, ENGINE_SECONDS)
    if code:
        return Engine("broken", "Docker has no compose plugin", "install docker-compose-plugin, then run this again")
    return Engine("ready")


def _refusal(said: str) -> Engine:
    if "permission denied" in said.lower():
        return Engine(
            "broken", "Docker is there, and you may not use it",
            "sudo usermod -aG docker $USER, then log in again; or RUNNER=host, without containers",
        )  # fmt: skip
    if any(words in said for words in ("Cannot connect", "failed to connect", "no such file", "connection refused",
                                       "ECONNREFUSED", "no such host")):  # fmt: skip
        return Engine("missing", "no container engine answers", "start Docker (`sudo systemctl start docker`)")
    first = next(iter(said.strip().splitlines()), "it says nothing")
    remedy = "`docker version` says more; or RUNNER=host, without containers"
    return Engine("broken", f"Docker can't be used: {shown(first)}", remedy)


def choose(settings: Settings) -> str:
    """Return the runner: the one that is set, else compose where an engine answers, else host.

    An engine that is there and can't be used is not passed over in silence: the user is asked, or told.

    Raises:
        ConfigurationError: The engine can't be used, and nobody is there to be asked.
    """
    runner = settings.get("RUNNER")
    if runner == "host":
        return runner
    engine = look_for_engine(settings.environ)
    if engine.state == "ready":
        return "compose"
    if runner == "compose":
        raise ConfigurationError(f"RUNNER=compose, but {engine.fault}", next_step=engine.remedy)
    if engine.state == "missing":
        say(f"{engine.fault}: the stages run as processes")
        return "host"
    if ask(f"{engine.fault}. Run the stages as processes in .venv/ instead? [y/N] ", yes=False):
        return "host"
    remedy = engine.remedy if "RUNNER=host" in engine.remedy else f"{engine.remedy}; or RUNNER=host, without containers"
    raise ConfigurationError(engine.fault, next_step=remedy)
