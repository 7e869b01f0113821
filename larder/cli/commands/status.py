"""Shows what is there: volumes, store, mount, JupyterLab, records, and what is out of date."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from larder.cli import staleness
from larder.cli.app import App
from larder.cli.console import in_units, tell
from larder.cli.inventory import Artifact, Holding
from larder.cli.settings import shown
from larder.cli.staleness import COMMANDS, State
from larder.cli.survey import Survey

_UNKNOWN = Holding(fault="contents and size unknown, since no image of larder is here to look with")
_ORDER = list(dict.fromkeys(COMMANDS.values()))


def status(app: App, _: Sequence[str]) -> None:
    """Print it. Nothing is made, started or installed."""
    report = Report(Survey(app.settings, app.environ))
    for line in report.lines():
        tell(line)
    for command in report.commands:
        tell(f"Next: {app.name(command)}")


class Report:
    """The lines to print, and in `commands` what brings up to date what is not.

    Args:
        survey: Who looks.
    """

    def __init__(self, survey: Survey) -> None:
        self.survey, self.settings = survey, survey.settings
        found = survey.volumes()
        self.volumes = {name: holding or _UNKNOWN for name, holding in found.items()}
        self.data = self.volumes.get(self.settings.data_volume, Holding())
        self.store: Holding | None = None
        self._commands: set[str] = set()

    @property
    def commands(self) -> list[str]:
        """The commands to run, in the order of the pipeline."""
        return sorted(self._commands, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))

    def lines(self) -> Iterator[str]:
        """Yield all lines."""
        yield from self._of_runner()
        yield from self._of_volumes()
        yield from self._of_store()
        yield from self._of_mount()
        yield from self._of_lab()
        yield from self._of_records()

    def _of_runner(self) -> Iterator[str]:
        engine, name = self.survey.engine, self.survey.runner.name
        why = f", project {self.survey.project}" if name == "compose" else f", data under {self.settings.home}/"
        if engine.state == "broken" or (name == "compose" and engine.fault):
            why += f" ({engine.fault})"
        yield f"Runner      {name}{why}"
        yield f"Data set    {self.settings.dataset}"

    def _of_volumes(self) -> Iterator[str]:
        settings = self.settings
        absent = [name for name in (settings.data_volume, settings.wds_volume, settings.lit_volume)
                  if name not in self.volumes]  # fmt: skip
        for name, holding in self.volumes.items():
            own = holding if name == settings.demo_volume else self.data
            yield f"Volume      {name}: {_total(holding)}"
            yield from (self._of_artifact(artifact, staleness.of_local(artifact, own))
                        for artifact in holding.artifacts)  # fmt: skip
            yield from (f"              {shown(work)}: unfinished; the same command resumes it"
                        for work in holding.unfinished)  # fmt: skip
        if absent:
            yield f"No volume   {', '.join(absent)}"

    def _of_artifact(self, artifact: Artifact, state: State) -> str:
        if state.command:
            self._commands.add(state.command)
        size = f"{artifact.kind}, {artifact.files:,} files, {in_units(artifact.bytes)}" if artifact.kind else ""
        digest = f"manifest {artifact.digest[:12]}" if artifact.digest else ""
        return f"              {shown(artifact.name)}: {'; '.join(filter(None, (size, digest, state.text)))}"

    def _of_store(self) -> Iterator[str]:
        survey, settings = self.survey, self.settings
        if settings.store:
            place = settings.get("S3_ENDPOINT_URL", "AWS")
            place += f", bucket {settings.get('S3_BUCKET') or settings.get('RCLONE_CONTAINER') or 'not set'}"
            ours = False
        elif survey.has_store():
            place, ours = f"on this machine, keys in {settings.store_file}", True
        else:
            yield "Store       none (s3-up starts one on this machine)"
            return
        if ours and not survey.store_runs():
            yield f"Store       {place}: stopped; what it holds is unknown"
            return
        self.store = survey.stored()
        fault = "unknown what it holds" if self.store is None else shown(self.store.fault)
        yield f"Store       {shown(place)}{f': {fault}' if fault else ''}"
        if self.store is None or fault:
            return
        packs = Holding(tuple(artifact for name, holding in self.volumes.items() if name != settings.demo_volume
                              for artifact in holding.artifacts))  # fmt: skip
        for artifact in self.store.artifacts:
            yield self._of_artifact(artifact, staleness.of_stored(artifact, self.data, packs))
        if not self.store.artifacts:
            yield f"              nothing of {settings.dataset}"

    def _of_mount(self) -> Iterator[str]:
        points = self.survey.mounted()
        yield from (f"Mount       {shown(point)}" for point in points)
        if not points:
            yield f"Mount       nothing in {self.settings.mount_dir}"

    def _of_lab(self) -> Iterator[str]:
        port = self.survey.lab_port()
        yield f"JupyterLab  {f'runs on port {port} (jupyter-url prints its address)' if port else 'not running'}"

    def _of_records(self) -> Iterator[str]:
        newest = newest_records(self.survey.root / self.settings.results)
        total = sum(count for count, _, _ in newest.values())
        yield f"Records     {total} in {self.settings.results}/"
        for arm, (count, record, when) in sorted(newest.items()):
            digest = str(record["dataset"]["manifest_sha256"])
            state = staleness.of_record(arm, digest, self.data, self.store)
            day = time.strftime("%Y-%m-%d %H:%M", time.localtime(when))
            yield f"              {shown(arm)}: {count}, the newest of {day}{f'; {state.text}' if state.text else ''}"


def newest_records(folder: Path) -> dict[str, tuple[int, dict[str, Any], float]]:
    """Return for each arm the number of its records, the newest, and when that was written."""
    found: dict[str, tuple[int, dict[str, Any], float]] = {}
    for path in folder.glob("*.json"):
        try:
            record, when = json.loads(path.read_bytes()), path.stat().st_mtime
            arm = str(record["arm"])
            _ = record["dataset"]["manifest_sha256"]
        except (OSError, ValueError, KeyError, TypeError):  # a file of somebody else's
            continue
        count, newest, latest = found.get(arm, (0, record, when))
        found[arm] = (count + 1, *((record, when) if when >= latest else (newest, latest)))
    return found


def _total(holding: Holding) -> str:
    """Return a volume's size. A tree's files are links to those of the raw data beside it."""
    if holding.fault:
        return holding.fault
    linked = bool(holding.of_kind("raw"))
    total = sum(artifact.bytes for artifact in holding.artifacts if not (linked and artifact.kind == "tree"))
    return in_units(total) if holding.artifacts else "no finished data"
