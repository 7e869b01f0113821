"""JupyterLab in its container: every notebook against a real store, and a browser."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.conftest import free_ports, wait_until

pytestmark = pytest.mark.exhaustive  # test_readme.py starts JupyterLab, too

ROOT = Path(__file__).parents[2]
ARTEFACTS = ROOT / "results" / "test-artefacts"
KILL_RCLONE = """
import os, pathlib
[rclone] = [path.parent.name for path in pathlib.Path("/proc").glob("[0-9]*/comm") if path.read_text() == "rclone\\n"]
os.kill(int(rclone), 9)
"""
RUNNER = Path(__file__).with_name("notebook_runner.py")
SMALL = {"LARDER_BENCH_BATCHES": "4", "LARDER_BATCH_SIZE": "8", "LARDER_WARMUP_BATCHES": "1", "LARDER_WORKERS": "1"}
PARAMETERS = {"IMAGES": 16, "ROUNDS": 1, "SHARDS": 1}
NOTEBOOKS = sorted(path.stem for path in (ROOT / "services" / "jupyter" / "notebooks").glob("*.ipynb"))
IN_BUCKET = {"objects": "etl-load", "shards": "etl-wds", "chunks": "etl-lit"}
"""What `lab.ready` finds in a bucket, and the target of make that puts it there."""
CHROMIUM = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Lab:
    """One user's project: volumes, store, mount and JupyterLab of its own, driven by make."""

    def __init__(self, folder: Path, mount: Path) -> None:
        self.folder, self.mount, self.name = folder, mount, f"larder-test-{uuid.uuid4().hex[:8]}"
        self._runner: subprocess.Popen[str] | None = None
        self.ports = free_ports(2)
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST") if name in os.environ}
        self.environment = kept | {
            "COMPOSE_PROJECT_NAME": self.name,
            "LARDER_HOME": str(folder / "home"),
            "LARDER_LOG": "line",
            "LARDER_MINIO_PORT": str(self.ports[0]),
            "LARDER_JUPYTER_PORT": str(self.ports[1]),
            "LARDER_RESULTS": str(folder / "results"),
            "LARDER_WORKSPACE": str(folder / "workspace"),
            "LARDER_MOUNT_DIR": str(mount),
            **{f"LARDER_{kind}_VOLUME": f"{self.name}_{kind.lower()}" for kind in ("DATA", "WDS", "LIT")},
        }

    def make(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run make in the checkout."""
        if words[0] in ("jupyter", "jupyter-down"):
            self._end_runner()  # its container may be replaced
        ended = subprocess.run(
            ["make", *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=600,
        )
        assert not check or ended.returncode == 0, f"make {' '.join(words)}: {ended.stderr}{ended.stdout}"
        return ended

    def start(self) -> str:
        """Start JupyterLab, and return its address with the token."""
        return self.make("jupyter").stdout.strip().splitlines()[-1]

    def execute(self, notebook: str, parameters: dict[str, int] = PARAMETERS, **settings: str) -> list[dict[str, Any]]:
        """Run a notebook in the container, and return its code cells with their outputs. All share a kernel."""
        if self._runner is None:
            name = f"{self.name}-jupyter-1"
            command = ["docker", "exec", "-i", "-w", "/workspace", name, "python", "-c", RUNNER.read_text()]
            self._runner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._runner.stdin and self._runner.stdout
        request = {"notebook": notebook, "settings": SMALL | settings, "parameters": parameters}
        self._runner.stdin.write(json.dumps(request) + "\n")
        self._runner.stdin.flush()
        answer = self._runner.stdout.readline()
        assert answer, f"the notebooks' runner has ended: {self._runner.wait(60)}"
        return [cell for cell in json.loads(answer)["cells"] if cell["cell_type"] == "code"]

    def _end_runner(self) -> None:
        if self._runner is not None:
            self._runner.communicate()
            self._runner = None

    def status(self, path: str) -> int:
        """Return the server's status code for a request without a token; redirections are not followed."""
        connection = HTTPConnection("127.0.0.1", self.ports[1], timeout=60)
        connection.request("GET", path)
        status = connection.getresponse().status
        connection.close()
        return status

    def close(self) -> None:
        """Remove all of it."""
        self.make("unmount", check=False)
        self._end_runner()
        label = f"label=com.docker.compose.project={self.name}"
        for kind in ("container", "network", "volume"):
            listed = ["docker", kind, "ls", *(["--all"] if kind == "container" else []), "--quiet", "--filter", label]
            names = subprocess.check_output(listed, text=True).split()
            if names:
                subprocess.run(["docker", kind, "rm", "--force", *names], check=False, capture_output=True)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> Iterator[Lab]:
    """Generated images in all layouts, in a store, and mounted; JupyterLab runs."""
    folder, mount = tmp_path_factory.mktemp("lab"), shared_folder / uuid.uuid4().hex[:8]
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    mount.mkdir()
    project = Lab(folder, mount)
    try:
        project.make("etl-local", "LARDER_SOURCE=sample", "LARDER_SAMPLE_IMAGES=330")
        project.make("s3-up", "etl-load", "mount")
        project.make("etl-wds", "LARDER_SHARD_BYTES=2MiB")
        project.make("etl-lit", "LARDER_CHUNK_BYTES=256KiB")
        project.start()
        yield project
    finally:
        project.close()


def text_of(cells: list[dict[str, Any]]) -> str:
    return json.dumps([cell["outputs"] for cell in cells])


def errors_of(cells: list[dict[str, Any]]) -> list[str]:
    outputs = (output for cell in cells for output in cell["outputs"])
    return ["\n".join(output["traceback"]) for output in outputs if output["output_type"] == "error"]


def pictures_of(cell: dict[str, Any]) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell["outputs"])


