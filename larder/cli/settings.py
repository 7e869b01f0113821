"""Every setting of the front door, resolved in one place: command line, environment, `.env`, default.

An empty value counts as not set. `settings.json`, written by `make docs`, lists the settings of the stages.
"""

from __future__ import annotations

import difflib
import json
import operator
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from larder.cli import dotenv
from larder.dataset import DEFAULT, a_dataset, demo_volume_of, volume_of
from larder.errors import ConfigurationError


class Setting(NamedTuple):
    """One setting as people see it."""

    name: str
    default: str
    meaning: str
    flag: str = ""
    unit: str = ""
    stages: tuple[str, ...] = ()
    secret: bool = False
    choices: tuple[str, ...] = ()
    """All that it may be; empty where that can't be listed."""
    type: str = ""
    """int or float; empty for everything else."""
    bounds: Mapping[str, float] = {}
    """Of a number: ge, gt, le, lt."""


FRONT_DOOR = (
    Setting("RUNNER", "", "compose (containers) or host (processes in .venv/); compose where an engine answers",
            choices=("compose", "host")),
    Setting("LARDER_DATA_VOLUME", volume_of(DEFAULT), "name of the data volume"),
    Setting("LARDER_WDS_VOLUME", volume_of(DEFAULT, "webdataset"), "name of the volume of shards"),
    Setting("LARDER_LIT_VOLUME", volume_of(DEFAULT, "litdata"), "name of the volume of chunks"),
    Setting("LARDER_RAY_STAGE", "shard", "the stage that a Ray cluster is for: shard, optimize, index or verify",
            choices=("shard", "optimize", "index", "verify")),
    Setting("LARDER_HOME", ".larder", "where the host runner keeps its volumes, and `s3-up` its keys"),
    Setting("LARDER_UID", "your user id", "user id that writes records in containers; never 0"),
    Setting("LARDER_GID", "your group id", "group id that writes records in containers; never 0"),
    Setting("LARDER_SHM_SIZE", "8gb", "limit of the shared memory of the containers of bench and JupyterLab"),
    Setting("LARDER_MEMORY", "", "limit of the memory of each stage's container, such as 8g, with its /tmp and shared "
            "memory; the kernel ends what needs more. Empty, or 0, is no limit"),
    Setting("LARDER_PIDS", "16384", "limit of the processes and threads of each stage's container; -1 is no limit"),
    Setting("LARDER_TMP_SIZE", "4g", "limit of /tmp in each stage's container, which lies in memory: such as 512m, or "
            "25% of the machine's memory"),
    Setting("LARDER_MINIO_PORT", "9000", "loopback port of the store that `s3-up` starts in a container"),
    Setting("COMPOSE_PROJECT_NAME", "", "name of the compose project; default: larder for the first checkout on a "
            "machine, larder-<digest> for others"),
    Setting("TORCH_INDEX_URL", "", "index for torch's wheels, such as a mirror; empty leaves it to TORCH_BACKEND"),
    Setting("TORCH_BACKEND", "", "build of torch, from PyTorch's own index: cpu (about 200 MB), cu130 or another "
            "release of CUDA (about 3 GB), auto; empty: cpu where there is no NVIDIA GPU. Where that index gives no "
            "answer, pip's index serves a CUDA build, which runs on CPUs, too"),
)  # fmt: skip
"""What the front door, compose and the builds read beside the stages' own settings."""

WORDS = (
    Setting("ARM", "imagefolder_local", "the arm that bench and train run; the same as LARDER_ARM"),
    Setting("YES", "", "1 answers yes to every question"),
    Setting("BUCKET", "", "s3-bucket: the bucket to make in place of S3_BUCKET"),
    Setting("REQUIRE", "", "test: all runs every tier, and fails where one can't run"),
    Setting(
        "TEST_PROCESSES",
        "",
        "test: processes that run tests side by side; default: two per core, as far as memory allows",
    ),
    Setting("DIST", "worksteal", "test: how pytest-xdist spreads the tests"),
    Setting("PYTEST_ARGS", "", "test: further arguments for pytest, split as a shell splits words"),
)
"""Words of the command line. They are not read from the environment's look-alikes (an `arm` there is no mistake)."""

