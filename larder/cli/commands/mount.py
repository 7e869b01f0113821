"""Commands that mount the bucket as a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from larder.cli.app import App, Failed
from larder.cli.console import say, tell
from larder.cli.mounts import mount_of
from larder.errors import ConfigurationError


def mount(app: App, _: Sequence[str]) -> None:
    """Mount the bucket, and print the folder."""
    app.prepare("mount")
    if app.is_compose:
        _in_container(app)
    else:
        app.run(app.runner.up("mount"))


def _in_container(app: App) -> None:
    app.make_folders(app.settings.mount_dir)
    folder = Path(os.path.realpath(app.root / app.settings.mount_dir))
    if not app.dry_run:
        _require_shared(folder)
    if (code := app.code(app.runner.up("mount"))) != 0:
        app.code(app.runner.logs("mount").silent())
        app.code(app.runner.down("mount"))
        raise Failed(code)
    if not app.dry_run:
        _, said, _ = app.output(app.runner.logs("mount"))
        inside = next((line for line in reversed(said.splitlines()) if line.startswith("/mount/")), "")
        tell(f"{folder}{inside[len('/mount') :]}")


def _require_shared(folder: Path) -> None:
    """Raise ConfigurationError when a mount that a container makes in the folder would stay inside the container."""
    found = mount_of(folder)
    if found is not None and not found.shared:
        raise ConfigurationError(
            f"what a container mounts in {folder} stays in the container: the folder lies on no shared mount",
            next_step=f"sudo mount --make-rshared {found.point} (until the next boot), or RUNNER=host",
        )


def unmount(app: App, _: Sequence[str]) -> None:
    """Unmount the bucket, also where another command mounted it."""
    folder = app.settings.mount_dir
    there = (app.root / folder).is_dir()
    if there:
        app.prepare("mount")
    if app.is_compose:
        app.run(app.runner.down("mount"))
    if there:
        app.run(app.stage("mount", "mount", "--unmount"))
    else:
        say(f"nothing is mounted in {folder}")
