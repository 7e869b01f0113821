"""`larder uninstall`: everything that larder has created, and nothing else."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from larder import __version__
from larder.cli import inventory, mounts
from tests.unit.cli.engine import Machine, put_artifact

CHANGES = (["rm"], ["network", "rm"], ["volume", "rm"], ["image", "rm"], ["compose"], ["run"], ["build"])


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def changes(machine: Machine) -> list[list[str]]:
    """Return Docker's calls that change something."""
    looks = ["compose", "version"], ["run", "--rm", "--network", "none", "--read-only"]
    asked = [call for call in machine.engine.calls if not any(call[: len(start)] == start for start in looks)]
    return [call for call in asked if any(call[: len(start)] == start for start in CHANGES)]


def fill_engine(machine: Machine) -> None:
    volumes = (
        "food11_local_baseline\tbaseline\nfood11-webdataset_wds_out\twds_out\nlarder_minio\tminio\n"
        "larder_other\tnot-of-larder\n"
    )
    machine.engine.answer(
        "ps",
        having="com.docker.compose.project=larder",
        text=(
            "1\tlarder-minio-1\tminio\trunning\t\n2\tlarder-web-1\tnot-of-larder\trunning\t\n"
            "3\tlarder-load-data-run-5d7e\tload-data\texited\t\n"
        ),
    )
    machine.engine.answer("ps", having="volume=", text="1\tlarder-minio-1\n3\tlarder-load-data-run-5d7e\n")
    machine.engine.answer("network", "ls", text="larder_default\n")
    machine.engine.answer("volume", "ls", text="food11_local_baseline\nfood11_demo\n")
    machine.engine.answer("volume", "ls", "--filter", text=volumes)
    images = ["load:0.0.1", f"load:{__version__}", f"provision:{__version__}", "web:1"]
    machine.engine.answer("image", "ls", text="".join(f"larder-{name}\n" for name in images) + "debian:bookworm-slim\n")
    sizes = {
        "Volumes": [{"Name": "larder_minio", "Size": "4.5GB"}],
        "Images": [{"Repository": "larder-load", "Tag": "0.0.1", "Size": "374MB"}],
    }
    machine.engine.answer("system", "df", text=json.dumps(sizes))


def fill_files(machine: Machine) -> Path:
    home = machine.root / ".larder"
    volume = home / "volumes" / "food11_local_baseline"
    put_artifact(volume, "raw", "raw")
    (volume / ".larder").mkdir()
    (home / "volumes" / "empty").mkdir()
    for name in ("cache", "mount", "jupyter", "site", "store/data"):
        (home / name).mkdir(parents=True)
    (home / "store" / "data" / "objects").write_bytes(bytes(5000))
    (home / "s3-host.env").write_text("AWS_SECRET_ACCESS_KEY=top-secret\n")
    (home / "jupyter-token").write_text("a-token\n")
    (machine.root / ".venv").mkdir()
    (machine.root / ".venv" / "pyvenv.cfg").touch()
    for name in ("results/record.json", "workspace/mine.ipynb", "README.md"):
        (machine.root / name).parent.mkdir(exist_ok=True)
        (machine.root / name).write_text("the user's")
    return home


def claim(machine: Machine, root: Path) -> Path:
    register = machine.home / ".local/state/larder/checkouts.json"
    register.parent.mkdir(parents=True)
    register.write_text(json.dumps({"larder": str(root)}))
    return register


def test_with_nothing_there_nothing_is_asked(machine: Machine) -> None:
    before = machine.written()
    ended = machine.larder("uninstall")
    assert ended.returncode == 0
    assert "nothing to remove" in ended.stderr
    assert machine.written() == before
    assert changes(machine) == []


