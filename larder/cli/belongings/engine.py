"""What the engine holds of a checkout."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from larder.cli import project
from larder.cli.belongings import DATA, Thing, note_of
from larder.cli.compose import SERVERS
from larder.cli.pipelines import STAGES
from larder.cli.process import Call
from larder.cli.survey import PROJECT_LABEL, Survey

_VOLUMES = {"baseline": "data", "wds_out": "shards", "lit_out": "chunks", "shard": "shards", "optimize": "chunks",
            "index": "data", "verify": "data",
            "minio": "the objects of the store on this machine", "bench_cache": "a cache"}  # fmt: skip
"""Compose's names of the volumes, and what is in them."""


class Users(NamedTuple):
    """Somebody else's containers that use something of larder's."""

    thing: str
    containers: tuple[str, ...]


class InEngine:
    """What the engine holds of this checkout. Empty where no engine answers.

    Args:
        survey: Who looks.
    """

    def __init__(self, survey: Survey) -> None:
        self.survey = survey
        services = {*SERVERS, *STAGES}
        self.containers = [found for found in survey.containers() if found.service in services]
        self.networks = self._labelled("network", "{{.Name}}")
        keys = (line.split("\t") for line in self._labelled(
            "volume", '{{.Name}}\t{{.Label "com.docker.compose.volume"}}'
        ))  # fmt: skip
        self.volumes = {name: _VOLUMES[key] for name, key in keys if key in _VOLUMES}

    def things(self) -> Iterator[Thing]:
        """Yield all of it, in the order of removal."""
        if self.survey.engine.state != "ready":
            return
        sizes = self._sizes()
        for found in self.containers:
            yield Thing("container", found.name, "", found.state)
        for name in self.networks:
            yield Thing("network", name)
        holdings = self.survey.look_into([name for name, what in self.volumes.items() if what in DATA])
        for name, what in self.volumes.items():
            yield Thing("volume", name, sizes.get(name, ""), note_of(what, holdings.get(name)))
        if self.shares_images:
            return
        for name in self._images():
            yield Thing("image", name, sizes.get(name, ""))

    @property
    def shares_images(self) -> bool:
        """Whether images are another checkout's, too: the one that has the plain project name, or one with volumes."""
        owner = project.owner_of(self.survey.environ)
        if owner is not None and owner != self.survey.root.resolve() and project.is_checkout(owner):
            return True
        label = f'{{{{.Label "{PROJECT_LABEL}"}}}}'
        projects = self._docker("volume", "ls", "--filter", f"label={PROJECT_LABEL}", "--format", label)
        return any(project.is_name(name) and name != self.survey.project for name in projects)

    def users(self) -> Iterator[Users]:
        """Yield the containers of others that use volumes and networks."""
        ours = {found.id for found in self.containers}
        for kind, names in (("volume", list(self.volumes)), ("network", self.networks)):
            for name in names:
                said = self._docker("ps", "--all", "--no-trunc", "--filter", f"{kind}={name}",
                                    "--format", "{{.ID}}\t{{.Names}}")  # fmt: skip
                others = tuple(line.split("\t")[-1] for line in said if line.split("\t")[0] not in ours)
                if others:
                    yield Users(name, others)

    def foreign_volumes(self) -> list[str]:
        """Return volumes with the names of ours that another project, or nobody known, has made."""
        settings = self.survey.settings
        names = {settings.data_volume, settings.wds_volume, settings.lit_volume, settings.demo_volume}
        return sorted(names & self.survey.facts.volumes - set(self.volumes))

    def _images(self) -> list[str]:
        wanted = {f"larder-{stage}" for stage in STAGES}
        return sorted(name for name in self.survey.facts.images if name.rpartition(":")[0] in wanted)

    def _labelled(self, kind: str, form: str) -> list[str]:
        return self._docker(kind, "ls", "--filter", f"label={PROJECT_LABEL}={self.survey.project}", "--format", form)

    def _sizes(self) -> dict[str, str]:
        """Return the sizes of volumes and images. The engine adds up files, and may take longer than we wait."""
        said = self._docker("system", "df", "--verbose", "--format", "{{json .}}")
        try:
            found = json.loads("\n".join(said))
            sizes = {volume["Name"]: volume["Size"] for volume in found["Volumes"] or ()}
            return {**sizes, **{f"{item['Repository']}:{item['Tag']}": item["Size"] for item in found["Images"] or ()}}
        except (ValueError, KeyError, TypeError):
            return {}

    def _docker(self, *words: str) -> list[str]:
        if self.survey.engine.state != "ready":
            return []
        return self.survey.output(Call(("docker", *words))).splitlines()
