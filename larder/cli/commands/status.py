"""Show volumes, store, mount, JupyterLab and records, and what is out of date."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from larder.cli import local_store, staleness
from larder.cli.app import App
from larder.cli.console import format_bytes, print_result
from larder.cli.inspector import CheckoutInspector
from larder.cli.inventory import ArtifactSummary, Contents
from larder.cli.setting_values import printable
from larder.cli.staleness import UPDATE_COMMANDS, Staleness

_UNKNOWN = Contents(fault="contents and size unknown: reading them needs an image of larder, and there is none")
_ORDER = list(dict.fromkeys(UPDATE_COMMANDS.values()))


def status(app: App, _: Sequence[str]) -> None:
    """Print the status without creating, starting or installing anything."""
    report = StatusReport(CheckoutInspector(app.settings, app.environ))
    for line in report.lines():
        print_result(line)
    for command in report.commands:
        print_result(f"Next: {app.typed_command(command)}")


class StatusReport:
    """Lines of the status; `commands` are those that update what is out of date.

    Args:
        inspector: The inspector of this machine.
    """

    def __init__(self, inspector: CheckoutInspector) -> None:
        self.inspector, self.settings = inspector, inspector.settings
        volumes = inspector.read_volumes()
        self.volumes = {name: contents or _UNKNOWN for name, contents in volumes.items()}
        self.data = self.volumes.get(self.settings.data_volume, Contents())
        self.store: Contents | None = None
        self._commands: set[str] = set()

    @property
    def commands(self) -> list[str]:
        """Commands to run, in the order of the pipeline."""
        return sorted(self._commands, key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))

    def lines(self) -> Iterator[str]:
        """Yield the lines of the report."""
        yield from self._runner_lines()
        yield from self._volume_lines()
        yield from self._store_lines()
        yield from self._mount_lines()
        yield from self._jupyter_lines()
        yield from self._record_lines()

    def _runner_lines(self) -> Iterator[str]:
        engine, name = self.inspector.engine, self.inspector.runner.name
        detail = f", project {self.inspector.project}" if name == "compose" else f", data under {self.settings.home}/"
        if engine.state == "broken" or (name == "compose" and engine.fault):
            detail += f" ({engine.fault})"
        yield f"Runner      {name}{detail}"
        yield f"Dataset     {self.settings.dataset}"

    def _volume_lines(self) -> Iterator[str]:
        settings = self.settings
        absent = [
            name
            for name in (settings.data_volume, settings.wds_volume, settings.lit_volume)
            if name not in self.volumes
        ]
        for name, contents in self.volumes.items():
            own = contents if name == settings.demo_volume else self.data
            yield f"Volume      {name}: {_total(contents)}"
            yield from (
                self._artifact_line(artifact, staleness.check_local(artifact, own)) for artifact in contents.artifacts
            )
            yield from (
                f"              {printable(work)}: unfinished; the same command resumes it"
                for work in contents.unfinished
            )
        if absent:
            yield f"No volume   {', '.join(absent)}"

    def _artifact_line(self, artifact: ArtifactSummary, state: Staleness) -> str:
        if state.command:
            self._commands.add(state.command)
        size = f"{artifact.kind}, {artifact.files:,} files, {format_bytes(artifact.bytes)}" if artifact.kind else ""
        digest = f"manifest {artifact.digest[:12]}" if artifact.digest else ""
        return f"              {printable(artifact.name)}: {'; '.join(filter(None, (size, digest, state.text)))}"

    def _store_lines(self) -> Iterator[str]:
        inspector, settings = self.inspector, self.settings
        if settings.store:
            location = local_store.endpoint_of(settings) or "AWS"
            location += f", bucket {settings.get('S3_BUCKET') or settings.get('RCLONE_CONTAINER') or 'not set'}"
            is_own = False
        elif inspector.has_store():
            location, is_own = f"on this machine, keys in {local_store.find_store_file(settings)}", True
        else:
            yield "Store       none (s3-up starts one on this machine)"
            return
        if is_own and not inspector.is_store_running():
            yield f"Store       {location}: stopped; contents unknown"
            return
        if link := inspector.find_store_link():
            location += f", through {link.describe()}"
        self.store = inspector.read_bucket()
        fault = "contents unknown" if self.store is None else printable(self.store.fault)
        yield f"Store       {printable(location)}{f': {fault}' if fault else ''}"
        if self.store is None or fault:
            return
        packs = Contents(
            tuple(
                artifact
                for name, contents in self.volumes.items()
                if name != settings.demo_volume
                for artifact in contents.artifacts
            )
        )
        for artifact in self.store.artifacts:
            yield self._artifact_line(artifact, staleness.check_stored(artifact, self.data, packs))
        if not self.store.artifacts:
            yield f"              nothing of {settings.dataset}"

    def _mount_lines(self) -> Iterator[str]:
        points = self.inspector.mount_points()
        yield from (f"Mount       {printable(point)}" for point in points)
        if not points:
            yield f"Mount       nothing in {self.settings.mount_dir}"

    def _jupyter_lines(self) -> Iterator[str]:
        port = self.inspector.jupyter_port()
        yield f"JupyterLab  {f'runs on port {port} (jupyter-url prints its address)' if port else 'not running'}"

    def _record_lines(self) -> Iterator[str]:
        local = Contents(
            tuple(artifact for contents in self.volumes.values() for artifact in contents.artifacts),
            fault=next((contents.fault for contents in self.volumes.values() if contents.fault), ""),
        )
        newest = newest_records(self.inspector.root / self.settings.results)
        total = sum(count for count, _, _ in newest.values())
        compared = len(list((self.inspector.root / self.settings.results).glob("compare-*.json")))
        comparisons = f", and {compared} of comparisons" if compared else ""
        yield f"Records     {total}{comparisons} in {self.settings.results}/"
        for arm, (count, record, when) in sorted(newest.items()):
            digest = str(record["dataset"]["manifest_sha256"])
            state = staleness.check_record(arm, digest, local, self.store)
            if state.command and self.data.artifacts:
                self._commands.add(state.command)
            day = time.strftime("%Y-%m-%d %H:%M", time.localtime(when))
            ending = f"; {state.text}" if state.text else ""
            yield f"              {printable(arm)}: {count}, the newest of {day}{ending}"


def newest_records(folder: Path) -> dict[str, tuple[int, dict[str, Any], float]]:
    """Return, by arm, the number of records, the newest, and its time."""
    records: dict[str, tuple[int, dict[str, Any], float]] = {}
    for path in folder.glob("*.json"):
        try:
            record, when = json.loads(path.read_bytes()), path.stat().st_mtime
            arm = str(record["arm"])
            _ = record["dataset"]["manifest_sha256"]
        except (OSError, ValueError, KeyError, TypeError):  # not a record
            continue
        count, newest, latest = records.get(arm, (0, record, when))
        records[arm] = (count + 1, *((record, when) if when >= latest else (newest, latest)))
    return records


def _total(contents: Contents) -> str:
    """Return the formatted size of a volume. A tree's hard links to the raw data beside it are not counted again."""
    if contents.fault:
        return contents.fault
    linked = bool(contents.of_kind("raw"))
    total = sum(artifact.bytes for artifact in contents.artifacts if not (linked and artifact.kind == "tree"))
    return format_bytes(total) if contents.artifacts else "no finished data"
