"""The content of clouds.yaml."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from provision.__main__ import main


def test_a_missing_password_is_an_error_with_a_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("keystoneauth1.session.time.sleep", lambda seconds: None)
    for name, value in (("AUTH_URL", "http://127.0.0.1:9/v3"), ("USERNAME", "me"), ("PROJECT_NAME", "p")):
        monkeypatch.setenv(f"OS_{name}", value)
    monkeypatch.setenv("OS_USER_DOMAIN_NAME", "Default")
    declaration = tmp_path / "provision.toml"
    declaration.write_text('name = "lab"\n')
    assert main(["--file", str(declaration), "plan"]) == 2
    assert "password is a required" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("clouds: 3", "another shape"),
        ("clouds:\n  lab: 4", "another shape"),
        ("clouds:\n  lab:\n    auth: [1]", "another shape"),
        ("clouds: [a\n b: :", "no YAML"),
        ("clouds:\n  other: {}", "lab was not found"),
    ],
    ids=["no table", "no entry", "no auth", "no YAML", "another"],
)
def test_unusable_configuration_is_an_error_with_a_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    clouds, declaration = tmp_path / "clouds.yaml", tmp_path / "provision.toml"
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(clouds))
    clouds.write_text(text)
    declaration.write_text('name = "lab"\n[sites]\ncompute = { cloud = "lab" }\n')
    assert main(["--file", str(declaration), "plan"]) == 2
    message = capfd.readouterr().err
    assert says in message and "clouds.yaml" in message and "next step:" in message
