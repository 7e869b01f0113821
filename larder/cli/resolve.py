"""Resolve every setting of the command line interface: command line, environment, `.env`, default.

An empty value counts as not set.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from larder.cli import dotenv
from larder.cli.setting_specs import COMMAND_ARGUMENTS, PATH_SETTINGS, all_settings, stage_settings
from larder.cli.setting_values import is_port, printable, unknown_choice, wrong_number
from larder.cli.settings import ResolvedSettings
from larder.dataset import DEFAULT, validated_dataset
from larder.distant.link import validated_bandwidth, validated_latency
from larder.errors import ConfigurationError

_OTHER_VARIABLES = frozenset({
    "RCLONE_CONTAINER", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
    "AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "NO_COLOR",
    "BASE_IMAGE", "MINIO_IMAGE", "LARDER_REVISION", "LARDER_FRONT_DOOR", "LARDER_REPEATED", "LARDER_CALLER",
    "LARDER_HOST_FOLDERS", "LARDER_TEST_S3", "RAY_USAGE_STATS_ENABLED", "CI",
})  # fmt: skip
"""Variables that larder or other programs read although no stage declares them."""
_OTHER_PREFIXES = (
    "AWS_",
    "COMPOSE_",
    "DOCKER_",
    "BUILDKIT_",
    "BUILDX_",
    "OS_",
    "UV_",
    "PIP_",
    "SSL_",
    "REQUESTS_",
    "RCLONE_",
    "LITDATA_",
    "XDG_",
    "HF_",
)


def resolve(root: Path, given: Mapping[str, str], environ: Mapping[str, str], folder: Path) -> ResolvedSettings:
    """Return the settings of a run.

    Args:
        root: The checkout.
        given: `NAME=value` words and flags of the command line.
        environ: The environment.
        folder: The current folder; the user's relative paths are relative to it.

    Raises:
        ConfigurationError: If names are unknown or values invalid; the message lists all of them.
    """
    env_file = root / ".env"
    files = dotenv.read([env_file] if env_file.exists() else [], environ)
    faults = [*_unknown(given, environ, files)]
    settings = ResolvedSettings(root, _absolute(given, root, folder), _absolute(environ, root, folder), files)
    faults += _bad_values(settings)
    if faults:
        raise ConfigurationError.of_faults(faults, next_step="correct it; .env.example lists every setting")
    return settings


def _absolute(values: Mapping[str, str], root: Path, folder: Path) -> dict[str, str]:
    """Make relative paths absolute unless they are relative to the checkout."""
    if folder == root:
        return dict(values)
    names = (*PATH_SETTINGS, *(["LARDER_SOURCE"] if (folder / values.get("LARDER_SOURCE", "")).exists() else []))
    return {name: str(folder / value) if name in names and value else value for name, value in values.items()}


def _unknown(given: Mapping[str, str], environ: Mapping[str, str], files: Mapping[str, str]) -> Iterator[str]:
    """Yield faults for unknown names: strictly for the command line, less for `.env`, least for the environment."""
    names, words = {*all_settings(), *_OTHER_VARIABLES}, {setting.name for setting in COMMAND_ARGUMENTS}
    ours = {*all_settings(), "RCLONE_CONTAINER"} - words
    fine = names | {*given}
    for name in given:
        if name not in names and not (name.startswith(_OTHER_PREFIXES) and not _near(name, names)):
            yield f"no such setting: {printable(name)}{_suggestion(name, names)}"
    for name in files:
        if name not in fine and (
            _is_ours(name, {*all_settings()}) or _near(name, ours | {"BASE_IMAGE", "MINIO_IMAGE"})
        ):
            yield f"no such setting: {printable(name)} (in .env){_suggestion(name, names)}"
    for name in environ:
        if name not in fine and (_is_ours(name, ours) or any(_is_typo_of(name, other) for other in ours)):
            yield f"no such setting: {printable(name)} (in the environment){_suggestion(name, names)}"


def _is_ours(name: str, ours: Collection[str]) -> bool:
    """Return whether an unknown name can only be meant for larder."""
    return name.upper().startswith("LARDER_") or name.upper() in ours


def _is_typo_of(name: str, meant: str) -> bool:
    """Return whether `name` is a typo of `meant`: one letter added, missing or replaced, or two swapped."""
    name, longer = sorted((name.upper(), meant), key=len)
    if len(longer) - len(name) > 1:
        return False
    at = next((at for at, (one, other) in enumerate(zip(name, longer)) if one != other), len(name))
    if len(longer) > len(name):
        return name[at:] == longer[at + 1 :]
    swapped = name[at : at + 2][::-1] == longer[at : at + 2] and name[at + 2 :] == longer[at + 2 :]
    return swapped or name[at + 1 :] == longer[at + 1 :]


def _near(name: str, names: Collection[str]) -> str:
    """Return the setting most similar to `name`, or ""."""
    return next(iter(difflib.get_close_matches(name.upper(), names, n=1, cutoff=0.84)), "")


def _suggestion(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name.upper(), names, n=1)
    near = name.upper() if name.upper() in names else next(iter(close), "")
    return f"; did you mean {near}?" if near else ""


def _bad_values(settings: ResolvedSettings) -> Iterator[str]:
    try:
        validated_dataset(settings.dataset)
    except ValueError as fault:
        yield f"LARDER_DATASET={printable(settings.get('LARDER_DATASET'))}: {fault}"
        given = {**settings.given, "LARDER_DATASET": DEFAULT}  # so that other faults are found, too
        settings = ResolvedSettings(settings.root, given, settings.environ, settings.files)
    yield from _bad_choices(settings)
    yield from _bad_names(settings)
    yield from _bad_numbers(settings)
    yield from _bad_limits(settings)
    yield from _bad_links(settings)
    for name in all_settings():
        value = settings.get(name)
        if "\0" in value:
            yield f"{name} holds a NUL byte"


def _bad_choices(settings: ResolvedSettings) -> Iterator[str]:
    for name, setting in all_settings().items():
        if fault := unknown_choice(name, settings.get(name), setting.choices):
            yield fault
    # ARM in the environment may be another program's: it is refused only when it is used.
    arm = settings.given.get("ARM") or settings.files.get("ARM", "")
    if fault := unknown_choice("ARM", arm, all_settings()["LARDER_ARM"].choices):
        yield fault


def _bad_names(settings: ResolvedSettings) -> Iterator[str]:
    volumes = (
        ("LARDER_DATA_VOLUME", settings.data_volume),
        ("LARDER_WDS_VOLUME", settings.wds_volume),
        ("LARDER_LIT_VOLUME", settings.lit_volume),
    )
    for name, value in volumes:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]+", value):
            yield f"{name}={printable(value)} is not a volume's name: two or more letters, digits, _ . -"
    project = settings.get("COMPOSE_PROJECT_NAME")
    if project and not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", project):
        yield f"COMPOSE_PROJECT_NAME={printable(project)} is not a project's name: lower-case letters, digits, _ -"


def _bad_numbers(settings: ResolvedSettings) -> Iterator[str]:
    for name in ("LARDER_UID", "LARDER_GID"):
        value = settings.get(name, "1000")
        if not re.fullmatch(r"0*[1-9][0-9]{0,9}", value):
            yield f"{name}={printable(value)} is not an id above 0: no stage runs as root"
    if not is_port(value := settings.get("LARDER_MINIO_PORT", "9000")):
        yield f"LARDER_MINIO_PORT={printable(value)} is not a port from 1 to 65535"
    for name, setting in stage_settings().items():
        value = settings.get(name)
        # compare takes several numbers of workers, and other stages report them.
        numbers = value.split(",") if name == "LARDER_WORKERS" else [value]
        if fault := next(filter(None, (wrong_number(number, setting) for number in numbers if number)), ""):
            yield f"{name}={printable(value)} {fault}"


def _bad_limits(settings: ResolvedSettings) -> Iterator[str]:
    """Yield faults of limits that Docker or the kernel would refuse with unclear messages, or misinterpret."""
    size = (r"[0-9]{1,15}([kmgt]i?b?|b)?", "a size such as 512m or 8g")
    limits = {
        "LARDER_MEMORY": size,
        "LARDER_SHM_SIZE": size,
        "LARDER_TMP_SIZE": (r"[0-9]{1,15}[kmg]?|[1-9][0-9]?%|100%", "a size such as 512m, or a share such as 25%"),
        "LARDER_PIDS": (r"-1|0*[1-9][0-9]{0,6}", "a number of processes, or -1"),
    }
    for name, (pattern, what) in limits.items():
        value = settings.get(name)
        if value and not re.fullmatch(pattern, value, re.IGNORECASE):
            yield f"{name}={printable(value)} is not {what}"


def _bad_links(settings: ResolvedSettings) -> Iterator[str]:
    for owner in ("LARDER_S3", "LARDER_LINK"):
        for name, validated in ((f"{owner}_LATENCY", validated_latency), (f"{owner}_BANDWIDTH", validated_bandwidth)):
            try:
                validated(settings.get(name))
            except ValueError as fault:
                yield f"{name}={printable(settings.get(name))} {fault}"
