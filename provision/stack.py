"""What every command works with: the declaration, its clouds, and how to speak."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from larder.progress import Reporter
from provision import marks
from provision.clouds import Cloud, Clouds, explained
from provision.declaration import Declaration


@dataclass(frozen=True)
class Stack:
    """A declaration and the clouds that it lives in."""

    declaration: Declaration
    clouds: Clouds
    reporter: Reporter
    adopt: bool = False
    """Whether things of a declared name that carry no mark may be marked and managed."""
    caller: str | None = None
    """The network of this machine, when the user names it: 192.0.2.7/32."""

    @property
    def name(self) -> str:
        return self.declaration.name

    @property
    def owner(self) -> str:
        """What marks name at the compute site."""
        return self.owner_at(self.clouds.compute)

    def owner_at(self, cloud: Cloud) -> str:
        """What marks name at a site: the stack and its user there."""
        return marks.owner(self.name, cloud.user_id)

    @property
    def mark(self) -> str:
        return marks.text(self.owner)

    @property
    def metadata(self) -> dict[str, str]:
        return {marks.STACK: self.owner}

    @property
    def state_folder(self) -> Path:
        """Host key and ssh_config fragment. Nothing that couldn't be had again."""
        return Path(os.environ.get("LARDER_HOME") or ".larder") / "provision" / self.name

    def say(self, event: str, message: str) -> None:
        self.reporter.event(event, message)

    @contextmanager
    def step(self, doing: str, cloud: Cloud | None = None) -> Iterator[None]:
        """Errors in words for what is done at a site, the compute site by default."""
        with explained(cloud or self.clouds.compute, doing):
            yield
