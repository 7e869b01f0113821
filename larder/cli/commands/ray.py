"""Commands for the Ray cluster on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from larder.cli.app import App
from larder.cli.console import print_message, print_result


def up(app: App, _: Sequence[str]) -> None:
    """Start a head and two workers from a stage's image."""
    stage = app.settings.get("LARDER_RAY_STAGE", "shard")
    if not app.is_compose:
        return print_message(
            "the host runner needs no cluster: LARDER_ENGINE=ray starts one for each run; "
            "for a cluster of machines: .venv/bin/ray start"
        )
    app.prepare(stage)
    app.run(app.runner.up("ray-head"))
    if not app.dry_run:
        target = app.typed_command({"shard": "etl-wds", "optimize": "etl-lit"}.get(stage, stage))
        print_result(f"Next: {target} LARDER_ENGINE=ray RAY_ADDRESS=ray-head:6379")
    return None


def down(app: App, _: Sequence[str]) -> None:
    """Stop the Ray cluster."""
    if app.is_compose:
        app.run(app.runner.down("ray-head"))
