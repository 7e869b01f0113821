"""Layouts that only arms of other libraries read: MDS, Parquet, and one tar file. They are made from a tree.

    s3://<bucket>/[<prefix>/]<dataset>-mds/<split>/        MDS shards, by MosaicML Streaming's writer
    s3://<bucket>/[<prefix>/]<dataset>-parquet/<split>/    Parquet files with the columns image and label
    <cache_dir>/<dataset>-tar/<split>/images.tar           one tar file of the images, in the order of the tree's index

Beside them lies the manifest of their tree, written last.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from larder.bench import peer_environments
from larder.bench.arms import ARMS
from larder.bench.peers import find_files
from larder.bench.settings import LoaderSettings
from larder.contract import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from larder.dataset import DEFAULT
from larder.errors import ResourceError
from larder.loaders.image_table import ImageTable
from larder.progress import Reporter

PeerLayout = Literal["mds", "parquet", "tar"]
LAYOUTS: tuple[PeerLayout, ...] = ("mds", "parquet", "tar")
TAR = "images.tar"
_MANIFEST = "tree-manifest.json"
_FILE_BYTES, _ROW_GROUP = 64 << 20, 100
"""Of Parquet files: as large as MDS shards; row groups as datasets itself writes them for images."""


class PeerData(NamedTuple):
    """A layout of a split, and the manifest of the tree that it was made from."""

    where: str
    """Folder or URI."""
    manifest: Manifest | None
    """None if the layout hasn't been made, or not completely."""


def layout_of(arm: str) -> PeerLayout | None:
    """Return the layout that only this arm reads, or None if it reads one that larder's stages make."""
    layout = ARMS[arm].layout
    return layout if layout in LAYOUTS else None


def locate_peer_data(settings: LoaderSettings, layout: PeerLayout) -> PeerData:
    """Return where a layout of the split is.

    Raises:
        ConfigurationError: If the store refuses access.
        InputError: If the manifest is invalid.
        ServiceError: If the store doesn't answer.
    """
    name = f"{settings.dataset or DEFAULT}-{layout}"
    if layout == "tar":
        folder = settings.cache_dir / name / settings.split
        try:
            text: bytes | None = (folder / _MANIFEST).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            text = None
        where = str(folder)
    else:
        from larder.bucket import BucketPrefix

        prefix = BucketPrefix(settings, f"{name}/{settings.split}")
        text, where = prefix.read(_MANIFEST, MAX_MANIFEST_BYTES), prefix.uri
    return PeerData(where, None if text is None else parse_manifest(text, f"{where}/{_MANIFEST}"))


def write_peer_data(settings: LoaderSettings, layout: PeerLayout, reporter: Reporter) -> str:
    """Make a layout of the split from the tree, in place of an earlier one. Return where it is.

    Raises:
        ConfigurationError: If there is no such split, or the store refuses access.
        InputError: If there is no tree.
        ResourceError: If the writer of the library fails.
        ServiceError: If the store doesn't answer.
    """
    tree, manifest, table = find_files(settings, reporter)
    where, _ = locate_peer_data(settings, layout)
    reporter.event("writing", f"writing {len(table):,} images to {where}")
    if layout == "tar":
        _replace_folder(Path(where), tree, table)
        (Path(where) / _MANIFEST).write_text(manifest.to_json())
        return where
    from larder.loaders.bucket_data import open_artifact_prefix

    prefix = open_artifact_prefix(where, settings)
    with tempfile.TemporaryDirectory(prefix="larder-peer-") as name:
        out = Path(name) / "out"
        if layout == "mds":
            _write_mds(tree, settings.split, out)
        else:
            _write_parquet(tree, table, out)
        prefix.delete([_MANIFEST])
        prefix.delete([item.path for item in prefix.list()])
        for path in sorted(out.iterdir()):
            prefix.upload(path.name, path, "application/octet-stream")
    prefix.write(_MANIFEST, manifest.to_json().encode())
    return where


def shuffled(table: ImageTable) -> list[int]:
    """Return the numbers of all images in the order in which layouts hold them: not sorted by class."""
    numbers = list(range(len(table)))
    random.Random(0).shuffle(numbers)
    return numbers


def _replace_folder(folder: Path, tree: Path, table: ImageTable) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tarfile.open(folder / TAR, "w") as archive:
        for number in range(len(table)):
            archive.add(tree / table.path(number), table.path(number))


def _write_mds(tree: Path, split: str, out: Path) -> None:
    python = peer_environments.python_of("mosaicml") or sys.executable
    command = [str(python), "-m", "larder.bench.write_mds", str(tree), split, str(out)]
    done = subprocess.run(command, env=peer_environments.environ(), capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ResourceError(
            f"MosaicML's writer ended with {done.returncode}: {lines[-1] if lines else 'it wrote nothing'}",
            next_step="free disk space in the folder for temporary files (TMPDIR), and run this again",
        )


def _write_parquet(tree: Path, table: ImageTable, out: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), ("label", pa.int64())])
    out.mkdir()
    for number, part in enumerate(_parts(table)):
        contents = [(tree / table.path(at)).read_bytes() for at in part]
        images = [{"bytes": content, "path": table.path(at)} for content, at in zip(contents, part, strict=True)]
        columns = {"image": images, "label": [table.label(at) for at in part]}
        name = out / f"part-{number:05}.parquet"
        parquet.write_table(pa.table(columns, schema), name, row_group_size=_ROW_GROUP, compression="none")


def _parts(table: ImageTable) -> Iterator[list[int]]:
    """Divide the images into files of about _FILE_BYTES, but at least into eight, one for each of a few workers."""
    limit = min(_FILE_BYTES, sum(table.length(number) for number in range(len(table))) // 8 + 1)
    part, length = list[int](), 0
    for number in shuffled(table):
        if length >= limit:
            yield part
            part, length = [], 0
        part.append(number)
        length += table.length(number)
    yield part
