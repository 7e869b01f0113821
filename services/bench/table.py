"""A record as people read it."""

from __future__ import annotations

from typing import Any

from larder.progress import amount


def render(record: dict[str, Any]) -> str:
    """The table of one record: a name and a value in each row, the figures in a column for each pass; no newline at
    the end.
    """
    passes = [_figures(figures, record) for figures in (record, *record["then"])]
    figures = {name: [one[name] for one in passes] for name in passes[0]}
    if len(passes) == 1:
        del figures["pass"]
    columns = [max(len(values[number]) for values in figures.values()) for number in range(len(passes))]
    rows = {"arm": record["arm"]}
    rows |= {name: "   ".join(map(str.ljust, values, columns)).rstrip() for name, values in figures.items()}
    rows |= _circumstances(record)
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def _figures(figures: dict[str, Any], record: dict[str, Any]) -> dict[str, str]:
    """What was measured in one pass."""
    return {
        "pass": figures["pass"],
        "imgs/s": f"{figures['imgs/s']:,.1f}",
        "batches/s": f"{figures['batches/s']:.3f}",
        "avg_batch_s": f"{figures['avg_batch_s']:.4f}",
        "batch wait, s": ", ".join(f"{name} {seconds:.4f}" for name, seconds in figures["batch_wait_s"].items()),
        "CPU s per 1,000 imgs": f"{figures['cpu_s_per_1000_imgs']:.2f}",
        "peak memory": f"{amount(figures['peak_memory_bytes'], 'B')} ({figures['peak_memory_kind'].upper()})",
        "network": _network(figures),
        "measured": f"{figures['images']:,} images in {figures['batches']:,} batches of "
        f"{record['settings']['batch_size']}, {figures['seconds']:.1f} s",
    }


def _circumstances(record: dict[str, Any]) -> dict[str, str]:
    """What the figures must be read with."""
    made, dataset, settings = record["provenance"], record["dataset"], record["settings"]
    quota = f", of which {made['cpu_quota_cores']:g} may be used" if made["cpu_quota_cores"] else ""
    return {
        "warm-up": f"{record['warmup_batches']} batches" if record["warmup_batches"] else "none",
        "data": f"{dataset['name']}, {dataset['split']} split, manifest {dataset['manifest_sha256'][:12]}",
        "recipe": record["recipe"],
        "workers": f"{settings['workers']}",
        "machine": f"{made['cpu_model']}, {made['cores']} cores{quota}, {amount(made['memory_bytes'], 'B')}, "
        f"load at start {made['load_average'][0]:.2f}",
        "software": f"torch {made['torch']}, torchvision {made['torchvision']}, pillow {made['pillow']}, "
        f"Python {made['python']}, larder {made['larder']} at {(made['revision'] or 'no known revision')[:17]}",
    }


def _network(figures: dict[str, Any]) -> str:
    if figures["network_bytes"] is None:
        return "none"
    requests = figures["network_requests"]
    return f"{amount(figures['network_bytes'], 'B')}, " + (
        "requests unknown" if requests is None else f"{requests:,} requests"
    )
