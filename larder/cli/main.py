"""Parse the command line, run a command, and map failures to exit codes."""

from __future__ import annotations

import difflib
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from larder import __version__
from larder.cli import help_pages as pages
from larder.cli import remote
from larder.cli.app import App, CallFailedError
from larder.cli.command import Command
from larder.cli.commands import BY_NAME
from larder.cli.console import print_message
from larder.cli.invocation import INVOCATIONS, help_command
from larder.cli.makeflags import parse_makeflags
from larder.cli.process import INTERRUPTED, handle_signals
from larder.cli.resolve import resolve
from larder.cli.setting_specs import all_settings, flags_of
from larder.cli.setting_values import printable
from larder.cli.settings import ResolvedSettings
from larder.errors import ConfigurationError, LarderError, explain_os_error

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


class CommandLine(NamedTuple):
    """The parsed command line.

    Attributes:
        command: The command; None for help and version.
        given: Settings, by name.
        words: Words for the command itself.
        dry_run: Whether to print calls instead of running them.
        page: Text to print instead of running a command; empty if there is none.
        server: Name of the provisioned server on which `words` run as a command line; empty if they run here.
    """

    command: Command | None
    given: Mapping[str, str]
    words: tuple[str, ...] = ()
    dry_run: bool = False
    page: str = ""
    server: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `larder` and return its exit code (see larder.errors)."""
    if argv is None:  # started as a program
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly when the reader of a pipe ends
    environ = dict(os.environ)
    invocation = _detect_invocation(environ)
    words = sys.argv[1:] if argv is None else argv
    with handle_signals() as handler:
        try:
            line = parse(words, environ, invocation)
            if line.server:
                return remote.run(line.server, line.words, environ, invocation, line.dry_run)
            if line.page or line.command is None:
                print(line.page, end="")
                return 0
            root = _root_of(line.command)
            settings = _settings(root, line.command, line.given, environ)
            app = App(settings, handler, line.dry_run, invocation, line.command.name)
            line.command.run(app, line.words)
            app.finish()
        except CallFailedError as failed:
            return failed.code
        except LarderError as error:
            return _fail(error)
        except KeyboardInterrupt:
            print_message("interrupted; run the same command again")
            return INTERRUPTED
        except OSError as error:
            known = explain_os_error(error)
            if known is None:
                raise
            return _fail(known)
    return 0


def _settings(root: Path, command: Command, given: Mapping[str, str], environ: Mapping[str, str]) -> ResolvedSettings:
    """Return the settings of a run; defaults if they are invalid and the command works without them."""
    try:
        return resolve(root, given, environ, Path.cwd())
    except ConfigurationError as fault:
        if not command.reports_bad_settings:
            raise
        rest = {name: value for name, value in environ.items() if name not in all_settings()}
        return ResolvedSettings(root, {}, rest, {}, fault=fault)


def _detect_invocation(environ: Mapping[str, str]) -> str:
    """Return how the user started larder, as they would type it again."""
    if environ.get("LARDER_FRONT_DOOR") == "make":
        return INVOCATIONS["make"]
    return INVOCATIONS["module" if Path(sys.argv[0]).name == "__main__.py" else "larder"]


def _fail(error: LarderError) -> int:
    sys.stdout.flush()
    print_message(error.format())
    return error.exit_code


def _root_of(command: Command) -> Path:
    """Return the folder in which a command works: a checkout, or where it needs none the current folder."""
    if command.anywhere:
        return Path.cwd()
    try:
        return find_root()
    except ConfigurationError:
        if not command.works_installed:
            raise
        return Path.cwd()


def find_root() -> Path:
    """Return the checkout that contains this code, or else the current folder.

    Raises:
        ConfigurationError: If there is none.
    """
    here = Path.cwd()
    for folder in (Path(__file__).resolve().parents[2], here, *here.parents):
        if (folder / "compose" / "stage.yaml").is_file() and (folder / "services").is_dir():
            return folder
    raise ConfigurationError(
        "this command needs a checkout of larder, and there is none here",
        next_step="git clone larder's repository, and run the command in it",
    )


def parse(argv: Sequence[str], environ: Mapping[str, str], invocation: str = "larder") -> CommandLine:
    """Parse a command line.

    Settings are given as `NAME=value`, as for make, or by the flags of the command's stages. What follows
    `--on NAME` is parsed on that server.

    Raises:
        ConfigurationError: If a command, flag or word is unknown; the message suggests the nearest.
    """
    words, dry_run = list(argv), False
    given = parse_makeflags(environ.get("MAKEFLAGS", "")) if invocation == "make" else {}
    command: Command | None = None
    rest: list[str] = []
    while words:
        word = words.pop(0)
        assignment = _ASSIGNMENT.fullmatch(word)
        if command is not None and command.words == "...":
            rest += [word, *words]
            break
        if command is None and word == "help":
            words = [*words, "--help"]
        elif word in ("-h", "--help"):
            page = pages.command_page(command, invocation) if command else pages.overview_page(invocation)
            return CommandLine(None, given, page=page)
        elif word == "--version":
            return CommandLine(None, given, page=f"larder {__version__}\n")
        elif command is None and (word == "--on" or word.startswith("--on=")):
            server = _value_of_flag(word, words)
            if not server:
                raise ConfigurationError("--on needs the name of a server", next_step=help_command(invocation))
            return CommandLine(None, given, (*_as_words(given), *words), dry_run, server=server)
        elif word in ("-n", "--dry-run"):
            dry_run = True
        elif word in ("-y", "--yes"):
            given["YES"] = "1"
        elif assignment:
            given[assignment[1]] = assignment[2]
        elif word.startswith("-"):
            name, value = _flag(word, words, command, invocation)
            given[name] = value
        elif command is None:
            command = _command(word, invocation)
        elif command.words:
            rest.append(word)
        else:
            raise ConfigurationError(
                f"{command.name} takes no word {printable(word)!r}",
                next_step="give settings as NAME=value, or by their flags",
            )
    if command is None:
        return CommandLine(None, given, page=pages.overview_page(invocation))
    return CommandLine(command, given, tuple(rest), dry_run)


def _command(word: str, invocation: str) -> Command:
    if word in BY_NAME:
        return BY_NAME[word]
    names = [*(name for name, command in BY_NAME.items() if not command.hidden), "help", "--version"]
    near = difflib.get_close_matches(word.lower().replace("_", "-"), names, n=1)
    meant = f"; did you mean {near[0]}?" if near else ""
    raise ConfigurationError(
        f"no such command: {printable(word)}{meant}", next_step=f"{help_command(invocation)} lists all of them"
    )


def _flag(word: str, words: list[str], command: Command | None, invocation: str) -> tuple[str, str]:
    """Return the setting of a flag and its value, which is removed from `words` if it is a separate word."""
    flag, equals, value = word.partition("=")
    flags = flags_of(command.stages, command.settings) if command else {}
    setting = flags.get(flag)
    if setting is None:
        near = difflib.get_close_matches(flag, [*flags, "--help", "--dry-run", "--yes"], n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        where = f"{command.name} has no flag" if command else "no such flag:"
        raise ConfigurationError(
            f"{where} {printable(flag)}{meant}", next_step=help_command(invocation, command.name if command else "")
        )
    if not equals and setting.default in ("true", "false"):
        value = "true"
    elif not equals:
        value = _value_of_flag(word, words)
    return setting.name, value


def _value_of_flag(word: str, words: list[str]) -> str:
    """Return the value of a flag, which is removed from `words` if it is a separate word."""
    flag, equals, value = word.partition("=")
    if equals:
        return value
    if not words:
        raise ConfigurationError(f"{flag} needs a value", next_step=f"give it as {flag}=value")
    return words.pop(0)


def _as_words(given: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in given.items()]
