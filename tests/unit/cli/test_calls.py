"""The calls of a command, a pure function of the settings: without an engine or files."""

from __future__ import annotations

from pathlib import Path

import pytest

from larder.cli.compose import ComposeRunner, Facts
from larder.cli.host import HostRunner
from larder.cli.pipelines import PIPELINES
from larder.cli.process import as_shell_line
from larder.cli.settings import ResolvedSettings

ROOT = Path("/checkout")
RUN = "run --rm --no-deps"
BENCH = (
    "LARDER_MOUNT_DIR=/checkout/.larder/mount LARDER_RESULTS=/checkout/results LARDER_UID=4321 LARDER_GID=4321 "
    "docker compose -f compose/bench.yaml"
)
MEASURED = (
    "FOOD11_DATA_DIR=.larder/volumes/food11_local_baseline/Food-11 LARDER_RESULTS=results "
    "LARDER_CACHE_DIR=.larder/cache LARDER_MOUNT_DIR=.larder/mount"
)
TREE, SHARDS, CHUNKS = (
    f"LARDER_VOLUME_DIR=.larder/volumes/food11{name}"
    for name in ("_local_baseline", "-webdataset_wds_out", "-litdata_lit_out")
)
INPUT = "LARDER_INPUT=.larder/volumes/food11_local_baseline"
PYTHON = ".venv/bin/python -m services"
IDS = {"LARDER_UID": "4321", "LARDER_GID": "4321"}

IN_CONTAINERS = {
    "etl-local": [
        f"docker compose -f compose/local.yaml {RUN} transform --check",
        f"docker compose -f compose/local.yaml {RUN} extract",
        f"docker compose -f compose/local.yaml {RUN} transform",
    ],
    "etl-load": [f"docker compose -f compose/load.yaml {RUN} load"],
    "etl-wds": [
        f"docker compose -f compose/load.yaml {RUN} load --task reach --folder webdataset",
        f"docker compose -f compose/wds.yaml {RUN} shard",
        f"docker compose -f compose/wds.yaml {RUN} load",
    ],
    "etl-lit": [
        f"docker compose -f compose/load.yaml {RUN} load --task reach --folder litdata",
        f"docker compose -f compose/lit.yaml {RUN} optimize",
        f"docker compose -f compose/lit.yaml {RUN} load",
    ],
    "index": [f"docker compose -f compose/index.yaml {RUN} index"],
    "verify": [f"VERIFY_LIT=baseline docker compose -f compose/verify.yaml {RUN} verify"],
    "bench": [f"{BENCH} {RUN} bench"],
    "train": [f"{BENCH} {RUN} bench --task train"],
    "compare": [f"{BENCH} {RUN} bench --task compare"],
    "peers": [f"{BENCH} {RUN} bench --task peers"],
    "s3-check": [f"AWS_ACCESS_KEY_ID='' docker compose -f compose/s3.yaml {RUN} s3 --task check"],
    "s3-bucket": [f"AWS_ACCESS_KEY_ID='' docker compose -f compose/s3.yaml {RUN} s3 --task bucket"],
}
ON_THE_HOST = {
    "etl-local": [f"{TREE} {PYTHON}.transform --check", f"{TREE} {PYTHON}.extract", f"{TREE} {PYTHON}.transform"],
    "etl-load": [f"{TREE} {PYTHON}.load"],
    "etl-wds": [
        f"{TREE} {PYTHON}.load --task reach --folder webdataset",
        f"{SHARDS} {INPUT} {PYTHON}.shard",
        f"{SHARDS} {INPUT} LARDER_LOAD=webdataset {PYTHON}.load",
    ],
    "etl-lit": [
        f"{TREE} {PYTHON}.load --task reach --folder litdata",
        f"{CHUNKS} {INPUT} {PYTHON}.optimize",
        f"{CHUNKS} {INPUT} LARDER_LOAD=litdata {PYTHON}.load",
    ],
    "index": [f"{TREE} {PYTHON}.index"],
    "verify": [
        f"{TREE} LARDER_WDS_DIR=.larder/volumes/food11-webdataset_wds_out "
        f"LARDER_LIT_DIR=.larder/volumes/food11-litdata_lit_out {PYTHON}.verify"
    ],
    "bench": [f"{TREE} {MEASURED} {PYTHON}.bench"],
    "train": [f"{TREE} {MEASURED} {PYTHON}.bench --task train"],
    "compare": [f"{TREE} {MEASURED} {PYTHON}.bench --task compare"],
    "peers": [f"{TREE} {MEASURED} {PYTHON}.bench --task peers"],
    "s3-check": [f"{TREE} LARDER_STORE_DIR=.larder/store {PYTHON}.s3 --task check"],
    "s3-bucket": [f"{TREE} LARDER_STORE_DIR=.larder/store {PYTHON}.s3 --task bucket"],
}


def compose(**given: str) -> ComposeRunner:
    facts = Facts(volumes=frozenset({"food11-webdataset_wds_out"}))
    return ComposeRunner(ResolvedSettings(ROOT, given, IDS, {}, "compose"), facts=facts)


def test_every_pipeline_is_in_the_tables() -> None:
    assert set(IN_CONTAINERS) == set(ON_THE_HOST) == set(PIPELINES)


