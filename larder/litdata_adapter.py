"""Adapt LitData 0.2.76: all places where larder overrides or replaces what LitData doesn't document.

Each says which behaviour it works around, and names the upstream issue; "no issue known" means that none was found.
Issue numbers are those of https://github.com/Lightning-AI/litData unless another project is named. After an update of
litdata, check each place, and drop those that aren't needed any more.

Importing this module imports litdata and torch, which takes seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any, Protocol

from filelock import FileLock, Timeout
from litdata.streaming import async_prefetch, downloader, item_loader, reader
from litdata.streaming.writer import BinaryWriter


class FetchObserver(Protocol):
    """What a dataset does around each fetch of a chunk."""

    def fetching(self, uri: str, file: str) -> AbstractContextManager[None]:
        """Surround the fetch of `uri` into `file`: it may refuse it, and translate its errors."""

    def check(self, file: str, uri: str, expected_bytes: int) -> None:
        """Check a fetched file before readers see it. `expected_bytes` is 0 if LitData's index doesn't list it."""


def patch_litdata(observer: FetchObserver, client_options: dict[str, Any], prefetch_chunks: int | None) -> None:
    """Apply all patches that reading needs, in this process and its forks.

    Args:
        observer: Checks each fetched chunk, and translates errors.
        client_options: Options for obstore's HTTP client.
        prefetch_chunks: Chunks that each worker prefetches; None leaves it to LitData.
    """
    _observe_fetches(observer)
    set_client_options(client_options)
    if prefetch_chunks is not None:
        _set_prefetch_chunks(prefetch_chunks)
    _silence_crash_reports()
    reader.close_thread_event_loop = close_loop


def _observe_fetches(observer: FetchObserver) -> None:
    """Register a downloader that checks chunks before they are published.

    LitData's readers wait until a chunk has the length in the index (#393). A chunk that is shorter in the store, or
    missing, makes all workers wait forever: LitData takes "not found" for "another worker is fetching it" (no issue
    known).
    """

    class ObservedDownloader(downloader.S3Downloader):  # type: ignore[misc]  # litdata has no types
        async def adownload_file(self, remote_filepath: str, local_filepath: str) -> None:
            with observer.fetching(remote_filepath, local_filepath):
                await super().adownload_file(remote_filepath, local_filepath)

        def download_file(self, remote_filepath: str, local_filepath: str) -> None:
            with observer.fetching(remote_filepath, local_filepath):
                super().download_file(remote_filepath, local_filepath)
                with suppress(Timeout), FileLock(f"{local_filepath}.lock", timeout=0):
                    if not os.path.exists(local_filepath):
                        raise FileNotFoundError(remote_filepath)

        def _publish_file(self, tmp_path: str, local_filepath: str) -> None:
            expected = downloader._indexed_object_bytes(self._chunks, local_filepath)
            observer.check(tmp_path, f"{self._remote_dir}/{os.path.basename(local_filepath)}", expected)
            super()._publish_file(tmp_path, local_filepath)

    downloader.register_downloader("s3://", ObservedDownloader, overwrite=True)


def set_client_options(options: dict[str, Any]) -> None:
    """Set options of obstore's client. LitData has no argument for them, and obstore's defaults refuse plain http.

    Passing any client option drops `allow_http` from the store's own configuration (developmentseed/obstore#159).
    """
    downloader._OBSTORE_CLIENT_OPTIONS.update(options)


def _set_prefetch_chunks(number: int) -> None:
    """Fix the number of chunks that a worker prefetches.

    `max_pre_download` became an argument with #321; for remote chunks LitData overrides it with its own choice, nearly
    always 32, which may exceed the cache (no issue known).
    """
    reader.adaptive_pre_download = lambda *_, **__: number


def _silence_crash_reports() -> None:
    """Print no tracebacks from LitData's fetching thread and asyncio: the reader raises the same error.

    LitData prints them on purpose, for readers that would hide the error (no issue known).
    """
    reader.PrepareChunksThread._report_crash = lambda *_: None
    for name in ("litdata", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def close_loop() -> None:
    """Cancel pending fetches, then let LitData close the loop of this thread.

    LitData closes the loop under them, and obstore's threads print a traceback for each (no issue known).
    """
    loop = getattr(async_prefetch._THREAD_LOOPS, "loop", None)
    if loop is not None:
        # An obstore thread that checked for cancellation just before may report to the closed loop. LitData's own
        # cancellations have the same race.
        loop.call_soon_threadsafe = partial(_call_unless_closed, loop.call_soon_threadsafe)
    if loop is not None and (pending := asyncio.all_tasks(loop)):
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
    async_prefetch.close_thread_event_loop()


def _call_unless_closed(call_soon: Callable[..., Any], *args: Any, **options: Any) -> None:
    with suppress(RuntimeError):  # raised if the loop is closed, and only then
        call_soon(*args, **options)


class PyTreeLoader(item_loader.PyTreeLoader):  # type: ignore[misc]
    """LitData's PyTreeLoader, restricted to plain chunks; its index requires this class name.

    LitData treats a chunk as compressed or as Arrow if bytes in the chunk say so, whatever the index says (no issue
    known).
    """

    def _resolve_framed_header(self, *_: Any) -> None:
        return None

    def _try_arrow_footer_rows(self, *_: Any) -> Any:
        return item_loader._BATCH_SKIP


class _MemoryWriter(BinaryWriter):  # type: ignore[misc]
    """Keeps chunks in memory, and makes them independent of pyarrow.

    LitData writes chunks to files only, and writes samples as Arrow rows if pyarrow is installed (no issue known).
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.written: list[bytes] = []

    def _create_chunk(self, on_done: bool = False) -> tuple[bytes, bool, dict[str, Any]]:
        for item in self._serialized_items.values():
            item.sample = None  # the Arrow row
        chunk: tuple[bytes, bool, dict[str, Any]] = super()._create_chunk(on_done)
        return chunk

    def write_chunk_to_file(self, raw_data: bytes, filename: str, compress: bool | None = None) -> None:
        self.written.append(raw_data)


def write_chunk(chunk_bytes: int, samples: Iterable[tuple[bytes, int]]) -> tuple[bytes, dict[str, Any]]:
    """Write samples with LitData's writer.

    Args:
        chunk_bytes: Maximum size of a chunk. All samples must fit into one.
        samples: Images and labels.

    Returns:
        The chunk's bytes, and the writer's configuration for LitData's index.
    """
    with tempfile.TemporaryDirectory(prefix="larder-") as folder:  # the writer needs a folder for its own index
        writer = _MemoryWriter(folder, chunk_bytes=chunk_bytes)
        for number, (image, label) in enumerate(samples):
            writer.add_item(number, {"image": image, "label": label})
        writer.done()
    [data] = writer.written
    return data, writer.get_config()
