"""Commands that mount the bucket as a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from larder.cli import local_store
from larder.cli.app import App, CallFailedError
from larder.cli.console import print_message, print_result
from larder.cli.mounts import has_mount, is_served_by_host, mount_of
from larder.errors import ConfigurationError


def mount(app: App, _: Sequence[str]) -> None:
    """Mount the bucket, and print the folder."""
    app.choose_runner()
    if not app.dry_run and not local_store.find_bucket(app.settings):  # before compose replaces a mount that works
        raise ConfigurationError(
            "S3_BUCKET is not set, nor RCLONE_CONTAINER: which bucket is to be mounted?",
            next_step=f"set it in .env, or {app.typed_command('mount')} S3_BUCKET=my-bucket; without a store, first "
            f"{app.typed_command('s3-up')}",
        )
    if app.is_compose and not app.dry_run:
        _require_shared(Path(os.path.realpath(app.root / app.settings.mount_dir)))
    app.prepare("mount")
    if app.is_compose:
        _mount_in_container(app)
    else:
        app.run(app.runner.up("mount"))


def _mount_in_container(app: App) -> None:
    app.make_folders(app.settings.mount_dir)
    folder = Path(os.path.realpath(app.root / app.settings.mount_dir))
    if (code := app.run_unchecked(app.runner.up("mount"))) != 0:
        app.run_unchecked(app.runner.logs("mount").redirected_to_stderr())
        app.run_unchecked(app.runner.down("mount"))
        raise CallFailedError(code)
    if not app.dry_run:
        _, output, _ = app.capture(app.runner.logs("mount"))
        inside = next((line for line in reversed(output.splitlines()) if line.startswith("/mount/")), "")
        print_result(f"{folder}{inside[len('/mount') :]}")


def _require_shared(folder: Path) -> None:
    """Raise ConfigurationError if a container's mount in the folder would be invisible outside of the container."""
    mount = mount_of(folder)
    if mount is not None and not mount.shared:
        raise ConfigurationError(
            f"{folder} is not on a shared mount, so a mount in a container would stay in the container",
            next_step=f"sudo mount --make-rshared {mount.point} (until the next boot), or RUNNER=host",
        )


def unmount(app: App, _: Sequence[str]) -> None:
    """Unmount the bucket, no matter which command mounted it, with which runner."""
    folder = app.settings.mount_dir
    if not (app.root / folder).is_dir():
        if app.is_compose:
            app.run(app.runner.down("mount"))
        return print_message(f"nothing is mounted in {folder}")
    if app.is_compose and is_served_by_host(app.root / folder):
        app = app.with_given(RUNNER="host")  # a container can't end a process outside of it
    app.prepare("mount")
    if app.is_compose:
        app.run(app.runner.down("mount"))
        if not has_mount(app.root / folder):  # the stage's container needs a folder on a shared mount
            return print_message(f"nothing is left mounted in {folder}")
    return app.run(app.stage_call("mount", "mount", "--unmount"))