@pytest.mark.parametrize("name", PIPELINES)
def test_in_containers(name: str) -> None:
    assert [as_shell_line(compose().command(step)) for step in PIPELINES[name]] == IN_CONTAINERS[name]


@pytest.mark.parametrize("name", PIPELINES)
def test_on_the_host(name: str) -> None:
    host = HostRunner(ResolvedSettings(ROOT, {}, IDS, {}, "host"))
    assert [as_shell_line(host.command(step)) for step in PIPELINES[name]] == ON_THE_HOST[name]


@pytest.mark.parametrize(("stages", "made"), [(["extract"], 3), (["verify"], 0), (["s3", "load"], 3)])
def test_stages_that_write_none_make_no_volumes_on_the_host(stages: list[str], made: int) -> None:
    calls = HostRunner(ResolvedSettings(ROOT, {}, IDS, {}, "host")).prepare(stages)
    assert sum(len(call.argv[3:]) for call in calls if call.argv[0] == "mkdir") == made


def test_what_the_command_line_sets_is_handed_on_as_it_is() -> None:
    [step] = PIPELINES["etl-load"]
    given = {"S3_BUCKET": "it's $(mine)", "AWS_SECRET_ACCESS_KEY": "the-secret", "YES": "1"}
    line = as_shell_line(compose(**given).command(step))
    assert line.startswith("""S3_BUCKET='it'"'"'s $(mine)' AWS_SECRET_ACCESS_KEY="$AWS_SECRET_ACCESS_KEY" docker """)
    assert "the-secret" not in line
    assert "YES" not in line


@pytest.mark.parametrize(("name", "volume"), [("Food-11", "food11_local_baseline"), ("photos", "")])
def test_only_the_default_dataset_needs_a_volume_name_for_compose(name: str, volume: str) -> None:
    [step] = PIPELINES["etl-load"]
    assert compose(LARDER_DATASET=name).command(step).env.get("LARDER_DATA_VOLUME", "") == volume


def test_an_empty_variable_does_not_hide_what_a_file_sets() -> None:
    [step] = PIPELINES["etl-load"]
    settings = ResolvedSettings(ROOT, {}, {**IDS, "S3_PREFIX": ""}, {"S3_PREFIX": "team"}, "compose")
    assert as_shell_line(ComposeRunner(settings).command(step)).startswith("env -u S3_PREFIX docker compose ")


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("", ()),
        ("a.zip", ("-v", "{root}/a.zip:/source/a.zip:ro", "-e", "LARDER_SOURCE=/source/a.zip")),
        ("s/*.tar", ("-v", "{root}/s:/source/0:ro", "-e", "LARDER_SOURCE=/source/0/*.tar")),
        ("s/*/x.tar", ("-v", "{root}/s:/source/0:ro", "-e", "LARDER_SOURCE=/source/0/*/x.tar")),
        (
            "a.zip\ns/x.tar\nhttp://h/b.zip\nb.zip",
            (
                "-v",
                "{root}:/source/0:ro",
                "-v",
                "{root}/s:/source/1:ro",
                "-e",
                'LARDER_SOURCE=["/source/0/a.zip", "/source/1/x.tar", "http://h/b.zip", "/source/0/b.zip"]',
            ),
        ),
        ('["a.zip", "gone.zip"]', ("-v", "{root}:/source/0:ro", "-e", 'LARDER_SOURCE=["/source/0/a.zip", "gone.zip"]')),
        ("http://h/a.zip\nhttp://h/b.zip", ()),
        ("nothing/*.tar", ()),
        ("sample", ()),
        ("[1]", ()),
    ],
)
def test_local_sources_are_mounted(tmp_path: Path, source: str, options: tuple[str, ...]) -> None:
    (tmp_path / "s").mkdir()
    for name in ("a.zip", "b.zip", "s/x.tar"):
        (tmp_path / name).touch()
    call = ComposeRunner(ResolvedSettings(tmp_path, {"LARDER_SOURCE": source}, IDS, {}, "compose")).command(
        PIPELINES["etl-local"][1]
    )
    expected = [option.replace("{root}", str(tmp_path)) for option in options]
    at = call.argv.index("--no-deps") + 1
    assert list(call.argv[at : call.argv.index("extract")]) == expected


@pytest.mark.parametrize(
    ("server", "up", "down"),
    [
        ("minio", "compose/s3.yaml up -d --wait minio", "compose/distant.yaml rm --stop --force link minio"),
        ("link", "compose/distant.yaml up -d --wait link", "compose/distant.yaml rm --stop --force link"),
        ("mount", "up -d --wait mount", "rm --stop --force mount"),
        ("jupyter", "up -d --wait jupyter", "rm --stop --force jupyter"),
        ("ray-head", "up -d --wait", "rm --stop --force ray-head ray-worker"),
    ],
)
def test_servers(server: str, up: str, down: str) -> None:
    assert as_shell_line(compose().up(server)).endswith(f" {up} >&2")
    assert as_shell_line(compose().down(server)).endswith(f" {down} >&2")


def test_another_checkout_has_a_project_of_its_own() -> None:
    [step] = PIPELINES["etl-load"]
    line = as_shell_line(ComposeRunner(ResolvedSettings(ROOT, {}, {}, {}, "compose"), "larder-0123abcd").command(step))
    assert line == f"docker compose -p larder-0123abcd -f compose/load.yaml {RUN} load"
