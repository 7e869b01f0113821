"""Identify a file that isn't a supported archive by its first bytes, and say what the user can do."""

from __future__ import annotations

import re
from typing import NamedTuple

from larder.sources.members import BadSourceError

HEAD_BYTES = 512
SUPPORTED_ARCHIVES = "zip, tar, and tar compressed with gzip, bzip2, xz or zstd"
"""The supported archives, for messages."""


class FileFormat(NamedTuple):
    """Name of a format, with its article, and the next step."""

    name: str
    next_step: str


_UNPACK = "unpack it{}, and give the folder as LARDER_SOURCE"
_7ZIP = _UNPACK.format(" with 7-Zip (`7z x`)")
_PAGE = "open the address in a browser: it may ask to log in or to confirm; give the link of the file itself"
_ADDRESS = "check the address: the server may have sent an error instead of the file"
_FOLDER = "give the folder that holds the images, or an archive of it, as LARDER_SOURCE"
_DOWNLOAD = "get the file again: its download was not completed"
_TABLE = "unpack its images into a folder per class, or give a folder or archive of images"

_DECOMPRESS = {"gzip": "`gunzip`", "bzip2": "`bunzip2`", "xz": "`unxz`", "zstd": "`unzstd`"}

_TEXT_START = rb"(?:\xef\xbb\xbf)?\s*"

_FORMATS: list[tuple[bytes, str, str]] = [
    # archives
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _7ZIP),
    (rb"Rar!\x1a\x07", "a RAR archive", _UNPACK.format(" with `unrar x` or 7-Zip")),
    (rb"07070[127]|\xc7\x71|\x71\xc7", "a cpio archive", _UNPACK.format(" with `cpio -id`")),
    (rb"!<arch>\n", "an ar archive or Debian package", _UNPACK.format(" with `ar x`")),
    (rb"MSCF\0", "a Windows cabinet", _7ZIP),
    (rb"PK\x07\x08|PK00PK|PK\x01\x02", "a part of a zip archive", "get all parts and join them with `zip -s 0`"),
    (rb"xar!", "a xar archive", _7ZIP),
    (rb"LZIP", "a file compressed with lzip", _UNPACK.format(" with `lzip -d` and `tar -x`")),
    (rb"\x04\x22\x4d\x18|\x02\x21\x4c\x18", "a file in LZ4", _UNPACK.format(" with `lz4 -d` and `tar -x`")),
    (rb"\x1f[\x9d\xa0]", "a file compressed with compress (.Z)", _UNPACK.format(" with `tar -xZ`")),
    (rb"\x89LZO\0", "a file compressed with lzop", _UNPACK.format(" with `lzop -d` and `tar -x`")),
    (rb"\xff\x06\x00\x00sNaPpY", "a file compressed with Snappy", _UNPACK.format("")),
    (rb"hsqs|sqsh", "a SquashFS image", _UNPACK.format(" with `unsquashfs`")),
    (rb".{257}ustar", "a damaged tar archive", "get the file again"),
    # pointers to data, and what servers send instead of a file
    (rb"version https://git-lfs\.github\.com/spec/", "a Git LFS pointer, not the file", "run `git lfs pull`"),
    (rb"/annex/objects/", "a git-annex pointer, not the file", "run `git annex get`"),
    (rb"(?:outs|md5):[\s\S]*(?:md5|path|outs):", "a DVC pointer, not the data", "run `dvc pull`"),
    (_TEXT_START + rb"(?i:<!doctype html|<html|<head|<script)", "an HTML page", _PAGE),
    (_TEXT_START + rb"<\?xml[\s\S]*<Error", "a store's error message (XML)", _ADDRESS),
    (_TEXT_START + rb"<(?:\?xml|[A-Za-z])", "an XML or HTML document", _PAGE),
    (_TEXT_START + rb"[{\[]\s*[\"{\[\d}\]]", "a JSON document", _ADDRESS),
    (rb"\[InternetShortcut\]", "a link to a web page", "give the address that it holds"),
    (rb"d8:announce|d13:announce", "a torrent file", "download what it names, and give that"),
    # tables and tensors
    (rb"PAR1", "a Parquet file", _TABLE),
    (rb"ARROW1|\xff\xff\xff\xff.{4}\x10\0", "an Arrow file", _TABLE),
    (rb"\x89HDF\r\n", "an HDF5 file", _TABLE),
    (rb"\x93NUMPY", "a NumPy array", _TABLE),
    (rb"MATLAB 5\.0", "a MATLAB file", _TABLE),
    (rb"SQLite format 3\0", "an SQLite database", _TABLE),
    (rb"\x80[\x02-\x05][\x95}\]c(q]", "a Python pickle", _TABLE + "; pickles run code and are never opened"),
    (rb"\0\0[\x08\x09\x0b-\x0e][\x01-\x04]\0\0", "an IDX file, as MNIST has them", _TABLE),
    # single files
    (rb"%PDF-", "a PDF document", "give the archive or folder of images that it belongs to"),
    (rb"\xff\xd8\xff", "a JPEG image", _FOLDER),
    (rb"\x89PNG\r\n", "a PNG image", _FOLDER),
    (rb"GIF8[79]a", "a GIF image", _FOLDER),
    (rb"RIFF....WEBP", "a WebP image", _FOLDER),
    (rb"II\x2a\0|MM\0\x2a", "a TIFF image", _FOLDER),
    (rb"BM.{8}\0\0", "a BMP image", _FOLDER),
    (rb"....ftyp", "a video or HEIF image", _FOLDER),
    (rb"MZ", "a Windows program without an archive in it", _7ZIP),
    (rb"\x7fELF", "a Linux program", "check the address or the file"),
    (rb"#!", "a script", "if it is an installer that you trust, run it and give the folder that it creates"),
    (rb"\0{512}", "zeros at its beginning", _DOWNLOAD + "; a disk image (ISO, DMG) can be unpacked with 7-Zip"),
    (rb".{16}\xde\xc0\xef\xbe", "an LMDB database", _TABLE),
    (rb"\x0a\x23\xd7\xce", "a RecordIO file, as MXNet writes it", _TABLE),
    (rb"(?!\0{4}).{4}\0{4}.{4}\x0a", "a TFRecord file, as TensorFlow writes it", _TABLE),
    (rb"[\t\n\r\x20-\x7e]+\Z", "a text file", "check the address or the file; give an archive or a folder of images"),
]
"""Pattern of the first bytes, name of the format, and next step. The first match counts."""
_COMPILED = [(re.compile(pattern, re.DOTALL), FileFormat(name, next_step)) for pattern, name, next_step in _FORMATS]

