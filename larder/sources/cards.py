"""Find the split of each file of a dataset, by the conventions of the Hugging Face Hub.

The dataset card takes precedence, then file names, then folder names; other files are `train`. See
https://huggingface.co/docs/datasets/repository_structure and https://huggingface.co/docs/hub/datasets-manual-configuration
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from larder.sources.members import BadSourceError
from larder.splits import EVALUATION, find_known_split, find_split_in_name
from larder.tree.source_summary import first_names

_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SHARD = re.compile(r"(?:.*/)?(\w+(?:\.\w+)*)-\d{5}-of-\d{5,}(?:-[0-9a-f]+)?\.[^/]+", re.ASCII)
MAX_CARD_BYTES = 4 << 20
_MAX_BITS = 64
"""Maximum size of an integer used as a name: Python refuses to convert long ones to text."""
_NAME_ONE = "name the folder of one of them in LARDER_SOURCE, as in hf://datasets/OWNER/NAME/FOLDER"


class Card(NamedTuple):
    """The metadata of a dataset card: the YAML header of its README.md."""

    configs: Sequence[tuple[str, bool, Mapping[str, Sequence[str]]]] = ()
    """Configurations: name, whether it is the default, and file patterns by split."""
    class_names: Mapping[tuple[str, str], Sequence[str]] = {}
    """Names of the classes, by configuration and column."""


def read_card(text: bytes) -> Card:
    """Parse the header of a README.md. Ignore invalid parts, since the file is written for people."""
    import yaml

    match = re.match(rb"---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)", text[:MAX_CARD_BYTES], re.DOTALL)
    if match is None:
        return Card()
    try:
        header = yaml.load(match[1], getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError, ValueError):
        return Card()
    if not isinstance(header, dict):
        return Card()
    return Card(list(_configs(header.get("configs"))), dict(_class_names(header.get("dataset_info"))))


def _configs(listed: Any) -> Iterator[tuple[str, bool, dict[str, list[str]]]]:
    for config in listed if isinstance(listed, list) else ():
        if isinstance(config, dict) and (patterns := dict(_patterns(config.get("data_files")))):
            yield _text(config.get("config_name", "default")), config.get("default") is True, patterns


def _patterns(data_files: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield file patterns by split, from any of the forms that cards use."""
    if isinstance(data_files, str):
        yield "train", [data_files]
    elif isinstance(data_files, list) and all(isinstance(item, str) for item in data_files):
        yield "train", data_files
    elif isinstance(data_files, dict):
        for split, paths in data_files.items():
            yield _text(split), _as_list(paths)
    elif isinstance(data_files, list):
        for item in data_files:
            if isinstance(item, dict):
                yield _text(item.get("split", "train")), _as_list(item.get("path"))


def _as_list(paths: Any) -> list[str]:
    return [path for path in (paths if isinstance(paths, list) else [paths]) if isinstance(path, str)]


def _class_names(infos: Any) -> Iterator[tuple[tuple[str, str], list[str]]]:
    for info in infos if isinstance(infos, list) else [infos]:
        features = info.get("features") if isinstance(info, dict) else None
        for feature in features if isinstance(features, list) else ():
            kind = feature.get("dtype") if isinstance(feature, dict) else None
            label = kind.get("class_label") if isinstance(kind, dict) else None
            names = label.get("names") if isinstance(label, dict) else None
            if isinstance(names, dict):  # '0': cat
                names = [names[key] for key in sorted(names, key=lambda key: (len(_text(key)), _text(key)))]
            if isinstance(names, list):
                config = _text(info.get("config_name", "default"))
                yield (config, _text(feature.get("name"))), [_text(name) for name in names]


def _text(value: Any) -> str:
    """Convert a scalar to text, and other values to "": the text of nested or recursive lists may fill the memory."""
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return ""
    return str(value) if isinstance(value, str | int | float | date) else ""


