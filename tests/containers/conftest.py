"""Real images, run as a user runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from larder import __version__
from tests.conftest import free_ports, wait_until

ROOT = Path(__file__).parents[2]
STAGES = ("extract", "transform", "load", "index", "shard", "optimize", "verify", "s3", "mount", "bench", "jupyter")
FILES = {"extract": "local", "transform": "local", "shard": "wds", "optimize": "lit"}
"""The compose files of stages that have another name than their own."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """Require a container engine: these tests were requested."""
    for command in (
        ["docker", "info"],
        *(["docker", "image", "inspect", f"larder-{stage}:{__version__}"] for stage in STAGES),
    ):
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, f"{' '.join(command)}: {answer.stderr.strip()} (make build)"


@pytest.fixture
def data_volume() -> Iterator[str]:
    """The name of a data volume for one test."""
    name = f"larder_test_{uuid.uuid4().hex[:12]}"
    yield name
    remove = ["docker", "volume", "rm", "--force", name, f"{name}_wds", f"{name}_lit"]
    # A container that was killed holds it for a moment more.
    wait_until(lambda: not subprocess.run(remove, check=False, capture_output=True).returncode, "its volumes are free")


@pytest.fixture
def environment(data_volume: str) -> dict[str, str]:
    """A user's environment, without settings that the machine may have."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST") if name in os.environ}
    packed = {"LARDER_WDS_VOLUME": f"{data_volume}_wds", "LARDER_LIT_VOLUME": f"{data_volume}_lit"}
    # Every copy of the checkout would be a project, with a network, of its own.
    project = {"COMPOSE_PROJECT_NAME": "larder"}
    return kept | {"LARDER_DATA_VOLUME": data_volume, "LARDER_LOG": "line"} | packed | project


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Run a command in a folder (default: the repository) with a user's environment and some settings."""

    def run(
        *command: str, folder: Path = ROOT, check: bool = False, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            command,
            cwd=folder,
            env=environment | settings,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=600,
        )
        assert not check or ended.returncode == 0, f"{' '.join(command)}: {ended.stderr}{ended.stdout}"
        return ended

    return run


@pytest.fixture(scope="session")
def shared_folder() -> Iterator[Path]:
    """A folder on a shared mount, accessible to other users: this machine sees what a container mounts there."""
    folder = Path(tempfile.mkdtemp(prefix="larder-mount-"))
    folder.chmod(0o755)
    find = ["findmnt", "-n", "-o", "PROPAGATION", "-T", str(folder)]
    made = "shared" not in subprocess.run(find, check=True, capture_output=True, text=True).stdout
    if made:
        assert os.geteuid() == 0, "run the tests as root, or once before them: sudo mount --make-rshared /"
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        subprocess.run(["mount", "--make-rshared", folder], check=True)
    yield folder
    if made:
        subprocess.run(["umount", "--recursive", "--lazy", folder], check=True)
    shutil.rmtree(folder)


@pytest.fixture
def own_project() -> Iterator[dict[str, str]]:
    """A compose project and ports for one test. Everything of the project is removed at the end."""
    port, jupyter = free_ports(2)
    project = f"larder-test-{uuid.uuid4().hex[:8]}"
    yield {"COMPOSE_PROJECT_NAME": project, "LARDER_MINIO_PORT": str(port), "LARDER_JUPYTER_PORT": str(jupyter)}
    label = f"label=com.docker.compose.project={project}"
    for kind in ("container", "network", "volume"):
        listed = ["docker", kind, "ls", *(["--all"] if kind == "container" else []), "--quiet", "--filter", label]
        wait_until(partial(_removed, kind, listed), f"the project's {kind}s can be removed")


def _removed(kind: str, listed: list[str]) -> bool:
    """Remove what a command lists. Return False if it is in use, or is being removed already."""
    names = subprocess.check_output(listed, text=True).split()
    remove = ["docker", kind, "rm", "--force", *names]
    return not names or not subprocess.run(remove, check=False, capture_output=True).returncode


@pytest.fixture
def stage(run: Run, request: pytest.FixtureRequest) -> Run:
    """Run a stage by its compose file: `stage("extract", "--source", "sample", **settings)`."""

    def stage(
        name: str, *flags: str, options: tuple[str, ...] = (), check: bool = False, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        file = f"compose/{FILES.get(name, name)}.yaml"
        if name == "mount":
            settings = {"LARDER_MOUNT_DIR": str(request.getfixturevalue("shared_folder"))} | settings
        if name == "jupyter":
            token = request.getfixturevalue("tmp_path") / "token"
            token.write_text("a-token")
            settings = {"LARDER_JUPYTER_TOKEN_FILE": str(token)} | settings
        settings = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""} | settings  # not set, for s3.yaml's server
        return run("docker", "compose", "-f", file, "run", "--rm", *options, name, *flags, check=check, **settings)

    return stage


@pytest.fixture
def in_volume(run: Run, data_volume: str) -> Callable[[str], str]:
    """Run a shell command with the data volume at /mnt and return what it prints."""

    def in_volume(script: str) -> str:
        image = f"larder-extract:{__version__}"
        shell = ("docker", "run", "--rm", "-v", f"{data_volume}:/mnt", "--entrypoint", "bash", image, "-c", script)
        return run(*shell, check=True).stdout

    return in_volume


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the checkout, for commands that leave files behind."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    folder = tmp_path / "larder"
    for name in filter(lambda name: name and os.path.lexists(ROOT / name), listed.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder
