"""Commands that remove volumes and the store. They first verify that the store has what may be the only copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from larder.cli.app import App, CallFailedError
from larder.cli.compose import image_name, pipeline_folders
from larder.cli.console import print_message
from larder.cli.inspector import FOLDER_LABEL
from larder.cli.process import Call
from larder.errors import ResourceError

CommandFunction = Callable[[App, Sequence[str]], None]


def local(app: App, _: Sequence[str]) -> None:
    """Remove the data volume, after asking."""
    volume = app.settings.data_volume
    app.require_consent(f"Remove the {app.runner.name} volume {volume} with all its data? [y/N] ")
    _remove(app, volume)


def packs(*pipelines: str) -> CommandFunction:
    """Return the command that removes the volumes of some packing pipelines."""

    def run(app: App, _: Sequence[str]) -> None:
        app.prepare("load")
        for pipeline in pipelines:
            _remove_packed_volume(app, pipeline)

    return run


def _remove_packed_volume(app: App, pipeline: str) -> None:
    settings = app.settings
    volume = settings.wds_volume if pipeline == "wds" else settings.lit_volume
    name = app.runner.name
    check = app.stage_call(pipeline, "load", "--task", "check", "--verify-remote", _verification(app))
    if app.dry_run:
        app.run(check)
        return _remove(app, volume)
    if not _exists(app, volume, pipeline):
        return print_message(f"nothing to remove: there is no {name} volume {volume} with data")
    _require_unused(app, volume)
    if app.is_compose and not _has_content(app, volume, pipeline):
        _remove(app, volume)
        return print_message(f"removed {volume}: it was empty")
    if (code := app.run_unchecked(check)) != 0:
        print_message(f"kept {volume}: clean removes only what the store has (docker volume rm removes any volume)")
        raise CallFailedError(code)
    store = "The store" if settings.store else "The store on this machine"
    app.require_consent(f"Remove the {name} volume {volume}? {store} has all of it, verified just now. [y/N] ")
    return _remove(app, volume)


def _verification(app: App) -> str:
    """Return how strictly to verify: at least by checksums, whatever LARDER_VERIFY_REMOTE says."""
    return "read" if app.settings.get("LARDER_VERIFY_REMOTE") == "read" else "etag"


def _exists(app: App, volume: str, pipeline: str) -> bool:
    if app.is_compose:
        return app.capture(Call(("docker", "volume", "inspect", volume)))[0] == 0
    root = app.root / app.runner.volume(volume)
    return any((root / folder).exists() for folder in pipeline_folders(app.settings, pipeline))


def _require_unused(app: App, volume: str) -> None:
    if not app.is_compose:
        return
    uses = ("--filter", f"volume={volume}")
    ours = f"label={FOLDER_LABEL}={app.root.resolve() / 'compose'}"
    ended = ("--filter", ours, "--filter", "label=com.docker.compose.oneoff=True", "--filter", "status=exited")
    if runs := app.capture(Call(("docker", "ps", "--all", "--quiet", *uses, *ended)))[1].split():
        app.capture(Call(("docker", "rm", *runs)))  # of `docker compose run` without --rm, as in the lab
    names = app.capture(Call(("docker", "ps", "--all", *uses, "--format", "{{.Names}}")))[1].split()
    if names:
        raise ResourceError(
            f"containers use the volume {volume}: {', '.join(names)}",
            next_step=f"stop and remove them (`docker rm --force {' '.join(names)}`), then run this again",
        )


def _has_content(app: App, volume: str, pipeline: str) -> bool:
    """Return whether a volume contains a folder of the pipeline, finished or not."""
    script = 'for folder; do test -e "/mnt/$folder" && exit; test -e "/mnt/.larder/$folder" && exit; done; exit 1'
    mount = ("-v", f"{volume}:/mnt:ro", "--entrypoint", "sh")
    run = ("docker", "run", "--rm", "--network", "none", *mount, image_name("load"), "-c", script, "sh")
    code, _, errors = app.capture(Call((*run, *pipeline_folders(app.settings, pipeline))))
    if code not in (0, 1):
        raise ResourceError(
            f"can't look into the volume {volume}: {errors.strip()[:300]}", next_step=app.typed_command("doctor")
        )
    return code == 0


def _remove(app: App, volume: str) -> None:
    words = ("docker", "volume", "rm") if app.is_compose else ("rm", "-rf", "--")
    app.run(Call((*words, app.runner.volume(volume))))


def s3(app: App, _: Sequence[str]) -> None:
    """Remove the store on this machine with its data and keys, after asking."""
    runner, settings = app.runner, app.settings  # in this order: choosing the runner changes the settings
    app.require_consent(
        f"Remove the {runner.name} store with all its objects, which may be the only copy, and its keys? [y/N] "
    )
    if app.is_compose:
        down = runner.down("minio")
        at = down.argv.index("rm")
        app.run(Call((*down.argv[:at], "down", "--volumes"), down.env, down.unset, to_stderr=True))
    else:
        app.prepare("s3")
        app.run(runner.down("minio"))
        _remove_files(app, *(str(settings.store_dir / name) for name in ("data", "link", "log", "pid", "lock")))
    _remove_files(app, str(settings.store_file))


def _remove_files(app: App, *files: str) -> None:
    app.run(Call(("rm", "-rf", "--", *files)))
