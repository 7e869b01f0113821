"""`larder --on NAME`: commands on a provisioned server. A stand-in for OpenSSH runs them in another folder here."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from larder.cli.main import parse
from provision import ssh as provision_ssh
from provision.ssh import SshAddress, SshClient
from tests.conftest import wait_until
from tests.unit.cli.engine import ROOT

# Writes OpenSSH's own messages to the file of -E, as OpenSSH does; then its server's shell runs the words.
SSH = """#!/bin/sh
printf '%s\\n' "$@" >{here}/argv
while [ "$1" != larder-lab ]; do
    [ "$1" = -E ] && log=$2
    shift
done
shift
[ -e {here}/says ] && cat {here}/says >"$log" && exit 255
cd {here}/server && HOME={here}/server PATH={here}/server/bin:$PATH exec sh -c "$*"
"""
LARDER = """
import os, signal, sys, time
try:
    print("words", *sys.argv[1:], flush=True)
    print("NO_COLOR", os.environ.get("NO_COLOR"), file=sys.stderr, flush=True)
    time.sleep(60 * ("wait" in sys.argv))
except KeyboardInterrupt:
    print("resumes", flush=True)
    open("ended", "w").close()
    sys.exit(130)
if "kill" in sys.argv:
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(4)
"""


class Lab:
    """A folder with a provisioned server, `lab`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.server = folder, folder / "server"
        self.checkout = self.server / "food"
        (self.checkout / "larder").mkdir(parents=True)
        (self.checkout / "larder" / "__init__.py").write_text("")
        (self.checkout / "larder" / "__main__.py").write_text(LARDER)
        (self.server / "bin").mkdir()
        (folder / "bin").mkdir()
        (folder / "bin" / "ssh").write_text(SSH.format(here=folder))
        (folder / "bin" / "ssh").chmod(0o755)
        self.state = folder / ".larder" / "provision" / "lab"
        client = SshClient(SshAddress("203.0.113.7", "cc", key=folder / "key"), self.state)
        client.write_fragment()
        client.known_hosts.write_text("larder-lab ssh-ed25519 AAAA\n")
        provision_ssh.record_checkout(self.state, "food")
        self.environ = {"PATH": f"{folder}/bin:/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(ROOT)}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "larder", *words],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    @property
    def argv(self) -> list[str]:
        return (self.folder / "argv").read_text().splitlines()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield Lab(tmp_path)


def test_a_command_runs_there_with_its_words_output_and_exit_code(lab: Lab) -> None:
    lab.environ["NO_COLOR"] = "1"
    words = ["etl-load", "LARDER_SOURCE=a 'b' $HOME", "--dry-run", "--help"]
    code, out, err = lab.run("S3_BUCKET=food", "--on", "lab", *words)
    assert (code, err) == (4, "NO_COLOR 1\n")
    assert out == f"words S3_BUCKET=food {' '.join(words)}\n"
    assert lab.argv[:2] == ["-F", str(lab.state / "config")] and "BatchMode=yes" in lab.argv
    assert lab.run("--on=lab", "status")[:2] == (4, "words status\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_reaches_the_command_whose_output_is_shown_to_its_end(lab: Lab, number: int) -> None:
    process = lab.start("--on", "lab", "wait")
    assert process.stdout and process.stdout.readline() == "words wait\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "resumes\n")


def test_the_command_is_interrupted_if_this_side_is_killed(lab: Lab) -> None:
    process = lab.start("--on", "lab", "wait")
    assert process.stdout and process.stdout.readline() == "words wait\n"
    process.kill()
    process.communicate(timeout=60)
    wait_until((lab.checkout / "ended").exists, "the command has ended")


def test_a_command_that_is_killed_there_is_no_lost_connection(lab: Lab) -> None:
    assert lab.run("--on", "lab", "kill")[0] == 128 + signal.SIGKILL


def test_with_a_terminal_the_command_has_one_there(lab: Lab) -> None:
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(lab.folder)
        os.execve(sys.executable, [sys.executable, "-m", "larder", "--on", "lab", "status"], lab.environ)
    said = b""
    while b"NO_COLOR" not in said:
        said += os.read(terminal, 1000)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
    os.close(terminal)
    assert "-t" in lab.argv and "BatchMode=yes" not in lab.argv and b"words status" in said


def test_a_dry_run_prints_the_call(lab: Lab) -> None:
    code, out, _ = lab.run("--dry-run", "--on", "lab", "etl-load")
    assert code == 0 and out.startswith("ssh -F ") and "larder-lab" in out and "etl-load" in out
    assert not (lab.folder / "argv").exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--on"], 2, "--on needs a value"),
        (["--on="], 2, "--on needs the name of a server"),
        (["--on", "lab"], 2, "--on needs a command"),
        (["--on", "lap", "status"], 3, "no provisioned server lap (known here: lab); did you mean lab?"),
        (["--on", "../lab", "status"], 3, "no provisioned server ../lab"),
    ],
)
def test_what_is_missing_is_named(lab: Lab, words: list[str], code: int, says: str) -> None:
    ended, _, err = lab.run(*words)
    assert ended == code and says in err and "next step: " in err, err


def test_a_server_that_was_never_reached_is_unknown(lab: Lab) -> None:
    (lab.state / "known_hosts").unlink()
    code, _, err = lab.run("--on", "lab", "status")
    assert code == 3 and "none is known here" in err and "python3 -m larder provision up" in err, err


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        ("ssh: connect to host 203.0.113.7 port 22: Connection timed out", 5, "provision status` shows whether"),
        ("Connection to 203.0.113.7 closed by remote host.", 5, "run the same command again"),
        ("Host key verification failed.", 2, "known_hosts"),
        ("cc@203.0.113.7: Permission denied (publickey).", 2, "/key"),
    ],
    ids=["not reachable", "lost", "another host key", "key refused"],
)
def test_a_failed_connection_has_cause_and_next_step(lab: Lab, message: str, code: int, says: str) -> None:
    (lab.folder / "says").write_text(f"{message}\n")
    ended, _, err = lab.run("--on", "lab", "status")
    assert ended == code and message in err and says in err.partition("next step: ")[2], err
    assert err.startswith("error: lab: ")


def test_a_server_without_larder_or_python(lab: Lab) -> None:
    python = lab.server / "bin" / "python3"
    (lab.server / "bin" / "sh").symlink_to("/bin/sh")
    (lab.folder / "bin" / "ssh").write_text(
        SSH.format(here=lab.folder).replace("bin:$PATH exec sh", "bin exec /bin/sh")
    )
    code, _, err = lab.run("--on", "lab", "status")
    assert code == 3 and "lab has no python3" in err, err
    python.symlink_to(sys.executable)
    (lab.checkout / "larder" / "__main__.py").unlink()
    code, _, err = lab.run("--on", "lab", "status")
    assert code == 3 and "lab has no larder in ~/food" in err and "[host] repository" in err, err


def test_without_openssh(lab: Lab) -> None:
    lab.environ["PATH"] = str(lab.server / "bin")
    code, _, err = lab.run("--on", "lab", "status")
    assert code == 3 and "ssh is not installed" in err


def test_the_option_stands_before_the_command() -> None:
    line = parse(["-n", "--on", "lab", "etl-load", "--on", "x"], {})
    assert (line.server, line.words, line.dry_run) == ("lab", ("etl-load", "--on", "x"), True)
    assert parse(["provision", "--on", "lab"], {}).words == ("--on", "lab")
