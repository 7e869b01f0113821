"""What a file's name says: that it is litter, that it is an image, that it looks like another name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path

# What torchvision's ImageFolder looks for (datasets/folder.py, IMG_EXTENSIONS).
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_OTHER_IMAGES = (
    ".apng", ".arw", ".avif", ".cr2", ".dcm", ".dng", ".exr", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jif", ".jp2",
    ".jpe", ".jxl", ".mpo", ".nef", ".pbm", ".pnm", ".psd", ".svg", ".tga",
)  # fmt: skip
"""Images in formats that loaders don't read: they are samples that are missing, and never left out quietly."""
_IMAGES = EXTENSIONS + _OTHER_IMAGES
_BEGINNINGS = {
    "JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "GIF": b"GIF8", "TIFF": b"II*\0", "TIFF ": b"MM\0*",
    "JPEG 2000": b"\0\0\0\x0cjP", "JPEG XL": b"\0\0\0\x0cJXL", "Photoshop": b"8BPS",
}  # fmt: skip

_LITTER = {
    "__macosx", "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler",
    "lost+found", "system volume information", "__pycache__", "_larder", "thumbs.db", "ehthumbs.db", "desktop.ini",
    "icon\r", "network trash folder", "temporary items", "@transcode", "@synoresource", "found.000", "_vti_cnf",
}  # fmt: skip
"""What desktop systems, archivers and network storage (Synology, QNAP) put between people's files, in lower case."""

_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?", re.ASCII)
_APOSTROPHES = "\N{RIGHT SINGLE QUOTATION MARK}\N{LEFT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}"
_UNSEEN = {
    "\N{COMBINING GRAPHEME JOINER}", "\N{HANGUL FILLER}", "\N{HANGUL CHOSEONG FILLER}",
    "\N{HANGUL JUNGSEONG FILLER}", *map(chr, range(0xFE00, 0xFE10)),
}  # fmt: skip
"""Letters that aren't seen, though Unicode's categories don't say so; the last are selectors of variants."""
HIDDEN, LITTER, NO_IMAGE = "hidden", "litter of desktop or storage systems", "no images"
"""Why files are left out."""


def litter(path: str) -> str | None:
    """Why no recipe looks at a file: it is hidden, or litter; None for all others."""
    if path[0] != "." and "/." not in path and _LITTER.isdisjoint(path.lower().split("/")):
        return None
    return HIDDEN if any(part.startswith(".") for part in path.split("/")) else LITTER


def is_image_name(path: str) -> bool:
    """Whether a file is an image by its name, also in a format that loaders don't read."""
    return path.lower().endswith(_IMAGES)


HEAD_BYTES = 16
"""By which `format_of` tells images."""


def image_format(path: Path) -> str | None:
    """The format of a file that begins as an image does, whatever its name; None for all others."""
    with path.open("rb") as file:
        return format_of(file.read(HEAD_BYTES))


def format_of(begin: bytes) -> str | None:
    """The format of what begins like this, if that is an image."""
    found = next((name.strip() for name, mark in _BEGINNINGS.items() if begin.startswith(mark)), None)
    if begin[:4] == b"RIFF" and begin[8:12] == b"WEBP":
        found = "WebP"
    if begin[4:8] == b"ftyp" and begin[8:12] in (b"avif", b"heic", b"heix", b"mif1"):
        found = "HEIF or AVIF"
    if begin[:2] == b"BM" and begin[6:10] == bytes(4):  # two reserved fields, after the file's size
        found = "BMP"
    return found


def comparable(path: str) -> str:
    """A path in the form in which paths are compared: NFC, without spaces around the names in it."""
    if path.isascii() and " " not in path:
        return path
    return "/".join(part.strip() for part in unicodedata.normalize("NFC", path).split("/"))


def likeness(name: str) -> str:
    """What is the same for names that look alike: those that differ in case, spaces or Unicode form alone.

    Kinds of dashes and of apostrophes are the same, and so are numbers that are: 1, 01 and 1.0.
    """
    if (number := _number(name)) is not None:
        return f"{number.normalize():f}"
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(map(_letter, folded))


def _letter(letter: str) -> str:
    """A letter as it looks: empty for one that isn't seen."""
    kind = unicodedata.category(letter)
    if letter.isspace() or kind in ("Cc", "Cf") or letter in _UNSEEN:
        return ""
    return "-" if kind == "Pd" else "'" if letter in _APOSTROPHES else letter


def sorted_labels(labels: Iterable[str]) -> list[str]:
    """Different labels in the order of the classes: by number if all are numbers, 2 before 10; else by name."""
    numbers = {label: _number(label) for label in labels}
    known = {label: number for label, number in numbers.items() if number is not None}
    return sorted(known, key=lambda label: (known[label], label)) if len(known) == len(numbers) else sorted(numbers)


def _number(text: str) -> Decimal | None:
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def look_alikes(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of different names that look alike."""
    seen: dict[str, str] = {}
    for name in sorted(set(names)):
        first = seen.setdefault(likeness(name), name)
        if first != name:
            yield first, name