def printed_by(cell: dict[str, Any]) -> str:
    return "".join(output["text"] for output in cell["outputs"] if output.get("name") == "stdout")


def check_cells(cells: list[dict[str, Any]], missing: set[str], message: str = "") -> None:
    """Check that cells which need what is missing say so in a line, and that all others run and show their plots."""
    assert errors_of(cells) == []
    skipped = 0
    for cell in cells:
        needs, plots = (re.findall(pattern, cell["source"]) for pattern in (r'lab\.ready\("(\w+)"\)', r"plots\.\w+\("))
        if missing.intersection(needs):
            [line] = printed_by(cell).splitlines()
            assert line.startswith("Skipped: ")
            assert "`make " in line
            assert message in line
            assert not pictures_of(cell)
            skipped += 1
        else:
            assert "Skipped" not in printed_by(cell)
            assert pictures_of(cell) >= len(plots), cell["source"]
    assert skipped or not missing


def errno_of(path: Path) -> int:
    """Return the error number of reading a path; 0 for none."""
    try:
        path.stat()
    except OSError as error:
        return error.errno or 0
    return 0


def test_notebooks_run_from_top_to_bottom(lab: Lab) -> None:
    """Include the notebook that compares the records of the others."""
    secrets = [
        line.partition("=")[2]
        for line in (lab.folder / "home" / "s3-compose.env").read_text().splitlines()
        if "SECRET" in line
    ]
    assert secrets
    for notebook in NOTEBOOKS:
        cells = lab.execute(notebook)
        check_cells(cells, set())
        assert all(secret not in text_of(cells) for secret in secrets)
        for cell in cells:
            if "verdict()" in cell["source"]:
                assert " times as fast as " in printed_by(cell), cell["source"]
            for arm in re.findall(r'lab\.bench\("(\w+)"\)', cell["source"]):
                records = [json.loads(path.read_text()) for path in (lab.folder / "results").glob(f"{arm}-*.json")]
                assert records, "as make bench leaves them"
                assert all(len(one["received"]["t_s"]) == len(one["received"]["bytes_per_s"]) + 1 for one in records)


def test_without_a_store(lab: Lab) -> None:
    """So there is no mount either. What reads the disk runs, packing of shards included."""
    for notebook in ("0-start", "8-compare"):
        check_cells(lab.execute(notebook, S3_BUCKET=""), set())
    for notebook in ("3-mount", "4-objects", "5-shards", "6-stream", "7-chunks"):
        check_cells(lab.execute(notebook, S3_BUCKET=""), {"mount", *IN_BUCKET}, "`make s3-up`")


@pytest.mark.parametrize(
    ("notebook", "missing", "settings", "message"),
    [
        pytest.param("1-images", "tree", {"FOOD11_DATA_DIR": "/nowhere"}, "make etl-local", id="no-data"),
        pytest.param("3-mount", "mount", {"LARDER_MOUNT_DIR": "/nowhere"}, "make mount", id="no-mount"),
        pytest.param("4-objects", "objects", {"S3_ENDPOINT_URL": "http://127.0.0.1:9"}, "127.0.0.1:9", id="store-down"),
        pytest.param("4-objects", "objects", {"S3_PREFIX": "empty"}, "make etl-load", id="no-objects-yet"),
        pytest.param("6-stream", "shards", {"S3_PREFIX": "empty"}, "make etl-wds", id="no-shards-yet"),
        pytest.param("7-chunks", "chunks", {"S3_PREFIX": "empty"}, "make etl-lit", id="no-chunks-yet"),
        pytest.param("7-chunks", "chunks", {"S3_BUCKET": "not-there"}, "not-there", id="no-such-bucket"),
        pytest.param("8-compare", "records", {"LARDER_RESULTS": "/nowhere"}, "make bench", id="no-results"),
    ],
)
def test_what_is_missing_is_told_in_the_cell(
    lab: Lab, notebook: str, missing: str, settings: dict[str, str], message: str
) -> None:
    check_cells(lab.execute(notebook, **settings), {missing}, message)


