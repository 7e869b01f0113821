"""Read sources, with one module per kind of source. `open_local` opens a local file or folder."""

from __future__ import annotations

from pathlib import Path

from larder.errors import InputError
from larder.sources.archive import HEAD_BYTES, SourceOptions, open_archive
from larder.sources.folder import FolderSource
from larder.sources.generated import GeneratedSource
from larder.sources.limits import SourceLimits, TooLargeError, require_within_limit
from larder.sources.members import Source

__all__ = [
    "FolderSource",
    "GeneratedSource",
    "SourceLimits",
    "SourceOptions",
    "TooLargeError",
    "missing_source_error",
    "open_local",
]

_DEFAULTS = SourceOptions()


def open_local(path: Path, name: str, options: SourceOptions = _DEFAULTS) -> Source:
    """Open a local folder or archive as a source. The kind of archive is detected by content, not by name.

    Args:
        path: The folder or archive.
        name: Name of the source in messages.
        options: How to read the source.

    Raises:
        InputError: If `path` is neither a folder nor a supported archive.
        TooLargeError: If the archive is larger than the limits allow.
    """
    if path.is_dir():
        return FolderSource(path, name, options)
    if not path.is_file():
        raise missing_source_error(name, path)
    archive = open_archive(path, name, options)
    if archive is None:
        from larder.sources.formats import unsupported_format_error

        with path.open("rb") as file:
            raise unsupported_format_error(name, file.read(HEAD_BYTES))
    require_within_limit(path.stat().st_size, name, options.limits)
    if not options.inner:
        return archive
    from larder.sources.inner import InnerArchivesSource

    return InnerArchivesSource(archive, options)


def missing_source_error(name: str, path: Path | None = None) -> InputError:
    """Return the error for a source that doesn't exist, or is neither a file nor a folder."""
    what = "is a device, pipe or socket" if path is not None and path.exists() else "does not exist"
    return InputError(f"{name} {what}", next_step="set LARDER_SOURCE to a URL, a file, a folder, or `sample`")
