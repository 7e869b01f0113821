"""Find what the engine contains of a checkout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from larder.cli import project
from larder.cli.compose import LAB_SERVICES, SERVERS
from larder.cli.inspector import PROJECT_LABEL, CheckoutInspector
from larder.cli.installed import DATA_KINDS, InstalledItem, describe_volume
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
    "minio": "the objects of the store on this machine",
    "bench_cache": "a cache",
}
"""Content of each volume, by its name in compose files."""


class ForeignUsers(NamedTuple):
    """Containers of others that use a volume or network of larder's."""

    resource: str
    containers: tuple[str, ...]


class DockerItems:
    """What the engine contains of this checkout; nothing if no engine answers.

    Args:
        inspector: The inspector of this machine.
    """

    def __init__(self, inspector: CheckoutInspector) -> None:
        self.inspector = inspector
        services = {*SERVERS, *STAGES, *LAB_SERVICES}
        self.containers = [container for container in inspector.containers() if container.service in services]
        self.networks = self._labelled("network", "{{.Name}}")
        keys = (
            line.split("\t") for line in self._labelled("volume", '{{.Name}}\t{{.Label "com.docker.compose.volume"}}')
        )
        self.volumes = {name: _VOLUMES[key] for name, key in keys if key in _VOLUMES}

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
        for name, what in self.volumes.items():
            yield InstalledItem("volume", name, sizes.get(name, ""), describe_volume(what, contents.get(name)))
        if self.shares_images:
            return
        for name in self._images():
            yield InstalledItem("image", name, sizes.get(name, ""))

    @property
    def shares_images(self) -> bool:
        """Whether another checkout uses the images, too: one with the plain project name, or one with volumes."""
        owner = project.owner_of(self.inspector.environ)
        if owner is not None and owner != self.inspector.root.resolve() and project.is_checkout(owner):
            return True
        label = f'{{{{.Label "{PROJECT_LABEL}"}}}}'
        projects = self._docker("volume", "ls", "--filter", f"label={PROJECT_LABEL}", "--format", label)
        return any(project.is_name(name) and name != self.inspector.project for name in projects)

    def find_foreign_users(self) -> Iterator[ForeignUsers]:
        """Yield the containers of others that use larder's volumes and networks."""
        own_ids = {container.id for container in self.containers}
        for kind, names in (("volume", list(self.volumes)), ("network", self.networks)):
            for name in names:
                output = self._docker(
                    "ps", "--all", "--no-trunc", "--filter", f"{kind}={name}", "--format", "{{.ID}}\t{{.Names}}"
                )
                users = tuple(line.split("\t")[-1] for line in output if line.split("\t")[0] not in own_ids)
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
        return self._docker(
            kind, "ls", "--filter", f"label={PROJECT_LABEL}={self.inspector.project}", "--format", template
        )

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
