"""What data sets call their splits, and what they are called here: training, validation, evaluation."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

TRAINING, VALIDATION, EVALUATION = "training", "validation", "evaluation"
SPLITS = (TRAINING, VALIDATION, EVALUATION)

_WORDS = {
    "train": TRAINING, "training": TRAINING, "trn": TRAINING, "trainval": TRAINING,
    "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION, "validate": VALIDATION, "dev": VALIDATION,
    "devel": VALIDATION, "development": VALIDATION,
    "test": EVALUATION, "testing": EVALUATION, "tst": EVALUATION, "eval": EVALUATION, "evaluation": EVALUATION,
}  # fmt: skip
_NAME = re.compile(rf"({'|'.join(_WORDS)})(?:set|split|data|dataset|images?|imgs?)?")
_BETWEEN = re.compile(r"[-_.\s]+")


@lru_cache(maxsize=1024)
def known_split(name: str) -> str | None:
    """Return the split that a folder or a column means by `name`; None for a name that means none.

    Case, spaces around it, and a word such as "set" or "images" behind it don't matter.

    >>> known_split("Training_Set"), known_split("dev"), known_split("TEST "), known_split("cat")
    ('training', 'validation', 'evaluation', None)
    """
    found = _NAME.fullmatch(_BETWEEN.sub("", unicodedata.normalize("NFKC", name).casefold()))
    return _WORDS[found[1]] if found else None
