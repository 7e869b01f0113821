"""A record as people read it."""

from __future__ import annotations

from typing import Any

from larder.progress import amount


def render(record: dict[str, Any]) -> str:
    """The table of one record: two columns, no newline at the end."""
    rows = list(_rows(record).items())
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _rows(record: dict[str, Any]) -> dict[str, str]:
    waits, made, dataset, settings = (record[key] for key in ("batch_wait_s", "provenance", "dataset", "settings"))
    quota = f", of which {made['cpu_quota_cores']:g} may be used" if made["cpu_quota_cores"] else ""
    return {
        "arm": record["arm"],
        "imgs/s": f"{record['imgs/s']:,.1f}",
        "batches/s": f"{record['batches/s']:.3f}",
        "avg_batch_s": f"{record['avg_batch_s']:.4f}",
        "batch wait, s": ", ".join(f"{name} {seconds:.4f}" for name, seconds in waits.items()),
        "CPU s per 1,000 imgs": f"{record['cpu_s_per_1000_imgs']:.2f}",
        "peak memory": f"{amount(record['peak_memory_bytes'], 'B')} ({record['peak_memory_kind'].upper()})",
        "network": _network(record),
        "measured": f"{record['images']:,} images in {record['batches']:,} batches of {settings['batch_size']}, "
        f"{record['seconds']:.1f} s, after {settings['warmup_batches']} batches of warm-up",
        "data": f"{dataset['name']}, {dataset['split']} split, manifest {dataset['manifest_sha256'][:12]}",
        "recipe": record["recipe"],
        "workers": f"{settings['workers']}",
        "machine": f"{made['cpu_model']}, {made['cores']} cores{quota}, {amount(made['memory_bytes'], 'B')}, "
        f"load at start {made['load_average'][0]:.2f}",
        "software": f"torch {made['torch']}, torchvision {made['torchvision']}, pillow {made['pillow']}, "
        f"Python {made['python']}, larder {made['larder']} at {(made['revision'] or 'no known revision')[:17]}",
    }


def _network(record: dict[str, Any]) -> str:
    if record["network_requests"] is None:
        return "none"
    return f"{amount(record['network_bytes'], 'B')}, {record['network_requests']:,} requests"
