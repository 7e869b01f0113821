"""Run `rclone mount` as a child process."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext

from larder.background import Child
from larder.progress import Reporter
from larder.rclone import REMOTE, rclone_command, rclone_environment
from services.mount.confine import Mounter, mounter_environment
from services.mount.mount_folder import MountFolder
from services.mount.settings import MountSettings

_KEPT_MESSAGES = 3


class RcloneMount(Child):
    """A running `rclone mount`. Its log goes to the reporter; `on_end` is called when it ends."""

    def __init__(
        self,
        settings: MountSettings,
        mount_folder: MountFolder,
        allow_other: bool,
        mounter: Mounter | None,
        reporter: Reporter,
        on_end: Callable[[], None],
    ) -> None:
        """Start rclone. It mounts through `mounter`, or without one through FUSE's own program."""
        self._reporter = reporter
        self._last_messages: deque[str] = deque(maxlen=_KEPT_MESSAGES)
        command = rclone_command(*_mount_arguments(settings, mount_folder, allow_other))
        channel = mounter.rclone_channel() if mounter else None
        with channel or nullcontext():
            env = rclone_environment(settings) | (mounter_environment(channel) if channel else {})
            handles = [channel.fileno()] if channel else []
            super().__init__(command, env, mount_folder.folder, self._report_line, on_end, handles)

    def describe_end(self) -> str:
        """Return rclone's last messages and how it ended."""
        code = self.code()
        ending = "" if code is None else f"killed by signal {-code}" if code < 0 else f"ended with {code}"
        return "; ".join(filter(None, [*self._last_messages, ending]))

    def _report_line(self, line: str) -> None:
        level, message = _parse_log_line(line)
        if message:
            self._last_messages.append(message)
            self._reporter.event("rclone", f"rclone: {message}", level=level)


def _mount_arguments(settings: MountSettings, mount_folder: MountFolder, allow_other: bool) -> list[str]:
    """Return rclone's arguments, which contain no secrets."""
    return [
        "mount",
        f"{REMOTE}:{settings.bucket}",
        str(mount_folder.mount_point(settings.bucket)),
        "--read-only",
        "--umask=0222",
        *(["--allow-other"] if allow_other else []),
        # Otherwise the source shows a digest of the configuration, which includes secret keys.
        f"--devname={REMOTE}:{settings.bucket}",
        f"--vfs-cache-mode={settings.vfs_cache}",
        f"--vfs-cache-max-size={int(settings.vfs_cache_max)}B",
        f"--cache-dir={mount_folder.cache}",
        f"--dir-cache-time={settings.dir_cache_seconds}s",
        "--poll-interval=0",
        "--use-server-modtime",  # from the listing; rclone's own needs a HEAD for each file that is opened
        # Relative to the working directory, since a socket's path has at most 107 characters.
        f"--metrics-addr=unix://{mount_folder.socket.relative_to(mount_folder.folder)}",
        f"--timeout={settings.stall_seconds}s",
        f"--contimeout={settings.stall_seconds}s",
        "--use-json-log",
    ]


def _parse_log_line(line: str) -> tuple[str, str]:
    """Return the level and message of a line of rclone's log."""
    try:
        entry = json.loads(line)
    except ValueError:  # not a log line: a crash
        return "error", line.strip()
    about = f"{entry['object']}: " if entry.get("object") else ""
    message = re.sub(r", RequestID: [^,]*, HostID: [^,]*", "", str(entry.get("msg", "")))
    return str(entry.get("level", "")), about + message.strip()
