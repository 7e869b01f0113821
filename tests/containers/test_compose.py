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
FILES = sorted(path.name for path in (ROOT / "compose").glob("*.yaml") if path.name != "stage.yaml")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(params=FILES)
def config(request: pytest.FixtureRequest, run: Run) -> dict[str, Any]:
    ended = run("docker", "compose", "-f", f"compose/{request.param}", "config", "--format", "json", check=True)
    return dict(json.loads(ended.stdout))


def test_services_are_locked_down(config: dict[str, Any]) -> None:
    for service in config["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])


def test_images_are_pinned_and_containers_unnamed(config: dict[str, Any]) -> None:
    for service in config["services"].values():
        assert not service["image"].endswith(":latest")
        assert ":" in service["image"]
        assert "container_name" not in service
        assert "command" not in service or service["command"] is None


def test_stages_with_nothing_to_fetch_have_no_network(config: dict[str, Any]) -> None:
    for name, service in config["services"].items():
        assert (service.get("network_mode") == "none") == (name in ("transform", "bench"))


def test_the_volume_has_the_contracts_name(run: Run) -> None:
    for file in FILES:
        ended = run("docker", "compose", "-f", f"compose/{file}", "config", "--format", "json", LARDER_DATA_VOLUME="")
        assert json.loads(ended.stdout)["volumes"]["baseline"]["name"] == "food11_local_baseline"


def test_every_variable_is_documented(config: dict[str, Any]) -> None:
    documented = set(re.findall(r"^#?([A-Z0-9_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    fixed = {"HOME", "NO_COLOR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
    for service in config["services"].values():
        assert set(service["environment"]) <= documented | fixed


def test_every_setting_of_a_stage_reaches_it(run: Run) -> None:
    from larder.settings import settings_of
    from services.bench.settings import BenchSettings
    from services.extract.settings import ExtractSettings
    from services.transform.settings import TransformSettings

    stages = {"extract": ExtractSettings, "transform": TransformSettings, "bench": BenchSettings}
    given = {setting.names[0]: "7" for kind in stages.values() for setting in settings_of(kind)}
    found: dict[str, dict[str, Any]] = {}
    for file in FILES:
        ended = run("docker", "compose", "-f", f"compose/{file}", "config", "--format", "json", check=True, **given)
        found |= json.loads(ended.stdout)["services"]
    for stage, kind in stages.items():
        wanted = {setting.names[0] for setting in settings_of(kind)} - {"LARDER_REVISION"}  # the image knows it
        assert wanted <= set(found[stage]["environment"]), stage


def test_env_file_in_the_repository_is_read(checkout: Path, run: Run) -> None:
    (checkout / ".env").write_text("LARDER_SOURCE=s3://bucket/photos.zip\n")
    command = ("docker", "compose", "-f", "compose/local.yaml", "config", "--format", "json")
    services = json.loads(run(*command, folder=checkout, check=True).stdout)["services"]
    assert services["extract"]["environment"]["LARDER_SOURCE"] == "s3://bucket/photos.zip"
