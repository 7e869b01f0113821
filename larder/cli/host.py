"""Run the stages as processes in `.venv/`, for machines without a container engine."""

from __future__ import annotations

from collections.abc import Sequence

from larder.cli import local_store, virtualenv
from larder.cli.pipelines import Step
from larder.cli.process import Call
from larder.cli.setting_specs import COMMAND_ARGUMENTS
from larder.cli.settings import ResolvedSettings

PYTHON = ".venv/bin/python"
_ARGUMENT_NAMES = {setting.name for setting in COMMAND_ARGUMENTS} | {"RUNNER"}
_NEED_NO_VOLUME = {"verify", "s3", "mount"}
_SERVERS = {
    "minio": ("s3", ("--task", "up"), ("--task", "down"), ()),
    "mount": ("mount", ("--detach",), ("--unmount",), ()),
    "jupyter": ("jupyter", ("--task", "up"), ("--task", "down"), ("--task", "logs")),
}
"""By server: its stage, and the flags that start it, stop it, and print its log."""


class HostRunner:
    """Runs stages as processes; volumes are folders below LARDER_HOME.

    Args:
        settings: The settings of the run.
    """

    name = "host"

    def __init__(self, settings: ResolvedSettings) -> None:
        self.settings = settings

    def prepare(self, stages: Sequence[str]) -> list[Call]:
        """Return the calls that install the packages of these stages and create the folders of their volumes."""
        settings = self.settings
        volumes = (settings.data_volume, settings.wds_volume, settings.lit_volume)
        folders = tuple(self.volume(volume) for volume in volumes)
        torch = settings.given_of("TORCH_INDEX_URL", "TORCH_BACKEND")
        install = Call(("python3", "-m", "larder", "venv", *stages), torch)
        if _NEED_NO_VOLUME.issuperset(stages):
            return [install]
        return [install, Call(("mkdir", "-p", "--", *folders))]

    def command(self, step: Step, flags: Sequence[str] = ()) -> Call:
        """Return the call that runs a step."""
        settings = self.settings
        env = {name: value for name, value in settings.given.items() if name not in _ARGUMENT_NAMES and value}
        env["LARDER_VOLUME_DIR"] = self.volume(self._volume_of(step.file))
        if step.file in ("wds", "lit"):
            env["LARDER_INPUT"] = settings.get("LARDER_INPUT", self.volume(settings.data_volume))
            if step.stage == "load":
                env["LARDER_LOAD"] = "webdataset" if step.file == "wds" else "litdata"
        if step.stage == "verify":
            env["LARDER_WDS_DIR"] = self.volume(settings.wds_volume)
            env["LARDER_LIT_DIR"] = self.volume(settings.lit_volume)
        if step.stage in ("bench", "jupyter"):
            env["FOOD11_DATA_DIR"] = settings.get(
                "FOOD11_DATA_DIR", f"{self.volume(settings.data_volume)}/{settings.dataset}"
            )
            env["LARDER_RESULTS"] = str(settings.results)
            env["LARDER_CACHE_DIR"] = str(settings.cache_dir)
        if step.stage in ("bench", "jupyter", "mount"):
            env["LARDER_MOUNT_DIR"] = str(settings.mount_dir)
        if step.stage == "s3":
            env["LARDER_STORE_DIR"] = str(settings.store_dir)
        if step.stage == "jupyter":
            env["LARDER_WORKSPACE"] = str(settings.workspace)
            env["LARDER_JUPYTER_TOKEN_FILE"] = str(settings.token_file)
            env["LARDER_JUPYTER_DIR"] = str(settings.home / "jupyter")
        env.update(local_store.endpoint_for_host(settings))
        argv = (PYTHON, "-m", f"services.{step.stage}", *step.flags, *flags)
        return Call(
            argv, env=env, unset=local_store.masking_variables(settings), env_files=local_store.env_files(settings)
        )

    def up(self, server: str) -> Call:
        """Return the call that starts a server in the background and waits until it is ready."""
        stage, flags, _, _ = _SERVERS[server]
        return self.command(Step(stage, stage, flags))

    def down(self, server: str) -> Call:
        """Return the call that stops a server but keeps its data."""
        stage, _, flags, _ = _SERVERS[server]
        return self.command(Step(stage, stage, flags))

    def logs(self, server: str) -> Call:
        """Return the call that prints a server's log."""
        stage, _, _, flags = _SERVERS[server]
        return self.command(Step(stage, stage, flags))

    def volume(self, name: str) -> str:
        """Return the folder of a volume."""
        return str(self.settings.home / "volumes" / name)

    def _volume_of(self, file: str) -> str:
        """Return the volume that a pipeline's steps write to."""
        settings = self.settings
        return {"wds": settings.wds_volume, "lit": settings.lit_volume}.get(file, settings.data_volume)


def install(settings: ResolvedSettings, stages: Sequence[str]) -> None:
    """Install the packages of some stages into `.venv/`, unless they are installed."""
    torch = {name: settings.get(name) for name in ("TORCH_INDEX_URL", "TORCH_BACKEND")}
    virtualenv.ensure(settings.root, stages, {**settings.environ, **torch})
