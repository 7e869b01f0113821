"""Commands for the store on this machine, and its bucket."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from larder.cli import local_store, ports
from larder.cli.app import App, CallFailedError
from larder.cli.compose import ComposeRunner
from larder.cli.console import print_result
from larder.cli.pipelines import PIPELINES
from larder.cli.process import Call, as_shell_line


def keys(app: App, _: Sequence[str] = ()) -> None:
    """Create the keys of the store that `s3-up` starts, once."""
    app.choose_runner()
    if app.dry_run:
        local_store.require_own_store(app.settings)
        if not app.settings.store and not (app.root / app.settings.store_file).exists():
            app.print_call(Call(("python3", "-m", "larder", "s3-keys"), app.settings.given_of("RUNNER", "LARDER_HOME")))
            app.settings.will_have_keys = True
    else:
        local_store.make_keys(app.settings)


def up(app: App, _: Sequence[str]) -> None:
    """Start the store, with the link of the settings, create its bucket, and print how to reach it."""
    app.choose_runner()
    if isinstance(app.runner, ComposeRunner):
        _up_in_containers(app, app.runner)
    else:
        keys(app)
        app.prepare("s3")
        app.run(app.runner.up("minio"))
    if not app.dry_run:
        _print_addresses(app)


def _up_in_containers(app: App, runner: ComposeRunner) -> None:
    """Start MinIO, or its link, which depends on it. Both have the same address, so one is removed for the other."""
    local_store.require_own_store(app.settings)
    has_link = bool(app.capture(runner.list_links())[1].strip())
    if not app.dry_run:
        port, holder = local_store.find_published_port(app.settings), "link" if has_link else "minio"
        published = app.capture(runner.query(holder, "port", holder, "9000"))[1].strip()
        ports.require_publishable_port(
            "127.0.0.1", port, "LARDER_MINIO", lambda setting: app.typed_command(f"s3-up {setting}"), published
        )
    keys(app)
    if not app.dry_run:
        local_store.remember_port(app.settings, port)
    app.prepare("s3")
    server = "minio" if local_store.link_of(app.settings) is None else "link"
    if has_link and server == "minio":
        app.run(runner.down("link"))
    if (code := app.run_unchecked(runner.up(server))) != 0:
        for each in dict.fromkeys(["minio", server]):
            app.run_unchecked(runner.logs(each).redirected_to_stderr())
        raise CallFailedError(code)
    app.run(app.stage_call("s3", "s3", "--task", "bucket"))


def _print_addresses(app: App) -> None:
    settings = app.settings
    if app.is_compose:
        link = local_store.link_of(settings)
        through = f", through {link.describe()}" if link else ""
        print_result(
            f"The store: {local_store.host_endpoint(settings)} for this machine, {local_store.CONTAINER_ENDPOINT} for "
            f"the project's containers{through}"
        )
    if not settings.store:
        print_result(f"Its address, bucket and keys: {settings.store_file}, which {app.invocation} uses by itself")
        print_result(f"For your own programs: {_export_line(app)}")
        if app.is_compose:
            print_result(f"Without {app.invocation}: {as_shell_line(app.stage_call('load', 'load'))}")
    print_result(f"Next: {app.typed_command('s3-check')}, or {app.typed_command('etl-load')}")


def _export_line(app: App) -> str:
    """Return the line of shell that exports the store's address and keys, as this machine reaches it."""
    file = app.settings.store_file if app.settings.store_file.is_absolute() else f"./{app.settings.store_file}"
    address = f"; S3_ENDPOINT_URL={local_store.host_endpoint(app.settings)}" if app.is_compose else ""
    return f"set -a; . {shlex.quote(str(file))}{address}; set +a"


def down(app: App, _: Sequence[str]) -> None:
    """Stop the store."""
    if not app.is_compose:
        app.prepare("s3")
    app.run(app.runner.down("minio"))


def bucket(app: App, _: Sequence[str]) -> None:
    """Create the bucket of the settings, or the one named by BUCKET."""
    other = app.settings.get("BUCKET")
    app.run_steps(PIPELINES["s3-bucket"], (f"--bucket={other}",) if other else ())
