"""Hold the settings of one run of the command line interface."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from larder.cli.setting_specs import STORE_SETTINGS, all_settings
from larder.cli.setting_values import unknown_choice
from larder.dataset import DEFAULT, demo_volume_of, volume_of
from larder.errors import ConfigurationError


class ResolvedSettings:
    """The settings of one run.

    Args:
        root: The checkout.
        given: Settings from the command line.
        environ: The environment.
        files: Settings from `.env`.
        runner: The runner, once it is chosen.
        fault: What is wrong with the user's settings, for a command that works without them.
    """

    def __init__(
        self,
        root: Path,
        given: Mapping[str, str],
        environ: Mapping[str, str],
        files: Mapping[str, str],
        runner: str = "",
        fault: ConfigurationError | None = None,
    ) -> None:
        self.fault = fault
        self.root, self.given, self.environ, self.files, self.runner = root, given, environ, files, runner
        self.will_have_keys = False
        """Whether a dry run has printed the command that creates the store's keys."""

    def with_runner(self, runner: str) -> ResolvedSettings:
        """Return the same settings for a chosen runner."""
        return ResolvedSettings(self.root, self.given, self.environ, self.files, runner, self.fault)

    def get(self, name: str, default: str = "") -> str:
        """Return a setting's value, or `default` if it isn't set."""
        return self.given.get(name) or self.environ.get(name) or self.files.get(name) or default

    def given_of(self, *names: str) -> dict[str, str]:
        """Return those of some settings that are set on the command line, to pass them to another call of larder."""
        return {name: value for name in names if (value := self.given.get(name))}

    @property
    def arm(self) -> str:
        """The arm to measure. Raises ConfigurationError if `ARM` in the environment is unknown."""
        if fault := unknown_choice("ARM", self.get("ARM"), all_settings()["LARDER_ARM"].choices):
            raise ConfigurationError(fault, next_step="give one of them: ARM=imagefolder_local")
        return self.get("ARM") or self.get("LARDER_ARM", "imagefolder_local")

    def require_known_arms(self) -> None:
        """Raise ConfigurationError if LARDER_ARMS names an unknown arm: bench would tell only after its build."""
        choices = all_settings()["LARDER_ARM"].choices
        names = filter(None, self.get("LARDER_ARMS").split(","))
        faults = [fault for name in names if (fault := unknown_choice("LARDER_ARMS", name, choices))]
        if faults:
            raise ConfigurationError.of_faults(faults, next_step="correct it; .env.example lists every setting")

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.get("LARDER_DATASET", DEFAULT)

    @property
    def data_volume(self) -> str:
        """Volume of raw data and tree."""
        return self.get("LARDER_DATA_VOLUME", volume_of(self.dataset))

    @property
    def demo_volume(self) -> str:
        """Data volume of `demo`, separate from the dataset's own."""
        return self.get("LARDER_DATA_VOLUME", demo_volume_of(self.dataset))

    @property
    def wds_volume(self) -> str:
        """Volume of shards."""
        return self.get("LARDER_WDS_VOLUME", volume_of(self.dataset, "webdataset"))

    @property
    def lit_volume(self) -> str:
        """Volume of chunks."""
        return self.get("LARDER_LIT_VOLUME", volume_of(self.dataset, "litdata"))

    def path(self, name: str, default: str) -> Path:
        """Return a path as it was written; relative paths are relative to the checkout."""
        return Path(self.get(name, default))

    @property
    def home(self) -> Path:
        """Folder for larder's own files: the host runner's volumes, keys, tokens."""
        return self.path("LARDER_HOME", ".larder")

    @property
    def results(self) -> Path:
        """Folder for records."""
        return self.path("LARDER_RESULTS", "results")

    @property
    def workspace(self) -> Path:
        """Folder for notebooks."""
        return self.path("LARDER_WORKSPACE", "workspace")

    @property
    def mount_dir(self) -> Path:
        """Folder where the bucket is mounted."""
        return self.path("LARDER_MOUNT_DIR", str(self.home / "mount"))

    @property
    def store_dir(self) -> Path:
        """Folder for the embedded store's data."""
        return self.path("LARDER_STORE_DIR", str(self.home / "store"))

    @property
    def cache_dir(self) -> Path | None:
        """LitData's cache; None if containers use their volume."""
        default = str(self.home / "cache") if self.runner == "host" else ""
        path = self.get("LARDER_CACHE_DIR", default)
        return Path(path) if path else None

    @property
    def uid(self) -> str:
        """User id in containers; never root's, since no stage runs as root."""
        return self.get("LARDER_UID", str(os.getuid() or 1000))

    @property
    def gid(self) -> str:
        """Group id in containers."""
        return self.get("LARDER_GID", str(os.getgid() or 1000))

    @property
    def yes(self) -> bool:
        """Whether to answer every question with yes."""
        return self.get("YES") not in ("", "0", "no", "false")

    @property
    def store(self) -> tuple[str, ...]:
        """Names of the store's settings that the user has set."""
        return tuple(name for name in STORE_SETTINGS if self.get(name))

    @property
    def store_file(self) -> Path:
        """File with the address and keys of the store that `s3-up` starts; one per runner."""
        if not self.runner:
            raise RuntimeError("the runner must be chosen first")  # a bug in larder
        return self.home / f"s3-{self.runner}.env"

    @property
    def token_file(self) -> Path:
        """File with JupyterLab's token."""
        return self.home / "jupyter-token"
