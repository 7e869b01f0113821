"""The stages as containers, by `docker compose`."""

from __future__ import annotations

import glob
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from larder import __version__
from larder.cli import process, store
from larder.cli.environment import NEEDS_TORCH, has_nvidia_gpu
from larder.cli.pipelines import Step, compose_file
from larder.cli.process import Call
from larder.cli.project import PLAIN
from larder.cli.settings import WORDS, Settings, shown
from larder.dataset import DEFAULT, Layout, folder_of
from larder.errors import ConfigurationError
from larder.source_names import split_sources

SERVERS = {"minio": "s3", "mount": "mount", "jupyter": "jupyter", "ray-head": "ray", "ray-worker": "ray"}
"""The servers, each with its compose file."""
MEASURING = ("bench", "jupyter")
_BUILD = ("AWS_ACCESS_KEY_ID", "BASE_IMAGE", "LARDER_REVISION", "TORCH_INDEX_URL", "TORCH_BACKEND")
"""What a build needs of the environment; without the key's name, compose/s3.yaml can't be read."""
_WORDS = {setting.name for setting in WORDS} | {"RUNNER"}


class Facts(NamedTuple):
    """What the engine and the machine hold when a command starts.

    Attributes:
        images: Names with tags, as `larder-load:1.0`.
        volumes: Names.
        gpu: Whether there is an NVIDIA GPU, so that images need torch's CUDA build.
    """

    images: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()
    gpu: bool = True


NOTHING = Facts()


def revision_of(settings: Settings) -> str:
    """Return the revision of the checkout; empty where git doesn't know."""
    if found := settings.get("LARDER_REVISION"):
        return found
    describe = ("git", "-C", str(settings.root), "describe", "--always", "--dirty", "--abbrev=12")
    return process.output(describe, settings.environ)[1].strip()


def look(environ: Mapping[str, str]) -> Facts:
    """Return what the engine holds."""
    _, images, _ = process.output(("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"), environ)
    _, volumes, _ = process.output(("docker", "volume", "ls", "--quiet"), environ)
    return Facts(frozenset(images.split()), frozenset(volumes.split()), has_nvidia_gpu())