@pytest.mark.parametrize(
    ("answer", "code", "last"),
    [
        ("", 1, "kept: nobody answered; YES=1 answers yes\n"),
        *((word, 0, "kept\n") for word in ("n\n", "\n", "maybe\n")),
    ],
)
def test_nothing_goes_without_a_yes(machine: Machine, answer: str, code: int, last: str) -> None:
    fill_engine(machine)
    fill_files(machine)
    before = machine.written()
    ended = machine.larder("uninstall", stdin=answer)
    assert ended.returncode == code
    assert ended.stderr.endswith(last)
    assert machine.written() == before
    assert changes(machine) == []


@pytest.mark.parametrize("word", ["YES=1", "--yes", ""])
def test_everything_of_larder_goes_and_nothing_else(machine: Machine, word: str) -> None:
    fill_engine(machine)
    fill_files(machine)
    register = claim(machine, machine.root)
    sources = {str(path) for path in (machine.root / "larder").rglob("*")}
    ended = machine.larder("uninstall", *filter(None, [word]), stdin="y\n")
    assert ended.returncode == 0, ended.stderr
    assert changes(machine) == [
        ["rm", "--force", "larder-minio-1", "larder-load-data-run-5d7e"],
        ["network", "rm", "larder_default"],
        ["volume", "rm", "food11_local_baseline", "food11-webdataset_wds_out", "larder_minio"],
        ["image", "rm", "larder-load:0.0.1", f"larder-load:{__version__}", f"larder-provision:{__version__}"],
    ]
    assert not (machine.root / ".larder").exists()
    assert not (machine.root / ".venv").exists()
    assert not register.parent.exists()
    for name in ("results/record.json", "workspace/mine.ipynb", "README.md"):
        assert (machine.root / name).read_text() == "the user's"
    assert sources <= {str(path) for path in (machine.root / "larder").rglob("*")}


def test_the_list_shows_sizes_what_stays_and_what_has_no_known_copy(machine: Machine) -> None:
    fill_engine(machine)
    fill_files(machine)
    listed = machine.larder("uninstall").stdout
    lines = {" ".join(line.split()) for line in listed.splitlines()}
    assert "volume larder_minio 4.5GB; the objects of the store on this machine; MAY BE THE ONLY COPY" in lines
    assert "image larder-load:0.0.1 374MB" in lines
    assert "volume food11_local_baseline data; MAY BE THE ONLY COPY" in lines
    assert "files .larder/store/data 5.0 kB; the store on this machine; MAY BE THE ONLY COPY" in lines
    assert any(line.startswith("files .larder/volumes/food11_local_baseline") and "ONLY COPY" in line for line in lines)
    assert "files .larder/volumes/empty 0 B; data; empty" in lines
    assert "kept results/: your records" in lines
    assert "kept workspace/: your notebooks" in lines
    assert "kept volume food11_demo: created by another checkout or an unknown program" in lines
    assert "top-secret" not in listed
    assert "5 of them may hold the only copy of data" in machine.larder("uninstall").stderr


def test_an_empty_volume_holds_no_only_copy(machine: Machine, tmp_path: Path) -> None:
    fill_engine(machine)
    (tmp_path / "volume").mkdir()
    nothing = inventory.read_volume(tmp_path / "volume")
    places = ("/volumes/food11_local_baseline", "/volumes/food11-webdataset_wds_out")
    machine.engine.answer("run", text=inventory.as_json(dict.fromkeys(places, nothing)))
    ended = machine.larder("uninstall")
    assert "data; empty" in ended.stdout
    assert "1 of them may hold the only copy" in ended.stderr, "the store's"


def test_a_dry_run_prints_commands_that_do_the_same(machine: Machine) -> None:
    fill_engine(machine)
    fill_files(machine)
    before = machine.written()
    ended = machine.larder("uninstall", "--dry-run")
    assert ended.returncode == 0
    assert machine.written() == before
    assert changes(machine) == []
    environ = {"PATH": str(machine.engine.bin)}
    subprocess.run(["/bin/sh", "-c", ended.stdout], cwd=machine.root, env=environ, check=True)
    assert [call[0] for call in changes(machine)] == ["rm", "network", "volume", "image"]
    assert not (machine.root / ".larder").exists()
    assert (machine.root / "results" / "record.json").exists()