def test_the_first_notebook_names_what_is_missing(lab: Lab) -> None:
    cells = lab.execute("0-start", S3_PREFIX="empty", LARDER_MOUNT_DIR="/nowhere")
    check_cells(cells, set())
    [shown] = [printed_by(cell).splitlines() for cell in cells if "show_data" in cell["source"]]
    assert [line.split()[0] for line in shown] == ["tree", "mount", *IN_BUCKET]
    assert " images in " in shown[0]
    assert all(
        "missing: " in line and f"make {target}" in line
        for line, target in zip(shown[2:], IN_BUCKET.values(), strict=True)
    )


def test_a_dead_mount(lab: Lab) -> None:
    """rclone is killed while the stage that would take the mount away stands still: reads give ENOTCONN."""
    container = f"{lab.name}-mount-1"
    subprocess.run(["docker", "kill", "--signal=STOP", container], check=True, capture_output=True)
    try:
        subprocess.run(["docker", "exec", container, "python", "-c", KILL_RCLONE], check=True)
        wait_until(lambda: errno_of(lab.mount / "larder") == errno.ENOTCONN, "the mount is dead")
        check_cells(lab.execute("3-mount"), {"mount"}, "`make mount`")
        assert errno_of(lab.mount / "larder") == errno.ENOTCONN, "all the while"
    finally:
        subprocess.run(["docker", "kill", container], check=True, capture_output=True)
        lab.make("mount")
    check_cells(lab.execute("3-mount"), set())  # a server that runs sees the new mount


def test_the_token_is_needed(lab: Lab) -> None:
    token = (lab.folder / "home" / "jupyter-token").read_text().strip()
    assert len(token) == 48
    assert (lab.folder / "home" / "jupyter-token").stat().st_mode & 0o777 == 0o600
    for path in ("/api/contents", "/api/kernels", "/api/terminals", "/files/1-images.ipynb", "/lab"):
        refused = 403 if path.startswith("/api") else 302  # to the login
        assert lab.status(path) == refused
        assert lab.status(f"{path}?token=wrong") == refused
    assert lab.status(f"/api/contents?token={token}") == 200
    assert token not in subprocess.check_output(["docker", "inspect", f"{lab.name}-jupyter-1"], text=True)
    assert lab.make("jupyter-url").stdout.strip().endswith(f"/lab?token={token}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "a browser is needed: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM))
        yield browser
        browser.close()


def test_a_person_with_a_browser(lab: Lab, browser: Browser) -> None:
    """Begin with the first notebook, and follow its link."""
    first, notebook, heading, pictures = "0-start", "1-images", "Images of each class", 3
    address = lab.make("jupyter-url").stdout.strip()
    page = browser.new_page(viewport={"width": 1280, "height": 2400})  # JupyterLab shows only cells that are in view
    page.set_default_timeout(120_000)  # torch is imported on a machine that runs other tests, too
    page.goto(address.replace("/lab?", f"/lab/tree/{first}.ipynb?reset&"))
    page.get_by_role("heading", name="What is here").wait_for()
    names = page.locator(".jp-DirListing-itemText", has_text=".ipynb")
    expect(names).to_have_count(len(NOTEBOOKS))
    cut = "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.innerText)"
    assert names.evaluate_all(cut) == []
    page.screenshot(path=artefact(first))
    page.locator(".jp-Notebook a", has_text=notebook).first.click()
    page.get_by_role("heading", name=heading).wait_for()
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()  # before, there is nothing that could run cells
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
    expect(page.locator(".jp-OutputArea img")).to_have_count(pictures, timeout=120_000)
    assert not page.get_by_text("error:").count()
    page.screenshot(path=artefact(notebook))
    page.close()
    assert artefact(notebook).stat().st_size > 50_000


def artefact(notebook: str) -> Path:
    """Return the path of a screenshot."""
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    return ARTEFACTS / f"jupyter-{notebook}.png"


