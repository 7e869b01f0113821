"""One run of the front door: the settings, the runner, and what carries out or prints its calls."""

from __future__ import annotations

import os
import shlex
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from larder.cli import compose, dotenv, host, process, project, runner
from larder.cli.compose import Compose
from larder.cli.console import ask, say
from larder.cli.front_doors import FRONT_DOORS
from larder.cli.host import Host
from larder.cli.pipelines import Step, stages_of
from larder.cli.process import Call, Interrupts
from larder.cli.settings import Settings
from larder.dataset import DEFAULT, volume_of


class Failed(Exception):
    """A call failed with this exit code, which becomes the command's; its error is already printed."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class App:
    """What a command works with.

    Args:
        settings: The settings, without a runner yet.
        handler: Who hears signals.
        dry_run: Whether calls are printed in place of being run.
        front_door: How the user came, as they type it: one of FRONT_DOORS.
    """

    def __init__(self, settings: Settings, handler: Interrupts, dry_run: bool = False, front_door: str = "larder"):
        self.settings, self.handler, self.dry_run, self.front_door = settings, handler, dry_run, front_door
        self._runner: Compose | Host | None = None
        self._to_print: list[str] = []

    @property
    def root(self) -> Path:
        """The checkout."""
        return self.settings.root

    @property
    def environ(self) -> Mapping[str, str]:
        """The user's environment, and how they came. Compose needn't warn about containers that no `--rm` removed."""
        [name] = [name for name, typed in FRONT_DOORS.items() if typed == self.front_door]
        return {"COMPOSE_IGNORE_ORPHANS": "1", **self.settings.environ, "LARDER_FRONT_DOOR": name}

    @property
    def runner(self) -> Compose | Host:
        """The runner, chosen when it is first needed."""
        if self._runner is None:
            name = runner.choose(self.settings)
            self.settings = self.settings.with_runner(name)
            where = f" (processes in .venv/, data under {self.settings.home}/)" if name == "host" else ""
            say(f"runner: {name}{where}")
            self._runner = self._make(name)
            self._tell_where_earlier_data_lie(self._runner)
        return self._runner

    def _make(self, name: str) -> Compose | Host:
        if name == "host":
            return Host(self.settings)
        named = bool(self.settings.get("COMPOSE_PROJECT_NAME"))  # which compose reads by itself
        name = project.PLAIN if named else project.name_of(self.root, self.environ)
        return Compose(self.settings, name, compose.look(self.environ), compose.revision_of(self.settings))

    def choose_runner(self) -> None:
        """Choose the runner now, so that the settings know it."""
        self._runner = self.runner

    @property
    def is_compose(self) -> bool:
        """Whether the stages run in containers."""
        return isinstance(self.runner, Compose)

    def _tell_where_earlier_data_lie(self, found: Compose | Host) -> None:
        """Name the volume where earlier versions put every data set, if only that is there."""
        settings, earlier = self.settings, volume_of(DEFAULT)
        if not settings.get("LARDER_DATASET") or settings.data_volume == earlier:
            return
        if not found.has_volume(settings.data_volume) and found.has_volume(earlier):
            say(f"there is no volume {settings.data_volume} yet; data of an earlier version may lie in {earlier}: set "
                f"LARDER_DATA_VOLUME={earlier}")  # fmt: skip

    def change(self, **given: str) -> App:
        """Return the same app with other settings."""
        changed = Settings(self.root, {**self.settings.given, **given}, self.settings.environ, self.settings.files)
        return App(changed, self.handler, self.dry_run, self.front_door)

    def name(self, command: str) -> str:
        """Return a command as the user types it."""
        return f"{self.front_door} {command}"

    # --- calls

    def run(self, call: Call) -> None:
        """Run a call. Raises Failed with its exit code when that isn't 0."""
        if (code := self.code(call)) != 0:
            raise Failed(code)

    def code(self, call: Call) -> int:
        """Run a call and return its exit code; a dry run prints it."""
        if self.dry_run:
            self.print_call(call)
            return 0
        if is_run(call):
            call = labelled(call, f"larder.run={uuid.uuid4().hex}")
        code = process.run(
            call, self.root, self.environment_of(call), self.handler, self._end_container, self.name("doctor")
        )
        if code == process.INTERRUPTED and self.handler.number:
            raise Failed(code)
        return code

    def output(self, call: Call) -> tuple[int, str, str]:
        """Run a short call and return its exit code, stdout and stderr."""
        return process.output(call.argv, self.environment_of(call), seconds=60.0, folder=self.root)

    def environment_of(self, call: Call) -> dict[str, str]:
        """Return the environment of a call."""
        values = dotenv.read([self.root / file for file in call.env_files], self.environ) if call.env_files else {}
        return process.environment(call, self.environ, values)

    def print_call(self, call: Call) -> None:
        """Print a call as a line of shell. The lines make one command, which ends with the first that fails."""
        line, folder = process.shown(call), call.folder or self.root
        self._to_print.append(line if folder == Path.cwd() else f"(cd {shlex.quote(str(folder))} && {line})")

    def finish(self) -> None:
        """Print the calls of a dry run, below whatever was said."""
        if self._to_print:
            print(" &&\n".join(self._to_print), flush=True)

    # --- stages

    def prepare(self, *stages: str) -> None:
        """Bring images or the virtual environment up to date."""
        found = self.runner
        calls = found.prepare(stages)
        if isinstance(found, Host) and not self.dry_run:
            host.install(self.settings, stages)  # without another process
            calls = calls[1:]
        for call in calls:
            self.run(call)

    def steps(self, steps: Sequence[Step], flags: Sequence[str] = (), prepare: bool = True) -> None:
        """Run some steps, one after the other, until one fails; before the first, prepare their stages."""
        wanted = [step for step in steps if not (step.unless and self.settings.get(step.unless))]
        calls = [self.runner.command(step, flags) for step in wanted]  # a mistake shows before anything is built
        if prepare:
            self.prepare(*stages_of(tuple(wanted)))
        for call in calls:
            self.run(call)

    def stage(self, file: str, stage: str, *flags: str) -> Call:
        """Return the call that runs a stage."""
        return self.runner.command(Step(file, stage, flags))

    def ask(self, question: str) -> bool:
        """Return whether the user agrees; a dry run doesn't ask."""
        return self.dry_run or ask(question, self.settings.yes)

    def make_folders(self, *folders: Path | None) -> None:
        """Make the folders that a measuring container needs; what it writes to belongs to its user."""
        wanted = [str(folder) for folder in folders if folder is not None]
        missing = [folder for folder in wanted if not (self.root / folder).is_dir()]
        if missing:
            self.run(Call(("mkdir", "-p", "--", *missing)))
        if self.is_compose and os.geteuid() == 0:
            ours = [folder for folder in wanted if Path(folder) != self.settings.mount_dir]
            if ours:
                self.run(Call(("chown", f"{self.settings.uid}:{self.settings.gid}", "--", *ours)))

    def _end_container(self, call: Call, child: process.Child) -> None:
        """After a signal: end the container that a call has started, also one that is only about to start.

        Compose hands signals on to a container that runs, and drops them while one starts.
        """
        if call.label:
            compose.end_container(call.label, child, self.settings.environ)


def is_run(call: Call) -> bool:
    """Whether a call starts a container for a single run."""
    return call.argv[:2] == ("docker", "compose") and "run" in call.argv


def labelled(call: Call, label: str) -> Call:
    """Return the call with a label on its container. A dry run doesn't show it: only this process looks for it."""
    at = call.argv.index("run") + 1
    return replace(call, argv=(*call.argv[:at], "--label", label, *call.argv[at:]), label=label)