def test_containers_of_others_that_use_a_volume_are_named(machine: Machine) -> None:
    fill_engine(machine)
    fill_files(machine)
    before = machine.written()
    machine.engine.answer("ps", having="volume=food11_local_baseline", text="1\tlarder-minio-1\n9\tmy-training\n")
    ended = machine.larder("uninstall", "YES=1")
    assert ended.returncode == 3
    assert "food11_local_baseline is used by my-training" in ended.stderr
    assert "larder-minio-1" not in ended.stderr
    assert len(ended.stderr.splitlines()) <= 3
    assert machine.written() == before
    assert changes(machine) == []


def test_images_stay_while_another_checkout_has_the_plain_name(machine: Machine, tmp_path: Path) -> None:
    fill_engine(machine)
    first = tmp_path / "first"
    (first / "compose").mkdir(parents=True)
    (first / "compose" / "stage.yaml").touch()
    register = claim(machine, first)
    ended = machine.larder("uninstall", "YES=1", "COMPOSE_PROJECT_NAME=larder")
    assert ended.returncode == 0, ended.stderr
    assert f"kept       images larder-*: for the checkout {first} (docker image rm" in ended.stdout
    assert not [call for call in changes(machine) if call[0] == "image"]
    assert register.exists()


@pytest.mark.parametrize("other", ["larder-0123abcd", "larder"])
def test_images_stay_while_another_checkout_has_volumes(machine: Machine, other: str) -> None:
    fill_engine(machine)
    machine.engine.answer("volume", "ls", having='{{.Label "com.docker.compose.project"}}', text=f"{other}\nmine\n")
    ended = machine.larder("uninstall", "YES=1")
    assert ended.returncode == 0, ended.stderr
    assert (f"kept       images larder-*: for the compose project {other} (" in ended.stdout) == (other != "larder")


def test_a_deleted_checkout_needs_no_images_and_its_volumes_are_named(machine: Machine, tmp_path: Path) -> None:
    fill_engine(machine)
    register = claim(machine, machine.root)
    register.write_text(json.dumps({"larder": str(machine.root), "larder-0123abcd": str(tmp_path / "deleted")}))
    machine.engine.answer("volume", "ls", having='{{.Label "com.docker.compose.project"}}', text="larder-0123abcd\n")
    machine.engine.answer("volume", "ls", having="=larder-0123abcd", text="food11_demo\n")
    ended = machine.larder("uninstall", "YES=1")
    assert ended.returncode == 0, ended.stderr
    gone = f"of the checkout {tmp_path / 'deleted'}, which is gone (docker volume rm food11_demo)"
    assert f"kept       volume food11_demo: {gone}" in ended.stdout.splitlines()
    assert "images larder-*" not in ended.stdout
    assert [call[:2] for call in changes(machine)][-1] == ["image", "rm"]
    assert not register.exists()


def test_after_uninstall_others_keep_no_images_for_this_checkout(machine: Machine, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "compose").mkdir(parents=True)
    (other / "compose" / "stage.yaml").touch()
    register = claim(machine, other)
    register.write_text(json.dumps({"larder": str(other), "larder-0123abcd": str(machine.root)}))
    fill_engine(machine)
    assert machine.larder("uninstall", "YES=1").returncode == 0
    assert json.loads(register.read_text()) == {"larder": str(other)}


def test_a_container_of_another_checkout_is_named_as_such(machine: Machine, tmp_path: Path) -> None:
    fill_engine(machine)
    (tmp_path / "other" / "compose").mkdir(parents=True)
    (tmp_path / "other" / "compose" / "stage.yaml").touch()
    folder = tmp_path / "other" / "compose"
    machine.engine.answer("ps", having="volume=food11_local_baseline", text=f"9\tlarder-x-jupyter-1\t{folder}\n")
    ended = machine.larder("uninstall", "YES=1")
    assert f"is used by larder-x-jupyter-1 (of the checkout {tmp_path / 'other'})" in ended.stderr
    assert "larder jupyter-down" in ended.stderr