def test_what_is_saved_outlives_the_container(lab: Lab) -> None:
    """The next start copies our notebooks, and keeps edited ones."""
    lab.execute("9-persist")
    token = (lab.folder / "home" / "jupyter-token").read_text().strip()
    body = json.dumps({"type": "file", "format": "text", "content": "by hand"}).encode()
    saved = Request(f"http://127.0.0.1:{lab.ports[1]}/api/contents/notes.txt?token={token}", body, method="PUT")
    assert urlopen(saved, timeout=60).status == 201
    workspace = lab.folder / "workspace"
    ours = {path.name for path in (ROOT / "services" / "jupyter" / "notebooks").glob("*.ipynb")}
    assert ours <= {path.name for path in workspace.iterdir()}
    lines = len((workspace / "persisted.txt").read_text().splitlines())
    edited = workspace / "9-persist.ipynb"
    before = edited.read_text()
    edited.write_text(before.replace("Work that persists", "My own words"))
    try:
        (workspace / "1-images.ipynb").unlink()
        lab.make("jupyter-down")
        assert "make jupyter" in lab.make("jupyter-url", check=False).stderr
        assert "9-persist.ipynb" in lab.make("jupyter").stderr
        assert "My own words" in edited.read_text()
        assert (workspace / "1-images.ipynb").exists()
    finally:
        edited.write_text(before)
    lab.execute("9-persist")
    assert (workspace / "notes.txt").read_text() == "by hand"
    assert len((workspace / "persisted.txt").read_text().splitlines()) == lines + 1
    assert (workspace / "persisted.txt").stat().st_uid == (os.getuid() or 1000), (
        "the person on the host can write it, too"
    )


def test_where_it_can_not_listen(lab: Lab) -> None:
    """Try a port that is taken, and an address of another machine."""
    lab.make("jupyter-down")
    with socket.create_server(("127.0.0.1", lab.ports[1])):
        failed = lab.make("jupyter", check=False)
    assert failed.returncode != 0
    assert f"LARDER_JUPYTER_PORT={lab.ports[1]} is taken" in failed.stderr
    failed = lab.make("jupyter", "LARDER_JUPYTER_BIND=192.0.2.1", check=False)
    lab.start()
    assert failed.returncode != 0
    assert "LARDER_JUPYTER_BIND=192.0.2.1 is not an address of this machine\n  next step: " in failed.stderr


def test_a_workspace_that_is_not_the_containers_users(lab: Lab, tmp_path: Path) -> None:
    """The workspace has content, so it keeps its owner. Compose prints nothing after our message."""
    workspace = tmp_path / "theirs"
    workspace.mkdir()
    (workspace / "diary").write_text("dear")
    workspace.chmod(0o555)
    failed = lab.make("jupyter", f"LARDER_WORKSPACE={workspace}", check=False)
    lab.start()
    assert failed.returncode != 0
    assert workspace.stat().st_uid == os.geteuid()
    *_, error, next_step, last = failed.stderr.splitlines()
    assert "can't write to the workspace" in error
    assert "LARDER_WORKSPACE" in next_step
    assert last.startswith("make: ")


def test_too_little_shared_memory(lab: Lab) -> None:
    lab.environment["LARDER_SHM_SIZE"] = "16mb"
    try:
        lab.make("jupyter-down")
        assert "LARDER_SHM_SIZE" in lab.make("jupyter").stderr
        errors = errors_of(lab.execute("2-files", PARAMETERS | {"IMAGES": 64}, LARDER_BATCH_SIZE="32"))
        assert any("shared memory" in error for error in errors), errors
    finally:
        del lab.environment["LARDER_SHM_SIZE"]
        lab.make("jupyter-down")
        lab.start()


def test_arms_train_to_the_same_accuracy(lab: Lab) -> None:
    """The loaders give the same images in different orders. Chance is 1 in 11; one epoch reaches three times that."""
    arms = ("imagefolder_local", "webdataset", "stream", "litdata_streaming")
    for arm in arms:
        lab.make("train", f"ARM={arm}", "LARDER_BATCH_SIZE=16", "LARDER_WORKERS=1", "LARDER_EPOCHS=1")
    texts = {}
    for arm in arms:
        [path] = (lab.folder / "results").glob(f"train-{arm}-*.json")
        record = json.loads(path.read_text())
        texts[arm] = record["accuracy"]
        assert 0 < record["wait_share"] < 1
        assert [one["images"] for one in record["epochs"]] == [195]
    assert min(texts.values()) > 0.25, texts
    assert max(texts.values()) - min(texts.values()) < 0.2, texts
