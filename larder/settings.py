"""Build frozen, typed settings once, from flags and the environment.

A stage declares a subclass of `Settings`. A field's alias is its environment variable, and its name is its flag;
secrets have no flag. Flags take precedence over the environment, and an empty variable counts as not set. All faults
are reported at once, each with its origin. pydantic validates; argparse parses flags and writes `--help`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn, Self

from pydantic import AfterValidator, AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from larder.dataset import DEFAULT, validated_dataset
from larder.engines import SERIAL_SECONDS
from larder.errors import ConfigurationError
from larder.machine import available_cpus
from larder.next_step import StageRun
from larder.progress import LogStyle
from larder.suggest import did_you_mean


class Settings(BaseModel):
    """Base class: the settings of every stage. Call `load` once, in `__main__`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, defer_build=True)

    log: LogStyle = Field(
        "auto",
        alias="LARDER_LOG",
        description="how progress is shown on stderr: auto (a bar on a terminal, else lines), line, json",
    )

    @classmethod
    def load(
        cls, stage: str, argv: Sequence[str], environ: Mapping[str, str], *, about: str = "", program: str = ""
    ) -> Self:
        """Build the settings of a stage. Exits for `--help` and `--version`.

        Args:
            stage: Name of the stage.
            argv: Flags.
            environ: Environment variables.
            about: Description of the stage for the help.
            program: Name of the program for the help; by default the stage's name.

        Raises:
            ConfigurationError: If a setting is invalid. The message lists every fault.
        """
        see = f"see {StageRun(stage, '--help')} and .env.example"
        given, unknown = _parser(cls, program or stage, about, see).parse_known_args(list(argv))
        faults = list(_unknown(unknown))
        values, origin = {}, {}
        for setting in settings_of(cls):
            flag_value = getattr(given, setting.field, None)
            if flag_value is not None:
                values[setting.field], origin[setting.field] = flag_value, setting.flag
                continue
            name = next((name for name in setting.names if environ.get(name)), None)
            if name is not None:
                values[setting.field], origin[setting.field] = environ[name], f"{name} (environment)"
        try:
            settings = cls.model_validate(values, by_name=True, by_alias=False)
        except ValidationError as error:
            faults += [_explain(cls, fault, origin) for fault in error.errors()]
        if faults:
            unset = (setting for setting in settings_of(cls) if setting.field not in values)
            steps = [setting.if_unset for setting in unset if setting.if_unset]
            raise ConfigurationError.of_faults(faults, next_step="; ".join([*steps, see]))
        return settings


class WorkerSettings(Settings):
    """Settings of the stages that use several workers."""

    workers: int = Field(
        default_factory=available_cpus,
        alias="LARDER_WORKERS",
        ge=1,
        le=1024,
        description="worker processes; by default one per available core (with LARDER_DEST, shard and "
        "optimize start one more)",
    )


class ProcessSettings(WorkerSettings):
    """Settings of the stages whose workers are processes."""

    workers_after: float = Field(
        SERIAL_SECONDS,
        alias="LARDER_WORKERS_AFTER",
        ge=0,
        description="time that a stage works in its own process before it starts worker processes, which don't pay off "
        "for little work; 0 starts them at once",
        json_schema_extra={"unit": "seconds"},
    )


def _validated_dataset(name: str) -> str:
    return name and validated_dataset(name)


DatasetName = Annotated[str, AfterValidator(_validated_dataset)]
"""The type of the setting LARDER_DATASET."""
DATASET = "the dataset's name, after which folders, prefixes and volumes are named"


class DatasetSettings(Settings):
    """Settings of the stages that look for a dataset."""

    dataset: DatasetName = Field(
        "", alias="LARDER_DATASET", description=f"{DATASET}; by default the one on the volume, or {DEFAULT}"
    )


class VolumeSettings(WorkerSettings, DatasetSettings):
    """Settings of the stages that read the data volume."""

    volume: Path = Field(
        Path("/mnt"),
        alias="LARDER_VOLUME_DIR",
        description="where the data volume is mounted",
    )


class DataSettings(VolumeSettings):
    """Settings of the stages that work on the data volume."""

    force: bool = Field(False, alias="LARDER_FORCE", description="redo the work even if the result is up to date")


class Setting(NamedTuple):
    """One setting, as the documentation and the help describe it."""

    field: str
    names: tuple[str, ...]
    flag: str
    unit: str
    default: str
    meaning: str
    secret: bool
    if_unset: str
    """The next step where this setting is required and not set."""


def settings_of(kind: type[Settings]) -> Iterator[Setting]:
    """Yield every setting of a stage in the order of declaration, with those of `Settings` last."""
    fields = sorted(kind.model_fields.items(), key=lambda item: item[0] in Settings.model_fields)
    for field, info in fields:
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        yield Setting(
            field,
            _names(info),
            "--" + field.replace("_", "-"),
            str(extra.get("unit", "")),
            _default(info),
            info.description or "",
            "SecretStr" in repr(info.annotation),
            str(extra.get("if_unset", "")),
        )


