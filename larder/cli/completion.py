"""Generate completion scripts for shells from the table of commands: commands, settings (`NAME=`), flags, and words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence

from larder.cli.command import Command
from larder.cli.pipelines import STAGES
from larder.cli.setting_specs import flags_of, settings_of_stages, stage_settings

COMMON_FLAGS = ("--help", "--dry-run", "--yes")
TOP_FLAGS = (*COMMON_FLAGS, "--version", "--on")
"""Flags before the command. `--on` takes the name of a provisioned server, which the scripts find by its host key."""
VALUES = {
    "RUNNER": ("compose", "host"),
    "YES": ("1",),
    "LARDER_RAY_STAGE": ("shard", "optimize", "index", "verify"),
    "REQUIRE": ("all",),
}
"""Values of larder's own settings. `values` adds the boolean settings of stages."""


def command_settings(command: Command) -> list[str]:
    """Return the settings that a command accepts."""
    of_stage = [setting.name for setting in settings_of_stages(command.stages)]
    return list(dict.fromkeys([*command.settings, *of_stage, "RUNNER"]))


def command_flags(command: Command) -> list[str]:
    """Return a command's flags."""
    return [*flags_of(command.stages, command.settings), *COMMON_FLAGS]


def command_words(command: Command) -> list[str]:
    """Return the words that a command accepts, from its entry in the table: `bash|zsh|fish`, or the names of stages."""
    if "STAGE" in command.words:
        return list(STAGES)
    return re.findall(r"[a-z]+", command.words)


def values() -> dict[str, tuple[str, ...]]:
    """Return the values of settings that have only a few."""
    either = {
        name: ("true", "false") for name, setting in stage_settings().items() if setting.default in ("true", "false")
    }
    return {**either, **VALUES}


def script(shell: str, commands: Sequence[Command]) -> str:
    """Return the completion script for a shell.

    Args:
        shell: bash, zsh or fish.
        commands: The table; hidden commands are left out.
    """
    shown = [command for command in commands if not command.hidden]
    return "\n".join(SHELLS[shell](shown)) + "\n"


def _bash(commands: Sequence[Command]) -> Iterator[str]:
    yield '# Completion of larder for bash. In ~/.bashrc: eval "$(larder completion bash)"'
    yield from BASH_START.splitlines()
    yield from _cases(
        "        ",
        '"$name"',
        [
            *((name, f"words={shlex.quote(' '.join(words))}") for name, words in values().items()),
            ("--on", 'words="$(_larder_servers)"'),
        ],
    )
    yield "    else"
    everything = " ".join([*(command.name for command in commands), "RUNNER=", *TOP_FLAGS])
    yield from _cases(
        "        ",
        '"$command"',
        [
            ("''", f"words={shlex.quote(everything)}"),
            *((command.name, f"words={shlex.quote(' '.join(_candidates(command)))}") for command in commands),
        ],
    )
    yield from BASH_END.splitlines()


def _candidates(command: Command) -> list[str]:
    return [*command_words(command), *(f"{name}=" for name in command_settings(command)), *command_flags(command)]


