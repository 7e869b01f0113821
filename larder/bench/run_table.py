"""Render a record as a table."""

from __future__ import annotations

from typing import Any

from larder.bench.run_record import passes_of
from larder.distant.link import recorded_link
from larder.progress import format_amount
from larder.terminal import Lines, join_lines

_COLUMN_WIDTH = 16


def render_table(record: dict[str, Any]) -> Lines:
    """Return the table of one record: a row per figure, a column per pass, without a trailing newline."""
    passes = [_format_figures(figures) for figures in passes_of(record)]
    rows = {"arm": record["arm"]}
    for name in passes[0]:
        values = [figures[name] for figures in passes]
        if any(values) and (name != "pass" or len(passes) > 1):
            rows[name] = "".join(f"{value:<{_COLUMN_WIDTH}}" for value in values).rstrip()
    rows |= _format_conditions(record)
    width = max(map(len, rows))
    return join_lines(*(f"{name:<{width}}  {value}" for name, value in rows.items()))


def _format_figures(figures: dict[str, Any]) -> dict[str, str]:
    """Format the figures of one pass; unknown figures are empty."""
    fetched, requests = figures["network_bytes"], figures["network_requests"]
    return {
        "pass": figures["pass"],
        "imgs/s": f"{figures['imgs/s']:,.1f}",
        "batches/s": f"{figures['batches/s']:.3f}",
        "avg_batch_s": f"{figures['avg_batch_s']:.4f}",
        **{f"batch wait {name}, s": f"{seconds:.4f}" for name, seconds in figures["batch_wait_s"].items()},
        "CPU s per 1,000 imgs": f"{figures['cpu_s_per_1000_imgs']:.2f}",
        "peak memory": f"{format_amount(figures['peak_memory_bytes'], 'B')} {figures['peak_memory_kind'].upper()}",
        "network": "none" if fetched is None else format_amount(fetched, "B"),
        "requests": "" if requests is None else f"{requests:,}",
        "images": f"{figures['images']:,}",
        "batches": f"{figures['batches']:,}",
        "seconds": f"{figures['seconds']:,.1f}",
    }


def _format_conditions(record: dict[str, Any]) -> dict[str, str]:
    """Format the conditions of the measurement."""
    run, dataset, settings = record["provenance"], record["dataset"], record["settings"]
    link = recorded_link(run)
    quota = f", of which {run['cpu_quota_cores']:g} may be used" if run["cpu_quota_cores"] else ""
    return {
        "warm-up": format_amount(record["warmup_batches"], "batches") if record["warmup_batches"] else "none",
        "data": f"{dataset['name']}, {dataset['split']} split, manifest {dataset['manifest_sha256'][:12]}",
        "loader": record["loader"],
        **({"store": f"{settings['s3_endpoint_url']}, through {link.describe()}"} if link else {}),
        "preprocessing": record["recipe"],
        "workers": f"{settings['workers']}, in batches of {settings['batch_size']}",
        "machine": f"{run['cpu_model']}, {run['cores']} cores{quota}, {format_amount(run['memory_bytes'], 'B')}, "
        f"load at start {run['load_average'][0]:.2f}",
        "software": f"torch {run['torch']}, torchvision {run['torchvision']}, pillow {run['pillow']}, "
        f"Python {run['python']}, larder {run['larder']} at {(run['revision'] or 'no known revision')[:17]}",
    }
