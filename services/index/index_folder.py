"""The folder of an index in the bucket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from larder.bucket import BucketPrefix
from larder.contract import INDEX_IN_STORE, META, RUN, Manifest, index_name
from larder.errors import ConfigurationError, InputError, LarderError
from larder.progress import Reporter

LEFT_OUT, REJECTS = f"{META}/left-out.jsonl", f"{META}/rejects.jsonl"
_PROBE = f"{META}/probe"
_MAX_RUN_BYTES = 1 << 20


class IndexFolder:
    """An index's folder, which holds only `_larder/`."""

    def __init__(self, folder: BucketPrefix, force: bool) -> None:
        self.folder, self._force = folder, force
        self.uri = folder.uri

    def find(self) -> Manifest | None:
        """Return the current index's manifest, or None. Raises ConfigurationError if the folder holds other data."""
        try:
            manifest = self.folder.find_manifest()
        except InputError:
            if not self._force:
                raise
            return None
        if manifest is not None and manifest.artifact != "index":
            raise ConfigurationError(
                f"{self.uri} holds {manifest.artifact!r} data, which an index would replace",
                next_step="set S3_PREFIX, or another LARDER_DATASET",
            )
        return manifest

    def require_writable(self) -> None:
        """Check write access before the source is read. Raises ConfigurationError or ServiceError."""
        self.folder.write(_PROBE, b"larder")
        self.folder.delete([_PROBE])

    def drop_uploads(self, reporter: Reporter) -> None:
        """Abort unfinished uploads of a killed run. If the store refuses, only report it."""
        try:
            self.folder.abort_uploads(lambda path: path.startswith(f"{META}/"))
        except LarderError as fault:
            reporter.event("left", f"parts of unfinished uploads may be left behind: {fault.what}")

    def is_complete(self, manifest: Manifest) -> bool:
        """Return whether the store holds the manifest's index, with the length in the manifest."""
        name = f"{META}/{index_name(manifest)}"
        return any((item.path, item.bytes) == (name, manifest.index.bytes) for item in self.folder.list(META))

    def read_record(self, manifest: Manifest) -> dict[str, Any]:
        """Return the record of the run that made the index, or an empty dict if there is none.

        If a run was killed between its record and its manifest, the record belongs to another index and is ignored.
        """
        record = self._read_run()
        return record if record.get("manifest") == manifest.digest() else {}

    def _read_run(self) -> dict[str, Any]:
        try:
            text = self.folder.read(RUN, _MAX_RUN_BYTES)
            record = json.loads(text or b"{}")
        except (InputError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}

    def upload_lists(self, meta: Path) -> None:
        """Upload the lists of rejects and left-out files, and delete those of earlier runs."""
        missing = []
        for path in (LEFT_OUT, REJECTS):
            file = meta.parent / path
            if file.exists():
                self.folder.upload(path, file, "application/x-ndjson")
            else:
                missing.append(path)
        self.folder.delete(missing)

    def commit(self, manifest: Manifest, index: Path, run: dict[str, Any]) -> None:
        """Upload the index, then the manifest, and finally delete the previous index."""
        name = f"{META}/{index_name(manifest)}"
        self.folder.upload(name, index, "application/x-ndjson")
        self.folder.write_manifest(manifest, run | {"manifest": manifest.digest()})
        self.delete_stale(manifest)

    def delete_stale(self, manifest: Manifest) -> None:
        """Delete probes of killed runs, and indexes other than the manifest's."""
        name = f"{META}/{index_name(manifest)}"
        paths = (item.path for item in self.folder.list(META))
        self.folder.delete(
            [path for path in paths if path == _PROBE or (INDEX_IN_STORE.fullmatch(path) and path != name)]
        )
