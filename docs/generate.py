"""Writes .env.example and docs/settings.md from the stages' settings; with --check, fails when they are stale."""

from __future__ import annotations

import sys
from pathlib import Path

from larder.settings import Setting, Settings, settings_of
from services.bench.settings import BenchSettings
from services.extract.settings import ExtractSettings
from services.jupyter.settings import JupyterSettings
from services.load.settings import LoadSettings
from services.mount.settings import MountSettings
from services.optimize.settings import OptimizeSettings
from services.s3.settings import S3Settings
from services.shard.settings import ShardSettings
from services.transform.settings import TransformSettings
from services.verify.settings import VerifySettings

ROOT = Path(__file__).parent.parent
STAGES: dict[str, type[Settings]] = {
    "extract": ExtractSettings,
    "transform": TransformSettings,
    "load": LoadSettings,
    "shard": ShardSettings,
    "optimize": OptimizeSettings,
    "verify": VerifySettings,
    "s3": S3Settings,
    "mount": MountSettings,
    "bench": BenchSettings,
    "jupyter": JupyterSettings,
}

# What make, compose and the tests read beside the stages' own settings: name, default, meaning.
BUILD_SETTINGS = (
    ("RUNNER", "compose, or host without an engine", "compose: containers; host: processes in .venv/ (make)"),
    ("LARDER_DATA_VOLUME", "food11_local_baseline", "name of the data volume (make, compose)"),
    ("LARDER_WDS_VOLUME", "food11-webdataset_wds_out", "name of the volume of shards (make, compose)"),
    ("LARDER_LIT_VOLUME", "food11-litdata_lit_out", "name of the volume of chunks (make, compose)"),
    ("LARDER_RAY_STAGE", "shard", "the stage that a Ray cluster is for, shard or optimize: its image and its volume "
     "(make, compose)"),
    ("LARDER_HOME", ".larder", "where the host runner keeps its volumes, and `make s3-up` its keys (make)"),
    ("LARDER_UID", "your user id", "user id that writes the records; never 0 (make, compose)"),
    ("LARDER_GID", "your group id", "group id that writes the records; never 0 (make, compose)"),
    ("LARDER_SHM_SIZE", "8gb", "limit of the shared memory of bench and JupyterLab (compose)"),
    ("LARDER_MINIO_PORT", "9000", "port of this machine's loopback on which compose/s3.yaml publishes its store "
     "(make, compose)"),
    ("TORCH_INDEX_URL", "", "index for torch's wheels; empty is pip's own, with CUDA builds of about 3 GB that run on "
     "CPUs, too. PyTorch's CPU index saves that: its address is on pytorch.org under Get Started (make, compose)"),
)  # fmt: skip
IMAGES = (
    ("BASE_IMAGE", "debian:bookworm-slim", "base of every image; pin it by digest where builds must repeat (compose)"),
    ("MINIO_IMAGE", "quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z",
     "S3 server of `make s3-up` and the tests: the last community image, frozen with known security holes, so not for "
     "open networks"),
)  # fmt: skip

# The kinds of stores, each a block to fill in: what it is, and its settings.
STORES = (
    ("a store on this machine, with keys of your choice (`make s3-up` does without this block and makes keys up)",
     ("S3_ENDPOINT_URL=http://minio:9000", "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "S3_BUCKET=larder")),
    ("Ceph RGW at Chameleon (CHI@TACC); `openstack ec2 credentials create` makes the keys",
     ("S3_ENDPOINT_URL=https://chi.tacc.chameleoncloud.org:7480", "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=",
      "S3_BUCKET=object-chi-netID")),
    ("AWS; S3_ENDPOINT_URL stays empty",
     ("AWS_REGION=us-east-1", "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "S3_BUCKET=")),
    ("Cloudflare R2; an API token of the kind \"Object Read & Write\" gives the keys",
     ("S3_ENDPOINT_URL=https://<account id>.r2.cloudflarestorage.com", "AWS_REGION=auto", "AWS_ACCESS_KEY_ID=",
      "AWS_SECRET_ACCESS_KEY=", "S3_BUCKET=")),
)  # fmt: skip


def settings_by_name() -> dict[str, tuple[Setting, list[str]]]:
    """Every setting by its environment variable, with the stages that have it."""
    found: dict[str, tuple[Setting, list[str]]] = {}
    for stage, kind in STAGES.items():
        for setting in settings_of(kind):
            found.setdefault(setting.names[0], (setting, []))[1].append(stage)
    return found


def env_example() -> str:
    """Every setting, commented out at its default."""
    lines = [
        "# Every setting with its default. Copy this file to .env and change what you need; the shell and make's",
        "# arguments win over it. Written by `make docs`.",
    ]
    for name, (setting, stages) in settings_by_name().items():
        unit = f" [{setting.unit}]" if setting.unit else ""
        shown = "" if setting.default == "available cores" else setting.default
        lines += ["", f"# {setting.meaning}{unit} ({', '.join(stages)})", f"#{name}={shown}"]
    lines += ["", "", "# --- stores: one of these blocks, filled in; `make s3-check` says whether it works ---"]
    for about, settings in STORES:
        lines += ["", f"# {about}", *(f"#{setting}" for setting in settings)]
    lines += ["", "", "# --- make and compose ---"]
    for name, default, meaning in BUILD_SETTINGS:
        lines += ["", f"# {meaning}; default: {default or '(empty)'}", f"#{name}="]
    lines += ["", "", "# --- images of others, each pinned here and nowhere else ---"]
    for name, default, meaning in IMAGES:
        lines += ["", f"# {meaning}", f"{name}={default}"]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """The settings table."""
    lines = [
        "# Settings",
        "",
        "Environment variables; each but secrets is also a flag of its stages (`python -m services.<stage> --help`). A",
        "flag wins over its variable, an empty variable counts as not set. `make` hands all of them through:",
        "`make etl-local LARDER_SOURCE=photos.zip`. Written by `make docs`.",
        "",
        "| variable | flag | unit | default | meaning | stages |",
        "|---|---|---|---|---|---|",
    ]
    for name, (setting, stages) in settings_by_name().items():
        default = f"`{setting.default}`" if setting.default else ""
        flag = "" if setting.secret else f"`{setting.flag}`"
        cells = (f"`{name}`", flag, setting.unit, default, setting.meaning, ", ".join(stages))
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## make and compose", "", "| variable | default | meaning |", "|---|---|---|"]
    for name, default, meaning in BUILD_SETTINGS + IMAGES:
        lines.append(f"| `{name}` | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the files, or say which are stale."""
    pages = {ROOT / ".env.example": env_example(), ROOT / "docs/settings.md": settings_page()}
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run `make docs`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages[path])
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
