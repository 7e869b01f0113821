"""The compose files, as compose itself reads them."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BASES = ("stage.yaml", "minio.yaml")
FILES = sorted(path.name for path in (ROOT / "compose").glob("*.yaml") if path.name not in BASES)
Run = Callable[..., "subprocess.CompletedProcess[str]"]
SERVERS = {"minio", "link", "ray-head"}
"""What others' commands run, with health checks and variables of their own."""
ROOT_OF_A_VOLUME = {"minio"}
"""Root, since a new volume is root's; without capabilities as all are."""
MAY_MOUNT = {"mount"}
"""Root with four capabilities at first: those to mount, and those to become the user who owns the folder."""
RIGHTS = ["SYS_ADMIN", "DAC_OVERRIDE", "SETUID", "SETGID"]
NO_SETTINGS = {
    "LARDER_REVISION": "the image knows it",
    "LARDER_STORE_DIR": "for the embedded server, without an engine",
    "LARDER_S3_LATENCY": "for the embedded server; distant.yaml has MinIO's link",
    "LARDER_S3_BANDWIDTH": "the same",
}
PROJECT = "COMPOSE_PROJECT_NAME"
STAGE_OF = {
    "local": "extract",
    "load": "load",
    "wds": "shard",
    "lit": "optimize",
    "index": "index",
    "verify": "verify",
    "bench": "bench",
    "s3": "s3",
}
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}  # s3.yaml asks for them


@pytest.fixture(params=FILES)
def config(request: pytest.FixtureRequest, run: Run) -> dict[str, Any]:
    command = ("docker", "compose", "-f", f"compose/{request.param}", "config", "--format", "json")
    ended = run(*command, check=True, **KEYS)
    return dict(json.loads(ended.stdout))


def test_services_are_locked_down(config: dict[str, Any]) -> None:
    for name, service in config["services"].items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        more = ["apparmor:unconfined", "seccomp:mount.seccomp.json"] if name in MAY_MOUNT else []
        assert service["security_opt"] == ["no-new-privileges:true", *more]
        assert service.get("cap_add", []) == (RIGHTS if name in MAY_MOUNT else [])
        assert bool(service.get("devices")) == (name in MAY_MOUNT)
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]) or name in ROOT_OF_A_VOLUME | MAY_MOUNT


def test_every_image_is_built_as_the_stage_that_its_name_says(config: dict[str, Any]) -> None:
    for service in config["services"].values():
        if stage := re.match(r"larder-(\w+):", service["image"]):
            assert service["build"]["args"]["STAGE"] == stage[1]
            assert (ROOT / service["build"]["dockerfile"]).is_file()
            assert Path(service["build"]["context"]) == ROOT
        else:
            assert "build" not in service


def test_images_are_pinned_and_containers_unnamed(config: dict[str, Any]) -> None:
    for name, service in config["services"].items():
        assert not service["image"].endswith(":latest")
        assert ":" in service["image"]
        assert "container_name" not in service
        assert "command" not in service or service["command"] is None or name in SERVERS


def test_servers_are_published_on_loopback_and_have_a_health_check(config: dict[str, Any]) -> None:
    for name, service in config["services"].items():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", ()))
        assert ("healthcheck" in service) == (name in SERVERS | {"mount", "jupyter"})


def test_the_server_is_pinned_and_has_no_default_keys(run: Run) -> None:
    command = ("docker", "compose", "-f", "compose/s3.yaml", "config", "--format", "json")
    server = json.loads(run(*command, check=True, **KEYS).stdout)["services"]["minio"]
    assert f"MINIO_IMAGE={server['image']}\n" in (ROOT / ".env.example").read_text()
    assert server["environment"]["MINIO_ROOT_USER"] == "key"
    assert server["environment"]["MINIO_ROOT_PASSWORD"] == "secret"
    without = run(*command)
    assert without.returncode != 0
    assert "make s3-up" in without.stderr


def test_stages_with_nothing_to_fetch_have_no_network(config: dict[str, Any]) -> None:
    for name, service in config["services"].items():
        assert (service.get("network_mode") == "none") == (name == "transform")


def test_the_volume_has_the_contracts_name(run: Run) -> None:
    for file in ("local.yaml", "bench.yaml"):
        ended = run("docker", "compose", "-f", f"compose/{file}", "config", "--format", "json", LARDER_DATA_VOLUME="")
        assert json.loads(ended.stdout)["volumes"]["baseline"]["name"] == "food11_local_baseline"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param("", ("volume", "bench_cache"), id="a-volume"),
        pytest.param("/fast/disk", ("bind", "/fast/disk"), id="a-folder-of-the-host"),
    ],
)
def test_the_cache_is_a_volume_or_a_folder(run: Run, given: str, expected: tuple[str, str]) -> None:
    command = ("docker", "compose", "-f", "compose/bench.yaml", "config", "--format", "json")
    service = json.loads(run(*command, check=True, LARDER_CACHE_DIR=given).stdout)["services"]["bench"]
    [mount] = [mount for mount in service["volumes"] if mount["target"] == "/cache"]
    assert (mount["type"], mount["source"]) == expected
    assert service["environment"]["LARDER_CACHE_DIR"] == "/cache"


