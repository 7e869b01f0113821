"""Checks of the machine: disk, cores, memory, ports, FUSE, GPU."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from larder.cli import local_store, mounts, ports
from larder.cli.checks.result import FAULT, NOTE, OK, DoctorResult, capture_stdout
from larder.cli.inspector import CheckoutInspector, find_jupyter_servers, is_link_running, is_running
from larder.cli.setting_values import is_port

GIGABYTE = 1e9
_MIN_DISK, _ENOUGH_DISK = 1.0, 10.0
_MIN_MEMORY, _ENOUGH_MEMORY = 0.5, 4.0


def check_disks(inspector: CheckoutInspector) -> Iterator[DoctorResult]:
    """Check the free space of the checkout's disk and of Docker's."""
    yield _space("disk of the checkout", inspector.root)
    if inspector.engine.state == "ready":
        folder = Path(capture_stdout(inspector, "docker", "info", "--format", "{{.DockerRootDir}}").strip())
        if folder.is_dir() and folder != Path():
            yield _space("disk of Docker", folder)
        else:
            yield DoctorResult("disk of Docker", OK, "not visible from here (the engine runs elsewhere)")


def _space(subject: str, folder: Path) -> DoctorResult:
    free = shutil.disk_usage(folder).free / GIGABYTE
    text = f"{free:.1f} GB free in {folder}"
    if free < _ENOUGH_DISK:
        state = FAULT if free < _MIN_DISK else NOTE
        return DoctorResult(
            subject, state, text, "free some space: Food-11 takes 3 GB, images with torch 3 GB and more"
        )
    return DoctorResult(subject, OK, text)


def check_cores() -> DoctorResult:
    """Report the number of usable cores."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return DoctorResult("cores", OK, f"{usable} of {os.cpu_count()} usable")


def check_memory(table: Path = Path("/proc/meminfo")) -> DoctorResult:
    """Check the available memory."""
    try:
        match = re.search(r"^MemAvailable:\s+(\d+) kB", table.read_text("utf-8"), re.MULTILINE)
    except OSError:
        match = None
    if match is None:
        return DoctorResult("memory", OK, "unknown on this system")
    free = int(match[1]) * 1024 / GIGABYTE
    if free < _ENOUGH_MEMORY:
        state = FAULT if free < _MIN_MEMORY else NOTE
        return DoctorResult("memory", state, f"{free:.1f} GB available", "end other programs, or set LARDER_WORKERS=1")
    return DoctorResult("memory", OK, f"{free:.1f} GB available")


def check_shared_memory(inspector: CheckoutInspector) -> DoctorResult:
    """Check the shared memory, which loaders' workers use for batches. Containers have a limit of their own."""
    if inspector.runner.name == "compose":
        return DoctorResult("shared memory", OK, f"containers get {inspector.settings.get('LARDER_SHM_SIZE', '8gb')}")
    try:
        free = os.statvfs("/dev/shm")
    except OSError:
        return DoctorResult("shared memory", OK, "unknown: this system has no /dev/shm")
    size = free.f_bavail * free.f_frsize / GIGABYTE
    if size < 1.0:
        next_step = "sudo mount -o remount,size=8g /dev/shm; or set LARDER_WORKERS and LARDER_BATCH_SIZE lower"
        return DoctorResult("shared memory", NOTE, f"{size:.1f} GB free in /dev/shm: little for bench", next_step)
    return DoctorResult("shared memory", OK, f"{size:.1f} GB free in /dev/shm")


def check_ports(inspector: CheckoutInspector) -> Iterator[DoctorResult]:
    """Check the ports of the store on this machine and of JupyterLab."""
    settings, host = inspector.settings, inspector.runner.name == "host"
    port = local_store.HOST_ENDPOINT.rpartition(":")[2] if host else local_store.find_published_port(settings)
    other = f"S3_ENDPOINT_URL in {settings.store_file}" if host else "LARDER_MINIO_PORT"
    is_own = (
        is_running(inspector.root / settings.store_dir / "pid", "weed")
        or is_link_running(inspector.root / settings.store_dir)
        if host
        else _publishes(inspector, "minio", port) or _publishes(inspector, "link", port)
    )
    yield _port("port of the store", int(port), is_own, other)
    port = settings.get("LARDER_JUPYTER_PORT", "8888")
    if is_port(port):
        folder = inspector.root / settings.home / "jupyter"
        is_own = (
            any(port == server_port for server_port, _ in find_jupyter_servers(folder))
            if host
            else _publishes(inspector, "jupyter", port)
        )
        yield _port("port of JupyterLab", int(port), is_own, "LARDER_JUPYTER_PORT")


def _publishes(inspector: CheckoutInspector, service: str, port: str) -> bool:
    return any(container.service == service and f":{port}->" in container.ports for container in inspector.containers())


def _port(subject: str, port: int, is_own: bool, setting: str) -> DoctorResult:
    if is_own:
        return DoctorResult(subject, OK, f"{port} is used by larder itself")
    if ports.is_open(port):
        return DoctorResult(
            subject, NOTE, f"{port} is taken by another program", f"stop that program, or set {setting}"
        )
    return DoctorResult(subject, OK, f"{port} is free")


def check_fuse(inspector: CheckoutInspector) -> Iterator[DoctorResult]:
    """Check the requirements of `mount`."""
    device = Path("/dev/fuse")
    if not device.exists():
        yield DoctorResult("FUSE", NOTE, "there is no /dev/fuse: no mount", "sudo modprobe fuse")
        return
    if inspector.runner.name == "host":
        program = shutil.which("fusermount3") or shutil.which("fusermount")
        if program is None:
            yield DoctorResult("FUSE", NOTE, "fusermount is missing: no mount", "install fuse3")
        else:
            yield DoctorResult("FUSE", OK, f"/dev/fuse and {program}")
        return
    yield DoctorResult("FUSE", OK, "/dev/fuse")
    folder = Path(os.path.realpath(inspector.root / inspector.settings.mount_dir))
    found_mount = mounts.mount_of(folder)
    if found_mount is not None and not found_mount.shared:
        next_step = f"sudo mount --make-rshared {found_mount.point} (until the next boot), or RUNNER=host"
        yield DoctorResult(
            "shared mount", NOTE, f"{folder} is not on a shared mount, so mounts stay in containers", next_step
        )


def check_gpu(inspector: CheckoutInspector) -> Iterator[DoctorResult]:
    """Check for an NVIDIA GPU, and whether containers can use it."""
    if shutil.which("nvidia-smi", path=inspector.environ.get("PATH")) is None:
        yield DoctorResult("GPU", OK, "no NVIDIA GPU: bench runs on the CPU")
        return
    names = re.findall(r"^GPU \d+: (.+?) \(", capture_stdout(inspector, "nvidia-smi", "-L"), re.MULTILINE)
    if not names:
        yield DoctorResult("GPU", NOTE, "nvidia-smi finds no GPU", "`nvidia-smi` says why; bench runs on the CPU")
        return
    yield DoctorResult("GPU", OK, ", ".join(names))
    if inspector.runner.name == "compose" and '"nvidia"' not in _runtimes(inspector):
        next_step = "install nvidia-container-toolkit, or RUNNER=host"
        yield DoctorResult("GPU in containers", NOTE, "Docker has no nvidia runtime", next_step)


def _runtimes(inspector: CheckoutInspector) -> str:
    output = capture_stdout(inspector, "docker", "info", "--format", "{{json .Runtimes}}")
    try:
        return json.dumps(list(json.loads(output)))
    except ValueError:
        return ""
