"""Keys and commands where the work is: `up` puts the keys on the server, and `larder --on` runs commands there.

The server is a container with systemd and SSH, since no disk is needed.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.openstack.conftest import ROOT, Site
from tests.openstack.container import ServerContainer
from tests.openstack.disks import missing
from tests.openstack.guest import BOOT_SECONDS, make_key
from tests.openstack.hypervisor import Hypervisor

LAB = """
[server]
key = "lab"
private_key = "{key}"

[floating_ip]

[[security_group]]
name = "allow-ssh"
ports = [22]
sources = ["0.0.0.0/0"]

[bucket]
name = "{bucket}"

[credentials]
rclone_config = "rclone.conf"

[host]
docker = false
rclone = false
tools = []
repository = "{repository}"

[limits]
ssh = {seconds}
"""


@pytest.fixture
def lab(site: Site, repository: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose servers are containers, and a declaration of one with larder and keys."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        missing("the server runs in a container, and no container engine answers (docker info)")
    key = make_key(tmp_path)
    site.cloud.compute.create_keypair(name="lab", public_key=key.with_suffix(".pub").read_text().strip())
    bucket = f"data-{site.environ['OS_PROJECT_NAME']}"
    site.declare(LAB.format(key=key, bucket=bucket, repository=repository, seconds=BOOT_SECONDS))
    machines = Hypervisor(
        site.cloud, site.operator, tmp_path_factory.mktemp("machines"), lambda server, key: ServerContainer(key)
    )
    yield site
    machines.close()


def larder(lab: Site, *words: str, **options: Any) -> subprocess.Popen[str]:
    """Start `larder` as a user does, in the folder with the declaration."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, "-m", "larder", *words],
        cwd=lab.folder,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **{**pipes, **options},
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=BOOT_SECONDS)
    return process.returncode, out, err


def on_server(lab: Site, command: str) -> str:
    return lab.succeeds("ssh", command).replace("\r", "")


def test_keys_are_where_the_work_is_and_commands_run_there(lab: Site) -> None:
    up = lab.run("up")
    assert up.code == 0, up.err
    here = dict(line.split("=", 1) for line in (lab.folder / ".env").read_text().splitlines())
    secret = here["AWS_SECRET_ACCESS_KEY"]
    assert on_server(lab, "stat -c '%a %U' food/.env .config/rclone/rclone.conf") == "600 cc\n600 cc\n"
    assert on_server(lab, "cat food/.env") == (lab.folder / ".env").read_text()
    assert secret in on_server(lab, "cat .config/rclone/rclone.conf")
    pattern = "sed -n 's/^AWS_SECRET_ACCESS_KEY=//p' food/.env"  # sudo logs its arguments
    assert on_server(lab, f"{pattern} | sudo grep -rlFf - /tmp /var || true") == ""
    assert secret not in up.out + up.err
    (server,) = lab.own("servers")
    assert secret not in str(server.to_dict())

    # a user's lines stay, also when the server is set up again
    on_server(lab, "printf '# mine\\nLARDER_DATASET=flowers\\n' >>food/.env")
    again = lab.run("up")
    assert "wrote" not in again.err and again.err.count("found the S3 keys") == 2, again.err
    assert on_server(lab, "tail -n 2 food/.env") == "# mine\nLARDER_DATASET=flowers\n"

    code, out, err = ended(larder(lab, "--on", "lab", "s3-check", "--dry-run", "RUNNER=host"))
    assert code == 0 and "services.s3" in out and secret not in out + err, (code, out, err)
    # The stage has no packages there, so it runs here, with the settings of the server's files alone.
    settings = dict(line.split("=", 1) for line in on_server(lab, "cat food/.env").splitlines() if "=" in line)
    environ = {"PATH": os.environ["PATH"], "HOME": str(lab.folder), **settings}
    stage = [sys.executable, "-m", "services.s3", "--task", "check"]
    checked = subprocess.run(stage, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert checked.returncode == 0 and secret not in checked.stdout + checked.stderr, checked
    code, out, err = ended(larder(lab, "--on", "lab", "etl-laod"))
    assert (code, out) == (2, "") and "did you mean etl-load?" in err
    code, out, _ = ended(larder(lab, "--on", "lab", "--version"))
    assert code == 0 and out.startswith("larder ")


WAITS = """
import signal, sys, time
try:
    print("begins", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("ends", sys.stdout.isatty(), flush=True)
    sys.exit(130)
"""


def test_interrupts_reach_the_server_with_and_without_a_terminal(lab: Site) -> None:
    lab.succeeds("up")
    on_server(lab, f"mkdir -p food/larder && cat >food/larder/__main__.py <<'END'\n{WAITS}\nEND")
    process = larder(lab, "--on", "lab", "waits")
    assert process.stdout and process.stdout.readline() == "begins\n"
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "ends False\n", "")

    primary, secondary = pty.openpty()
    process = larder(lab, "--on", "lab", "waits", stdin=secondary, stdout=secondary, stderr=secondary)
    os.close(secondary)
    said = b""
    while b"begins" not in said:
        said += os.read(primary, 1000)
    os.write(primary, b"\x03")  # Ctrl-C, which OpenSSH passes to the terminal there
    while b"ends True" not in said:
        said += os.read(primary, 1000)
    assert process.wait(BOOT_SECONDS) == 130
    os.close(primary)

    process = larder(lab, "--on", "lab", "waits")
    assert process.stdout and process.stdout.readline() == "begins\n"
    process.kill()
    process.communicate()
    wait_until(lambda: "waits" not in on_server(lab, "pgrep -fa '[l]arder waits' || true"), "it ends there, too")

    on_server(lab, "rm -r food")
    code, _, err = ended(larder(lab, "--on", "lab", "status"))
    assert code == 3 and "lab has no larder in ~/food" in err, err
    known_hosts = lab.folder / ".larder/provision/lab/known_hosts"
    theirs = make_key(lab.folder / ".larder").with_suffix(".pub").read_text().split()[1]
    known_hosts.write_text(f"larder-lab ssh-ed25519 {theirs}\n")
    code, _, err = ended(larder(lab, "--on", "lab", "status"))
    assert code == 2 and "host key is another one" in err and str(known_hosts) in err, err
    lab.succeeds("down", "--yes")
    code, _, err = ended(larder(lab, "--on", "lab", "status"))
    assert code == 5 and "provision status` shows whether the server is there" in err, err
