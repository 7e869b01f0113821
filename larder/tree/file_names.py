"""Classify file names: litter, images, and names that look alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path

from larder.errors import InputError

# Extensions that torchvision's ImageFolder accepts (datasets/folder.py, IMG_EXTENSIONS).
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

_OTHER_IMAGES = (
    ".apng", ".arw", ".avif", ".cr2", ".dcm", ".dng", ".exr", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jif", ".jp2",
    ".jpe", ".jxl", ".mpo", ".nef", ".pbm", ".pnm", ".psd", ".svg", ".tga",
)  # fmt: skip
"""Image formats that loaders can't read. Such files are rejected samples, never silently left out."""
_IMAGES = EXTENSIONS + _OTHER_IMAGES
_SIGNATURES = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "GIF": b"GIF8",
    "TIFF": b"II*\0",
    "TIFF ": b"MM\0*",
    "JPEG 2000": b"\0\0\0\x0cjP",
    "JPEG XL": b"\0\0\0\x0cJXL",
    "Photoshop": b"8BPS",
}

_LITTER = {
    "__macosx", "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "recycler",
    "lost+found", "system volume information", "__pycache__", "_larder", "thumbs.db", "ehthumbs.db", "desktop.ini",
    "icon\r", "network trash folder", "temporary items", "@transcode", "@synoresource", "found.000", "_vti_cnf",
    "folder.jpg", "albumartsmall.jpg",
}  # fmt: skip
"""Names, in lower case, that desktop systems, archivers and network storage (Synology, QNAP) add to people's folders.
Windows Media Player writes the last two, and AlbumArt_{…}_Large.jpg, also beside images."""
_ALBUM_ART = re.compile(r"(?:.*/)?albumart_\{[^/]*\.jpg", re.DOTALL)

_NUMBER = re.compile(r"-?[0-9]{1,19}(?:\.[0-9]{1,9})?", re.ASCII)
_APOSTROPHES = "\N{RIGHT SINGLE QUOTATION MARK}\N{LEFT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}"
_INVISIBLE = {
    "\N{COMBINING GRAPHEME JOINER}",
    "\N{HANGUL FILLER}",
    "\N{HANGUL CHOSEONG FILLER}",
    "\N{HANGUL JUNGSEONG FILLER}",
    *map(chr, range(0xFE00, 0xFE10)),
}
"""Invisible characters outside of Unicode's control and format categories; the last are variation selectors."""
_QUOTES = "\"\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}'"
_WORD, _SPACES = re.compile(r"[^\W\d_]{2,}"), re.compile(r"[\s_]+")
_AS_LATIN = str.maketrans(
    "АВЕЅІЈКМНОРСТУХҺԚԜӀаеѕіјорсухһԁԛԝӏΑΒΕΖΗΙΚΜΝΟΡΤΥΧαικνορτυχ",
    "ABESIJKMHOPCTYXHQWIaesijopcyxhdqwlABEZHIKMNOPTYXaikvoptux",
)
"""Maps Cyrillic, then Greek letters to the Latin letters that they look like."""
_ALIKE_IN_LATIN = str.maketrans("ıɑɡ", "iag")
_SHOWN = 200
HIDDEN, LITTER, NO_IMAGE = "hidden", "litter of desktop or storage systems", "no images"
"""Reasons for leaving files out."""


def litter_reason(path: str) -> str | None:
    """Return why a file is ignored by all recipes (hidden or litter); None for any other file."""
    if path[0] != "." and "/." not in path:
        lower = path.lower()
        if _LITTER.isdisjoint(lower.split("/")) and not ("albumart_{" in lower and _ALBUM_ART.fullmatch(lower)):
            return None
    return HIDDEN if any(part.startswith(".") for part in path.split("/")) else LITTER


def own_folder_error(path: str, kind: type[InputError]) -> InputError:
    """Return the error for an image in a folder named `_larder`, which is reserved."""
    return kind(
        f"{path[-_SHOWN:]!a} lies in a folder _larder, which is reserved for larder",
        next_step="give the folder another name in the source, then extract again",
    )


