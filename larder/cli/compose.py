"""Run the stages as containers, with `docker compose`."""

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
from larder.cli import local_store, process, sources
from larder.cli.pipelines import Step, compose_file
from larder.cli.process import Call
from larder.cli.project import DEFAULT_PROJECT
from larder.cli.setting_specs import COMMAND_ARGUMENTS
from larder.cli.setting_values import printable
from larder.cli.settings import ResolvedSettings
from larder.cli.virtualenv import NEEDS_TORCH, has_nvidia_gpu
from larder.dataset import DEFAULT, ArtifactLayout, folder_of
from larder.errors import ConfigurationError
from larder.source_names import split_sources

SERVERS = {
    "minio": "s3",
    "link": "distant",
    "mount": "mount",
    "jupyter": "jupyter",
    "ray-head": "ray",
    "ray-worker": "ray",
}
"""The compose file of each server."""
_REMOVED_TOGETHER = {"minio": ("distant", ("link", "minio")), "ray-head": ("ray", ("ray-head", "ray-worker"))}
"""By server: servers that are removed with it, and a compose file that has them."""
LAB_SERVICES = (
    "extract-data",
    "transform-data",
    "load-data",
    "shard-webdataset",
    "load-webdataset",
    "upload-webdataset",
    "optimize-litdata",
    "load-litdata",
    "upload-litdata",
)
"""Names of stages in Chameleon's lab (docs/lab.md), which runs them without --rm."""
MEASURING = ("bench", "jupyter")
_BUILD = ("AWS_ACCESS_KEY_ID", "BASE_IMAGE", "LARDER_REVISION", "TORCH_INDEX_URL", "TORCH_BACKEND")
"""Variables that a build needs. compose/minio.yaml is invalid without AWS_ACCESS_KEY_ID."""
_ARGUMENT_NAMES = {setting.name for setting in COMMAND_ARGUMENTS} | {"RUNNER"}
_CHECKS_AFTER_END = 3
"""How often to look for a container after its client has ended: the engine may still be creating it."""


class Facts(NamedTuple):
    """State of the engine and the machine when a command starts.

    Attributes:
        images: Names with tags, such as `larder-load:1.0`.
        volumes: Names of volumes.
        gpu: Whether there is an NVIDIA GPU, so that images need torch's CUDA build.
        checkouts: The checkouts that have servers in the plain project.
    """

    images: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()
    gpu: bool = True
    checkouts: frozenset[Path] = frozenset()


NO_FACTS = Facts()


def revision_of(settings: ResolvedSettings) -> str:
    """Return the revision of the checkout; empty if git doesn't know it."""
    if revision := settings.get("LARDER_REVISION"):
        return revision
    describe = ("git", "-C", str(settings.root), "describe", "--always", "--dirty", "--abbrev=12")
    return process.capture(describe, settings.environ)[1].strip()


def gather_facts(environ: Mapping[str, str]) -> Facts:
    """Return the state of the engine and the machine."""
    _, images, _ = process.capture(("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"), environ)
    _, volumes, _ = process.capture(("docker", "volume", "ls", "--quiet"), environ)
    labels = (f"com.docker.compose.project={DEFAULT_PROJECT}", "com.docker.compose.oneoff=False")
    filters = [word for label in labels for word in ("--filter", f"label={label}")]
    folder = '{{.Label "com.docker.compose.project.working_dir"}}'
    _, folders, _ = process.capture(("docker", "ps", "--all", *filters, "--format", folder), environ)
    checkouts = frozenset(Path(folder).parent for folder in folders.splitlines() if folder)  # of their compose/
    return Facts(frozenset(images.split()), frozenset(volumes.split()), has_nvidia_gpu(), checkouts)


