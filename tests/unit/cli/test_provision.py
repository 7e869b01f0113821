"""`larder provision` where no Python is new enough for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from larder.cli import provision
from larder.cli.runner import ContainerEngine
from larder.cli.settings import ResolvedSettings
from larder.errors import ConfigurationError


def settings_of(root: Path, **environ: str) -> ResolvedSettings:
    return ResolvedSettings(root, {}, environ, {})


def no_python() -> str:
    raise ConfigurationError("no Python", next_step="install one")


@pytest.mark.parametrize(
    ("runner", "venv", "python", "engine", "needed"),
    [
        ("", False, False, "ready", True),
        ("", False, False, "missing", False),
        ("", False, True, "ready", False),
        ("", True, False, "ready", False),
        ("compose", True, True, "ready", True),
        ("host", False, False, "ready", False),
    ],
)
def test_a_container_runs_provision_where_no_python_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: str, venv: bool, python: bool, engine: str, needed: bool
) -> None:
    if venv:
        (tmp_path / ".venv/bin").mkdir(parents=True)
        (tmp_path / ".venv/bin/python").write_text("")
    monkeypatch.setattr(provision, "find_python", (lambda: "python3") if python else no_python)
    monkeypatch.setattr(provision, "detect_container_engine", lambda environ: ContainerEngine(engine))
    environ = {"RUNNER": runner} if runner else {}
    assert provision.needs_container(settings_of(tmp_path, **environ)) == needed


def test_the_image_has_the_base_of_the_settings(tmp_path: Path) -> None:
    call = provision.build_call(settings_of(tmp_path, BASE_IMAGE="debian:other"))
    assert "--build-arg=BASE_IMAGE=debian:other" in call.argv and call.argv[-1] == str(tmp_path)
    assert not any("BASE_IMAGE" in word for word in provision.build_call(settings_of(tmp_path)).argv)


def test_the_container_has_the_user_s_files_and_variables_but_no_secret_in_its_arguments(tmp_path: Path) -> None:
    home, root, here = tmp_path / "home", tmp_path / "home/larder", tmp_path / "work"
    agent, clouds = tmp_path / "agent", here / "clouds.yaml"
    for folder in (root, here):
        folder.mkdir(parents=True)
    for file in (agent, clouds):
        file.write_text("")
    environ = {
        "HOME": str(home),
        "SSH_AUTH_SOCK": str(agent),
        "OS_CLIENT_CONFIG_FILE": "clouds.yaml",
        "OS_PASSWORD": "secret",
        "https_proxy": "http://proxy",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "LARDER_HOME": "/nowhere",
    }
    call = provision.run_call(root, here, ["status", "--json"], environ)
    argv = list(call.argv)
    mounted = [word.partition("=")[2] for word in argv if word.startswith("--volume=")]
    passwd = f"{root}/.larder/provision/.passwd:/etc/passwd:ro"
    assert mounted == [*(f"{path}:{path}" for path in (agent, home, here)), passwd]  # `home` holds the checkout
    passed_on = {argv[at + 1] for at, word in enumerate(argv) if word == "--env"}
    names = {"SSH_AUTH_SOCK", "OS_CLIENT_CONFIG_FILE", "OS_PASSWORD", "https_proxy", "LARDER_HOME"}
    assert passed_on == {f"HOME={home}", f"PYTHONPATH={root}", *names}
    assert "secret" not in " ".join(argv) and argv[-5:] == ["python", "-m", "provision", "status", "--json"]
    provision.write_passwd(root, {"USER": "me", "HOME": str(home)})
    entry = f"me:x:{os.getuid()}:{os.getgid()}::{home}:/bin/sh\n"
    assert (root / ".larder/provision/.passwd").read_text() == entry