ZIP_METHODS = {
    9: "Deflate64",
    12: "bzip2",
    14: "LZMA",
    20: "zstd",
    93: "zstd",
    95: "xz",
    1: "Shrink",
    2: "Reduce",
    3: "Reduce",
    4: "Reduce",
    5: "Reduce",
    6: "Implode",
    7: "Tokenize",
    10: "PKWARE's Implode",
    16: "IBM CMPSC",
    18: "IBM TERSE",
    19: "IBM LZ77",
    94: "MP3",
    96: "JPEG",
    97: "WavPack",
    98: "PPMd",
}
"""Compression methods of zip besides stored and deflate (APPNOTE 4.4.5); the first six are supported."""


def identify_format(head: bytes) -> FileFormat | None:
    """Identify a file by its first 512 bytes, `head`. Return None if the format isn't known."""
    return next((format for pattern, format in _COMPILED if pattern.match(head[:HEAD_BYTES])), None)


def unsupported_format_error(source: str, head: bytes) -> BadSourceError:
    """Return the error for a file in an unsupported format. `head` holds its first bytes."""
    if not head:
        return BadSourceError(f"{source} is an empty file", next_step=_DOWNLOAD)
    format = identify_format(head)
    if format is None:
        return BadSourceError(
            f"{source} is not an archive that larder reads ({SUPPORTED_ARCHIVES}): it begins with {head[:16]!r}",
            next_step="check the address or the file; unpack what another program packed, and give the folder",
        )
    return BadSourceError(
        f"{source} is not an archive that larder reads ({SUPPORTED_ARCHIVES}): it is {format.name}",
        next_step=format.next_step,
    )


def missing_tar_error(source: str, codec: str, head: bytes) -> BadSourceError:
    """Return the error for a compressed file that doesn't contain a tar.

    Args:
        source: Name of the source.
        codec: Name of the compression.
        head: First bytes of the decompressed content.
    """
    content = _describe_content(head)
    return BadSourceError(
        f"{source} is not an archive that larder reads ({SUPPORTED_ARCHIVES}): it is {content} compressed with {codec}",
        next_step=f"decompress it ({_DECOMPRESS[codec]}) and give the result if it is an archive or a folder",
    )


def _describe_content(head: bytes) -> str:
    if not head:
        return "nothing"
    if head.startswith(b"PK\x03\x04"):
        return "a zip archive"
    format = identify_format(head)
    return format.name if format else "a single file"