class ComposeRunner:
    """Runs stages as containers.

    Args:
        settings: The settings of the run.
        project: The compose project.
        facts: State of the engine and the machine.
        revision: The checkout's revision, for the images' labels.
    """

    name = "compose"

    def __init__(
        self, settings: ResolvedSettings, project: str = DEFAULT_PROJECT, facts: Facts = NO_FACTS, revision: str = ""
    ) -> None:
        self.settings, self.project, self.facts, self.revision = settings, project, facts, revision

    def prepare(self, stages: Sequence[str]) -> list[Call]:
        """Return the calls that build images; existing images are updated quietly."""
        calls = []
        for stage in stages:
            quiet = ("--quiet",) if image_name(stage) in self.facts.images else ()
            calls.append(self.build(stage, *quiet))
        return calls

    def build(self, stage: str, *flags: str) -> Call:
        """Return the call that builds one stage's image."""
        call = self._compose(compose_file(stage), "build", *flags, stage, stage=stage).redirected_to_stderr()
        env = {name: value for name, value in call.env.items() if name in _BUILD}
        env.update({"LARDER_REVISION": self.revision} if self.revision else {})
        if stage in NEEDS_TORCH and not self.facts.gpu and not self._chooses_torch():
            env["TORCH_BACKEND"] = "cpu"
        return replace(call, env=env)

    def _chooses_torch(self) -> bool:
        return any(self.settings.get(name) for name in ("TORCH_INDEX_URL", "TORCH_BACKEND"))

    def command(self, step: Step, flags: Sequence[str] = ()) -> Call:
        """Return the call that runs a step in a temporary container."""
        options: tuple[str, ...] = ()
        if step.stage in ("extract", "verify"):
            options = self._source()
        env = self._without_missing_volumes() if step.stage == "verify" else {}
        words = ("run", "--rm", "--no-deps", *options, step.stage, *step.flags, *flags)
        return self._compose(step.file, *words, env=env, stage=step.stage)

    def up(self, server: str) -> Call:
        """Return the call that starts a server and waits until it is ready."""
        file = SERVERS[server]
        names = () if file == "ray" else (server,)
        return self._compose(file, "up", "-d", "--wait", *names, stage=server).redirected_to_stderr()

    def down(self, server: str) -> Call:
        """Return the call that stops and removes a server but keeps its data."""
        file, names = _REMOVED_TOGETHER.get(server, (SERVERS[server], (server,)))
        return self._compose(file, "rm", "--stop", "--force", *names, stage=server).redirected_to_stderr()

    def logs(self, server: str) -> Call:
        """Return the call that prints a server's log."""
        return self._compose(SERVERS[server], "logs", "--no-log-prefix", server, stage=server)

    def list_links(self) -> Call:
        """Return a call that lists the containers of the link before the store, running or not."""
        return self._list("link", "--all")

    def list_running(self, server: str) -> Call:
        """Return a call that lists the running container of a server."""
        return self._list(server)

    def _list(self, service: str, *flags: str) -> Call:
        project = self.settings.get("COMPOSE_PROJECT_NAME") or self.project
        labels = (f"com.docker.compose.project={project}", f"com.docker.compose.service={service}")
        filters = [word for label in labels for word in ("--filter", f"label={label}")]
        return Call(("docker", "ps", *flags, "--quiet", *filters))

    def query(self, server: str, *words: str) -> Call:
        """Return a call that queries compose about a server: `ps`, `port`."""
        return self._compose(SERVERS[server], *words, stage=server)

    def volume(self, name: str) -> str:
        """Return the name of a volume, which is its Docker volume."""
        return name

    def _compose(self, file: str, *words: str, stage: str, env: Mapping[str, str] | None = None) -> Call:
        project = () if self.project == DEFAULT_PROJECT else ("-p", self.project)
        files = [word for path in local_store.env_files(self.settings) for word in ("--env-file", str(path))]
        return Call(
            ("docker", "compose", *project, *files, "-f", f"compose/{file}.yaml", *words),
            env={**self._env(file, stage), **(env or {})},
            unset=local_store.masking_variables(self.settings),
        )

    def _env(self, file: str, stage: str) -> dict[str, str]:
        """Return the variables that compose can't derive: settings of the command line, volumes, folders, ids."""
        settings = self.settings
        env = {name: value for name, value in settings.given.items() if name not in _ARGUMENT_NAMES and value}
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
        env.update(local_store.endpoint_for_containers(settings))
        has_keys = settings.get("AWS_ACCESS_KEY_ID") or local_store.find_store_file(settings)
        is_own = local_store.endpoint_of(settings) == local_store.CONTAINER_ENDPOINT
        if file in ("s3", "distant") and not has_keys and not is_own:
            env["AWS_ACCESS_KEY_ID"] = ""  # compose requires it, although only the server needs it
        return env

    def host_folders(self) -> str:
        """Return what compose/bench.yaml mounts where, as JSON: folders of the container, and those of the host."""
        settings = self.settings
        folders = {"/results": settings.results, "/mount": settings.mount_dir, "/cache": settings.cache_dir}
        return json.dumps({inside: self._absolute(path) for inside, path in folders.items() if path is not None})

    def _volumes(self) -> dict[str, str]:
        """Return the volumes' names if the default dataset is named explicitly: compose would derive other names."""
        if self.settings.get("LARDER_DATASET") != DEFAULT:
            return {}
        settings = self.settings
        return {
            "LARDER_DATA_VOLUME": settings.data_volume,
            "LARDER_WDS_VOLUME": settings.wds_volume,
            "LARDER_LIT_VOLUME": settings.lit_volume,
        }

    def _absolute(self, path: Path) -> str:
        return os.path.realpath(self.settings.root / path)

    def _source(self) -> tuple[str, ...]:
        """Return the options that mount a local archive or folder read-only."""
        path = sources.find_local_source(self.settings)
        if path is None:
            return self._several_sources()
        name = path.name if re.fullmatch(r"[\w. ()+-]+", path.name) else f"source{''.join(path.suffixes[-2:])}"
        return (*_mount_options(path, f"/source/{name}"), "-e", f"LARDER_SOURCE=/source/{name}")

    def _several_sources(self) -> tuple[str, ...]:
        """Return the options that mount the folders of several local archives, or of a pattern."""
        try:
            given = [source for source in split_sources(self.settings.get("LARDER_SOURCE")) if source]
        except ValueError:
            return ()  # extract reports the error
        folders: dict[Path, str] = {}
        names = [self._container_path(source, folders) for source in given]
        if not folders:
            return ()
        mounts = [
            option for folder, container_path in folders.items() for option in _mount_options(folder, container_path)
        ]
        listed = names[0] if len(names) == 1 else json.dumps(names)
        return (*mounts, "-e", f"LARDER_SOURCE={listed}")

    def _container_path(self, source: str, folders: dict[Path, str]) -> str:
        """Return a source's path in the container, and add its folder to `folders`."""
        if "://" in source or source == "sample":
            return source
        path = self.settings.root / os.path.expanduser(source)
        fixed = next((folder for folder in path.parents if not glob.has_magic(str(folder))), path.parent)
        if not (fixed.is_dir() and (path.exists() or glob.has_magic(source))):
            return source
        container_path = folders.setdefault(fixed.resolve(), f"/source/{len(folders)}")
        return f"{container_path}/{path.relative_to(fixed)}"

    def _without_missing_volumes(self) -> dict[str, str]:
        """Return settings that replace missing volumes by the data volume, so that compose doesn't create them."""
        volumes = {"VERIFY_WDS": self.settings.wds_volume, "VERIFY_LIT": self.settings.lit_volume}
        return {name: "baseline" for name, volume in volumes.items() if volume not in self.facts.volumes}


