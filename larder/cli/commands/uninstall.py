"""Remove everything that larder has created on this machine, after listing it and asking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from larder.cli import project
from larder.cli.app import App, CallFailedError
from larder.cli.console import print_message, print_result
from larder.cli.host import PYTHON, HostRunner
from larder.cli.inspector import CheckoutInspector, find_jupyter_servers, is_link_running, is_running
from larder.cli.installed import ONLY_COPY, InstalledItem
from larder.cli.installed.engine import DockerItems
from larder.cli.installed.files import FileItems
from larder.cli.invocation import INVOCATIONS
from larder.cli.process import Call
from larder.errors import ResourceError

_RETRY = "then run this again"


def uninstall(app: App, _: Sequence[str]) -> None:
    """List everything that larder has created, ask, and remove it."""
    print_message("looking for what larder has created")
    inspector = CheckoutInspector(app.settings, app.environ)
    engine, files = DockerItems(inspector), FileItems(inspector)
    items = [*engine.list_items(), *files.list_items()]
    _require_unused(app, inspector, engine)
    calls = [*_stops(inspector), *_removals(items, files)]
    _list(app, items, list(_kept(app, inspector, engine, files)))
    if not items:
        print_message("nothing to remove")
        return
    copies = sum(ONLY_COPY in item.note for item in items)
    warning = f" {copies} of them may hold the only copy of data." if copies else ""
    app.require_consent(f"Remove these {len(items)} items?{warning} [y/N] ")
    try:
        for call in calls:
            app.run(call)
    except CallFailedError:
        print_message(f"not everything is removed: {app.typed_command('uninstall')} lists and removes the rest")
        raise
    if not app.dry_run:
        project.forget(inspector.root, app.environ)  # else other checkouts would keep the images for this one
        print_message(f"removed {len(items)} items. The checkout is left: {inspector.root}")


def _require_unused(app: App, inspector: CheckoutInspector, engine: DockerItems) -> None:
    """Raise ResourceError if something is mounted, or others use what would be removed."""
    if points := inspector.mount_points():
        raise ResourceError(f"{points[0]} is mounted", next_step=f"{app.typed_command('unmount')}, {_RETRY}")
    users = [f"{user.resource} is used by {', '.join(user.containers)}" for user in engine.find_foreign_users()]
    if users:
        raise ResourceError(
            f"other containers use what larder has created here: {'; '.join(users)}",
            next_step=f"stop and remove them (in another checkout: {app.typed_command('jupyter-down')} and "
            f"{app.typed_command('s3-down')}), {_RETRY}",
        )


def _stops(inspector: CheckoutInspector) -> Iterator[Call]:
    """Yield the calls that stop the host runner's servers, which would otherwise keep running without their files."""
    settings = inspector.settings.with_runner("host")
    store_dir = inspector.root / settings.store_dir
    store_runs = is_running(store_dir / "pid", "weed") or is_link_running(store_dir)
    pids = [pid for _, pid in find_jupyter_servers(inspector.root / settings.home / "jupyter")]
    running = [name for name, runs in (("minio", store_runs), ("jupyter", pids)) if runs]
    if running and not (inspector.root / PYTHON).exists():
        raise ResourceError(
            f"servers run in the background ({', '.join(running)}), and .venv/, which could stop them, is missing",
            next_step=f"end their processes, {_RETRY}",
        )
    for name in running:
        yield HostRunner(settings).down(name).redirected_to_stderr()


def _removals(items: Sequence[InstalledItem], files: FileItems) -> Iterator[Call]:
    """Yield the calls that remove everything, in the order of dependencies."""
    commands = {
        "container": ("rm", "--force"),
        "network": ("network", "rm"),
        "volume": ("volume", "rm"),
        "image": ("image", "rm"),
    }
    for kind, words in commands.items():
        if names := [item.name for item in items if item.kind == kind]:
            yield Call(("docker", *words, *names), to_stderr=True)
    if paths := [item.name for item in items if item.kind == "files"]:
        yield Call(("rm", "-rf", "--", *paths))
    if files.emptied_folders:
        yield Call(("rmdir", "--", *map(str, files.emptied_folders)))


def _list(app: App, items: Sequence[InstalledItem], kept: Sequence[str]) -> None:
    """Print what is removed and what stays; to stderr in a dry run, whose stdout is for commands."""
    width = max([len(item.name) for item in items], default=0)
    lines = [
        f"{item.kind:<10} {item.name:<{width}}  {'; '.join(filter(None, (item.size, item.note)))}".rstrip()
        for item in items
    ]
    for line in [*lines, *(f"kept       {line}" for line in kept)]:
        if app.dry_run:
            print_message(line)
        else:
            print_result(line)


def _kept(app: App, inspector: CheckoutInspector, engine: DockerItems, files: FileItems) -> Iterator[str]:
    """Yield what stays, and why."""
    settings = inspector.settings
    for folder, what in ((settings.results, "records"), (settings.workspace, "notebooks")):
        path = inspector.root / folder
        if path.is_dir() and any(file.name != ".gitkeep" for file in path.iterdir()):
            yield f"{folder}/: your {what}"
    if (inspector.root / ".env").exists():
        yield ".env: your settings"
    yield from (f"{link}: a symlink, which is not followed" for link in files.links)
    if files.foreign_names:
        names = ", ".join(files.foreign_names[:5])
        yield f"{settings.home}/: {names}, which larder has not created, and the files beside them"
    if files.cloud_folder:
        by = INVOCATIONS["module"] if app.invocation == INVOCATIONS["make"] else app.invocation  # make passes no words
        down = f"{by} provision down"
        yield f"{files.cloud_folder}/: keys and notes of what provision has created in a cloud ({down} removes that)"
    deleted = dict(engine.volumes_of_deleted())
    for name, checkout in deleted.items():
        yield f"volume {name}: of {checkout}, which is gone (docker volume rm {name})"
    others = [name for name in engine.foreign_volumes() if name not in deleted]
    yield from (f"volume {name}: created by another checkout or an unknown program" for name in others)
    if inspector.engine.state == "ready":
        if engine.image_sharers:
            users = " and ".join(map(str, engine.image_sharers))
            yield f"images larder-*: for {users} (docker image rm $(docker image ls -q 'larder-*'))"
        yield "build cache and base images: other programs may use them (docker builder prune, docker image prune)"
    elif inspector.engine.state == "broken" or inspector.settings.get("RUNNER") == "host":
        yield f"contents of the container engine: not inspected ({inspector.engine.fault})"