STORE = (
    "S3_ENDPOINT_URL", "S3_BUCKET", "RCLONE_CONTAINER", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN", "AWS_PROFILE",
)  # fmt: skip
"""If one of these is set, the user has a store: no key or address is generated."""
SECRETS = frozenset({"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN"})
_OTHERS = frozenset({
    "RCLONE_CONTAINER", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "NO_COLOR",
    "BASE_IMAGE", "MINIO_IMAGE", "LARDER_REVISION", "LARDER_FRONT_DOOR", "LARDER_CALLER", "LARDER_TEST_S3",
    "RAY_USAGE_STATS_ENABLED", "CI",
})  # fmt: skip
"""What is read, by us or by others, though no stage declares it."""
_OF_OTHERS = ("AWS_", "COMPOSE_", "DOCKER_", "BUILDKIT_", "BUILDX_", "OS_", "UV_", "PIP_", "SSL_", "REQUESTS_",
              "RCLONE_", "LITDATA_", "XDG_", "HF_")  # fmt: skip
PATHS = ("LARDER_HOME", "LARDER_RESULTS", "LARDER_WORKSPACE", "LARDER_MOUNT_DIR", "LARDER_CACHE_DIR",
         "LARDER_STORE_DIR", "FOOD11_DATA_DIR", "LARDER_DATA_DIR")  # fmt: skip
"""Settings that name a file or folder of this machine."""


@cache
def declared() -> dict[str, Setting]:
    """Return the settings of the stages by name."""
    text = Path(__file__).with_name("settings.json").read_text("utf-8")
    found = {}
    for name, fields in json.loads(text).items():
        fields.update(stages=tuple(fields["stages"]), choices=tuple(fields["choices"]))
        found[name] = Setting(name, **fields)
    return found


def known() -> dict[str, Setting]:
    """Return every setting by name, those of the stages first."""
    return {**declared(), **{setting.name: setting for setting in FRONT_DOOR + WORDS}}


