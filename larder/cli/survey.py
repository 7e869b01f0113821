"""Looks at what is there, and changes nothing: no volume is made, no server started, no project claimed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from larder.cli import compose, dotenv, inventory, mounts, process, project, store
from larder.cli.compose import Compose, image
from larder.cli.host import PYTHON, Host
from larder.cli.inventory import Holding
from larder.cli.pipelines import STAGES, Step
from larder.cli.process import Call
from larder.cli.runner import Engine, look_for_engine
from larder.cli.settings import Settings
from larder.dataset import folder_of, index_folder_of
from larder.errors import LarderError

PROJECT_LABEL, SERVICE_LABEL = "com.docker.compose.project", "com.docker.compose.service"
_SECONDS = 20.0


class Container(NamedTuple):
    """A container of the checkout's project."""

    id: str
    name: str
    service: str
    state: str
    ports: str


class Survey:
    """What is there.

    Args:
        settings: The settings, without a runner.
        environ: The environment of Docker's client.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self.environ = environ
        wanted = settings.get("RUNNER")
        self.engine = Engine("missing", "RUNNER=host") if wanted == "host" else look_for_engine(environ)
        name = wanted or ("compose" if self.engine.state == "ready" else "host")
        self.settings = settings.with_runner(name)
        self.project = settings.get("COMPOSE_PROJECT_NAME") or project.look(settings.root, environ)
        self.facts = compose.look(environ) if self.engine.state == "ready" else compose.NOTHING
        self.runner: Compose | Host = (
            Compose(self.settings, self.project, self.facts) if name == "compose" else Host(self.settings)
        )

    @property
    def root(self) -> Path:
        """The checkout."""
        return self.settings.root

    def volumes(self) -> dict[str, Holding | None]:
        """Return the volumes of the data set that are there, and what they hold; None where that can't be known."""
        settings = self.settings
        names = list(dict.fromkeys([settings.data_volume, settings.wds_volume, settings.lit_volume,
                                    settings.demo_volume]))  # fmt: skip
        if isinstance(self.runner, Host):
            folders = {name: self.root / self.runner.volume(name) for name in names}
            return {name: inventory.look(folder) for name, folder in folders.items() if folder.is_dir()}
        return self.look_into([name for name in names if name in self.facts.volumes])

    def look_into(self, volumes: Sequence[str]) -> dict[str, Holding | None]:
        """Return what Docker volumes hold, as one short container sees it; None where no image is there."""
        found = next((image(stage) for stage in ("load", *STAGES) if image(stage) in self.facts.images), "")
        nothing: dict[str, Holding | None] = dict.fromkeys(volumes)
        if not found or not volumes:
            return nothing
        binds = [word for name in volumes for word in ("-v", f"{name}:/volumes/{name}:ro")]
        run = ["docker", "run", "--rm", "--network", "none", "--read-only", *binds, "--entrypoint", "python", found]
        said = self.output(Call((*run, "-m", "larder.cli.inventory", *(f"/volumes/{name}" for name in volumes))))
        try:
            holdings = inventory.from_json(said)
        except ValueError:  # an image from before this module
            return nothing
        return {name: holdings.get(f"/volumes/{name}") for name in volumes}

    def stored(self) -> Holding | None:
        """Return what the bucket holds; None where there is nothing to ask it with."""
        names = [folder_of(self.settings.dataset, layout) for layout in ("tree", "webdataset", "litdata")]
        names.append(index_folder_of(self.settings.dataset))
        words = ("-m", "larder.cli.inventory", "--store", *names)
        if isinstance(self.runner, Host):
            if not (self.root / PYTHON).exists():
                return None
            call = self.runner.command(Step("load", "load"))
            call = Call((PYTHON, *words), call.env, call.unset, call.env_files)
        elif image("s3") not in self.facts.images:
            return None
        else:
            call = self.runner.command(Step("s3", "s3", words))
            at = call.argv.index("run") + 1
            call = Call((*call.argv[:at], "--entrypoint", "python", *call.argv[at:]), call.env, call.unset)
        try:
            return inventory.from_json(self.output(call))["store"]
        except (ValueError, KeyError):
            return None

    def containers(self) -> list[Container]:
        """Return the project's containers."""
        if self.engine.state != "ready":
            return []
        fields = ("{{.ID}}", "{{.Names}}", f'{{{{.Label "{SERVICE_LABEL}"}}}}', "{{.State}}", "{{.Ports}}")
        found = self.output(Call(("docker", "ps", "--all", "--no-trunc", "--filter",
                                  f"label={PROJECT_LABEL}={self.project}", "--format", "\t".join(fields))))  # fmt: skip
        return [Container(*line.split("\t")) for line in found.splitlines() if line.count("\t") == 4]

    def mounted(self) -> list[str]:
        """Return what is mounted in the folder of the mount."""
        return mounts.below(Path(os.path.realpath(self.root / self.settings.mount_dir)))

    def store_runs(self) -> bool:
        """Whether the store on this machine runs."""
        if isinstance(self.runner, Compose):
            return any(found.service == "minio" and found.state == "running" for found in self.containers())
        return is_running(self.root / self.settings.store_dir / "pid", "weed")

    def lab_port(self) -> str:
        """Return the port of the JupyterLab that runs; empty when none does."""
        if isinstance(self.runner, Compose):
            runs = any(found.service == "jupyter" and found.state == "running" for found in self.containers())
            return self.settings.get("LARDER_JUPYTER_PORT", "8888") if runs else ""
        return next((port for port, _ in labs(self.root / self.settings.home / "jupyter")), "")

    def has_store(self) -> bool:
        """Whether the settings lead to a store."""
        return bool(self.settings.store) or bool(store.files(self.settings)[-1:] == (self.settings.store_file,))

    def output(self, call: Call) -> str:
        """Run a short call in the checkout and return its stdout; empty when it fails or takes too long."""
        values = dotenv.read([self.root / file for file in call.env_files], self.environ)
        environ = process.environment(call, self.environ, values)
        try:
            code, out, _ = process.output(call.argv, environ, _SECONDS, self.root)
        except LarderError:
            return ""
        return out if code == 0 else ""


def labs(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield port and process id of each JupyterLab that runs in the background, by Jupyter's own notes."""
    for note in sorted((folder / "runtime").glob("jpserver-*.json")):
        try:
            written = json.loads(note.read_text("utf-8"))
            port, pid = str(written["port"]), int(written["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if b"jupyterlab" in _command_line(pid):
            yield port, pid


def is_running(pid_file: Path, word: str) -> bool:
    """Whether the process in a pid file runs and has a word in its command line: the kernel gives ids again."""
    try:
        return word.encode() in _command_line(int(pid_file.read_text("utf-8")))
    except (OSError, ValueError):
        return False


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
