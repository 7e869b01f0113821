"""Inspect the machine without changing it: create no volume, start no server, claim no project."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from larder.cli import compose, dotenv, inventory, local_store, mounts, ports, process, project
from larder.cli.compose import ComposeRunner, image_name
from larder.cli.host import PYTHON, HostRunner
from larder.cli.inventory import Contents
from larder.cli.pipelines import STAGES, Step
from larder.cli.process import Call
from larder.cli.runner import ContainerEngine, detect_container_engine
from larder.cli.settings import ResolvedSettings
from larder.dataset import folder_of, index_folder_of
from larder.distant.find import find_link
from larder.distant.link import Link
from larder.errors import LarderError

PROJECT_LABEL, SERVICE_LABEL = "com.docker.compose.project", "com.docker.compose.service"
FOLDER_LABEL = "com.docker.compose.project.working_dir"
_SECONDS = 20.0


class Container(NamedTuple):
    """A container of the checkout's project."""

    id: str
    name: str
    service: str
    state: str
    ports: str


class CheckoutInspector:
    """Inspects the engine, volumes, store and servers of a checkout.

    Args:
        settings: The settings, without a runner.
        environ: The environment of Docker's client.
    """

    def __init__(self, settings: ResolvedSettings, environ: Mapping[str, str]) -> None:
        self.environ = environ
        runner = settings.get("RUNNER")
        self.engine = (
            ContainerEngine("missing", "RUNNER=host") if runner == "host" else detect_container_engine(environ)
        )
        name = runner or ("compose" if self.engine.state == "ready" else "host")
        self.settings = settings.with_runner(name)
        self.project = settings.get("COMPOSE_PROJECT_NAME") or project.find_project_name(settings.root, environ)
        self.facts = compose.gather_facts(environ) if self.engine.state == "ready" else compose.NO_FACTS
        self.runner: ComposeRunner | HostRunner = (
            ComposeRunner(self.settings, self.project, self.facts) if name == "compose" else HostRunner(self.settings)
        )

    @property
    def root(self) -> Path:
        """Folder of the checkout."""
        return self.settings.root

    def read_volumes(self) -> dict[str, Contents | None]:
        """Return the existing volumes of the dataset and their content; None if that is unknown."""
        settings = self.settings
        names = list(
            dict.fromkeys([settings.data_volume, settings.wds_volume, settings.lit_volume, settings.demo_volume])
        )
        if isinstance(self.runner, HostRunner):
            folders = {name: self.root / self.runner.volume(name) for name in names}
            return {name: inventory.read_volume(folder) for name, folder in folders.items() if folder.is_dir()}
        return self.read_docker_volumes([name for name in names if name in self.facts.volumes])

    def read_docker_volumes(self, volumes: Sequence[str]) -> dict[str, Contents | None]:
        """Return the content of Docker volumes, read by a short-lived container; None if there is no image to run."""
        image = next((image_name(stage) for stage in ("load", *STAGES) if image_name(stage) in self.facts.images), "")
        unknown: dict[str, Contents | None] = dict.fromkeys(volumes)
        if not image or not volumes:
            return unknown
        binds = [word for name in volumes for word in ("-v", f"{name}:/volumes/{name}:ro")]
        run = ["docker", "run", "--rm", "--network", "none", "--read-only", *binds, "--entrypoint", "python", image]
        output = self.capture(Call((*run, "-m", "larder.cli.inventory", *(f"/volumes/{name}" for name in volumes))))
        try:
            contents = inventory.from_json(output)
        except ValueError:  # an older image without this module
            return unknown
        return {name: contents.get(f"/volumes/{name}") for name in volumes}

    def read_bucket(self) -> Contents | None:
        """Return the content of the bucket; None if no packages or image are installed to read it."""
        names = [folder_of(self.settings.dataset, layout) for layout in ("tree", "webdataset", "litdata")]
        names.append(index_folder_of(self.settings.dataset))
        words = ("-m", "larder.cli.inventory", "--store", *names)
        if isinstance(self.runner, HostRunner):
            if not (self.root / PYTHON).exists():
                return None
            call = self.runner.command(Step("load", "load"))
            call = Call((PYTHON, *words), call.env, call.unset, call.env_files)
        elif image_name("s3") not in self.facts.images:
            return None
        else:
            call = self.runner.command(Step("s3", "s3", words))
            at = call.argv.index("run") + 1
            call = Call((*call.argv[:at], "--entrypoint", "python", *call.argv[at:]), call.env, call.unset)
        try:
            return inventory.from_json(self.capture(call))["store"]
        except (ValueError, KeyError):
            return None

    def containers(self) -> list[Container]:
        """Return the project's containers."""
        return self._list_containers(f"{PROJECT_LABEL}={self.project}")

    def list_checkout_containers(self, projects: Iterable[str]) -> list[Container]:
        """Return the containers of some projects, and those that `docker compose` itself started from this checkout."""
        labels = [f"{PROJECT_LABEL}={name}" for name in projects]
        labels.append(f"{FOLDER_LABEL}={self.root.resolve() / 'compose'}")
        return list(dict.fromkeys(container for label in labels for container in self._list_containers(label)))

    def _list_containers(self, label: str) -> list[Container]:
        if self.engine.state != "ready":
            return []
        fields = ("{{.ID}}", "{{.Names}}", f'{{{{.Label "{SERVICE_LABEL}"}}}}', "{{.State}}", "{{.Ports}}")
        words = ("docker", "ps", "--all", "--no-trunc", "--filter", f"label={label}", "--format", "\t".join(fields))
        lines = self.capture(Call(words)).splitlines()
        return [Container(*line.split("\t")) for line in lines if line.count("\t") == 4]

    def mount_points(self) -> list[str]:
        """Return the mount points in the folder of the mount."""
        return mounts.below(Path(os.path.realpath(self.root / self.settings.mount_dir)))

    def is_store_running(self) -> bool:
        """Return whether the store on this machine runs."""
        if isinstance(self.runner, ComposeRunner):
            return self._runs("minio")
        if local_store.find_store_file(self.settings) != self.settings.store_file:  # the store of the containers
            return ports.is_open(int(local_store.find_published_port(self.settings)))
        return is_running(self.root / self.settings.store_dir / "pid", "weed")

    def find_store_link(self) -> Link | None:
        """Return the link before the store on this machine; None without one, or if the settings name another store."""
        endpoint = local_store.endpoint_of(self.settings)
        if isinstance(self.runner, HostRunner):
            files = [self.root / file for file in local_store.env_files(self.settings)]
            runs = is_link_running(self.root / self.settings.store_dir)
            return find_link(endpoint or dotenv.read(files, self.environ).get("S3_ENDPOINT_URL", "")) if runs else None
        is_own = endpoint in ("", local_store.CONTAINER_ENDPOINT) or local_store.endpoint_for_containers(self.settings)
        if not is_own or not self._runs("link"):
            return None
        return find_link(local_store.host_endpoint(self.settings))

    def _runs(self, service: str) -> bool:
        return any(container.service == service and container.state == "running" for container in self.containers())

    def jupyter_port(self) -> str:
        """Return the port of the running JupyterLab; "" if none runs."""
        if isinstance(self.runner, ComposeRunner):
            return self.settings.get("LARDER_JUPYTER_PORT", "8888") if self._runs("jupyter") else ""
        return next((port for port, _ in find_jupyter_servers(self.root / self.settings.home / "jupyter")), "")

    def has_store(self) -> bool:
        """Return whether the settings name a store, or `s3-up` has created one."""
        return bool(self.settings.store) or local_store.find_store_file(self.settings) is not None

    def capture(self, call: Call) -> str:
        """Run a short call in the checkout and return its stdout; "" if it fails or takes too long."""
        values = dotenv.read([self.root / file for file in call.env_files], self.environ)
        environ = process.environment(call, self.environ, values)
        try:
            code, out, _ = process.capture(call.argv, environ, _SECONDS, self.root)
        except LarderError:
            return ""
        return out if code == 0 else ""


def find_jupyter_servers(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield port and process id of each JupyterLab in the background, from Jupyter's runtime files."""
    for file in sorted((folder / "runtime").glob("jpserver-*.json")):
        try:
            fields = json.loads(file.read_text("utf-8"))
            port, pid = str(fields["port"]), int(fields["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if b"jupyterlab" in _command_line(pid):
            yield port, pid


def is_running(pid_file: Path, word: str) -> bool:
    """Return whether the process in a pid file runs with `word` in its command line, since the kernel reuses ids."""
    try:
        return word.encode() in _command_line(int(pid_file.read_text("utf-8")))
    except (OSError, ValueError):
        return False


def is_link_running(store_dir: Path) -> bool:
    """Return whether the link before the embedded store runs."""
    return is_running(store_dir / "link" / "pid", "larder.distant")


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