def _names(info: FieldInfo) -> tuple[str, ...]:
    if isinstance(info.validation_alias, AliasChoices):
        return tuple(str(choice) for choice in info.validation_alias.choices)
    return (str(info.alias),)


def _default(info: FieldInfo) -> str:
    if info.default_factory is available_cpus:
        return "available cores"
    if info.default in (PydanticUndefined, None):
        return ""
    return str(info.default).lower() if isinstance(info.default, bool) else str(info.default)


class _Parser(argparse.ArgumentParser):
    see = ""

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError.of_faults([message], next_step=self.see)


def _parser(kind: type[Settings], program: str, about: str, see: str) -> _Parser:
    from larder import __version__

    names = ", ".join(setting.names[0] for setting in settings_of(kind) if setting.secret)
    secrets = f"Secrets are set only by environment variables: {names}. " if names else ""
    parser = _Parser(
        prog=program,
        description=about,
        allow_abbrev=False,
        epilog=f"A flag overrides its environment variable. {secrets}"
        "Exit codes: 0 done or up to date, 2 wrong usage or configuration, 3 input missing or damaged or volume "
        "unusable, 4 too many samples rejected, 5 a remote service failed, 130 interrupted.",
    )
    parser.see = see
    parser.add_argument("--check", action="store_true", help="check the settings and end")
    parser.add_argument("--version", action="version", version=f"larder {__version__}")
    for setting in settings_of(kind):
        if setting.secret:
            continue  # other users of the machine see a process's arguments
        default = f"; default {setting.default}" if setting.default else ""
        unit = f", {setting.unit}" if setting.unit else ""
        text = f"{setting.meaning} [{' or '.join(setting.names)}{unit}{default}]".replace("%", "%%")
        if kind.model_fields[setting.field].annotation is bool:
            parser.add_argument(setting.flag, dest=setting.field, nargs="?", const="true", metavar="BOOL", help=text)
        else:
            metavar = setting.field.rsplit("_", 1)[-1].upper()
            parser.add_argument(setting.flag, dest=setting.field, metavar=metavar, help=text)
    return parser


def _unknown(words: Sequence[str]) -> Iterator[str]:
    """Yield a fault for each unknown argument. The value after an unknown flag may be a secret and isn't shown."""
    follows_flag = False
    for word in words:
        if word.startswith("-"):
            yield f"{word.partition('=')[0]}: no such flag"
        elif not follows_flag:
            yield f"{word!r}: settings are given as --flag=value"
        follows_flag = word.startswith("-") and "=" not in word


def _without_secrets(value: str) -> str:
    """Return a value without the user, password and query of a URL in it."""
    return re.sub(r"\?.*", "?…", re.sub(r"//[^/]*@", "//…@", value)) if "//" in value else value


_BYTES = "must be a number of bytes, as in 5000, 20MB or 64MiB"
_MESSAGES = {
    "bool_parsing": "must be true or false",
    "byte_size": _BYTES,
    "byte_size_unit": _BYTES,
    "float_parsing": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be {ge} or more",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "extra_forbidden": "is unknown",
    "ip_v4_address": "must be an IPv4 address, such as 127.0.0.1",
    "json_invalid": "is not JSON: {error}",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "string_too_short": "must not be empty",
}
"""Messages by type of pydantic's validation error (https://docs.pydantic.dev/latest/errors/validation_errors/)."""


def describe_fault(fault: Any) -> str:
    """Return a readable message for one error of a pydantic ValidationError."""
    words = _MESSAGES.get(fault["type"])
    if words is None:
        return str(fault["msg"]).removeprefix("Value error, ").replace("Input should", "must")
    context = fault.get("ctx", {})
    choices = re.findall(r"'([^']*)'", str(context["expected"])) if fault["type"] == "literal_error" else []
    return words.format(**context) + did_you_mean(str(fault["input"]), choices)


def _explain(kind: type[Settings], fault: Any, origin: Mapping[str, str]) -> str:
    """Return one validation error as a line: origin of the value, the value, and what it must be."""
    field = str(fault["loc"][0]) if fault["loc"] else ""
    message = describe_fault(fault)
    if not field:
        return message
    setting = next(setting for setting in settings_of(kind) if setting.field == field)
    if fault["type"] == "missing":
        return f"{setting.names[0]} is not set (nor {setting.flag}): {setting.meaning}"
    secret = setting.secret or isinstance(fault["input"], SecretStr)
    value = "" if secret else f"={_without_secrets(str(fault['input']))[:200]!r}"
    return f"{origin.get(field, setting.names[0])}{value}: {message}"