def test_containers_that_compose_itself_has_started_here_go_too(machine: Machine) -> None:
    label = f"com.docker.compose.project.working_dir={machine.root / 'compose'}"
    machine.engine.answer("ps", having=label, text="7\tmine-shard-1\tshard\texited\t\n")
    assert machine.larder("uninstall", "YES=1").returncode == 0
    assert changes(machine) == [["rm", "--force", "mine-shard-1"]]


def test_generated_data_is_no_only_copy(machine: Machine) -> None:
    volume = machine.root / ".larder" / "volumes" / "food11_demo"
    raw = put_artifact(volume, "raw", "raw", input={"kind": "sample", "images": 440})
    put_artifact(volume, "Food-11", "tree", made_from=raw)
    (volume / ".larder").mkdir()
    ended = machine.larder("uninstall", "RUNNER=host")
    assert "data; the generated sample" in ended.stdout
    assert "only copy" not in ended.stderr
    put_artifact(volume, "photos", "tree", made_from="0123")
    assert "1 of them may hold the only copy" in machine.larder("uninstall", "RUNNER=host").stderr


@pytest.mark.parametrize("files", [[], ["known_hosts", "lock"]])
def test_what_provision_notes_of_a_cloud_stays(machine: Machine, files: list[str]) -> None:
    home = fill_files(machine)
    stack = home / "provision" / "stack"
    stack.mkdir(parents=True)
    for name in files:
        (stack / name).touch()
    ended = machine.larder("uninstall", "YES=1", "RUNNER=host")
    assert ended.returncode == 0
    assert "which larder has not created" not in ended.stdout
    assert (home / "cache").exists() is False
    assert ("python3 -m larder provision down removes" in ended.stdout) == bool(files)
    assert {path.name for path in home.rglob("*") if path.is_file()} == set(files)
    assert home.exists() == bool(files)


def test_after_a_failure_the_rest_is_for_the_next_run(machine: Machine) -> None:
    fill_engine(machine)
    machine.engine.answer("volume", "rm", code=1)
    ended = machine.larder("uninstall", "YES=1", "LARDER_DATASET=photos")
    assert ended.returncode == 1
    assert ended.stderr.endswith(
        "not everything is removed: python3 -m larder uninstall LARDER_DATASET=photos lists and removes the rest\n"
    )
    assert "image" not in [call[0] for call in changes(machine)]


@pytest.mark.parametrize("place", [".larder", ".venv", ".larder/store", ".larder/volumes", ".larder/cache"])
def test_symlinks_are_neither_followed_nor_removed(machine: Machine, tmp_path: Path, place: str) -> None:
    fill_files(machine)
    link, target = machine.root / place, tmp_path / "elsewhere"
    link.rename(target)
    link.symlink_to(target)
    before = {str(path) for path in target.rglob("*")}
    ended = machine.larder("uninstall", "YES=1", "RUNNER=host")
    assert ended.returncode == 0, ended.stderr
    assert f"kept       {place}: a symlink, which is not followed" in ended.stdout
    assert link.is_symlink()
    assert {str(path) for path in target.rglob("*")} == before


def test_a_link_inside_a_volume_goes_and_its_target_stays(machine: Machine, tmp_path: Path) -> None:
    home = fill_files(machine)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").touch()
    (home / "volumes" / "food11_local_baseline" / "photos").symlink_to(tmp_path / "photos")
    assert machine.larder("uninstall", "YES=1", "RUNNER=host").returncode == 0
    assert (tmp_path / "photos" / "1.jpg").exists()


