"""Find what the engine contains of a checkout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from larder.cli import project
from larder.cli.compose import LAB_SERVICES, SERVERS
from larder.cli.inspector import FOLDER_LABEL, PROJECT_LABEL, CheckoutInspector
from larder.cli.installed import DATA_KINDS, ONLY_COPY, InstalledItem, describe_volume
from larder.cli.inventory import find_generated
from larder.cli.pipelines import STAGES
from larder.cli.process import Call

_VOLUMES = {
    "baseline": "data",
    "wds_out": "shards",
    "lit_out": "chunks",
    "shard": "shards",
    "optimize": "chunks",
    "index": "data",
    "verify": "data",
    "minio": f"the objects of the store on this machine; {ONLY_COPY}",
    "bench_cache": "a cache",
}
"""Content of each volume, by its name in compose files."""


class ForeignUsers(NamedTuple):
    """Containers of others that use a volume or network of larder's."""

    resource: str
    containers: tuple[str, ...]


class OtherCheckout(NamedTuple):
    """Another checkout with volumes on this machine; `path` is None if it is unknown."""

    project: str
    path: Path | None

    @property
    def is_gone(self) -> bool:
        """Whether it is known to be deleted."""
        return self.path is not None and not project.is_checkout(self.path)

    def __str__(self) -> str:
        return f"the checkout {self.path}" if self.path else f"the compose project {self.project}"


class DockerItems:
    """What the engine contains of this checkout; nothing if no engine answers.

    Args:
        inspector: The inspector of this machine.
    """

    def __init__(self, inspector: CheckoutInspector) -> None:
        self.inspector = inspector
        services = {*SERVERS, *STAGES, *LAB_SERVICES}
        # the checkout that has the plain name may have had the other one before
        self.projects = dict.fromkeys([inspector.project, project.hashed_name(inspector.root.resolve())])
        containers = inspector.list_checkout_containers(self.projects)
        self.containers = [container for container in containers if container.service in services]
        self.networks = self._labelled("network", "{{.Name}}")
        keys = (
            line.split("\t") for line in self._labelled("volume", '{{.Name}}\t{{.Label "com.docker.compose.volume"}}')
        )
        self.volumes = {name: _VOLUMES[key] for name, key in keys if key in _VOLUMES}
        self.others = self._find_others()

    def list_items(self) -> Iterator[InstalledItem]:
        """Yield everything, in the order of removal."""
        if self.inspector.engine.state != "ready":
            return
        sizes = self._sizes()
        for container in self.containers:
            yield InstalledItem("container", container.name, "", container.state)
        for name in self.networks:
            yield InstalledItem("network", name)
        contents = self.inspector.read_docker_volumes(
            [name for name, what in self.volumes.items() if what in DATA_KINDS]
        )
        generated = find_generated(each for each in contents.values() if each)
        for name, what in self.volumes.items():
            note = describe_volume(what, contents.get(name), generated)
            yield InstalledItem("volume", name, sizes.get(name, ""), note)
        if self.image_sharers:
            return
        for name in self._images():
            yield InstalledItem("image", name, sizes.get(name, ""))

    def _find_others(self) -> list[OtherCheckout]:
        """Return the other checkouts: those that have claimed a name, and those that have volumes."""
        claims = project.read_claims(self.inspector.environ)
        label = f'{{{{.Label "{PROJECT_LABEL}"}}}}'
        labels = self._docker("volume", "ls", "--filter", f"label={PROJECT_LABEL}", "--format", label)
        names = [name for name in dict.fromkeys([*claims, *labels]) if project.is_name(name)]
        here = self.inspector.root.resolve()
        return [
            OtherCheckout(name, claims.get(name))
            for name in names
            if (claims[name] != here if name in claims else name not in self.projects)
        ]

    @property
    def image_sharers(self) -> list[OtherCheckout]:
        """Other checkouts that use the images, too, if they aren't deleted."""
        return [other for other in self.others if not other.is_gone]

    def volumes_of_deleted(self) -> Iterator[tuple[str, OtherCheckout]]:
        """Yield the volumes of deleted checkouts."""
        for other in self.others:
            if other.is_gone:
                names = self._docker(
                    "volume", "ls", "--filter", f"label={PROJECT_LABEL}={other.project}", "--format", "{{.Name}}"
                )
                yield from ((name, other) for name in names)

    def find_foreign_users(self) -> Iterator[ForeignUsers]:
        """Yield the containers of others that use larder's volumes and networks."""
        own_ids = {container.id for container in self.containers}
        for kind, names in (("volume", list(self.volumes)), ("network", self.networks)):
            for name in names:
                fields = f'{{{{.ID}}}}\t{{{{.Names}}}}\t{{{{.Label "{FOLDER_LABEL}"}}}}'
                output = self._docker("ps", "--all", "--no-trunc", "--filter", f"{kind}={name}", "--format", fields)
                lines = [line.split("\t") for line in output]
                users = tuple(_describe_user(*words[1:]) for words in lines if words[0] not in own_ids)
                if users:
                    yield ForeignUsers(name, users)

    def foreign_volumes(self) -> list[str]:
        """Return volumes with names of ours that another project or an unknown program has created."""
        settings = self.inspector.settings
        names = {settings.data_volume, settings.wds_volume, settings.lit_volume, settings.demo_volume}
        return sorted(names & self.inspector.facts.volumes - set(self.volumes))

    def _images(self) -> list[str]:
        names = {f"larder-{stage}" for stage in (*STAGES, "provision")}
        return sorted(name for name in self.inspector.facts.images if name.rpartition(":")[0] in names)

    def _labelled(self, kind: str, template: str) -> list[str]:
        """Return the volumes or networks of the checkout's projects."""
        lines: dict[str, None] = {}
        for name in self.projects:
            lines |= dict.fromkeys(
                self._docker(kind, "ls", "--filter", f"label={PROJECT_LABEL}={name}", "--format", template)
            )
        return list(lines)

    def _sizes(self) -> dict[str, str]:
        """Return the sizes of volumes and images; empty if the engine takes too long to compute them."""
        output = self._docker("system", "df", "--verbose", "--format", "{{json .}}")
        try:
            usage = json.loads("\n".join(output))
            sizes = {volume["Name"]: volume["Size"] for volume in usage["Volumes"] or ()}
            return {**sizes, **{f"{item['Repository']}:{item['Tag']}": item["Size"] for item in usage["Images"] or ()}}
        except (ValueError, KeyError, TypeError):
            return {}

    def _docker(self, *words: str) -> list[str]:
        if self.inspector.engine.state != "ready":
            return []
        return self.inspector.capture(Call(("docker", *words))).splitlines()


def _describe_user(name: str, folder: str = "") -> str:
    """Return a container's name, with its checkout if larder has started it."""
    path = Path(folder).parent
    return f"{name} (of the checkout {path})" if folder and project.is_checkout(path) else name
