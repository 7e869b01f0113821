"""Which split a file of a data set belongs to, by the conventions of the Hugging Face Hub.

What the card says counts first, then file names, then the folders above them; all else is `train`. See
https://huggingface.co/docs/datasets/repository_structure and https://huggingface.co/docs/hub/datasets-manual-configuration
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from larder.sources.members import BadSourceError

_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SHARD = re.compile(r"(?:.*/)?(\w+(?:\.\w+)*)-\d{5}-of-\d{5,}(?:-[0-9a-f]+)?\.[^/]+", re.ASCII)
MOST_CARD_BYTES = 4 << 20
_NAME_ONE = "name the folder of one of them in LARDER_SOURCE, as in hf://datasets/OWNER/NAME/FOLDER"


class Card(NamedTuple):
    """What a data set's README.md says of it, between two lines of dashes."""

    configs: Sequence[tuple[str, bool, Mapping[str, Sequence[str]]]] = ()
    """Name, whether it is the default, and patterns of files by split."""
    class_names: Mapping[tuple[str, str], Sequence[str]] = {}
    """By configuration and column."""


def read_card(text: bytes) -> Card:
    """What a README.md says. What can't be read as such says nothing: it is prose for people, above all."""
    import yaml

    match = re.match(rb"---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)", text[:MOST_CARD_BYTES], re.DOTALL)
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
            yield str(config.get("config_name", "default")), config.get("default") is True, patterns


def _patterns(data_files: Any) -> Iterator[tuple[str, list[str]]]:
    """Patterns by split, in each of the forms that a card may have."""
    if isinstance(data_files, str):
        yield "train", [data_files]
    elif isinstance(data_files, list) and all(isinstance(item, str) for item in data_files):
        yield "train", data_files
    elif isinstance(data_files, dict):
        for split, paths in data_files.items():
            yield str(split), _as_list(paths)
    elif isinstance(data_files, list):
        for item in data_files:
            if isinstance(item, dict):
                yield str(item.get("split", "train")), _as_list(item.get("path"))


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
                names = [names[key] for key in sorted(names, key=lambda key: (len(str(key)), str(key)))]
            if isinstance(names, list):
                config = str(info.get("config_name", "default"))
                yield (config, str(feature.get("name"))), [str(name) for name in names]


class Chosen(NamedTuple):
    """The files of one configuration, with their splits, in order of their paths."""

    config: str
    splits: dict[str, str]


def choose(paths: Iterable[str], card: Card, name: str) -> Chosen:
    """The files that make up the data set, each with its split. Raises BadSourceError when there are several sets."""
    files = sorted(paths)
    held = {config: _matched(files, patterns) for config, _, patterns in card.configs}
    held = {config: found for config, found in held.items() if found}
    if not held:
        return Chosen("default", _without_card(files, name))
    defaults = [config for config, default, _ in card.configs if default and config in held]
    default = next(iter([*defaults, *(["default"] if "default" in held else [])]), None)
    if len(held) > 1 and default is None:
        folders = {config: next(iter(found)).rpartition("/")[0] for config, found in held.items()}
        shown = ", ".join(f"{config!r} (in {folder or 'its top'})" for config, folder in list(folders.items())[:20])
        raise BadSourceError(
            f"{name} holds {len(held)} data sets: {shown}",
            next_step=_NAME_ONE,
        )
    config = default or next(iter(held))
    return Chosen(config, held[config])


def _matched(files: Sequence[str], patterns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    found = {}
    for split, several in patterns.items():
        for pattern in several:
            for path in fnmatch.filter(files, pattern.removeprefix("./")):
                found[path] = split
    return found


def _without_card(files: Sequence[str], name: str) -> dict[str, str]:
    """Splits by the names of shards, of files, or of folders: of the first rule that says something of any file.

    A file that it says nothing of goes by the next, since nothing may be left out in silence.
    """
    rules = (_by_shard, _by_name, _by_folder)
    first = next((number for number, rule in enumerate(rules) if any(map(rule, files))), len(rules))
    splits = {path: next((split for rule in rules[first:] if (split := rule(path))), "train") for path in files}
    met: dict[tuple[str, str], str] = {}
    for path, split in splits.items():
        other = met.setdefault((split, path.rpartition("/")[2]), path)
        if other != path:
            raise BadSourceError(
                f"{name} seems to hold several data sets: both {other!r} and {path!r} are in it",
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


def _word_in(text: str) -> str:
    """The split whose word stands alone in a name: between its ends, digits, spaces and `-._/`."""
    words = re.split(r"[-._ 0-9/]+", text.lower())
    return next((split for split in _WORDS for word in words if word in _WORDS[split]), "")


def _known(word: str) -> str:
    return next((split for split, words in _WORDS.items() if word.lower() in words), "")
