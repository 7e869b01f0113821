"""Removes everything that larder has created on this machine, after listing it and asking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from larder.cli.app import App, Failed
from larder.cli.belongings import UNVERIFIED, Thing
from larder.cli.belongings.engine import InEngine
from larder.cli.belongings.files import Files
from larder.cli.console import say, tell
from larder.cli.host import PYTHON, Host
from larder.cli.process import Call
from larder.cli.survey import Survey, is_running, labs
from larder.errors import ResourceError

_AGAIN = "then run this again"


def uninstall(app: App, _: Sequence[str]) -> None:
    """List it, ask, and remove it."""
    survey = Survey(app.settings, app.environ)
    engine, files = InEngine(survey), Files(survey)
    things = [*engine.things(), *files.things()]
    _require_unused(app, survey, engine)
    calls = [*_stops(survey), *_removals(things, files)]
    _list(app, things, list(_kept(survey, engine, files)))
    if not things:
        say("nothing to remove")
        return
    unverified = sum(UNVERIFIED in thing.note for thing in things)
    warning = f" {unverified} of them may hold the only copy of data." if unverified else ""
    if not app.ask(f"Remove these {len(things)} things?{warning} [y/N] "):
        say("kept")
        raise Failed(1)
    for call in calls:
        app.run(call)
    if not app.dry_run:
        say(f"removed {len(things)} things; what is left is the checkout itself, {survey.root}")


def _require_unused(app: App, survey: Survey, engine: InEngine) -> None:
    """Raise ResourceError while something is mounted, or while others use what would go."""
    if points := survey.mounted():
        raise ResourceError(f"{points[0]} is mounted", next_step=f"{app.name('unmount')}, {_AGAIN}")
    users = [f"{user.thing} is used by {', '.join(user.containers)}" for user in engine.users()]
    if users:
        raise ResourceError(
            f"containers that are not larder's use what it has made: {'; '.join(users)}",
            next_step=f"stop and remove them, {_AGAIN}",
        )


def _stops(survey: Survey) -> Iterator[Call]:
    """Yield the calls that stop the host runner's servers, which would go on with their files gone."""
    settings = survey.settings.with_runner("host")
    store_runs = is_running(survey.root / settings.store_dir / "pid", "weed")
    pids = [pid for _, pid in labs(survey.root / settings.home / "jupyter")]
    running = [name for name, runs in (("minio", store_runs), ("jupyter", pids)) if runs]
    if running and not (survey.root / PYTHON).exists():
        raise ResourceError(
            f"servers run in the background ({', '.join(running)}), and .venv/ is gone, which could stop them",
            next_step=f"end their processes, {_AGAIN}",
        )
    for name in running:
        yield Host(settings).down(name).silent()


def _removals(things: Sequence[Thing], files: Files) -> Iterator[Call]:
    """Yield the calls that remove things, in the order in which they let go of each other."""
    commands = {"container": ("rm", "--force"), "network": ("network", "rm"), "volume": ("volume", "rm"),
                "image": ("image", "rm")}  # fmt: skip
    for kind, words in commands.items():
        if names := [thing.name for thing in things if thing.kind == kind]:
            yield Call(("docker", *words, *names), quiet=True)
    if paths := [thing.name for thing in things if thing.kind == "files"]:
        yield Call(("rm", "-rf", "--", *paths))
    if files.empty:
        yield Call(("rmdir", "--", *map(str, files.empty)))


def _list(app: App, things: Sequence[Thing], kept: Sequence[str]) -> None:
    """Show what goes and what stays. A dry run's stdout is for its commands."""
    width = max([len(thing.name) for thing in things], default=0)
    lines = [f"{thing.kind:<10} {thing.name:<{width}}  {'; '.join(filter(None, (thing.size, thing.note)))}".rstrip()
             for thing in things]  # fmt: skip
    for line in [*lines, *(f"kept       {line}" for line in kept)]:
        if app.dry_run:
            say(line)
        else:
            tell(line)


def _kept(survey: Survey, engine: InEngine, files: Files) -> Iterator[str]:
    """Yield what stays, and why."""
    settings = survey.settings
    for folder, what in ((settings.results, "records"), (settings.workspace, "notebooks")):
        path = survey.root / folder
        if path.is_dir() and any(item.name != ".gitkeep" for item in path.iterdir()):
            yield f"{folder}/: your {what}"
    if (survey.root / ".env").exists():
        yield ".env: your settings"
    yield from (f"{link}: a symlink, which is not followed" for link in files.links)
    if files.others:
        yield f"{settings.home}/: {', '.join(files.others[:5])}, which larder has not made, and what lies beside them"
    yield from (f"volume {name}: another checkout's, or nobody's that is known" for name in engine.foreign_volumes())
    if survey.engine.state == "ready":
        if engine.shares_images:
            yield "images larder-*: another checkout's, too"
        yield "build cache and base images are not larder's alone: docker builder prune, docker image prune"
    elif survey.engine.state == "broken" or survey.settings.get("RUNNER") == "host":
        yield f"whatever the container engine holds: it was not looked at ({survey.engine.fault})"
