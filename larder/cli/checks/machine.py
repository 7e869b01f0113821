"""Checks of the machine: disk, cores, memory, ports, FUSE, GPU."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from larder.cli import mounts, store
from larder.cli.checks.check import FAULT, NOTE, OK, Check, answer
from larder.cli.settings import is_port
from larder.cli.survey import Survey, is_running, labs

GIGABYTE = 1e9
_LEAST_DISK, _ENOUGH_DISK = 1.0, 10.0
_LEAST_MEMORY, _ENOUGH_MEMORY = 0.5, 4.0


def of_disks(survey: Survey) -> Iterator[Check]:
    """Check the space for data: the checkout, and Docker's folder."""
    yield _space("disk of the checkout", survey.root)
    if survey.engine.state == "ready":
        folder = Path(answer(survey, "docker", "info", "--format", "{{.DockerRootDir}}").strip())
        if folder.is_dir() and folder != Path():
            yield _space("disk of Docker", folder)
        else:
            yield Check("disk of Docker", OK, "not visible from here (the engine runs elsewhere)")


def _space(subject: str, folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / GIGABYTE
    text = f"{free:.1f} GB free in {folder}"
    if free < _ENOUGH_DISK:
        state = FAULT if free < _LEAST_DISK else NOTE
        return Check(subject, state, text, "free some space: Food-11 takes 3 GB, images with torch 3 GB and more")
    return Check(subject, OK, text)


def of_cores() -> Check:
    """Check the cores."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("cores", OK, f"{usable} of {os.cpu_count()} usable")


def of_memory(table: Path = Path("/proc/meminfo")) -> Check:
    """Check the memory that is available."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", table.read_text("utf-8"), re.MULTILINE)
    except OSError:
        found = None
    if found is None:
        return Check("memory", OK, "unknown: this system doesn't tell")
    free = int(found[1]) * 1024 / GIGABYTE
    if free < _ENOUGH_MEMORY:
        state = FAULT if free < _LEAST_MEMORY else NOTE
        return Check("memory", state, f"{free:.1f} GB available", "end other programs, or set LARDER_WORKERS=1")
    return Check("memory", OK, f"{free:.1f} GB available")


def of_shared_memory(survey: Survey) -> Check:
    """Check the shared memory in which loaders' workers hand over batches. Containers have their own limit."""
    if survey.runner.name == "compose":
        return Check("shared memory", OK, f"containers get {survey.settings.get('LARDER_SHM_SIZE', '8gb')}")
    try:
        free = os.statvfs("/dev/shm")
    except OSError:
        return Check("shared memory", OK, "unknown: this system has no /dev/shm")
    size = free.f_bavail * free.f_frsize / GIGABYTE
    if size < 1.0:
        remedy = "sudo mount -o remount,size=8g /dev/shm; or set LARDER_WORKERS and LARDER_BATCH_SIZE lower"
        return Check("shared memory", NOTE, f"{size:.1f} GB free in /dev/shm: little for bench", remedy)
    return Check("shared memory", OK, f"{size:.1f} GB free in /dev/shm")


def of_ports(survey: Survey) -> Iterator[Check]:
    """Check the ports of the store on this machine and of JupyterLab."""
    settings, host = survey.settings, survey.runner.name == "host"
    port = store.ON_HOST.rpartition(":")[2] if host else settings.get("LARDER_MINIO_PORT", "9000")
    other = f"S3_ENDPOINT_URL in {settings.store_file}" if host else "LARDER_MINIO_PORT"
    ours = is_running(survey.root / settings.store_dir / "pid", "weed") if host else _publishes(survey, "minio", port)
    yield _port("port of the store", int(port), ours, other)
    port = settings.get("LARDER_JUPYTER_PORT", "8888")
    if is_port(port):
        folder = survey.root / settings.home / "jupyter"
        ours = any(port == found for found, _ in labs(folder)) if host else _publishes(survey, "jupyter", port)
        yield _port("port of JupyterLab", int(port), ours, "LARDER_JUPYTER_PORT")


def _publishes(survey: Survey, service: str, port: str) -> bool:
    return any(found.service == service and f":{port}->" in found.ports for found in survey.containers())


def _port(subject: str, port: int, ours: bool, setting: str) -> Check:
    if ours:
        return Check(subject, OK, f"{port} is larder's own, which runs")
    with socket.socket() as probe:
        probe.settimeout(1.0)
        taken = probe.connect_ex(("127.0.0.1", port)) == 0
    if taken:
        return Check(subject, NOTE, f"{port} is taken by another program", f"stop that, or set {setting}")
    return Check(subject, OK, f"{port} is free")


def of_fuse(survey: Survey) -> Iterator[Check]:
    """Check what `mount` needs."""
    device = Path("/dev/fuse")
    if not device.exists():
        yield Check("FUSE", NOTE, "there is no /dev/fuse: no mount", "sudo modprobe fuse")
        return
    if survey.runner.name == "host":
        found = shutil.which("fusermount3") or shutil.which("fusermount")
        if found is None:
            yield Check("FUSE", NOTE, "fusermount is missing: no mount", "install fuse3")
        else:
            yield Check("FUSE", OK, f"/dev/fuse and {found}")
        return
    yield Check("FUSE", OK, "/dev/fuse")
    folder = Path(os.path.realpath(survey.root / survey.settings.mount_dir))
    found_mount = mounts.mount_of(folder)
    if found_mount is not None and not found_mount.shared:
        remedy = f"sudo mount --make-rshared {found_mount.point} (until the next boot), or RUNNER=host"
        yield Check("shared mount", NOTE, f"{folder} lies on none: no mount from a container", remedy)


def of_gpu(survey: Survey) -> Iterator[Check]:
    """Check for an NVIDIA GPU, and that containers get it."""
    if shutil.which("nvidia-smi", path=survey.environ.get("PATH")) is None:
        yield Check("GPU", OK, "none of NVIDIA's: measuring runs on the CPU")
        return
    names = re.findall(r"^GPU \d+: (.+?) \(", answer(survey, "nvidia-smi", "-L"), re.MULTILINE)
    if not names:
        yield Check("GPU", NOTE, "nvidia-smi finds none", "`nvidia-smi` says why; measuring runs on the CPU")
        return
    yield Check("GPU", OK, ", ".join(names))
    if survey.runner.name == "compose" and '"nvidia"' not in _runtimes(survey):
        remedy = "install nvidia-container-toolkit, or RUNNER=host"
        yield Check("GPU in containers", NOTE, "Docker has no nvidia runtime", remedy)


def _runtimes(survey: Survey) -> str:
    said = answer(survey, "docker", "info", "--format", "{{json .Runtimes}}")
    try:
        return json.dumps(list(json.loads(said)))
    except ValueError:
        return ""
