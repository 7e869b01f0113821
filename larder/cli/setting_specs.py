"""Describe every setting: those of larder's command line here, those of the stages in `settings.json`.

`make docs` writes `settings.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from larder.dataset import DEFAULT, volume_of


class SettingSpec(NamedTuple):
    """Description of one setting."""

    name: str
    default: str
    meaning: str
    flag: str = ""
    unit: str = ""
    stages: tuple[str, ...] = ()
    secret: bool = False
    choices: tuple[str, ...] = ()
    """Allowed values; empty if they can't be listed."""
    type: str = ""
    """int, float or ByteSize; empty for any other type."""
    bounds: Mapping[str, float] = {}
    """Bounds of a number, by operator: ge, gt, le, lt."""


PYTHONS = ("3.14", "3.13", "3.12", "3.11")
"""Supported versions of Python, newest first."""
CLI_SETTINGS = (
    SettingSpec(
        "RUNNER",
        "",
        "compose (containers) or host (processes in .venv/); default: compose if a container engine answers",
        choices=("compose", "host"),
    ),
    SettingSpec("LARDER_DATA_VOLUME", volume_of(DEFAULT), "name of the data volume"),
    SettingSpec("LARDER_WDS_VOLUME", volume_of(DEFAULT, "webdataset"), "name of the volume of shards"),
    SettingSpec("LARDER_LIT_VOLUME", volume_of(DEFAULT, "litdata"), "name of the volume of chunks"),
    SettingSpec(
        "LARDER_RAY_STAGE",
        "shard",
        "the stage that uses the Ray cluster: shard, optimize, index or verify",
        choices=("shard", "optimize", "index", "verify"),
    ),
    SettingSpec("LARDER_HOME", ".larder", "where the host runner keeps its volumes, and `s3-up` its keys"),
    SettingSpec("LARDER_UID", "your user id", "user id that writes records in containers; never 0"),
    SettingSpec("LARDER_GID", "your group id", "group id that writes records in containers; never 0"),
    SettingSpec("LARDER_SHM_SIZE", "8gb", "shared memory limit of the containers of bench and JupyterLab"),
    SettingSpec(
        "LARDER_MEMORY",
        "",
        "memory limit of each stage's container, such as 8g; it includes /tmp and shared memory, and the kernel ends "
        "what needs more. Empty or 0 is no limit",
    ),
    SettingSpec("LARDER_PIDS", "16384", "limit of processes and threads in each stage's container; -1 is no limit"),
    SettingSpec(
        "LARDER_TMP_SIZE",
        "4g",
        "size limit of /tmp in each stage's container, such as 512m, or 25% of the machine's memory; /tmp is in memory",
    ),
    SettingSpec("LARDER_MINIO_PORT", "9000", "loopback port of the store that `s3-up` starts in a container"),
    SettingSpec(
        "COMPOSE_PROJECT_NAME",
        "",
        "name of the compose project; default: larder for the first checkout on a machine, larder-<digest> for others",
    ),
    SettingSpec("TORCH_INDEX_URL", "", "index for torch's wheels, such as a mirror; empty leaves it to TORCH_BACKEND"),
    SettingSpec(
        "TORCH_BACKEND",
        "",
        "build of torch, from PyTorch's own index: cpu (about 200 MB), cu130 or another "
        "release of CUDA (about 3 GB), auto; empty: cpu if there is no NVIDIA GPU. If that index doesn't "
        "answer, pip's index provides a CUDA build, which also runs on CPUs",
    ),
)
"""Settings of the CLI, of compose and of builds, in addition to those of stages."""

COMMAND_ARGUMENTS = (
    SettingSpec("ARM", "imagefolder_local", "the arm that bench and train run; the same as LARDER_ARM"),
    SettingSpec("YES", "", "1 answers yes to every question"),
    SettingSpec(
        "RECORD",
        "",
        "report: the record of a comparison, a path or a name in LARDER_RESULTS; default: the latest one there. "
        "Several, with commas between them, are put together as a new record",
        flag="--record",
    ),
    SettingSpec(
        "AGAINST",
        "",
        "report: an earlier record of the same machine, data and settings; shows what changed beyond the noise",
        flag="--against",
    ),
    SettingSpec("BUCKET", "", "s3-bucket: the bucket to make in place of S3_BUCKET"),
    SettingSpec("REQUIRE", "", "test: all runs every tier, and fails where one can't run"),
    SettingSpec(
        "TEST_PROCESSES",
        "",
        "test: number of processes that run tests; default: two per core, fewer if memory is short",
    ),
    SettingSpec(
        "TEST_PYTHON",
        "3.13",
        "test, test-python: a second version of Python, besides that of .venv/, to run tests with",
        choices=PYTHONS,
    ),
    SettingSpec("DIST", "worksteal", "test: how pytest-xdist spreads the tests"),
    SettingSpec("PYTEST_ARGS", "", "test: further arguments for pytest, split as a shell splits words"),
)
"""Settings of the command line. Similar names in the environment, such as `arm`, aren't reported as mistakes."""

STORE_SETTINGS = (
    "S3_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "S3_BUCKET",
    "RCLONE_CONTAINER",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
)
"""If any of these is set, the user has a store, and no key or address is generated."""
SECRETS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN"})
PATH_SETTINGS = (
    "LARDER_HOME",
    "LARDER_RESULTS",
    "LARDER_WORKSPACE",
    "LARDER_MOUNT_DIR",
    "LARDER_CACHE_DIR",
    "LARDER_STORE_DIR",
    "FOOD11_DATA_DIR",
    "LARDER_DATA_DIR",
)
"""Settings that are paths on this machine."""


@cache
def stage_settings() -> dict[str, SettingSpec]:
    """Return the settings of the stages, by name."""
    text = Path(__file__).with_name("settings.json").read_text("utf-8")
    specs = {}
    for name, fields in json.loads(text).items():
        fields.update(stages=tuple(fields["stages"]), choices=tuple(fields["choices"]))
        specs[name] = SettingSpec(name, **fields)
    return specs


def all_settings() -> dict[str, SettingSpec]:
    """Return every setting by name, those of the stages first."""
    return {**stage_settings(), **{setting.name: setting for setting in CLI_SETTINGS + COMMAND_ARGUMENTS}}


def settings_of_stages(stages: Iterable[str]) -> list[SettingSpec]:
    """Return the settings of some stages, in the order of declaration."""
    names = set(stages)
    return [setting for setting in stage_settings().values() if names & set(setting.stages)]


def flags_of(stages: Iterable[str], names: Iterable[str] = ()) -> dict[str, SettingSpec]:
    """Return the settings of some stages, and the named ones, by their flags.

    Secrets have no flag, since other users of the machine can see arguments. A flag that two of the stages share is
    ambiguous and left out.
    """
    every = all_settings()
    candidates = dict.fromkeys([*(setting.name for setting in settings_of_stages(stages)), *names])
    specs = [every[name] for name in candidates if every[name].flag and not every[name].secret]
    flags = [setting.flag for setting in specs]
    return {setting.flag: setting for setting in specs if flags.count(setting.flag) == 1}
