"""Render the pages of `--help`."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator

from larder.cli.command import Command
from larder.cli.invocation import INVOCATIONS, help_command
from larder.cli.setting_specs import SettingSpec, all_settings, flags_of, settings_of_stages


def overview_page(invocation: str) -> str:
    """Return the list of commands, by group."""
    from larder.cli.commands import COMMANDS

    program = INVOCATIONS["module"] if invocation == INVOCATIONS["make"] else invocation  # make takes no such option
    lines = [
        f"usage: {invocation} COMMAND [NAME=value...]",
        "",
        "Bring an image dataset into object storage in every training layout; measure which one keeps the GPU busy.",
    ]
    groups = dict.fromkeys(command.group for command in COMMANDS)
    for group in groups:
        lines += ["", f"{group}:"]
        lines += [
            f"  {command.name:<17} {command.summary}"
            for command in COMMANDS
            if command.group == group and not command.hidden
        ]
    lines += [
        "",
        f"Give settings as NAME=value, or in .env: {invocation} etl-local LARDER_SOURCE=photos.zip",
        f"{help_command(invocation, 'COMMAND')} lists a command's settings; --dry-run prints what it would run;",
        "--yes answers every question with yes.",
        f"{program} --on NAME COMMAND runs a command on the provisioned server of the stack NAME.",
        "RUNNER=compose|host chooses between containers and processes in .venv/.",
        "Exit codes: 0 done, 2 wrong usage or setting, 3 input missing or damaged, 4 too many samples rejected,",
        "5 a remote service failed, 130 interrupted.",
    ]
    return "\n".join(lines) + "\n"


def command_page(command: Command, invocation: str) -> str:
    """Return the help page of one command."""
    words = f" {command.words}" if command.words else ""
    lines = [f"usage: {invocation} {command.name}{words} [NAME=value...]", "", f"{_sentence(command.summary)}."]
    own = [all_settings()[name] for name in command.settings]
    stages = settings_of_stages(command.stages)
    flags = flags_of(command.stages, command.settings)
    if own or stages:
        lines += ["", "Settings:"]
        for setting in [*own, *stages]:
            lines += _describe_setting(setting, setting.flag if setting.flag in flags else "")
    lines += [
        "",
        "Also: RUNNER=compose|host, --dry-run, --yes. NAME=value overrides the environment, which overrides .env.",
    ]
    return "\n".join(lines) + "\n"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _describe_setting(setting: SettingSpec, flag: str) -> Iterator[str]:
    default = f"default {setting.default}" if setting.default else ""
    details = "; ".join(part for part in (setting.unit, default) if part)
    yield f"  {setting.name}, {flag}" if flag else f"  {setting.name}"
    width = max(60, min(shutil.get_terminal_size().columns, 120))
    text = f"{setting.meaning}{f' [{details}]' if details else ''}"
    yield from textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)