class Settings:
    """The settings of one run.

    Args:
        root: The checkout.
        given: What the command line sets.
        environ: The environment.
        files: What `.env` sets.
        runner: The runner that was chosen, once it is.
        fault: What is wrong with the settings that the user gave, for a command that works without them.
    """

    def __init__(
        self, root: Path, given: Mapping[str, str], environ: Mapping[str, str], files: Mapping[str, str],
        runner: str = "", fault: ConfigurationError | None = None,
    ) -> None:  # fmt: skip
        self.fault = fault
        self.root, self.given, self.environ, self.files, self.runner = root, given, environ, files, runner
        self.will_have_keys = False
        """Whether a dry run has printed the command that makes the store's keys."""

    def with_runner(self, runner: str) -> Settings:
        """Return the same settings for a chosen runner."""
        return Settings(self.root, self.given, self.environ, self.files, runner, self.fault)

    def get(self, name: str, default: str = "") -> str:
        """Return a setting's value, or `default` where nobody sets it."""
        return self.given.get(name) or self.environ.get(name) or self.files.get(name) or default

    def given_of(self, *names: str) -> dict[str, str]:
        """Return those of some settings that the command line sets: a call of larder itself needs them once more."""
        return {name: value for name in names if (value := self.given.get(name))}

    @property
    def arm(self) -> str:
        """The arm that is measured. Raises ConfigurationError for an `ARM` of the environment that is none."""
        if fault := _unknown_choice("ARM", self.get("ARM"), known()["LARDER_ARM"].choices):
            raise ConfigurationError(fault, next_step="give one of them: ARM=imagefolder_local")
        return self.get("ARM") or self.get("LARDER_ARM", "imagefolder_local")

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return self.get("LARDER_DATASET", DEFAULT)

    @property
    def data_volume(self) -> str:
        """The volume of raw data and tree."""
        return self.get("LARDER_DATA_VOLUME", volume_of(self.dataset))

    @property
    def demo_volume(self) -> str:
        """The data volume of `demo`, which leaves the data set's own alone."""
        return self.get("LARDER_DATA_VOLUME", demo_volume_of(self.dataset))

    @property
    def wds_volume(self) -> str:
        """The volume of shards."""
        return self.get("LARDER_WDS_VOLUME", volume_of(self.dataset, "webdataset"))

    @property
    def lit_volume(self) -> str:
        """The volume of chunks."""
        return self.get("LARDER_LIT_VOLUME", volume_of(self.dataset, "litdata"))

    def path(self, name: str, default: str) -> Path:
        """Return a setting that names a path, as it was written: relative ones are relative to the checkout."""
        return Path(self.get(name, default))

    @property
    def home(self) -> Path:
        """What larder keeps in the checkout: the host runner's volumes, keys, tokens."""
        return self.path("LARDER_HOME", ".larder")

    @property
    def results(self) -> Path:
        """Where records go."""
        return self.path("LARDER_RESULTS", "results")

    @property
    def workspace(self) -> Path:
        """Where notebooks lie."""
        return self.path("LARDER_WORKSPACE", "workspace")

    @property
    def mount_dir(self) -> Path:
        """Where the bucket is mounted."""
        return self.path("LARDER_MOUNT_DIR", str(self.home / "mount"))

    @property
    def store_dir(self) -> Path:
        """Where the embedded store keeps its data."""
        return self.path("LARDER_STORE_DIR", str(self.home / "store"))

    @property
    def cache_dir(self) -> Path | None:
        """LitData's cache; None leaves containers their volume."""
        default = str(self.home / "cache") if self.runner == "host" else ""
        found = self.get("LARDER_CACHE_DIR", default)
        return Path(found) if found else None

    @property
    def uid(self) -> str:
        """The container's user. Root's id would break the rule that no stage runs as root."""
        return self.get("LARDER_UID", str(os.getuid() or 1000))

    @property
    def gid(self) -> str:
        """The container's group."""
        return self.get("LARDER_GID", str(os.getgid() or 1000))

    @property
    def yes(self) -> bool:
        """Whether questions are answered with yes."""
        return self.get("YES") not in ("", "0", "no", "false")

    @property
    def store(self) -> tuple[str, ...]:
        """The store's settings that the user has set."""
        return tuple(name for name in STORE if self.get(name))

    @property
    def store_file(self) -> Path:
        """The address and the keys of the store that `s3-up` starts. Each runner has one of its own."""
        if not self.runner:
            raise RuntimeError("the runner must be chosen first")  # our own mistake
        return self.home / f"s3-{self.runner}.env"

    @property
    def token_file(self) -> Path:
        """JupyterLab's token."""
        return self.home / "jupyter-token"


def resolve(root: Path, given: Mapping[str, str], environ: Mapping[str, str], folder: Path) -> Settings:
    """Return the settings of a run.

    Args:
        root: The checkout.
        given: The command line's `NAME=value` words and flags.
        environ: The environment.
        folder: Where the user is; relative paths that they give are relative to it.

    Raises:
        ConfigurationError: Every name that no setting has, and every value that can't be one, at once.
    """
    env_file = root / ".env"
    files = dotenv.read([env_file] if env_file.exists() else [], environ)
    faults = [*_unknown(given, environ, files)]
    settings = Settings(root, _absolute(given, root, folder), _absolute(environ, root, folder), files)
    faults += _bad_values(settings)
    if faults:
        raise ConfigurationError.of_faults(faults, next_step="correct it; .env.example lists every setting")
    return settings


def _absolute(values: Mapping[str, str], root: Path, folder: Path) -> dict[str, str]:
    """Make paths absolute that are relative to a folder other than the checkout."""
    if folder == root:
        return dict(values)
    names = (*PATHS, *(["LARDER_SOURCE"] if (folder / values.get("LARDER_SOURCE", "")).exists() else []))
    return {name: str(folder / value) if name in names and value else value for name, value in values.items()}


