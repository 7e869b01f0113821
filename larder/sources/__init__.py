"""One module per kind of source; `open_local` finds the one for a path."""

from __future__ import annotations

from pathlib import Path

from larder.errors import InputError
from larder.sources.folder import FolderSource
from larder.sources.generated import GeneratedSource
from larder.sources.members import BadSourceError, Source
from larder.sources.tar import TarSource
from larder.sources.tar_stream import TarStreamSource
from larder.sources.zip import ZipSource

__all__ = ["FolderSource", "GeneratedSource", "TarSource", "TarStreamSource", "ZipSource", "absent", "open_local"]

_MAGIC_BYTES = 512


def open_local(path: Path, name: str) -> Source:
    """The source for a local folder or archive, told by its content, not its name.

    `name` is what people are shown. Raises InputError when it is neither.
    """
    if path.is_dir():
        return FolderSource(path, name)
    if not path.is_file():
        raise absent(name)
    with path.open("rb") as file:
        head = file.read(_MAGIC_BYTES)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return ZipSource(path, name)
    if head[257:262] == b"ustar":
        return TarSource(path, name)
    if head[:2] == b"\x1f\x8b":
        return TarStreamSource(path, name, "gzip")
    if head[:4] == b"\x28\xb5\x2f\xfd" or head[1:4] == b"\x2a\x4d\x18":  # a frame, or one to skip: RFC 8878, 3.1
        return TarStreamSource(path, name, "zstd")
    raise BadSourceError(
        f"{name} is not an archive that larder reads (zip, tar, tar.gz, tar.zst): it begins with {head[:16]!r}"
        if head else f"{name} is an empty file",
        next_step="check the address or the file: a web page that stands in for a download looks like this, too",
    )  # fmt: skip


def absent(name: str) -> InputError:
    """The error for a source that isn't there."""
    return InputError(f"{name} does not exist", next_step="set LARDER_SOURCE to a URL, a file, a folder, or `sample`")