def test_what_a_container_takes_of_the_machine_is_limited(config: dict[str, Any]) -> None:
    for name, service in config["services"].items():
        assert int(service["pids_limit"]) == (4096 if name == "minio" else 16384)
        assert service["tmpfs"] == [f"/tmp:size={'256m' if name == 'minio' else '4g'}"]
        assert int(service.get("mem_limit", 0)) == 0


def test_the_limits_are_settings(run: Run) -> None:
    command = ("docker", "compose", "-f", "compose/lit.yaml", "config", "--format", "json")
    given = {"LARDER_MEMORY": "2g", "LARDER_PIDS": "100", "LARDER_TMP_SIZE": "25%"}
    for service in json.loads(run(*command, check=True, **given).stdout)["services"].values():
        limits = (int(service["mem_limit"]), int(service["pids_limit"]), service["tmpfs"])
        assert limits == (2 << 30, 100, ["/tmp:size=25%"])


def test_a_container_has_the_limits(stage: Run) -> None:
    limits = "memory.max memory/memory.limit_in_bytes pids.max pids/pids.max"  # of cgroup v2 and v1
    look = f"cd /sys/fs/cgroup; cat {limits} 2>/dev/null; df --output=size -B1 /tmp | tail -n 1"
    given = {"LARDER_MEMORY": "512m", "LARDER_PIDS": "100", "LARDER_TMP_SIZE": "64m"}
    seen = stage("extract", "-c", look, options=("--entrypoint", "bash"), check=True, **given).stdout.split()
    assert seen == [str(512 << 20), "100", str(64 << 20)]


def test_every_variable_is_documented(config: dict[str, Any]) -> None:
    documented = set(re.findall(r"^#?([A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    fixed = {"HOME", "NO_COLOR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
    fixed |= {"RCLONE_CONTAINER", "AWS_DEFAULT_REGION"}  # other names of settings
    fixed |= {"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"}
    fixed |= {"RAY_USAGE_STATS_ENABLED", "LARDER_FRONT_DOOR", "LARDER_REPEATED"}  # Ray's, and set by who starts a stage
    fixed |= {"LARDER_HOST_FOLDERS"}  # likewise
    for name, service in config["services"].items():
        assert set(service["environment"]) <= documented | fixed or name in SERVERS


def test_every_setting_of_a_stage_reaches_it(run: Run) -> None:
    from larder.settings import Settings, settings_of
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

    stages: dict[str, type[Settings]] = {
        "extract": ExtractSettings,
        "transform": TransformSettings,
        "load": LoadSettings,
        "s3": S3Settings,
        "mount": MountSettings,
        "bench": BenchSettings,
        "shard": ShardSettings,
        "optimize": OptimizeSettings,
        "verify": VerifySettings,
        "index": IndexSettings,
        "jupyter": JupyterSettings,
    }
    given = {name: "7" for kind in stages.values() for setting in settings_of(kind) for name in setting.names}
    given["LARDER_CACHE_DIR"] = "/7"  # a name would be a volume's
    given["LARDER_JUPYTER_BIND"] = "127.0.0.7"  # compose looks at it
    services: dict[str, dict[str, Any]] = {}
    for file in FILES:
        ended = run("docker", "compose", "-f", f"compose/{file}", "config", "--format", "json", check=True, **given)
        services |= json.loads(ended.stdout)["services"]
    for stage, kind in stages.items():
        names = {name for setting in settings_of(kind) for name in setting.names} - set(NO_SETTINGS)
        assert names <= set(services[stage]["environment"]), stage


def test_env_file_in_the_repository_is_read(checkout: Path, run: Run) -> None:
    (checkout / ".env").write_text("LARDER_SOURCE=s3://bucket/photos.zip\n")
    command = ("docker", "compose", "-f", "compose/local.yaml", "config", "--format", "json")
    services = json.loads(run(*command, folder=checkout, check=True).stdout)["services"]
    assert services["extract"]["environment"]["LARDER_SOURCE"] == "s3://bucket/photos.zip"


def test_no_server_is_an_orphan_of_another_file(run: Run, own_project: dict[str, str], tmp_path: Path) -> None:
    """Compose would advise to remove an orphan, and remove it with --remove-orphans."""
    settings = own_project | KEYS | {"LARDER_MOUNT_DIR": str(tmp_path)}
    for file, servers in (("s3", ["minio"]), ("mount", ["mount"]), ("ray", ["ray-head", "ray-worker"])):
        run("docker", "compose", "-f", f"compose/{file}.yaml", "create", *servers, check=True, **settings)
    names = ("docker", "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={own_project[PROJECT]}")
    servers_there = run(*names, check=True).stdout
    assert len(servers_there.split()) == 5
    for file, stage in STAGE_OF.items():
        command = ("docker", "compose", "-f", f"compose/{file}.yaml", "run", "--rm", stage, "--version")
        ended = run(*command, check=True, **settings)
        assert "orphan" not in ended.stderr
    run("docker", "compose", "-f", "compose/local.yaml", "down", check=False, **settings)
    assert run(*names, check=True).stdout == servers_there