def _unknown(given: Mapping[str, str], environ: Mapping[str, str], files: Mapping[str, str]) -> Iterator[str]:
    """Yield the names that no setting has. The command line is ours; `.env` nearly; the environment has others' too."""
    names, words = {*known(), *_OTHERS}, {setting.name for setting in WORDS}
    ours = {*known(), "RCLONE_CONTAINER"} - words
    fine = names | {*given}
    for name in given:
        if name not in names and not (name.startswith(_OF_OTHERS) and not _near(name, names)):
            yield f"no such setting: {shown(name)}{_suggestion(name, names)}"
    for name in files:
        if name not in fine and (_is_ours(name, {*known()}) or _near(name, ours | {"BASE_IMAGE", "MINIO_IMAGE"})):
            yield f"no such setting: {shown(name)} (in .env){_suggestion(name, names)}"
    for name in environ:
        if name not in fine and (_is_ours(name, ours) or any(_slip(name, other) for other in ours)):
            yield f"no such setting: {shown(name)} (in the environment){_suggestion(name, names)}"


def _is_ours(name: str, ours: Collection[str]) -> bool:
    """Whether a name that no setting has can only be meant for larder."""
    return name.upper().startswith("LARDER_") or name.upper() in ours


def _slip(name: str, meant: str) -> bool:
    """Whether a slip of the finger makes `name` of `meant`: one letter more, less, or other; or two swapped."""
    name, longer = sorted((name.upper(), meant), key=len)
    if len(longer) - len(name) > 1:
        return False
    at = next((at for at, (one, other) in enumerate(zip(name, longer)) if one != other), len(name))
    if len(longer) > len(name):
        return name[at:] == longer[at + 1 :]
    swapped = name[at : at + 2][::-1] == longer[at : at + 2] and name[at + 2 :] == longer[at + 2 :]
    return swapped or name[at + 1 :] == longer[at + 1 :]


def _near(name: str, names: Collection[str]) -> str:
    """Return the setting that is most like `name`, or an empty text."""
    return next(iter(difflib.get_close_matches(name.upper(), names, n=1, cutoff=0.84)), "")


def _suggestion(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name.upper(), names, n=1)
    near = name.upper() if name.upper() in names else next(iter(close), "")
    return f"; did you mean {near}?" if near else ""


