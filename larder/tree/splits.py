"""Assign splits: by the usual names of splits, by LARDER_SPLITS, or at random by LARDER_SPLIT."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from larder.contract import META
from larder.errors import InputError
from larder.splits import SPLITS, find_known_split
from larder.tree.file_names import normalized

NOT_SPLITS = "none"
"""Value of LARDER_SPLITS: no folder is a split, so that a folder named `train` is a class."""
OUT = "-"
"""In LARDER_SPLITS, the split of a folder or value that is left out."""
COLUMNS = ("split", "set", "subset", "partition")
"""Usual names of a table's column of splits; the first has precedence."""
NO_VALUE = "null"
"""In LARDER_SPLITS, stands for rows without a value in the column of splits."""
_NO_VALUES = frozenset(("", "-", "nan", "nat", "none", "nil", "null", "na", "n/a", "#n/a", "<na>"))
"""What programs write for a missing value, in lower case."""

_MAX_NAME_BYTES = 200
_MAX_VALUES, _SHOWN_ROWS = 1000, 3


class SplitNames(NamedTuple):
    """Mapping from names to splits: LARDER_SPLITS first, then the known names (larder.splits)."""

    given: Mapping[str, str] = {}
    """Split or "-", by name in lower case."""
    none: bool = False
    """Whether no folder is a split."""

    def find(self, name: str) -> str | None:
        """Return the split that a name means, "-" if it is left out, or None if it means no split."""
        if self.none:
            return None
        return self.given.get(_key(name)) or find_known_split(name)

    def unused(self, names: Iterable[str]) -> list[str]:
        """Return the names in LARDER_SPLITS that aren't in `names`."""
        present = {_key(name) for name in names}
        return sorted(name for name in self.given if name not in present)


KNOWN_NAMES = SplitNames()
"""The known names only, without LARDER_SPLITS."""


def parse_split_names(text: str) -> SplitNames:
    """Parse LARDER_SPLITS: `train=training,dev=validation`, or `none`.

    Raises:
        ValueError: If the text is malformed.
    """
    if text.strip().casefold() == NOT_SPLITS:
        return SplitNames(none=True)
    given: dict[str, str] = {}
    for pair in filter(str.strip, text.split(",")):
        name, equals, split = (part.strip() for part in pair.partition("="))
        if not (name and equals and split):
            raise ValueError(f"must be {NOT_SPLITS}, or name=split pairs, as in train=training,dev=validation")
        if split != OUT:
            split = find_known_split(split) or split
            if not is_folder_name(split):
                raise ValueError(f"must name splits that can be folders, and {split!r} can't")
        if given.setdefault(_key(name), split) != split:
            raise ValueError(f"must name {name!r} once")
    return SplitNames(given)


def is_folder_name(split: str) -> bool:
    """Return whether a split can be the name of a folder of the tree."""
    return (
        not ("/" in split or split.startswith(".") or split == META)
        and split.isprintable()
        and len(split.encode()) <= _MAX_NAME_BYTES
    )


def folder_of_value(value: object) -> str:
    """Return the folder for rows with this value in a column of splits; "null" for rows without a value.

    Raises:
        ValueError: If the value can't be the name of a folder.
    """
    split = "" if value is None else normalized(str(value))
    if split.casefold() in _NO_VALUES:
        return NO_VALUE
    if not is_folder_name(split):
        raise _folder_name_error(split)
    return split


def _folder_name_error(split: str) -> ValueError:
    return ValueError(f"has the split {split[:_MAX_NAME_BYTES]!r}, which can't be a folder's name")


class SplitColumn:
    """Maps the values of a table's column to splits. Counts rows without a value, which are no split.

    Attributes:
        values: Values that LARDER_SPLITS may name: the first thousand in the table.
    """

    def __init__(self, names: SplitNames) -> None:
        self.values: set[str] = set()
        self._names, self._without, self._count = names, list[str](), 0

    def split(self, value: str, position: str) -> str:
        """Return the split of a row, or "-" if the row is left out.

        Args:
            value: The row's value in the column of splits.
            position: Position of the row, for messages.

        Raises:
            ValueError: If the value can't be the name of a folder.
        """
        value = value.strip()
        without = value.casefold() in _NO_VALUES
        if self._names.given and len(self.values) < _MAX_VALUES:
            self.values.update((value, NO_VALUE) if without else (value,))
        if without:
            split = self._names.given.get(_key(value)) or self._names.given.get(NO_VALUE)
            if split is None:
                self._record_missing(position)
            return split or OUT
        split = self._names.find(value) or find_known_split(value) or normalized(value)
        if split != OUT and not is_folder_name(split):
            raise _folder_name_error(split)
        return split

    def _record_missing(self, position: str) -> None:
        self._count += 1
        if self._count <= _SHOWN_ROWS:
            self._without.append(position)

    def require_values(self) -> None:
        """Raise InputError if rows lack a value, unless LARDER_SPLITS has a split for them."""
        if not self._count:
            return
        more = f" and {self._count - _SHOWN_ROWS:,} more" if self._count > _SHOWN_ROWS else ""
        raise InputError(
            f"rows without a split, in a table with a column of splits: {'; '.join(self._without)}{more}",
            next_step="name the split of each in the table, then extract again; or set "
            f"LARDER_SPLITS={NO_VALUE}=training (or another split; {NO_VALUE}=- leaves them out)",
        )


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


class Division(NamedTuple):
    """Random but reproducible division of a dataset without splits.

    A file's split depends only on the seed and its content. So it stays the same when files are added, removed or
    renamed, and copies of an image get the same split. Each class is divided by the same shares, up to random
    variation.
    """

    shares: tuple[float, ...]
    seed: int

    def split(self, sha256: str) -> str:
        """Return the split of a file with this sha256."""
        digest = hashlib.blake2b(bytes.fromhex(sha256), digest_size=8, key=str(self.seed).encode()).digest()
        position, end = int.from_bytes(digest) / (1 << 64), 0.0
        for split, share in zip(SPLITS, self.shares, strict=False):
            end += share
            if position < end:
                return split
        return next(split for split, share in reversed(list(zip(SPLITS, self.shares, strict=False))) if share)


def parse_shares(text: str) -> tuple[float, ...]:
    """Parse LARDER_SPLIT: `0.8,0.1,0.1`, the shares of training, validation and evaluation.

    Raises:
        ValueError: If the shares aren't two or three numbers whose sum is 1.
    """
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) not in (2, 3) or not all(0 <= share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(
            "must be two or three shares whose sum is 1, as in 0.8,0.1,0.1: training, validation and so on"
        )
    return shares