def _cases(indent: str, subject: str, cases: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> Iterator[str]:
    yield f"{indent}case {subject} in"
    yield from (f"{indent}    {pattern}) {action} ;;" for pattern, action in cases)
    yield f"{indent}esac"


# Bash splits words at "=": RUNNER=compose is three words.
BASH_START = """\
_larder_servers() {
    local file
    for file in "${LARDER_HOME:-.larder}"/provision/*/known_hosts; do
        [[ -e $file ]] && file="${file%/*}" && printf '%s\\n' "${file##*/}"
    done
}
_larder() {
    local current="${COMP_WORDS[COMP_CWORD]}" words='' command='' name='' at word
    for ((at = 1; at < COMP_CWORD; at++)); do
        word="${COMP_WORDS[at]}"
        [[ $word == -* || $word == *=* || ${COMP_WORDS[at-1]} == '=' || ${COMP_WORDS[at+1]} == '=' ]] && continue
        [[ ${COMP_WORDS[at-1]} == --on ]] && continue
        command="$word"
        break
    done
    if [[ $current == '=' ]]; then
        name="${COMP_WORDS[COMP_CWORD-1]}" current=''
    elif [[ ${COMP_WORDS[COMP_CWORD-1]} == '=' ]]; then
        name="${COMP_WORDS[COMP_CWORD-2]}"
    elif [[ -z $command && ${COMP_WORDS[COMP_CWORD-1]} == --on ]]; then
        name=--on
    fi
    if [[ -n $name ]]; then"""
BASH_END = """\
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -o bashdefault -o default -F _larder larder"""


def _zsh(commands: Sequence[Command]) -> Iterator[str]:
    yield "#compdef larder"
    yield '# Completion of larder for zsh. In ~/.zshrc, after compinit: eval "$(larder completion zsh)"'
    yield from ZSH_START.splitlines()
    yield from _cases(
        "        ",
        "$name",
        [
            *((name, f"compadd -- {' '.join(words)}") for name, words in values().items()),
            ("--on", "compadd -- $servers"),
            ("*", "_files"),
        ],
    )
    yield from ("        return", "    fi")
    described = " ".join(shlex.quote(f"{command.name}:{command.summary}") for command in commands)
    yield from _cases(
        "    ",
        "$command",
        [
            ("''", f"list=({described}); _describe command list; flags=({' '.join(TOP_FLAGS)})"),
            *((command.name, _zsh_lists(command)) for command in commands),
        ],
    )
    yield from ZSH_END.splitlines()


def _zsh_lists(command: Command) -> str:
    lists = (
        ("list", command_words(command)),
        ("settings", command_settings(command)),
        ("flags", command_flags(command)),
    )
    return "; ".join(f"{name}=({' '.join(words)})" for name, words in lists if words)


ZSH_START = """\
_larder() {
    local command='' word before='' name=${PREFIX%%=*}
    local -a list settings flags servers=(${LARDER_HOME:-.larder}/provision/*/known_hosts(N:h:t))
    for word in ${words[2,CURRENT-1]}; do
        if [[ $before == --on || $word == -* || $word == *=* ]]; then
            before=$word
            continue
        fi
        command=$word
        break
    done
    if [[ -z $command && ${words[CURRENT-1]} == --on ]]; then
        compadd -- $servers
        return
    fi
    if [[ $PREFIX == *=* ]]; then
        compset -P '*='"""
ZSH_END = """\
    [[ -n $command ]] && compadd -a list
    compadd -a flags
    compadd -S = -a settings
}
if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then _larder "$@"; else compdef _larder larder; fi"""


def _fish(commands: Sequence[Command]) -> Iterator[str]:
    yield "# Completion of larder for fish: larder completion fish > ~/.config/fish/completions/larder.fish"
    yield from FISH_START.splitlines()
    for command in commands:
        yield f"complete -c larder -f -n 'not __larder_command' -a {command.name} -d {_fish_quoted(command.summary)}"
    for flag in TOP_FLAGS:
        value = " -x -a '(__larder_servers)'" if flag == "--on" else ""
        yield f"complete -c larder -n 'not __larder_command' -l {flag[2:]}{value}"
    either = values()
    for command in commands:
        when = f"complete -c larder -n 'contains -- {command.name} (__larder_command)'"
        yield from (f"{when} -l {flag[2:]}" for flag in command_flags(command))
        names = command_settings(command)
        choices = [f"{name}={value}" for name in names for value in either.get(name, ())]
        yield f"{when} -a '{' '.join([*command_words(command), *(f'{name}=' for name in names), *choices])}'"


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


FISH_START = """\
function __larder_command
    set -l before ''
    for word in (commandline -opc)[2..-1]
        if test "$before" != --on; and not string match -qr -- '^-|=' $word
            echo $word
            return 0
        end
        set before $word
    end
    return 1
end
function __larder_servers
    set -l home .larder
    set -q LARDER_HOME; and set home $LARDER_HOME
    for file in $home/provision/*/known_hosts
        basename (dirname $file)
    end
end"""

SHELLS: dict[str, Callable[[Sequence[Command]], Iterator[str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
