"""Read the samples of shards in larder's index."""

from __future__ import annotations

from collections.abc import Callable

from larder.contract import Manifest
from larder.errors import ConfigurationError, InputError
from larder.loaders.hints import CREATE_AGAIN
from larder.progress import Reporter
from larder.stream.index_parser import IndexParser
from larder.stream.samples import SampleTable
from larder.stream.shard_folders import ShardFolder


def read_index(folder: ShardFolder, manifest: Manifest, split: str, reporter: Reporter) -> SampleTable:
    """Return the samples of a split, from the index that a manifest names.

    Args:
        folder: The folder of all splits.
        manifest: Its manifest.
        split: The split, such as "training".
        reporter: Receives progress.

    Raises:
        InputError: If the index isn't the manifest's, or is inconsistent.
        ConfigurationError: If the manifest has no such split.
    """
    if split not in manifest.splits:
        raise ConfigurationError(
            f"{folder.uri} has no split {split!r}",
            next_step=f"name one of: {', '.join(sorted(manifest.splits)[:10])}",
        )
    samples = manifest.splits[split].samples
    with reporter.task("reading the index of samples", samples, "samples") as task:
        parser: IndexParser | None = None

        def begin(name: str) -> Callable[[bytes], object]:
            nonlocal parser
            parser = IndexParser(split, len(manifest.classes), folder.uri, name, task.advance)
            return parser.feed

        folder.feed_samples(manifest, begin)
        if parser is None:
            raise InputError(f"the index of samples of {folder.uri} is empty", next_step=CREATE_AGAIN)
        table = parser.finish()
    if len(table) != samples:
        raise InputError(
            f"the index of samples of {folder.uri} has {len(table):,} samples in {split!r}, its manifest {samples:,}",
            next_step=CREATE_AGAIN,
        )
    return table
