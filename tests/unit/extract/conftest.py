"""Parquet files as `datasets` writes them, and runs of extract in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from larder.progress import Reporter
from larder.stage import StageOutcome
from services.extract.extract import extract
from services.extract.settings import ExtractSettings
from tests.parquet import IMAGE, features

Row = tuple[bytes | None, Any]


class Write:
    """Writes Parquet files of rows, image and label: `write("data/train-00000-of-00001.parquet", rows)`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        name: str,
        rows: Sequence[Row],
        names: Sequence[str] | None = ("cat", "dog"),
        group: int = 3,
        label: pa.DataType | None = None,
    ) -> Path:
        """Write rows, with `group` of them in a row group."""
        images = pa.array([None if data is None else {"bytes": data, "path": "x.jpg"} for data, _ in rows], IMAGE)
        table = pa.table({"image": images, "label": pa.array([value for _, value in rows], label or pa.int64())})
        return self.table(name, table.replace_schema_metadata(features(names) if names else None), group)

    def table(self, name: str, table: pa.Table, group: int = 3) -> Path:
        """Write a table."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=group)
        return path


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes Parquet files into a folder, `set`."""
    return Write(tmp_path / "set")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., StageOutcome]:
    """Runs extract on a source in this process, with further settings."""

    def run(source: str | Path, **settings: Any) -> StageOutcome:
        volume = tmp_path / "volume"
        volume.mkdir(exist_ok=True)
        given = {"source": str(source), "volume": volume, "workers": 1, **settings}
        return extract(ExtractSettings.model_validate(given, by_name=True), Reporter("extract", "line"))

    return run


@pytest.fixture
def raw(tmp_path: Path) -> Callable[[], dict[str, bytes]]:
    """The files of raw/, without `_larder/`."""

    def read() -> dict[str, bytes]:
        folder = tmp_path / "volume" / "raw"
        paths = (path for path in folder.rglob("*") if path.is_file())
        contents = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
        return {name: content for name, content in contents.items() if not name.startswith("_larder/")}

    return read
