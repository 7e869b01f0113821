"""The context of every command: the declaration, its clouds, and the reporter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from larder.progress import Reporter
from provision import marks
from provision.cloud_errors import translate_cloud_errors
from provision.clouds import Cloud, Clouds
from provision.declaration import Declaration
from provision.in_flight import Note

VERBS = ("create", "change", "delete", "release", "start", "extend", "write", "keep")
LABELS = ("note", "warning", "error")


@dataclass(frozen=True)
class Stack:
    """A declaration with its clouds."""

    declaration: Declaration
    clouds: Clouds
    reporter: Reporter
    adopt: bool = False
    """Whether resources with a declared name and without a mark may be marked and managed."""
    callers: tuple[str, ...] = ()
    """The networks that `caller` stands for, if the user names them: 192.0.2.7/32; `here` is this machine's own."""
    known_callers: set[str] = field(default_factory=set, compare=False)
    """The networks that `caller` stands for, once they are known: they are asked for once in a run."""

    @property
    def name(self) -> str:
        """Name of the stack."""
        return self.declaration.name

    @property
    def owner(self) -> str:
        """The owner in marks at the compute site."""
        return self.owner_at(self.clouds.compute)

    def owner_at(self, cloud: Cloud) -> str:
        """Return the owner in marks at a site: the stack and its user there."""
        return marks.make_owner(self.name, cloud.user_id)

    @property
    def mark(self) -> str:
        """Mark in the description of what we create."""
        return marks.format_mark(self.owner)

    @property
    def metadata(self) -> dict[str, str]:
        """Metadata of what we create."""
        return {marks.STACK: self.owner}

    @property
    def state_folder(self) -> Path:
        """The folder for host key, ssh_config fragment and notes; all of it can be created again."""
        return Path(os.environ.get("LARDER_HOME") or ".larder") / "provision" / self.name

    def note(self, kind: str, name: str = "") -> Note:
        """Return the note on a request that creates something of a kind. The name may be left out if there is one."""
        return Note(self.state_folder, kind, name)

    def api(self, service: str) -> Any:
        """Return openstacksdk's client of a service at the compute site."""
        return self.clouds.compute.client(service)

    def report(self, event: str, message: str) -> None:
        """Report an event. What it does or warns of is part of the line for people, too."""
        if event in LABELS:
            message = f"{event}: {message}"
        elif event in VERBS:
            message = f"{event} {message}"
        self.reporter.event(event, message)

    @contextmanager
    def translate_errors(self, action: str, cloud: Cloud | None = None) -> Iterator[None]:
        """Translate errors of a block that uses a site, by default the compute site."""
        with translate_cloud_errors(cloud or self.clouds.compute, action):
            yield
