"""Commands for the Ray cluster on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from larder.cli.app import App
from larder.cli.console import say, tell


def up(app: App, _: Sequence[str]) -> None:
    """Start a head and two workers from a stage's image."""
    stage = app.settings.get("LARDER_RAY_STAGE", "shard")
    if not app.is_compose:
        return say("the host runner needs none: LARDER_ENGINE=ray starts one for the run; "
                   "for a cluster of machines: .venv/bin/ray start")  # fmt: skip
    app.prepare(stage)
    app.run(app.runner.up("ray-head"))
    if not app.dry_run:
        target = app.name({"shard": "etl-wds", "optimize": "etl-lit"}.get(stage, stage))
        tell(f"Next: {target} LARDER_ENGINE=ray RAY_ADDRESS=ray-head:6379")
    return None


def down(app: App, _: Sequence[str]) -> None:
    """Stop the cluster."""
    if app.is_compose:
        app.run(app.runner.down("ray-head"))
