"""One module per kind of source; `open_local` finds the one for a path."""

from __future__ import annotations

from pathlib import Path

from larder.errors import InputError
from larder.sources.folder import FolderSource
from larder.sources.generated import GeneratedSource
from larder.sources.members import BadSourceError, Source

__all__ = ["FolderSource", "GeneratedSource", "absent", "open_local"]

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
    if (archive := _open_archive(path, name, head)) is not None:
        return archive
    raise BadSourceError(
        f"{name} is not an archive that larder reads (zip, tar, tar.gz, tar.zst): it begins with {head[:16]!r}"
        if head else f"{name} is an empty file",
        next_step="check the address or the file: a web page that stands in for a download looks like this, too",
    )  # fmt: skip


def _open_archive(path: Path, name: str, head: bytes) -> Source | None:
    """The archive that begins with `head`, or None when it isn't one. Only the reader for its kind is imported."""
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        from larder.sources.zip import ZipSource

        return ZipSource(path, name)
    if head[257:262] == b"ustar":
        from larder.sources.tar import TarSource

        return TarSource(path, name)
    gzip = head[:2] == b"\x1f\x8b"
    if gzip or head[:4] == b"\x28\xb5\x2f\xfd" or head[1:4] == b"\x2a\x4d\x18":  # a frame of zstd, or one to skip
        from larder.sources.tar_stream import TarStreamSource  # (RFC 8878, 3.1)

        return TarStreamSource(path, name, "gzip" if gzip else "zstd")
    return None


def absent(name: str) -> InputError:
    """The error for a source that isn't there."""
    return InputError(f"{name} does not exist", next_step="set LARDER_SOURCE to a URL, a file, a folder, or `sample`")
