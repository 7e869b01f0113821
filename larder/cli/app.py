"""Connect the settings, the runner, and the execution or printing of its calls for one run of the command."""

from __future__ import annotations

import os
import shlex
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from larder.cli import compose, dotenv, host, local_store, process, project, runner, sources
from larder.cli.compose import ComposeRunner
from larder.cli.console import ask, print_message
from larder.cli.host import HostRunner
from larder.cli.invocation import INVOCATIONS
from larder.cli.pipelines import Step, stages_of
from larder.cli.process import Call, SignalHandler
from larder.cli.settings import ResolvedSettings
from larder.typed_line import VARIABLE, describe_line, settings_for


class CallFailedError(Exception):
    """A call failed, and its error is already printed. The command ends with this exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class App:
    """State of one run, passed to each command.

    Args:
        settings: The settings, without a runner yet.
        handler: Handles signals.
        dry_run: Whether to print calls instead of running them.
        invocation: How the user started larder, as they type it: a value of INVOCATIONS.
        command: Name of the command that runs.
    """

    def __init__(
        self,
        settings: ResolvedSettings,
        handler: SignalHandler,
        dry_run: bool = False,
        invocation: str = "larder",
        command: str = "",
    ):
        self.settings, self.handler, self.dry_run, self.invocation = settings, handler, dry_run, invocation
        self.command = command
        self._runner: ComposeRunner | HostRunner | None = None
        self._to_print: list[str] = []
        self._typed_secrets: set[str] = set()

    @property
    def root(self) -> Path:
        """Folder of the checkout."""
        return self.settings.root

    @property
    def has_checkout(self) -> bool:
        """Whether there is a checkout, and so stages to run."""
        return project.is_checkout(self.root)

    @property
    def environ(self) -> Mapping[str, str]:
        """The user's environment, with LARDER_FRONT_DOOR, without compose's warnings about leftover containers."""
        [name] = [name for name, typed in INVOCATIONS.items() if typed == self.invocation]
        door = {"LARDER_FRONT_DOOR": name, VARIABLE: self._line}
        if isinstance(self._runner, ComposeRunner):
            door["LARDER_HOST_FOLDERS"] = self._runner.host_folders()
        return {"COMPOSE_IGNORE_ORPHANS": "1", **self.settings.environ, **door}

    @property
    def _line(self) -> str:
        """What the user typed, without secrets."""
        return describe_line(self.command, self.settings.given)

    @property
    def runner(self) -> ComposeRunner | HostRunner:
        """The runner, chosen on first use."""
        if self._runner is None:
            name = runner.choose(self.settings)
            self.settings = self.settings.with_runner(name)
            where = f" (processes in .venv/, data under {self.settings.home}/)" if name == "host" else ""
            print_message(f"runner: {name}{where}")
            self._runner = self._make_runner(name)
            if local_store.is_hidden_by_bucket(self.settings):
                print_message(
                    f"{' and '.join(self.settings.store)}: a bucket of a store of your own. For another bucket in the "
                    f"store of s3-up, set address and keys of {self.settings.store_file}, too"
                )
        return self._runner

    def _make_runner(self, name: str) -> ComposeRunner | HostRunner:
        if name == "host":
            return HostRunner(self.settings)
        named = bool(self.settings.get("COMPOSE_PROJECT_NAME"))  # compose reads it itself
        facts = compose.gather_facts(self.environ)
        name = (
            project.DEFAULT_PROJECT if named else project.claim_project_name(self.root, self.environ, facts.checkouts)
        )
        return ComposeRunner(self.settings, name, facts, compose.revision_of(self.settings))

    def choose_runner(self) -> None:
        """Choose the runner now, since some settings depend on it."""
        self._runner = self.runner

    @property
    def is_compose(self) -> bool:
        """Whether the stages run in containers."""
        return isinstance(self.runner, ComposeRunner)

    def with_given(self, **given: str) -> App:
        """Return the same app with other settings."""
        changed = ResolvedSettings(
            self.root, {**self.settings.given, **given}, self.settings.environ, self.settings.files
        )
        return App(changed, self.handler, self.dry_run, self.invocation, self.command)

    def typed_command(self, command: str) -> str:
        """Return a command as the user types it, with the settings that it needs again.

        Args:
            command: The command's name, and settings that it must have, as NAME=value.
        """
        name, *words = command.split(" ")
        own = {word.partition("=")[0] for word in words}
        return " ".join(filter(None, (self.invocation, command, settings_for(self._line, name, own))))

    # --- calls

    def run(self, call: Call) -> None:
        """Run a call. Raise CallFailedError if its exit code isn't 0."""
        if (code := self.run_unchecked(call)) != 0:
            raise CallFailedError(code)

    def run_unchecked(self, call: Call) -> int:
        """Run a call and return its exit code; in a dry run, print it."""
        if self.dry_run:
            self.print_call(call)
            return 0
        if is_container_run(call):
            call = with_label(call, f"larder.run={uuid.uuid4().hex}")
        code = process.run(
            call, self.root, self.environment_of(call), self.handler, self._end_container, self.typed_command("doctor")
        )
        if code == process.INTERRUPTED and self.handler.number:
            raise CallFailedError(code)
        return code

    def capture(self, call: Call) -> tuple[int, str, str]:
        """Run a short call and return its exit code, stdout and stderr."""
        return process.capture(call.argv, self.environment_of(call), seconds=60.0, folder=self.root)

    def environment_of(self, call: Call) -> dict[str, str]:
        """Return the environment of a call."""
        values = dotenv.read([self.root / file for file in call.env_files], self.environ) if call.env_files else {}
        return process.environment(call, self.environ, values)

    def print_call(self, call: Call) -> None:
        """Add a call, as a line of shell, to the output of a dry run. All lines together form one command."""
        line, folder = process.as_shell_line(call), call.folder or self.root
        self._typed_secrets.update(process.typed_secrets(call))
        self._to_print.append(line if folder == Path.cwd() else f"(cd {shlex.quote(str(folder))} && {line})")

    def finish(self) -> None:
        """Print the calls of a dry run, after all other messages, and which secrets the shell must have."""
        for name in sorted(self._typed_secrets):
            print(f"# {name} must be set in the shell: secrets are not printed")
        if self._to_print:
            print(" &&\n".join(self._to_print), flush=True)

    # --- stages

    def prepare(self, *stages: str) -> None:
        """Build images, or install packages into the virtual environment."""
        runner = self.runner
        calls = runner.prepare(stages)
        if isinstance(runner, HostRunner) and not self.dry_run:
            host.install(self.settings, stages)  # in this process
            calls = calls[1:]
        if any("--quiet" in call.argv for call in calls) and not self.dry_run:
            print_message(f"checking that the images are current: {', '.join(stages)}")  # seconds without output
        for call in calls:
            self.run(call)

    def run_steps(self, steps: Sequence[Step], flags: Sequence[str] = (), prepare: bool = True) -> None:
        """Prepare the stages of some steps, then run the steps in order until one fails."""
        chosen = [step for step in steps if not (step.unless and self.settings.get(step.unless))]
        if any(step.stage == "extract" for step in chosen) and not self.dry_run:
            sources.require_local_sources(self.settings)
        calls = [self.runner.command(step, flags) for step in chosen]  # report mistakes before building anything
        if prepare:
            self.prepare(*stages_of(tuple(chosen)))
        for call in calls:
            self.run(call)

    def stage_call(self, file: str, stage: str, *flags: str) -> Call:
        """Return the call that runs a stage."""
        return self.runner.command(Step(file, stage, flags))

    def require_consent(self, question: str) -> None:
        """Ask, and end the command unless the user agrees: with 0 if they decline, with 1 if nobody answers.

        A dry run doesn't ask.
        """
        if self.dry_run or (answer := ask(question, self.settings.yes)):
            return
        print_message("kept" if answer is False else "kept: nobody answered; YES=1 answers yes")
        raise CallFailedError(0 if answer is False else 1)

    def make_folders(self, *folders: Path | None) -> None:
        """Create the folders that a measuring container needs, and give them to the container's user."""
        paths = [str(folder) for folder in folders if folder is not None]
        missing = [folder for folder in paths if not (self.root / folder).is_dir()]
        if missing:
            self.run(Call(("mkdir", "-p", "--", *missing)))
        if self.is_compose and os.geteuid() == 0:
            ours = [folder for folder in paths if Path(folder) != self.settings.mount_dir]
            if ours:
                self.run(Call(("chown", f"{self.settings.uid}:{self.settings.gid}", "--", *ours)))

    def _end_container(self, call: Call, child: process.ChildProcess) -> None:
        """After a signal, end the container of a call, even if it is only starting.

        Compose forwards signals to a running container, but drops them while it starts.
        """
        if call.label:
            compose.end_container(call.label, child, self.settings.environ)


def is_container_run(call: Call) -> bool:
    """Return whether a call starts a container for a single run."""
    return call.argv[:2] == ("docker", "compose") and "run" in call.argv


def with_label(call: Call, label: str) -> Call:
    """Return the call with a label on its container. A dry run omits it, since only this process uses it."""
    at = call.argv.index("run") + 1
    return replace(call, argv=(*call.argv[:at], "--label", label, *call.argv[at:]), label=label)