def _mount_options(path: Path, container_path: str) -> tuple[str, str]:
    """Return the options that mount a path read-only. Raise ConfigurationError if Docker can't mount it."""
    if ":" in str(path):
        raise ConfigurationError(
            f"Docker can't mount a path with a colon: {printable(str(path))}", next_step="rename it, or use RUNNER=host"
        )
    return ("-v", f"{path}:{container_path}:ro")


def image_name(stage: str) -> str:
    """Return the name of a stage's image."""
    return f"larder-{stage}:{__version__}"


def pipeline_folders(settings: ResolvedSettings, pipeline: str) -> tuple[str, ...]:
    """Return the folders that a packing pipeline may have left; earlier versions used the default's names only."""
    layout: ArtifactLayout = "webdataset" if pipeline == "wds" else "litdata"
    return tuple(dict.fromkeys(folder_of(name, layout) for name in (settings.dataset, DEFAULT)))


def end_container(label: str, child: process.ChildProcess, environ: Mapping[str, str]) -> None:
    """End the container with a label after an interrupt, and wait until it is gone.

    Args:
        label: The label.
        child: The compose process that runs it.
        environ: The environment for Docker's client.
    """
    if _containers(label, environ, running=True):
        return _wait_for_end(label, child, environ)
    child.terminate()  # compose drops signals while a container starts
    checks_left = _CHECKS_AFTER_END
    for _ in range(20):
        ended = child.poll() is not None
        if containers := _containers(label, environ):
            process.capture(("docker", "rm", "--force", *containers), environ)
        elif ended and (checks_left := checks_left - 1) == 0:
            return None
        time.sleep(0.25)
    child.kill()
    return None


def _wait_for_end(label: str, child: process.ChildProcess, environ: Mapping[str, str]) -> None:
    """Wait for a stage that has received the signal; its compose process may end before the container does."""
    child.wait()
    for container in _containers(label, environ, running=True):
        process.capture(("docker", "stop", "--time", "60", container), environ, seconds=90.0)
    if left := _containers(label, environ):
        process.capture(("docker", "rm", "--force", *left), environ)


def _containers(label: str, environ: Mapping[str, str], running: bool = False) -> list[str]:
    which = () if running else ("--all",)
    return process.capture(("docker", "ps", *which, "--quiet", "--filter", f"label={label}"), environ)[1].split()