def is_image_name(path: str) -> bool:
    """Return whether a file name has an image's extension, including formats that loaders can't read."""
    return path.lower().endswith(_IMAGES)


HEAD_BYTES = 16
"""Number of bytes that `detect_image_format` needs."""


def image_format(path: Path) -> str | None:
    """Return the format of an image file by its first bytes, whatever its name; None if it isn't an image."""
    with path.open("rb") as file:
        return detect_image_format(file.read(HEAD_BYTES))


def detect_image_format(begin: bytes) -> str | None:
    """Return the image format that starts with these bytes, or None."""
    format = next((name.strip() for name, mark in _SIGNATURES.items() if begin.startswith(mark)), None)
    if begin[:4] == b"RIFF" and begin[8:12] == b"WEBP":
        format = "WebP"
    if begin[4:8] == b"ftyp" and begin[8:12] in (b"avif", b"heic", b"heix", b"mif1"):
        format = "HEIF or AVIF"
    if begin[:2] == b"BM" and begin[6:10] == bytes(4):  # two reserved fields, after the file's size
        format = "BMP"
    return format


def normalized(path: str) -> str:
    """Normalize a path for comparison: NFC, without spaces around the names in it."""
    if path.isascii() and " " not in path:
        return path
    return "/".join(part.strip() for part in unicodedata.normalize("NFC", path).split("/"))


def comparison_key(name: str) -> str:
    """Return a key that is equal for names that look alike: those that differ only in case, spaces or Unicode form.

    Underscores count as spaces. All dashes are equal, and so are all apostrophes. Numbers are compared by value: 1, 01
    and 1.0 are equal. Quotes around a name are ignored. In words with Latin letters, Cyrillic and Greek letters count
    as the Latin letters that they look like.
    """
    if (number := parse_number(name)) is not None:
        return f"{number.normalize():f}"
    plain = unicodedata.normalize("NFKC", name)
    if not plain.isascii():
        plain = _in_one_script(plain)
    folded = unicodedata.normalize("NFKC", plain.casefold()).replace("i\N{COMBINING DOT ABOVE}", "i").strip(_QUOTES)
    return "".join(map(_letter, _SPACES.sub(_space, folded)))


def _in_one_script(name: str) -> str:
    """Replace look-alike letters by Latin ones in a name with Latin letters. Keep single letters, as in α-helix."""
    if any(unicodedata.name(letter, "").startswith("LATIN") for letter in name):
        name = _WORD.sub(lambda word: word[0].translate(_AS_LATIN), name)
    return name.translate(_ALIKE_IN_LATIN)


def _space(spaces: re.Match[str]) -> str:
    """Remove spaces, except between digits: 1_11 differs from 11_1."""
    before, after = spaces.string[: spaces.start()][-1:], spaces.string[spaces.end() :][:1]
    return "_" if before.isdecimal() and after.isdecimal() else ""


def _letter(letter: str) -> str:
    """Normalize a character by its look; return "" for an invisible one."""
    kind = unicodedata.category(letter)
    if letter.isspace() or kind in ("Cc", "Cf") or letter in _INVISIBLE:
        return ""
    return "-" if kind == "Pd" else "'" if letter in _APOSTROPHES else letter


def sorted_labels(labels: Iterable[str]) -> list[str]:
    """Return the labels in the order of the classes: numeric if all are numbers (2 before 10), else by name."""
    numbers = {label: parse_number(label) for label in labels}
    known = {label: number for label, number in numbers.items() if number is not None}
    return sorted(known, key=lambda label: (known[label], label)) if len(known) == len(numbers) else sorted(numbers)


def parse_number(text: str) -> Decimal | None:
    """Return the number that a name spells, or None."""
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def look_alikes(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield pairs of different names that look alike."""
    seen: dict[str, str] = {}
    for name in sorted(set(names)):
        first = seen.setdefault(comparison_key(name), name)
        if first != name:
            yield first, name