class Compose:
    """Runs stages as containers.

    Args:
        settings: The settings of the run.
        project: The compose project.
        facts: What the engine holds.
        revision: The checkout's revision, for the images' labels.
    """

    name = "compose"

    def __init__(
        self, settings: Settings, project: str = PLAIN, facts: Facts = NOTHING, revision: str = ""
    ) -> None:  # fmt: skip
        self.settings, self.project, self.facts, self.revision = settings, project, facts, revision

    def prepare(self, stages: Sequence[str]) -> list[Call]:
        """Return the builds. An image that is there is brought up to date in silence."""
        calls = []
        for stage in stages:
            quiet = ("--quiet",) if image(stage) in self.facts.images else ()
            calls.append(self.build(stage, *quiet))
        return calls

    def build(self, stage: str, *flags: str) -> Call:
        """Return the build of one stage's image."""
        call = self._compose(compose_file(stage), "build", *flags, stage, stage=stage).silent()
        env = {name: value for name, value in call.env.items() if name in _BUILD}
        env.update({"LARDER_REVISION": self.revision} if self.revision else {})
        if stage in NEEDS_TORCH and not self.facts.gpu and not self._chooses_torch():
            env["TORCH_BACKEND"] = "cpu"
        return replace(call, env=env)

    def _chooses_torch(self) -> bool:
        return any(self.settings.get(name) for name in ("TORCH_INDEX_URL", "TORCH_BACKEND"))

    def command(self, step: Step, flags: Sequence[str] = ()) -> Call:
        """Return the call that runs a step in a container that goes with it."""
        options: tuple[str, ...] = ()
        if step.stage in ("extract", "verify"):
            options = self._source()
        env = self._without_missing_volumes() if step.stage == "verify" else {}
        words = ("run", "--rm", "--no-deps", *options, step.stage, *step.flags, *flags)
        return self._compose(step.file, *words, env=env, stage=step.stage)

    def up(self, server: str) -> Call:
        """Return the call that starts a server and waits until it answers."""
        file = SERVERS[server]
        names = () if file == "ray" else (server,)
        return self._compose(file, "up", "-d", "--wait", *names, stage=server).silent()

    def down(self, server: str) -> Call:
        """Return the call that stops and removes a server; its data stay."""
        file = SERVERS[server]
        names = ("ray-head", "ray-worker") if file == "ray" else (server,)
        return self._compose(file, "rm", "--stop", "--force", *names, stage=server).silent()

    def logs(self, server: str) -> Call:
        """Return the call that prints a server's log."""
        return self._compose(SERVERS[server], "logs", "--no-log-prefix", server, stage=server)

    def query(self, server: str, *words: str) -> Call:
        """Return a call that asks compose about a server: `ps`, `port`."""
        return self._compose(SERVERS[server], *words, stage=server)

    def volume(self, name: str) -> str:
        """Return a volume's name."""
        return name

    def has_volume(self, name: str) -> bool:
        """Whether a volume is there."""
        return name in self.facts.volumes

    def _compose(self, file: str, *words: str, stage: str, env: Mapping[str, str] | None = None) -> Call:
        project = () if self.project == PLAIN else ("-p", self.project)
        files = [word for path in store.files(self.settings) for word in ("--env-file", str(path))]
        return Call(
            ("docker", "compose", *project, *files, "-f", f"compose/{file}.yaml", *words),
            env={**self._env(file, stage), **(env or {})}, unset=store.hidden(self.settings),
        )  # fmt: skip

    def _env(self, file: str, stage: str) -> dict[str, str]:
        """Return what compose can't work out: what the command line sets, names of volumes, folders, ids."""
        settings = self.settings
        env = {name: value for name, value in settings.given.items() if name not in _WORDS and value}
        for name, value in self._volumes().items():
            if not settings.get(name):
                env[name] = value
        if stage in MEASURING or stage == "mount":
            env["LARDER_MOUNT_DIR"] = self._absolute(settings.mount_dir)
        if stage in MEASURING:
            env["LARDER_RESULTS"] = self._absolute(settings.results)
            if settings.cache_dir is not None:
                env["LARDER_CACHE_DIR"] = self._absolute(settings.cache_dir)
            env.update({"LARDER_UID": settings.uid, "LARDER_GID": settings.gid})
        if stage == "jupyter":
            env["LARDER_WORKSPACE"] = self._absolute(settings.workspace)
            env["LARDER_JUPYTER_TOKEN_FILE"] = self._absolute(settings.token_file)
        if file == "s3" and not settings.store and settings.store_file not in store.files(settings):
            env["AWS_ACCESS_KEY_ID"] = ""  # compose asks for it though only the server needs it
        return env

    def _volumes(self) -> dict[str, str]:
        """Return the volumes that compose would name otherwise: it can't spell the default's, once a name is given."""
        if self.settings.get("LARDER_DATASET") != DEFAULT:
            return {}
        settings = self.settings
        return {"LARDER_DATA_VOLUME": settings.data_volume, "LARDER_WDS_VOLUME": settings.wds_volume,
                "LARDER_LIT_VOLUME": settings.lit_volume}  # fmt: skip

    def _absolute(self, path: Path) -> str:
        return os.path.realpath(self.settings.root / path)

    def _source(self) -> tuple[str, ...]:
        """Return the options that hand a local archive or folder into the container, read-only."""
        path = local_source(self.settings)
        if path is None:
            return self._several_sources()
        name = path.name if re.fullmatch(r"[\w. ()+-]+", path.name) else f"source{''.join(path.suffixes[-2:])}"
        return (*_mounted(path, f"/source/{name}"), "-e", f"LARDER_SOURCE=/source/{name}")

    def _several_sources(self) -> tuple[str, ...]:
        """Return the options for several local archives, or a pattern: their folders are handed in."""
        try:
            sources = [source for source in split_sources(self.settings.get("LARDER_SOURCE")) if source]
        except ValueError:
            return ()  # extract says what is wrong with it
        folders: dict[Path, str] = {}
        names = [self._inside(source, folders) for source in sources]
        if not folders:
            return ()
        mounts = [option for folder, inside in folders.items() for option in _mounted(folder, inside)]
        listed = names[0] if len(names) == 1 else json.dumps(names)
        return (*mounts, "-e", f"LARDER_SOURCE={listed}")

    def _inside(self, source: str, folders: dict[Path, str]) -> str:
        """Return what a source is called in the container, and note the folder that it lies in."""
        if "://" in source or source == "sample":
            return source
        path = self.settings.root / os.path.expanduser(source)
        fixed = next((folder for folder in path.parents if not glob.has_magic(str(folder))), path.parent)
        if not (fixed.is_dir() and (path.exists() or glob.has_magic(source))):
            return source
        inside = folders.setdefault(fixed.resolve(), f"/source/{len(folders)}")
        return f"{inside}/{path.relative_to(fixed)}"

    def _without_missing_volumes(self) -> dict[str, str]:
        """Return settings that put the data volume in the place of volumes that aren't there, so that none is made."""
        volumes = {"VERIFY_WDS": self.settings.wds_volume, "VERIFY_LIT": self.settings.lit_volume}
        return {name: "baseline" for name, volume in volumes.items() if volume not in self.facts.volumes}


