"""Map the names that datasets give their splits to training, validation and evaluation."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

TRAINING, VALIDATION, EVALUATION = "training", "validation", "evaluation"
SPLITS = (TRAINING, VALIDATION, EVALUATION)

_WORDS = {
    "train": TRAINING,
    "training": TRAINING,
    "trn": TRAINING,
    "trainval": TRAINING,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "validate": VALIDATION,
    "dev": VALIDATION,
    "devel": VALIDATION,
    "development": VALIDATION,
    "test": EVALUATION,
    "testing": EVALUATION,
    "tst": EVALUATION,
    "eval": EVALUATION,
    "evaluation": EVALUATION,
}
_NAME = re.compile(rf"({'|'.join(_WORDS)})(?:set|split|data|dataset|images?|imgs?)?")
_SIMILAR_NAME = re.compile(rf"[0-9]*(?:{_NAME.pattern})(?:v?[0-9]+[a-z]?|[a-d])?")
_SEPARATORS = re.compile(r"[-_.\s]+")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


@lru_cache(maxsize=1024)
def find_known_split(name: str) -> str | None:
    """Return the split that a folder or column name stands for, or None.

    Case, spaces, separators and a final word such as "set" or "images" are ignored.

    Example:
        >>> [find_known_split(name) for name in ("Training_Set", "dev", "TEST ", "cat")]
        ['training', 'validation', 'evaluation', None]
    """
    match = _NAME.fullmatch(_normalize(name))
    return _WORDS[match[1]] if match else None


@lru_cache(maxsize=1024)
def find_similar_split(name: str) -> str | None:
    """Return the split that a folder name may stand for: a known name with a number or a letter. Else None.

    Example:
        >>> [find_similar_split(name) for name in ("train2017", "testB", "val_v2", "tests")]
        ['training', 'evaluation', 'validation', None]
    """
    match = _SIMILAR_NAME.fullmatch(_normalize(name))
    return _WORDS[match[1]] if match else None


@lru_cache(maxsize=1024)
def find_split_in_name(name: str) -> str | None:
    """Return the split that `name` resembles or that a word in it stands for, or None.

    Example:
        >>> [find_split_in_name(name) for name in ("imagenet-train", "miniVal", "test tube", "trainer")]
        ['training', 'validation', 'evaluation', None]
    """
    words = _WORD.findall(unicodedata.normalize("NFKC", name))
    return find_similar_split(name) or next(filter(None, map(find_known_split, words)), None)


def _normalize(name: str) -> str:
    """Return a name in lower case without separators."""
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", name).casefold())
