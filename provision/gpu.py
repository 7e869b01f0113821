"""Set up the GPUs of a server over SSH: the driver, which may need a reboot, and the container toolkit."""

from __future__ import annotations

from larder.errors import InputError, ServiceError, StorageError
from larder.progress import Reporter
from provision.clouds import poll_until
from provision.host_scripts import INSTALL_SECONDS, report_output, run_script
from provision.ssh import SshClient

EXIT_REBOOT = 4
"""Of nvidia.sh: the driver is installed, but works only after a reboot."""


class RebootNeededError(StorageError):
    """The server must be rebooted, which would end what runs on it."""


def set_up_gpu(ssh: SshClient, reporter: Reporter, may_reboot: bool, reboot_seconds: float) -> None:
    """Install what a server with NVIDIA's GPUs needs, and check it in a container. Others stay as they are.

    Args:
        ssh: The server.
        reporter: Reports each step.
        may_reboot: Whether the server may be rebooted, since nothing runs on it yet.
        reboot_seconds: How long to wait for SSH after a reboot.

    Raises:
        RebootNeededError: If the driver needs a reboot, and `may_reboot` is false.
        InputError: If the driver or the toolkit doesn't work.
        ServiceError: If the connection is lost, or an installation fails; running again resumes.
    """
    try:
        _run(ssh, reporter)
    except RebootNeededError as error:
        if not may_reboot:
            raise
        reporter.event("host", f"rebooting: {error.what}")
        _reboot(ssh, reporter, reboot_seconds)
        _run(ssh, reporter)


def _run(ssh: SshClient, reporter: Reporter) -> None:
    errors = {EXIT_REBOOT: RebootNeededError, 3: InputError}
    report_output(run_script(ssh, "nvidia.sh", root=True, seconds=INSTALL_SECONDS, errors=errors), reporter)


def _boot_id(ssh: SshClient) -> str:
    return ssh.run(["cat", "/proc/sys/kernel/random/boot_id"], seconds=60).stdout.strip()


def _reboot(ssh: SshClient, reporter: Reporter, seconds: float) -> None:
    """Reboot a server, and wait until it answers again."""
    before = _boot_id(ssh)
    ssh.run(["systemctl", "--no-block", "reboot"], root=True, seconds=60)

    def rebooted() -> bool | None:
        try:
            return True if _boot_id(ssh) not in ("", before) else None
        except ServiceError:  # it is down
            return None

    next_step = "look at its console in the site's web interface; once it answers, run the same command again"
    poll_until(reporter, f"{ssh} answers after the reboot", rebooted, seconds, next_step)
