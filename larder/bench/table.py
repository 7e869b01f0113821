"""A record as people read it."""

from __future__ import annotations

from typing import Any

from larder.bench.record import passes_of
from larder.progress import amount
from larder.terminal import Lines, lines


def render(record: dict[str, Any]) -> Lines:
    """The table of one record: a name and a value in each row, the figures in a column for each pass; no newline at
    the end.
    """
    passes = [_figures(figures) for figures in passes_of(record)]
    rows = {"arm": record["arm"]}
    for name in passes[0]:
        values = [figures[name] for figures in passes]
        if any(values) and (name != "pass" or len(passes) > 1):
            rows[name] = "".join(f"{value:<{_COLUMN}}" for value in values).rstrip()
    rows |= _circumstances(record)
    width = max(map(len, rows))
    return lines(*(f"{name:<{width}}  {value}" for name, value in rows.items()))


_COLUMN = 16


def _figures(figures: dict[str, Any]) -> dict[str, str]:
    """What was measured in one pass; an empty text for what isn't known."""
    fetched, requests = figures["network_bytes"], figures["network_requests"]
    return {
        "pass": figures["pass"],
        "imgs/s": f"{figures['imgs/s']:,.1f}",
        "batches/s": f"{figures['batches/s']:.3f}",
        "avg_batch_s": f"{figures['avg_batch_s']:.4f}",
        **{f"batch wait {name}, s": f"{seconds:.4f}" for name, seconds in figures["batch_wait_s"].items()},
        "CPU s per 1,000 imgs": f"{figures['cpu_s_per_1000_imgs']:.2f}",
        "peak memory": f"{amount(figures['peak_memory_bytes'], 'B')} {figures['peak_memory_kind'].upper()}",
        "network": "none" if fetched is None else amount(fetched, "B"),
        "requests": "" if requests is None else f"{requests:,}",
        "images": f"{figures['images']:,}",
        "batches": f"{figures['batches']:,}",
        "seconds": f"{figures['seconds']:,.1f}",
    }


def _circumstances(record: dict[str, Any]) -> dict[str, str]:
    """What the figures must be read with."""
    made, dataset, settings = record["provenance"], record["dataset"], record["settings"]
    quota = f", of which {made['cpu_quota_cores']:g} may be used" if made["cpu_quota_cores"] else ""
    return {
        "warm-up": amount(record["warmup_batches"], "batches") if record["warmup_batches"] else "none",
        "data": f"{dataset['name']}, {dataset['split']} split, manifest {dataset['manifest_sha256'][:12]}",
        "loader": record["loader"],
        "recipe": record["recipe"],
        "workers": f"{settings['workers']}, in batches of {settings['batch_size']}",
        "machine": f"{made['cpu_model']}, {made['cores']} cores{quota}, {amount(made['memory_bytes'], 'B')}, "
        f"load at start {made['load_average'][0]:.2f}",
        "software": f"torch {made['torch']}, torchvision {made['torchvision']}, pillow {made['pillow']}, "
        f"Python {made['python']}, larder {made['larder']} at {(made['revision'] or 'no known revision')[:17]}",
    }
