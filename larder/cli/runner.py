"""The interface of the two runners, and the choice between them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from larder.cli import process
from larder.cli.console import ask, print_message
from larder.cli.pipelines import Step
from larder.cli.process import Call
from larder.cli.setting_values import printable
from larder.cli.settings import ResolvedSettings
from larder.errors import ConfigurationError

ENGINE_SECONDS = 15.0


class Runner(Protocol):
    """Turns steps into calls. All methods are pure functions of the settings: they return calls and run nothing."""

    name: str

    def prepare(self, stages: Sequence[str]) -> list[Call]:
        """Return the calls that prepare these stages: builds or installations."""

    def command(self, step: Step, flags: Sequence[str] = ()) -> Call:
        """Return the call that runs one step, with further flags."""

    def up(self, server: str) -> Call:
        """Return the call that starts a server in the background: minio, mount, jupyter, ray."""

    def down(self, server: str) -> Call:
        """Return the call that stops a server."""

    def logs(self, server: str) -> Call:
        """Return the call that prints a server's log."""

    def volume(self, name: str) -> str:
        """Return a volume's name or folder, as shown to users."""


class ContainerEngine(NamedTuple):
    """State of the container engine.

    Attributes:
        state: ready, missing (no engine answers), or broken (present but unusable).
        fault: What is wrong with it.
        next_step: How to fix it.
    """

    state: str
    fault: str = ""
    next_step: str = ""


def detect_container_engine(environ: Mapping[str, str]) -> ContainerEngine:
    """Return whether containers can run, and if not, why."""
    if shutil.which("docker", path=environ.get("PATH")) is None:
        return ContainerEngine("missing", "Docker is not installed", "install Docker with its compose plugin")
    try:
        code, _, message = process.capture(
            ("docker", "version", "--format", "{{.Server.Version}}"), environ, ENGINE_SECONDS
        )
    except ConfigurationError as error:
        return ContainerEngine("broken", "the container engine does not answer", error.next_step)
    if code:
        return _refusal(message)
    code, _, _ = process.capture(("docker", "compose", "version"), environ, ENGINE_SECONDS)
    if code:
        return ContainerEngine(
            "broken", "Docker has no compose plugin", "install docker-compose-plugin, then run this again"
        )
    return ContainerEngine("ready")


def _refusal(message: str) -> ContainerEngine:
    if "permission denied" in message.lower():
        return ContainerEngine(
            "broken",
            "Docker is installed, but you may not use it",
            "sudo usermod -aG docker $USER, then log in again; or RUNNER=host, without containers",
        )
    if any(
        words in message
        for words in (
            "Cannot connect",
            "failed to connect",
            "no such file",
            "connection refused",
            "ECONNREFUSED",
            "no such host",
        )
    ):
        return ContainerEngine("missing", "no container engine answers", "start Docker (`sudo systemctl start docker`)")
    first = next(iter(message.strip().splitlines()), "no message")
    next_step = "`docker version` says more; or RUNNER=host, without containers"
    return ContainerEngine("broken", f"Docker can't be used: {printable(first)}", next_step)


def choose(settings: ResolvedSettings) -> str:
    """Return the runner: RUNNER if it is set, else compose if an engine answers, else host.

    If an engine is present but unusable, the user is asked; the choice never silently falls back to host.

    Raises:
        ConfigurationError: If the engine is unusable, and the user doesn't agree to run without it.
    """
    runner = settings.get("RUNNER")
    if runner == "host":
        return runner
    engine = detect_container_engine(settings.environ)
    if engine.state == "ready":
        return "compose"
    if runner == "compose":
        raise ConfigurationError(f"RUNNER=compose, but {engine.fault}", next_step=engine.next_step)
    if engine.state == "missing":
        print_message(f"{engine.fault}: the stages run as processes")
        return "host"
    if ask(f"{engine.fault}. Run the stages as processes in .venv/ instead? [y/N] "):
        return "host"
    next_step = engine.next_step
    if "RUNNER=host" not in next_step:
        next_step += "; or RUNNER=host, without containers"
    raise ConfigurationError(engine.fault, next_step=next_step)