def test_what_others_have_put_into_larder_s_folder_stays(machine: Machine, tmp_path: Path) -> None:
    home = tmp_path / "-a folder"
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "somebodys").touch()
    (home / "volumes" / "somebodys").mkdir(parents=True)
    (home / "volumes" / "somebodys" / "file").touch()
    (home / "thesis.tex").touch()
    put_artifact(home / "volumes" / "food11_local_baseline", "raw", "raw")
    (home / "volumes" / "food11_local_baseline" / ".larder").mkdir()
    ended = machine.larder("uninstall", "YES=1", "RUNNER=host", f"LARDER_HOME={home}")
    assert ended.returncode == 0, ended.stderr
    assert "thesis.tex" in ended.stdout
    left = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    assert left == {"cache/somebodys", "volumes/somebodys/file", "thesis.tex"}
    assert not (home / "volumes" / "food11_local_baseline").exists()


def test_a_server_that_cannot_be_stopped_keeps_everything(machine: Machine) -> None:
    home = fill_files(machine)
    server = subprocess.Popen(["/bin/sh", "-c", "read line # weed"], stdin=subprocess.PIPE)
    try:
        (home / "store" / "pid").write_text(f"{server.pid}\n")
        before = machine.written()
        ended = machine.larder("uninstall", "YES=1", "RUNNER=host")
        assert ended.returncode == 3
        assert "servers run in the background (minio)" in ended.stderr
        assert machine.written() == before
    finally:
        server.communicate()


def test_a_store_that_runs_is_stopped_first(machine: Machine) -> None:
    home = fill_files(machine)
    server = subprocess.Popen(["/bin/sh", "-c", "read line # weed"], stdin=subprocess.PIPE)
    try:
        (home / "store" / "pid").write_text(f"{server.pid}\n")
        (machine.root / ".venv" / "bin").mkdir()
        (machine.root / ".venv" / "bin" / "python").touch()
        ended = machine.larder("uninstall", "--dry-run", "RUNNER=host")
        stop, remove, *_ = ended.stdout.splitlines()
        assert "services.s3 --task down" in stop
        assert shlex.split(remove)[:3] == ["rm", "-rf", "--"]
    finally:
        server.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting takes root")
def test_nothing_goes_while_something_is_mounted(machine: Machine) -> None:
    home = fill_files(machine)
    point = home / "mount" / "a bucket"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", point], check=True)
    try:
        (point / "object").touch()
        before = machine.written()
        ended = machine.larder("uninstall", "YES=1", "RUNNER=host")
        assert ended.returncode == 3
        assert f"{point} is mounted" in ended.stderr
        assert "larder unmount" in ended.stderr
        assert machine.written() == before
        assert f"Mount       {point}" in machine.larder("status", "RUNNER=host").stdout
    finally:
        subprocess.run(["umount", point], check=True)


def test_uninstall_reports_that_it_skips_an_engine_without_permission(machine: Machine) -> None:
    fill_files(machine)
    (machine.engine.bin / "docker").write_text("#!/bin/sh\necho permission denied >&2; exit 1\n")
    ended = machine.larder("uninstall")
    assert "not inspected (Docker is installed, but you may not use it)" in ended.stdout


MOUNTS = """\
22 28 0:20 / / rw - ext4 /dev/sda rw
30 22 0:30 / /home/me/larder/.larder/mount/a\\040bucket rw shared:1 - fuse.rclone x rw
31 22 0:30 / /home/me/larder/.larder/mount/a\\040bucket rw shared:1 - fuse.rclone x rw
32 22 0:31 / /home/me/larder/.larder/mount2 rw - tmpfs x rw
"""


def test_mount_points_below_a_folder() -> None:
    folder = Path("/home/me/larder/.larder/mount")
    assert mounts.below(folder, MOUNTS) == [f"{folder}/a bucket"]
    assert mounts.below(Path("/home/you"), MOUNTS) == []
