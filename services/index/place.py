"""The folder in the bucket that an index is put into."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from larder.bucket import Folder
from larder.contract import INDEX_IN_STORE, MANIFEST, META, RUN, Manifest, index_name
from larder.errors import ConfigurationError, InputError

LEFT_OUT, REJECTS = f"{META}/left-out.jsonl", f"{META}/rejects.jsonl"
_PROBE = f"{META}/probe"
_MOST_RUN_BYTES = 1 << 20


class Place:
    """An index's folder: `_larder/` is all that is in it."""

    def __init__(self, folder: Folder, force: bool) -> None:
        self.folder, self._force = folder, force
        self.uri = folder.uri

    def find(self) -> Manifest | None:
        """The manifest of the index that is there. Raises ConfigurationError when something else is there."""
        try:
            found = self.folder.find_manifest()
        except InputError:
            if not self._force:
                raise
            return None
        if found is not None and found.artifact != "index":
            raise ConfigurationError(
                f"{self.uri} holds {found.artifact!r} data, and an index would replace them",
                next_step="set S3_PREFIX, or another LARDER_DATASET",
            )
        return found

    def require_writable(self) -> None:
        """Raise ConfigurationError or ServiceError where the store won't take an index: before all is read for it."""
        self.folder.write(_PROBE, b"larder")
        self.folder.delete([_PROBE])

    def is_whole(self, manifest: Manifest) -> bool:
        """Whether the index that the manifest names is there, by its length."""
        name = f"{META}/{index_name(manifest)}"
        return any((item.path, item.bytes) == (name, manifest.index.bytes) for item in self.folder.list(META))

    def read_run(self) -> dict[str, Any]:
        """What the last run recorded; an empty dict where that can't be read."""
        try:
            text = self.folder.read(RUN, _MOST_RUN_BYTES)
            record = json.loads(text or b"{}")
        except (InputError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}

    def put_lists(self, meta: Path) -> None:
        """Put the lists of rejects and of what is left out, as far as there are any; those of an earlier run go."""
        gone = []
        for path in (LEFT_OUT, REJECTS):
            file = meta.parent / path
            if file.exists():
                self.folder.upload(path, file, "application/x-ndjson")
            else:
                gone.append(path)
        self.folder.delete(gone)

    def commit(self, manifest: Manifest, index: Path, run: dict[str, Any]) -> None:
        """Put the index, then the manifest; an index that was there before goes last."""
        name = f"{META}/{index_name(manifest)}"
        self.folder.upload(name, index, "application/x-ndjson")
        self.folder.write(RUN, (json.dumps(run, indent=2) + "\n").encode(), "application/json")
        self.folder.write(MANIFEST, manifest.to_json().encode(), "application/json")
        self.folder.delete(
            [item.path for item in self.folder.list(META) if INDEX_IN_STORE.fullmatch(item.path) and item.path != name]
        )
