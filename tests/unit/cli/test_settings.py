"""Settings: their sources, their precedence, and unknown names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from docs.generate import STAGES
from larder.cli.resolve import resolve
from larder.cli.setting_specs import CLI_SETTINGS, COMMAND_ARGUMENTS, all_settings
from larder.cli.settings import ResolvedSettings
from larder.errors import ConfigurationError
from larder.settings import settings_of

CI = {
    "PATH": "/usr/bin", "HOME": "/root", "USER": "runner", "SHELL": "/bin/bash", "LANG": "C.UTF-8", "PWD": "/x",
    "_": "x",
    "CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": "/x", "GITHUB_SHA": "1", "RUNNER_OS": "Linux",
    "RUNNER_TEMP": "/tmp", "RUNNER_TOOL_CACHE": "/opt", "RUNNER_ARCH": "X64", "RUNNER_NAME": "x",
    "ImageOS": "ubuntu24",
    "AGENT_TOOLSDIRECTORY": "/opt", "ANDROID_HOME": "/x", "CHROME_BIN": "/x", "CONDA": "/x", "DEBIAN_FRONTEND": "n",
    "JAVA_HOME": "/x", "JOURNAL_STREAM": "1:2", "INVOCATION_ID": "x", "SYSTEMD_EXEC_PID": "1",
    "ENABLE_RUNNER_TRACING": "1",
    "ACTIONS_RUNNER_DEBUG": "1", "GITLAB_CI": "1", "CI_PROJECT_DIR": "/x", "CI_JOB_ID": "1", "GIT_DEPTH": "1",
    "JENKINS_HOME": "/x", "BUILD_ID": "1", "BUILDKITE": "1", "TRAVIS": "1", "TF_BUILD": "1",
    "KUBERNETES_PORT": "tcp://x",
    "MINIO_PORT": "tcp://10.0.0.1:9000", "MINIO_SERVICE_HOST": "10.0.0.1", "MINIO_ROOT_USER": "x",
    "TEST_RESULTS": "x",
}  # fmt: skip
DESKTOP = {
    "DISPLAY": ":0", "WAYLAND_DISPLAY": "w", "XDG_RUNTIME_DIR": "/x", "XDG_SESSION_TYPE": "x",
    "DBUS_SESSION_BUS_ADDRESS": "x",
    "SSH_AUTH_SOCK": "/x", "SSH_CONNECTION": "x", "TERM": "xterm", "COLORTERM": "truecolor", "TERM_PROGRAM": "vscode",
    "EDITOR": "vi", "PAGER": "less", "LESS": "-R", "LS_COLORS": "x", "MAIL": "/x", "LOGNAME": "x", "HOSTNAME": "x",
    "SHLVL": "1", "OLDPWD": "/", "VIRTUAL_ENV": "/x", "CONDA_PREFIX": "/x", "PYTHONPATH": "/x", "NVM_DIR": "/x",
    "GOPATH": "/x",
    "AWS_DEFAULT_OUTPUT": "json", "AWS_PAGER": "", "AWS_VAULT": "x", "AWS_SDK_LOAD_CONFIG": "1",
    "AWS_ENDPOINT_URL": "http://x",
    "AWS_ENDPOINT_URL_S3": "http://x", "AWS_ROLE_ARN": "x", "AWS_SECRET_KEY": "old", "AWS_ACCESS_KEY": "old",
    "AWS_SECURITY_TOKEN": "x", "AWS_SESSION_NAME": "x", "AWS_SESSION_EXPIRATION": "x",
    "AWS_CREDENTIAL_EXPIRATION": "x",
    "S3_ENDPOINT": "http://x", "S3_ACCESS_KEY": "x", "S3_SECRET_KEY": "x", "S3_URL": "x", "S3_USE_HTTPS": "0",
    "S3_REGION": "x",
    "S3_BUCKET_NAME": "theirs", "S3_VERIFY_SSL": "0", "S3FS_LOGGING_LEVEL": "x", "DOCKER_HOST": "unix:///x",
    "DOCKER_BUILDKIT": "1", "COMPOSE_FILE": "x", "COMPOSE_PROFILES": "x", "COMPOSE_HTTP_TIMEOUT": "9",
    "LARDER": "kitchen",
    "RAY_TMPDIR": "/x", "RAY_ADDRESSES": "x", "RAY_JOB_ID": "x", "RCLONE_CONFIG": "/x", "TORCH_HOME": "/x",
    "TORCH_CUDA_ARCH_LIST": "x",
    "CUDA_VISIBLE_DEVICES": "0", "NVIDIA_VISIBLE_DEVICES": "all", "HF_HOME": "/x", "ARM": "v7", "arm": "1",
    "ARCH": "arm64",
    "YES": "yes", "BUCKET": "theirs", "BUCKETS": "x", "REQUIRE": "x", "DIST": "jammy", "DISTRO": "x",
    "RUNNER": "compose",
    "PYTEST_ADDOPTS": "-q", "PYTEST_CURRENT_TEST": "x", "PYTEST_XDIST_WORKER": "gw0", "LOG_LEVEL": "x",
    "HTTP_PROXY": "", "ALL_PROXY": "x",
    "all_proxy": "x", "FTP_PROXY": "x", "ftp_proxy": "x", "no_proxy": "x", "NO_COLOR": "1", "FORCE_COLOR": "1",
    "MAKEFLAGS": "k",
    "MAKELEVEL": "1", "MFLAGS": "-k", "FOOD11": "x", "LITDATA_CACHE_DIR": "/x", "WDS_VERBOSE_CACHE": "1",
    "OMP_NUM_THREADS": "1",
    "BASE_IMAGES": "x", "OS_AUTH_URL": "x", "SLURM_JOB_ID": "1",
}  # fmt: skip
CHOICES = {name: setting.choices for name, setting in all_settings().items() if setting.choices}
CHOICES["ARM"] = CHOICES["LARDER_ARM"]
CHOICES |= {f"LARDER_{owner}_LATENCY": ("51ms", "52ms", "53ms") for owner in ("S3", "LINK")}
CHOICES |= {f"LARDER_{owner}_BANDWIDTH": ("51mbit", "52mbit", "53mbit") for owner in ("S3", "LINK")}


def found(root: Path, **sources: dict[str, str]) -> ResolvedSettings:
    if "env_file" in sources:
        (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in sources["env_file"].items()))
    return resolve(root, sources.get("given", {}), sources.get("environ", {}), root)


@pytest.mark.parametrize("name", sorted(all_settings()))
def test_what_wins(tmp_path: Path, name: str) -> None:
    values = CHOICES.get(name, ("51", "52", "53"))
    first, second, third = (values * 3)[:3]
    everywhere = {"given": {name: first}, "environ": {name: second}, "env_file": {name: third}}
    for source in ("given", "environ", "env_file"):
        assert found(tmp_path, **everywhere).get(name) == everywhere.pop(source)[name]
    (tmp_path / ".env").unlink()
    assert found(tmp_path).get(name) == ""
    assert found(tmp_path).get(name, "default") == "default"


def test_empty_is_not_set(tmp_path: Path) -> None:
    for name in all_settings():
        assert (
            found(tmp_path, given={name: ""}, environ={name: ""}, env_file={name: ""}).get(name, "default") == "default"
        )
        value = CHOICES.get(name, ("51",))[0]
        assert found(tmp_path, given={name: ""}, environ={name: ""}, env_file={name: value}).get(name) == value


@pytest.mark.parametrize("environ", [CI, DESKTOP, {**CI, **DESKTOP}], ids=["ci", "desktop", "both"])
def test_other_programs_variables_are_ignored(tmp_path: Path, environ: dict[str, str]) -> None:
    found(tmp_path, environ=environ)


@pytest.mark.parametrize(
    ("source", "name", "meant"),
    [
        ("given", "arm", "ARM"),
        ("given", "S3_BUKCET", "S3_BUCKET"),
        ("given", "larder_source", "LARDER_SOURCE"),
        ("given", "LARDER_SORCE", "LARDER_SOURCE"),
        ("given", "Runner", "RUNNER"),
        ("given", "aws_region", "AWS_REGION"),
        ("given", "AWS_SECRET_ACESS_KEY", "AWS_SECRET_ACCESS_KEY"),
        ("given", "S3_ENDPOINT", "S3_ENDPOINT_URL"),
        ("given", "SOURCE", "LARDER_SOURCE"),
        ("given", "COMPOSE_PROJECT_NAMES", "COMPOSE_PROJECT_NAME"),
        ("given", "yes", "YES"),
        ("environ", "S3_BUKCET", "S3_BUCKET"),
        ("environ", "larder_source", "LARDER_SOURCE"),
        ("environ", "s3_bucket", "S3_BUCKET"),
        ("environ", "LARDER_SORCE", "LARDER_SOURCE"),
        ("environ", "Larder_Arm", "LARDER_ARM"),
        ("environ", "S3_PREFX", "S3_PREFIX"),
        ("environ", "AWS_SECRET_ACESS_KEY", "AWS_SECRET_ACCESS_KEY"),
        ("environ", "RCLONE_CONTAINR", "RCLONE_CONTAINER"),
        ("environ", "RUNER", "RUNNER"),
        ("env_file", "RCLONE_CONTAINR", "RCLONE_CONTAINER"),
        ("env_file", "BASE_IMAG", "BASE_IMAGE"),
        ("env_file", "S3_BUKCET", "S3_BUCKET"),
        ("env_file", "larder_source", "LARDER_SOURCE"),
        ("env_file", "arm", "ARM"),
        ("env_file", "LARDER_WORKER", "LARDER_WORKERS"),
        ("env_file", "S3_ENDPOINT", "S3_ENDPOINT_URL"),
    ],
)
def test_a_misspelt_name_is_no_setting(tmp_path: Path, source: str, name: str, meant: str) -> None:
    with pytest.raises(ConfigurationError, match=f"no such setting: {name}\\b.*; did you mean {meant}\\?") as caught:
        found(tmp_path, **{source: {name: "the-value-that-was-given"}})
    assert "the-value-that-was-given" not in str(caught.value)


def test_an_unknown_name_without_a_similar_one_is_refused_without_a_guess(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no such setting: QUUX\n"):
        found(tmp_path, given={"QUUX": "1"})
    found(tmp_path, environ={"QUUX": "1"}, env_file={"QUUX": "1"})  # others may read it


def test_a_look_alike_is_fine_where_the_setting_is_given(tmp_path: Path) -> None:
    assert found(tmp_path, given={"S3_BUCKET": "mine"}, environ={"S3_ENDPOINT": "x"}).get("S3_BUCKET") == "mine"


def test_every_fault_at_once(tmp_path: Path) -> None:
    given = {"S3_BUKCET": "a", "LARDER_DATASET": "-", "LARDER_UID": "0", "RUNNER": "podman", "LARDER_WDS_VOLUME": "x y"}
    with pytest.raises(ConfigurationError, match="5 faults") as caught:
        found(tmp_path, given=given)
    for name in given:
        assert name in str(caught.value)


@pytest.mark.parametrize("name", ["LARDER_DATA_VOLUME", "LARDER_WDS_VOLUME", "LARDER_LIT_VOLUME"])
@pytest.mark.parametrize(
    ("value", "fine"),
    [
        ("photos", True),
        ("a1", True),
        ("A_b.c-d", True),
        ("9volumes", True),
        ("c", False),
        ("-rf", False),
        ("a b", False),
        ("a/b", False),
        ("../x", False),
        (".hidden", False),
        ("a\nb", False),
        ("ä1", False),
        ("a:b", False),
        ("a$b", False),
        ("photos\n", False),
    ],
)
def test_volumes_names(tmp_path: Path, name: str, value: str, fine: bool) -> None:
    if fine:
        assert found(tmp_path, given={name: value}).get(name) == value
    else:
        with pytest.raises(ConfigurationError, match=f"{name}=.* is not a volume's name"):
            found(tmp_path, given={name: value})


@pytest.mark.parametrize("value", ["0", "00", "-1", "1000:1000", "root", "1e3", " 1", "1\n", "²", "1000000000000"])
@pytest.mark.parametrize("name", ["LARDER_UID", "LARDER_GID"])
def test_ids_that_no_container_gets(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}=.* is not an id above 0"):
        found(tmp_path, environ={name: value})


@pytest.mark.parametrize("value", ["0", "-1", "65536", "99999", "http", "80 ", "8e3", "²", "9000\n"])
def test_ports_that_there_are_not(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"LARDER_MINIO_PORT=.* is not a port"):
        found(tmp_path, given={"LARDER_MINIO_PORT": value})


@pytest.mark.parametrize("value", ["1", "80", "65535"])
def test_ports(tmp_path: Path, value: str) -> None:
    assert found(tmp_path, given={"LARDER_MINIO_PORT": value}).get("LARDER_MINIO_PORT") == value


@pytest.mark.parametrize(
    ("name", "value", "fine"),
    [
        ("LARDER_MEMORY", "0", True), ("LARDER_MEMORY", "8g", True), ("LARDER_MEMORY", "512MB", True),
        ("LARDER_MEMORY", "8GiB", True), ("LARDER_MEMORY", "-1", False), ("LARDER_MEMORY", "half", False),
        ("LARDER_MEMORY", "50%", False), ("LARDER_SHM_SIZE", "16mb", True), ("LARDER_SHM_SIZE", "much", False),
        ("LARDER_TMP_SIZE", "512m", True), ("LARDER_TMP_SIZE", "25%", True), ("LARDER_TMP_SIZE", "100%", True),
        ("LARDER_TMP_SIZE", "4gb", False), ("LARDER_TMP_SIZE", "1g,exec", False), ("LARDER_TMP_SIZE", "0%", False),
        ("LARDER_TMP_SIZE", "101%", False), ("LARDER_TMP_SIZE", "1g\n", False),
        ("LARDER_PIDS", "-1", True), ("LARDER_PIDS", "4096", True), ("LARDER_PIDS", "0", False),
        ("LARDER_PIDS", "-2", False), ("LARDER_PIDS", "1e4", False), ("LARDER_PIDS", "many", False),
    ],
)  # fmt: skip
def test_limits(tmp_path: Path, name: str, value: str, fine: bool) -> None:
    if fine:
        assert found(tmp_path, given={name: value}).get(name) == value
    else:
        with pytest.raises(ConfigurationError, match=f"{name}=.* is not a "):
            found(tmp_path, given={name: value})


@pytest.mark.parametrize("value", ["Larder", "-x", "a b", "a.b", "ä", "a\n"])
def test_projects_names(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"COMPOSE_PROJECT_NAME=.* is not a project's name"):
        found(tmp_path, environ={"COMPOSE_PROJECT_NAME": value})


@pytest.mark.parametrize("name", ["ARM", "LARDER_ARM"])
def test_an_unknown_arm(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}=webdatset is unknown; did you mean webdataset\\?"):
        found(tmp_path, given={name: "webdatset"})
    with pytest.raises(ConfigurationError, match=f"{name}=x is unknown: it must be dali, "):
        found(tmp_path, given={name: "x"})


def test_an_arm_of_the_environment_is_refused_where_it_is_used(tmp_path: Path) -> None:
    settings = found(tmp_path, environ={"ARM": "v7"})
    with pytest.raises(ConfigurationError, match="ARM=v7 is unknown"):
        _ = settings.arm
    assert found(tmp_path, environ={"ARM": "webdataset"}).arm == "webdataset"


def test_names_follow_the_data_set(tmp_path: Path) -> None:
    settings = found(tmp_path, given={"LARDER_DATASET": "photos"})
    names = (settings.data_volume, settings.wds_volume, settings.lit_volume, settings.demo_volume)
    assert names == ("photos_local_baseline", "photos-webdataset_wds_out", "photos-litdata_lit_out", "photos_demo")
    settings = found(tmp_path)
    assert settings.data_volume == "food11_local_baseline"
    assert found(tmp_path, given={"LARDER_DATASET": "photos", "LARDER_DATA_VOLUME": "mine"}).data_volume == "mine"


def test_paths_are_relative_to_where_the_user_is(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "photos.zip").touch()
    given = {
        "LARDER_RESULTS": "records",
        "LARDER_SOURCE": "photos.zip",
        "S3_PREFIX": "records",
        "LARDER_HOME": "/absolute",
    }
    settings = resolve(tmp_path, given, {}, there)
    assert str(settings.results) == f"{there}/records"
    assert settings.get("LARDER_SOURCE") == f"{there}/photos.zip"
    assert settings.get("S3_PREFIX") == "records"
    assert str(settings.home) == "/absolute"
    assert resolve(tmp_path, {"LARDER_SOURCE": "sample"}, {}, there).get("LARDER_SOURCE") == "sample"
    assert resolve(tmp_path, {"LARDER_SOURCE": "https://x/y.zip"}, {}, there).get("LARDER_SOURCE") == "https://x/y.zip"


@pytest.mark.parametrize(
    ("value", "yes"), [("", False), ("0", False), ("no", False), ("false", False), ("1", True), ("yes", True)]
)
def test_yes(tmp_path: Path, value: str, yes: bool) -> None:
    assert found(tmp_path, given={"YES": value}).yes is yes


def test_every_setting_of_the_front_door_is_documented() -> None:
    text = (Path(__file__).parents[3] / ".env.example").read_text()
    documented = set(re.findall(r"^#?([A-Z0-9_]+)=", text, re.MULTILINE))
    assert {setting.name for setting in CLI_SETTINGS} <= documented
    assert {*all_settings()} - {setting.name for setting in COMMAND_ARGUMENTS} <= documented


def test_an_escape_of_the_terminal_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        found(tmp_path, given={"RUNNER": "\x1b[31m\a", "LARDER_UID": "1\r2"})
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", str(caught.value))


NUMBERS = {name: setting for name, setting in all_settings().items() if setting.type}


@pytest.mark.parametrize("name", NUMBERS)
def test_invalid_numbers_are_refused_before_anything_is_built(name: str, tmp_path: Path) -> None:
    """The command refuses the numbers that the stage would refuse, and no others."""
    stage = STAGES[NUMBERS[name].stages[0]]
    [field] = [setting.field for setting in settings_of(stage) if setting.names[0] == name]
    model = stage.model_fields[field]
    annotation: Any = Annotated[model.annotation, *model.metadata] if model.metadata else model.annotation
    adapter = TypeAdapter(annotation)
    for value in ("many", "all", "-1", "0", "1", "7", "1e30", "nan", " 2 ", "1_000", "0x10"):
        try:
            adapter.validate_python(value)
            taken = True
        except ValidationError:
            taken = False
        try:
            resolve(tmp_path, {name: value}, {}, tmp_path)
        except ConfigurationError as error:
            assert not taken and name in error.what, value
        else:
            assert taken or value not in ("many", "all", "-1")