class ChosenFiles(NamedTuple):
    """The files of one configuration and their splits, sorted by path."""

    config: str
    splits: dict[str, str]


def choose_files(paths: Iterable[str], card: Card, name: str) -> ChosenFiles:
    """Choose the files of the dataset, and find the split of each.

    Args:
        paths: Paths of all files.
        card: The dataset card.
        name: Name of the source in messages.

    Raises:
        BadSourceError: If there are several datasets and none is the default.
    """
    files = sorted(paths)
    matched = {config: _match_patterns(files, patterns) for config, _, patterns in card.configs}
    matched = {config: splits for config, splits in matched.items() if splits}
    if not matched:
        return ChosenFiles("default", _find_splits_by_names(files, name))
    defaults = [config for config, default, _ in card.configs if default and config in matched]
    default = next(iter([*defaults, *(["default"] if "default" in matched else [])]), None)
    if len(matched) > 1 and default is None:
        folders = {config: next(iter(splits)).rpartition("/")[0] for config, splits in matched.items()}
        shown = ", ".join(f"{config!r} (in {folder or 'its top'})" for config, folder in list(folders.items())[:20])
        raise BadSourceError(
            f"{name} holds {len(matched)} datasets: {shown}",
            next_step=_NAME_ONE,
        )
    config = default or next(iter(matched))
    return ChosenFiles(config, matched[config])


def _match_patterns(files: Sequence[str], patterns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    splits = {}
    for split, patterns_of_split in patterns.items():
        for pattern in patterns_of_split:
            for path in fnmatch.filter(files, pattern.removeprefix("./")):
                splits[path] = split
    return splits


def _find_splits_by_names(files: Sequence[str], name: str) -> dict[str, str]:
    """Find splits by the names of shards, files or folders, with the first rule that applies to any file.

    Files to which this rule doesn't apply are tried with the next ones, so that no file is silently left out.
    """
    rules = (_by_shard, _by_name, _by_folder, _by_known_name)
    first = next((number for number, rule in enumerate(rules) if any(map(rule, files))), len(rules))
    splits = {path: next((split for rule in rules[first:] if (split := rule(path))), "") for path in files}
    ambiguous = [path for path, split in splits.items() if not split and any(map(find_split_in_name, path.split("/")))]
    if ambiguous:
        raise BadSourceError(
            f"{name}: {first_names(ambiguous)} may be a split of its own, judging by the name",
            next_step="call files by their split, as in train.parquet and validation.parquet, then run again",
        )
    splits = {path: split or "train" for path, split in splits.items()}
    seen: dict[tuple[str, str], str] = {}
    for path, split in splits.items():
        other = seen.setdefault((split, path.rpartition("/")[2]), path)
        if other != path:
            raise BadSourceError(
                f"{name} seems to hold several datasets: both {other!r} and {path!r} are in it",
                next_step=_NAME_ONE,
            )
    return splits


def _by_shard(path: str) -> str:
    match = _SHARD.fullmatch(path)
    return _known(match[1]) or match[1] if match else ""


def _by_name(path: str) -> str:
    return _word_in(path.rpartition("/")[2])


def _by_folder(path: str) -> str:
    return _word_in(path.rpartition("/")[0])


def _by_known_name(path: str) -> str:
    """Return the split for names without separators, such as `TestSet.parquet`, or ""."""
    parts = path.removesuffix(".parquet").split("/")
    split = next(filter(None, map(find_known_split, reversed(parts))), None)
    return "test" if split == EVALUATION else _known(split or "")


def _word_in(text: str) -> str:
    """Return the split that a whole word of a name stands for, or "". Digits, spaces and `-._/` separate words."""
    words = re.split(r"[-._ 0-9/]+", text.lower())
    return next((split for split in _WORDS for word in words if word in _WORDS[split]), "")


def _known(word: str) -> str:
    return next((split for split, words in _WORDS.items() if word.lower() in words), "")
