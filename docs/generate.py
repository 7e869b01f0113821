"""Write the files that are generated from the code.

They are .env.example, docs/settings.md, larder/cli/settings.json, the schema of comparisons, the tables of
docs/contract.md and docs/scale.md, and version and base image in compose/. `--check` writes nothing, and fails if one
is stale.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BeforeValidator, ByteSize

from docs.fields import with_tables
from docs.scale import with_tables as with_scale_tables
from larder import __version__
from larder.bench import arms
from larder.bench.comparison_record import SCHEMA_FILE, json_schema
from larder.cli import base_image
from larder.cli.setting_specs import CLI_SETTINGS
from larder.settings import Setting, Settings, settings_of
from services.bench.settings import BenchSettings
from services.extract.settings import ExtractSettings
from services.index.settings import IndexSettings
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
    "index": IndexSettings,
    "shard": ShardSettings,
    "optimize": OptimizeSettings,
    "verify": VerifySettings,
    "s3": S3Settings,
    "mount": MountSettings,
    "bench": BenchSettings,
    "jupyter": JupyterSettings,
}

IMAGES = (
    ("BASE_IMAGE", base_image.read_base_image(ROOT), "base of every image; `make pin-images` pins it by digest"),
    ("MINIO_IMAGE", "quay.io/minio/minio:RELEASE.2025-09-07T16-13-09Z",
     "S3 server of `make s3-up` and the tests: MinIO's last public image, which has known security holes; don't expose "
     "it to a network"),
)  # fmt: skip

# Kinds of stores: a description, and settings to fill in.
STORES = (
    ("a store on this machine, with keys of your choice (`make s3-up` doesn't need this block: it generates keys)",
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
    """Return every setting by its environment variable, with the stages that have it.

    Raises:
        ValueError: If a variable has another flag or type in one stage than in another.
    """
    settings: dict[str, tuple[Setting, list[str]]] = {}
    for stage, kind in STAGES.items():
        for setting in settings_of(kind):
            name = setting.names[0]
            first, stages = settings.setdefault(name, (setting, []))
            stages.append(stage)
            known = first.flag, type_of(STAGES[stages[0]], first)
            if known != (setting.flag, type_of(kind, setting)):
                raise ValueError(f"{name} is another setting in {stage} than in {stages[0]}: rename one of them")
    return settings


def env_example() -> str:
    """Return .env.example: every setting, commented out, with its default."""
    lines = [
        "# Every setting with its default. Copy this file to .env and change what you need; the shell's variables",
        "# and make's arguments take precedence. Written by `make docs`.",
    ]
    for name, (setting, stages) in settings_by_name().items():
        unit = f" [{setting.unit}]" if setting.unit else ""
        shown = "" if setting.default == "available cores" else setting.default
        lines += ["", f"# {setting.meaning}{unit} ({', '.join(stages)})", f"#{name}={shown}"]
    lines += ["", "", "# --- stores: fill in one of these blocks; `make s3-check` tests it ---"]
    for about, settings in STORES:
        lines += ["", f"# {about}", *(f"#{setting}" for setting in settings)]
    lines += ["", "", "# --- make, larder and compose ---"]
    for own in CLI_SETTINGS:
        default = f"; default: {own.default}" if own.default else ""
        lines += ["", f"# {own.meaning}{default}", f"#{own.name}="]
    lines += ["", "", "# --- third-party images ---"]
    for name, default, meaning in IMAGES:
        lines += ["", f"# {meaning}", f"{name}={default}"]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """Return docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Each setting is an environment variable. Except for secrets, it is also a flag of its stages",
        "(`python -m services.<stage> --help`). A flag takes precedence over its variable. An empty variable counts as",
        "not set. `make` passes all of them on: `make etl-local LARDER_SOURCE=photos.zip`.",
        "",
        "`make docs` writes this page.",
        "",
        "| variable | flag | unit | default | meaning | stages |",
        "|---|---|---|---|---|---|",
    ]
    for name, (setting, stages) in settings_by_name().items():
        default = f"`{setting.default}`" if setting.default else ""
        flag = "" if setting.secret else f"`{setting.flag}`"
        cells = (f"`{name}`", flag, setting.unit, default, setting.meaning, ", ".join(stages))
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## make, larder and compose", "", "| variable | default | meaning |", "|---|---|---|"]
    command_settings = [(setting.name, setting.default, setting.meaning) for setting in CLI_SETTINGS]
    for name, default, meaning in [*command_settings, *IMAGES]:
        lines.append(f"| `{name}` | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def choices_of(kind: type[Settings], setting: Setting) -> list[str]:
    """Return the values that a setting accepts; an empty list if they can't be listed."""
    if setting.names[0] == "LARDER_ARM":
        return arms.arm_names()
    annotation = kind.model_fields[setting.field].annotation
    return list(get_args(annotation)) if get_origin(annotation) is Literal else []


def bounds_of(kind: type[Settings], setting: Setting) -> dict[str, float]:
    """Return the bounds of a number, by pydantic's names: ge, gt, le, lt."""
    metadata = kind.model_fields[setting.field].metadata
    return {name: getattr(one, name) for one in metadata for name in ("ge", "gt", "le", "lt") if hasattr(one, name)}


def type_of(kind: type[Settings], setting: Setting) -> str:
    """Return int, float or ByteSize; "" for other types, and for numbers that may also be words."""
    field = kind.model_fields[setting.field]
    takes_words = any(isinstance(one, BeforeValidator) for one in field.metadata)
    return field.annotation.__name__ if field.annotation in (int, float, ByteSize) and not takes_words else ""


def settings_data() -> str:
    """Return the stages' settings as JSON, for `larder.cli`: it runs where pydantic, and so the stages, can't."""
    pages = {
        name: {
            "default": setting.default,
            "meaning": setting.meaning,
            "flag": "" if setting.secret else setting.flag,
            "unit": setting.unit,
            "stages": stages,
            "secret": setting.secret,
            "choices": choices_of(STAGES[stages[0]], setting),
            "type": type_of(STAGES[stages[0]], setting),
            "bounds": bounds_of(STAGES[stages[0]], setting),
        }
        for name, (setting, stages) in settings_by_name().items()
    }
    return json.dumps(pages, indent=1, ensure_ascii=False) + "\n"


def with_constants(text: str) -> str:
    """Return a compose file with larder's version and the Dockerfile's base image, which compose can't read itself."""
    text = re.sub(r"(\$\{BASE_IMAGE:-)[^}]*", rf"\g<1>{base_image.read_base_image(ROOT)}", text)
    text = re.sub(r"\b(image: larder-\S+:)\S+", rf"\g<1>{__version__}", text)
    return re.sub(r'\b(VERSION: )".*?"', rf'\g<1>"{__version__}"', text)


def main() -> int:
    """Write the files, or report which are stale."""
    pages = {
        ROOT / ".env.example": env_example(),
        ROOT / "docs/settings.md": settings_page(),
        ROOT / "larder/cli/settings.json": settings_data(),
        SCHEMA_FILE: json_schema(),
        ROOT / "docs/scale.md": with_scale_tables((ROOT / "docs/scale.md").read_text()),
        ROOT / "docs/contract.md": with_tables((ROOT / "docs/contract.md").read_text()),
        **{path: with_constants(path.read_text()) for path in sorted((ROOT / "compose").glob("*.yaml"))},
    }
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
