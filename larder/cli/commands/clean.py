"""Commands that remove volumes and the store. What may be the only copy is looked for in the store first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from larder.cli.app import App, Failed
from larder.cli.compose import image, staged_folders
from larder.cli.console import say
from larder.cli.process import Call
from larder.errors import ResourceError
from larder.terminal import lines

Run = Callable[[App, Sequence[str]], None]


def local(app: App, _: Sequence[str]) -> None:
    """Remove the data volume, after asking."""
    volume = app.settings.data_volume
    _ask(app, f"Remove the {app.runner.name} volume {volume} with all its data? [y/N] ")
    _remove(app, volume)


def staged(*pipelines: str) -> Run:
    """Return the command that removes what some packing pipelines have left in their volumes."""

    def run(app: App, _: Sequence[str]) -> None:
        app.prepare("load")
        for pipeline in pipelines:
            _remove_staged(app, pipeline)

    return run


def _remove_staged(app: App, pipeline: str) -> None:
    settings = app.settings
    volume = settings.wds_volume if pipeline == "wds" else settings.lit_volume
    name = app.runner.name
    check = app.stage(pipeline, "load", "--task", "check", "--verify-remote", _how_to_verify(app))
    if app.dry_run:
        app.run(check)
        return _remove(app, volume)
    if not _is_there(app, volume, pipeline):
        return say(f"nothing to remove: no {name} volume {volume} with data")
    _require_unused(app, volume)
    if app.is_compose and not _holds(app, volume, pipeline):
        _remove(app, volume)
        return say(f"removed {volume}: it held nothing")
    if (code := app.code(check)) != 0:
        say(f"kept {volume}: only what is loaded and verified is removed (docker volume rm removes anything)")
        raise Failed(code)
    _ask(app, f"Remove the {name} volume {volume}? The store has all of it, verified just now. [y/N] ")
    return _remove(app, volume)


def _how_to_verify(app: App) -> str:
    """Return how closely to look: LARDER_VERIFY_REMOTE may ask for more here than checksums, and not for less."""
    return "read" if app.settings.get("LARDER_VERIFY_REMOTE") == "read" else "etag"


def _is_there(app: App, volume: str, pipeline: str) -> bool:
    if app.is_compose:
        return app.output(Call(("docker", "volume", "inspect", volume)))[0] == 0
    place = app.root / app.runner.volume(volume)
    return any((place / folder).exists() for folder in staged_folders(app.settings, pipeline))


def _require_unused(app: App, volume: str) -> None:
    if not app.is_compose:
        return
    shown = "{{.Names}} ({{.Status}})"
    users = app.output(Call(("docker", "ps", "--all", "--filter", f"volume={volume}", "--format", shown)))[1].strip()
    if users:
        raise ResourceError(
            lines(f"containers use the volume {volume}:", *users.splitlines()),
            next_step="stop and remove them, then run this again",
        )


def _holds(app: App, volume: str, pipeline: str) -> bool:
    """Whether a volume holds a folder of the pipeline, finished or under way."""
    script = 'for folder; do test -e "/mnt/$folder" && exit; test -e "/mnt/.larder/$folder" && exit; done; exit 1'
    mount = ("-v", f"{volume}:/mnt:ro", "--entrypoint", "sh")
    run = ("docker", "run", "--rm", "--network", "none", *mount, image("load"), "-c", script, "sh")
    code, _, said = app.output(Call((*run, *staged_folders(app.settings, pipeline))))
    if code not in (0, 1):
        raise ResourceError(f"can't look into the volume {volume}: {said.strip()[:300]}", next_step=app.name("doctor"))
    return code == 0


def _remove(app: App, volume: str) -> None:
    words = ("docker", "volume", "rm") if app.is_compose else ("rm", "-rf", "--")
    app.run(Call((*words, app.runner.volume(volume))))


def _ask(app: App, question: str) -> None:
    if not app.ask(question):
        say("kept")
        raise Failed(1)


def s3(app: App, _: Sequence[str]) -> None:
    """Remove the store on this machine with its data and keys, after asking."""
    runner, settings = app.runner, app.settings  # in this order: the choice of the runner settles what depends on it
    _ask(app, f"Remove the {runner.name} store with all its objects, and its keys? [y/N] ")
    if app.is_compose:
        down = runner.down("minio")
        at = down.argv.index("rm")
        app.run(Call((*down.argv[:at], "down", "--volumes"), down.env, down.unset, quiet=True))
    else:
        app.prepare("s3")
        app.run(runner.down("minio"))
        _remove_files(app, *(str(settings.store_dir / name) for name in ("data", "log", "pid", "lock")))
    _remove_files(app, str(settings.store_file))


def _remove_files(app: App, *files: str) -> None:
    app.run(Call(("rm", "-rf", "--", *files)))