def shown(text: str) -> str:
    """Return foreign text so that it can't drive a terminal: printable characters as they are, at most 200."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:200])


def _bad_values(settings: Settings) -> Iterator[str]:
    try:
        a_dataset(settings.dataset)
    except ValueError as fault:
        yield f"LARDER_DATASET={shown(settings.get('LARDER_DATASET'))}: {fault}"
        given = {**settings.given, "LARDER_DATASET": DEFAULT}  # and the other faults are found, too
        settings = Settings(settings.root, given, settings.environ, settings.files)
    yield from _bad_choices(settings)
    yield from _bad_names(settings)
    yield from _bad_numbers(settings)
    yield from _bad_limits(settings)
    for name in known():
        value = settings.get(name)
        if "\0" in value:
            yield f"{name} holds a NUL byte"


def _bad_choices(settings: Settings) -> Iterator[str]:
    for name, setting in known().items():
        if fault := _unknown_choice(name, settings.get(name), setting.choices):
            yield fault
    # An ARM of the environment may be another program's: it is refused where it would be used.
    arm = settings.given.get("ARM") or settings.files.get("ARM", "")
    if fault := _unknown_choice("ARM", arm, known()["LARDER_ARM"].choices):
        yield fault


def _unknown_choice(name: str, value: str, choices: Sequence[str]) -> str:
    """Return what is wrong with a value; an empty text where nothing is."""
    if not value or not choices or value in choices:
        return ""
    near = difflib.get_close_matches(value, choices, n=1)
    meant = f"; did you mean {near[0]}?" if near else f": it must be {', '.join(choices[:-1])} or {choices[-1]}"
    return f"{name}={shown(value)} is unknown{meant}"


def _bad_names(settings: Settings) -> Iterator[str]:
    volumes = (("LARDER_DATA_VOLUME", settings.data_volume), ("LARDER_WDS_VOLUME", settings.wds_volume),
               ("LARDER_LIT_VOLUME", settings.lit_volume))  # fmt: skip
    for name, value in volumes:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]+", value):
            yield f"{name}={shown(value)} is not a volume's name: two or more letters, digits, _ . -"
    project = settings.get("COMPOSE_PROJECT_NAME")
    if project and not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", project):
        yield f"COMPOSE_PROJECT_NAME={shown(project)} is not a project's name: lower-case letters, digits, _ -"


def _bad_numbers(settings: Settings) -> Iterator[str]:
    for name in ("LARDER_UID", "LARDER_GID"):
        value = settings.get(name, "1000")
        if not re.fullmatch(r"0*[1-9][0-9]{0,9}", value):
            yield f"{name}={shown(value)} is not an id above 0: no stage runs as root"
    if not is_port(value := settings.get("LARDER_MINIO_PORT", "9000")):
        yield f"LARDER_MINIO_PORT={shown(value)} is not a port from 1 to 65535"
    for name, setting in declared().items():
        if (value := settings.get(name)) and (fault := _wrong_number(value, setting)):
            yield f"{name}={shown(value)} {fault}"


_BOUNDS = {
    "ge": (operator.ge, "must be {} or more"), "gt": (operator.gt, "must be more than {}"),
    "le": (operator.le, "must be {} or less"), "lt": (operator.lt, "must be less than {}"),
}  # fmt: skip


def _wrong_number(value: str, setting: Setting) -> str:
    """Return why a stage would refuse a value, which it would say only once its image is built; else an empty text."""
    if not setting.type:
        return ""
    try:
        number = float(value)
    except ValueError:
        return "must be a whole number" if setting.type == "int" else "must be a number"
    for name, bound in setting.bounds.items():
        fits, words = _BOUNDS[name]
        if not fits(number, bound):
            return words.format(bound)
    return ""


def _bad_limits(settings: Settings) -> Iterator[str]:
    """Yield limits that Docker or the kernel would refuse in words of their own, or take for something else."""
    size = (r"[0-9]{1,15}([kmgt]i?b?|b)?", "a size such as 512m or 8g")
    limits = {
        "LARDER_MEMORY": size, "LARDER_SHM_SIZE": size,
        "LARDER_TMP_SIZE": (r"[0-9]{1,15}[kmg]?|[1-9][0-9]?%|100%", "a size such as 512m, or a share such as 25%"),
        "LARDER_PIDS": (r"-1|0*[1-9][0-9]{0,6}", "a number of processes, or -1"),
    }  # fmt: skip
    for name, (pattern, what) in limits.items():
        value = settings.get(name)
        if value and not re.fullmatch(pattern, value, re.IGNORECASE):
            yield f"{name}={shown(value)} is not {what}"


def is_port(text: str) -> bool:
    """Whether `text` is a TCP port."""
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and 0 < int(text) < 65536


def of_stages(stages: Iterable[str]) -> list[Setting]:
    """Return the settings of some stages, in the order in which they are declared."""
    wanted = set(stages)
    return [setting for setting in declared().values() if wanted & set(setting.stages)]


def flags_of(stages: Iterable[str]) -> dict[str, Setting]:
    """Return the settings of some stages by their flags.

    Secrets have none: other users of the machine see arguments. A flag that two of the stages share has no one meaning.
    """
    found = [setting for setting in of_stages(stages) if setting.flag and not setting.secret]
    flags = [setting.flag for setting in found]
    return {setting.flag: setting for setting in found if flags.count(setting.flag) == 1}
