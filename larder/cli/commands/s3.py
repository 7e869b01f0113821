"""Commands for the store on this machine, and its bucket."""

from __future__ import annotations

from collections.abc import Sequence

from larder.cli import ports, store
from larder.cli.app import App, Failed
from larder.cli.compose import Compose
from larder.cli.console import tell
from larder.cli.pipelines import PIPELINES
from larder.cli.process import Call, shown


def keys(app: App, _: Sequence[str] = ()) -> None:
    """Make up the keys of the store that `s3-up` starts, once."""
    app.choose_runner()
    if app.dry_run:
        store.require_ours(app.settings)
        if not app.settings.store and not (app.root / app.settings.store_file).exists():
            app.print_call(Call(("python3", "-m", "larder", "s3-keys"), app.settings.given_of("RUNNER", "LARDER_HOME")))
            app.settings.will_have_keys = True
    else:
        store.make_keys(app.settings)


def up(app: App, _: Sequence[str]) -> None:
    """Start the store, make its bucket, and say how it is reached."""
    keys(app)
    if isinstance(app.runner, Compose) and not app.dry_run:
        port = app.settings.get("LARDER_MINIO_PORT", "9000")
        published = app.output(app.runner.query("minio", "port", "minio", "9000"))[1].strip()
        ports.require_free("127.0.0.1", port, "LARDER_MINIO", app.name("s3-up"), published)
    app.prepare("s3")
    if app.is_compose:
        start = app.runner.up("minio")
        if (code := app.code(start)) != 0:
            app.code(app.runner.logs("minio").silent())
            raise Failed(code)
        app.run(app.stage("s3", "s3", "--task", "bucket"))
    else:
        app.run(app.runner.up("minio"))
    if not app.dry_run:
        _how_to_reach(app)


def _how_to_reach(app: App) -> None:
    settings = app.settings
    if app.is_compose:
        port = settings.get("LARDER_MINIO_PORT", "9000")
        tell(f"The store: http://127.0.0.1:{port} for this machine, {store.IN_CONTAINERS} for the project's containers")
    if not settings.store:
        tell(f"Its address, bucket and keys: {settings.store_file}, which {app.front_door} uses by itself")
        if app.is_compose:
            tell(f"Without {app.front_door}: {shown(app.stage('load', 'load'))}")
    tell(f"Next: {app.name('s3-check')}, or {app.name('etl-load')}")


def down(app: App, _: Sequence[str]) -> None:
    """Stop the store."""
    if not app.is_compose:
        app.prepare("s3")
    app.run(app.runner.down("minio"))


def bucket(app: App, _: Sequence[str]) -> None:
    """Make the bucket of the settings, or the one that BUCKET names."""
    other = app.settings.get("BUCKET")
    app.steps(PIPELINES["s3-bucket"], (f"--bucket={other}",) if other else ())