def _mounted(path: Path, inside: str) -> tuple[str, str]:
    """Return the options that mount a path read-only. Raises ConfigurationError where Docker can't."""
    if ":" in str(path):
        raise ConfigurationError(
            f"Docker can't mount a path with a colon: {shown(str(path))}", next_step="rename it, or use RUNNER=host"
        )
    return ("-v", f"{path}:{inside}:ro")


def image(stage: str) -> str:
    """Return the name of a stage's image."""
    return f"larder-{stage}:{__version__}"


def local_source(settings: Settings) -> Path | None:
    """Return the archive or folder on this machine that LARDER_SOURCE names; None for everything else."""
    source = settings.get("LARDER_SOURCE")
    if not source or source == "sample" or "://" in source:
        return None
    path = settings.root / os.path.expanduser(source)
    try:
        return path.resolve() if path.exists() else None
    except (OSError, ValueError):
        return None


def staged_folders(settings: Settings, pipeline: str) -> tuple[str, ...]:
    """Return the folders that a packing pipeline may have left: earlier versions had the default's alone."""
    layout: Layout = "webdataset" if pipeline == "wds" else "litdata"
    return tuple(dict.fromkeys(folder_of(name, layout) for name in (settings.dataset, DEFAULT)))


def end_container(label: str, child: process.Child, environ: Mapping[str, str]) -> None:
    """End the container with a label after its user asked for the end, and wait until it is gone.

    Args:
        label: The label.
        child: The compose process that runs it.
        environ: The environment for Docker's client.
    """
    if _containers(label, environ, running=True):
        return _wait_for_end(label, child, environ)
    child.terminate()  # compose drops signals while a container starts
    for _ in range(20):
        if found := _containers(label, environ):
            process.output(("docker", "rm", "--force", *found), environ)
        elif child.poll() is not None:
            return None
        time.sleep(0.25)
    child.kill()
    return None


def _wait_for_end(label: str, child: process.Child, environ: Mapping[str, str]) -> None:
    """Wait for a stage that has heard the signal; a compose process may give up before its container has ended."""
    child.wait()
    for found in _containers(label, environ, running=True):
        process.output(("docker", "stop", "--time", "60", found), environ, seconds=90.0)
    if left := _containers(label, environ):
        process.output(("docker", "rm", "--force", *left), environ)


def _containers(label: str, environ: Mapping[str, str], running: bool = False) -> list[str]:
    which = () if running else ("--all",)
    return process.output(("docker", "ps", *which, "--quiet", "--filter", f"label={label}"), environ)[1].split()
