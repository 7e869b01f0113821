"""One module per kind of source; `open_local` finds the one for a path."""

from __future__ import annotations

from pathlib import Path

from larder.errors import InputError
from larder.sources.archive import HEAD_BYTES, Options, open_archive
from larder.sources.folder import FolderSource
from larder.sources.generated import GeneratedSource
from larder.sources.limits import Limits, TooLargeError, require_length
from larder.sources.members import Source

__all__ = ["FolderSource", "GeneratedSource", "Limits", "Options", "TooLargeError", "absent", "open_local"]

_DEFAULTS = Options()


def open_local(path: Path, name: str, options: Options = _DEFAULTS) -> Source:
    """The source for a local folder or archive, told by its content, not its name.

    `name` is what people are shown. Raises InputError when it is neither, or an archive larger than may be read.
    """
    if path.is_dir():
        return FolderSource(path, name, options)
    if not path.is_file():
        raise absent(name)
    archive = open_archive(path, name, options)
    if archive is None:
        from larder.sources.formats import no_archive

        with path.open("rb") as file:
            raise no_archive(name, file.read(HEAD_BYTES))
    require_length(path.stat().st_size, name, options.limits)
    if not options.inner:
        return archive
    from larder.sources.inner import WithInner

    return WithInner(archive, options)


def absent(name: str) -> InputError:
    """The error for a source that isn't there."""
    return InputError(f"{name} does not exist", next_step="set LARDER_SOURCE to a URL, a file, a folder, or `sample`")
