"""Which split each file of a dataset belongs to."""

from __future__ import annotations

import pytest

from larder.sources.cards import Card, choose_files, read_card
from larder.sources.members import BadSourceError


@pytest.mark.parametrize(
    ("paths", "splits"),
    [
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"], ["train", "train"]),
        (["data/test-00000-of-00001-abc123.parquet", "data/holdout-00000-of-00001.parquet"], ["test", "holdout"]),
        (["training.parquet", "my_val.parquet", "eval-2.parquet"], ["train", "validation", "test"]),
        (["train/0000.parquet", "dev/0000.parquet", "testing/x.parquet"], ["train", "validation", "test"]),
        (["a.parquet", "b.parquet"], ["train", "train"]),
        (["trainer.parquet", "contest.parquet"], ["train", "train"]),  # no word of its own
        (["default/partial-train/0000.parquet", "default/test/0000.parquet"], ["train", "test"]),
        (["data/train-00000-of-00001.parquet", "test.parquet"], ["train", "test"]),
        (["TestSet.parquet", "trainimages/0.parquet", "ValData.parquet"], ["test", "train", "validation"]),
    ],
)
def test_splits_from_names(paths: list[str], splits: list[str]) -> None:
    assert choose_files(paths, Card(), "x").splits == dict(zip(paths, splits, strict=True))


@pytest.mark.parametrize("name", ["miniVal.parquet", "testA.parquet", "imgs/ValV2a.parquet", "testB/0.parquet"])
def test_names_that_may_mean_a_split_are_not_taken_for_training(name: str) -> None:
    with pytest.raises(BadSourceError, match="may be a split of its own") as error:
        choose_files([name, "other.parquet"], Card(), "x")
    assert "train.parquet" in error.value.next_step


CARD = b"""---
configs:
- config_name: small
  data_files:
  - split: train
    path: small/tr-*
- config_name: big
  default: true
  data_files:
  - split: train
    path: ["big/one-*", "big/two.parquet"]
  - split: held_out
    path: big/rest/*.parquet
---
# A set
"""


def test_the_card_counts_first() -> None:
    paths = ["small/tr-1.parquet", "big/one-1.parquet", "big/two.parquet", "big/rest/train.parquet", "other.parquet"]
    chosen = choose_files(paths, read_card(CARD), "x")
    assert chosen.config == "big"
    assert chosen.splits == {
        "big/one-1.parquet": "train",
        "big/two.parquet": "train",
        "big/rest/train.parquet": "held_out",
    }
    assert choose_files(paths[:1], read_card(CARD), "x").splits == {"small/tr-1.parquet": "train"}


@pytest.mark.parametrize(
    ("paths", "card"),
    [
        (["small/tr-1.parquet", "big/one-1.parquet"], read_card(CARD.replace(b"default: true", b"default: false"))),
        (["cats/train-00000-of-00001.parquet", "dogs/train-00000-of-00001.parquet"], Card()),
        (["cats/train/0.parquet", "dogs/train/0.parquet"], Card()),
    ],
    ids=["in the card", "shards", "folders"],
)
def test_several_data_sets_are_an_error(paths: list[str], card: Card) -> None:
    with pytest.raises(BadSourceError, match=r"several datasets|2 datasets") as error:
        choose_files(paths, card, "x")
    assert "hf://datasets/OWNER/NAME/FOLDER" in error.value.next_step


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"# no header",
        b"---\nconfigs: 3\n---",
        b"---\n: [\n---\n",
        b"---\n" + b"[" * 5000 + b"\n---\n",
        b"---\n\xff\xfe\n---\n",
        b"---\n!!python/object/apply:os.system ['false']\n---\n",
        b"---\nconfigs:\n- 3\n- {data_files: [1, 2]}\n---\n",
        b"---\ndataset_info: {features: [{name: label, dtype: {class_label: {names: 3}}}]}\n---\n",
    ],
)
def test_a_card_that_says_nothing(text: bytes) -> None:
    card = read_card(text)
    assert (list(card.configs), dict(card.class_names)) == ([], {})


LAUGHS = b", ".join(b"&%c [%s]" % (97 + n, b", ".join([b"*%c" % (96 + n) if n else b"x"] * 9)) for n in range(12))
"""Lists of lists, 9 ** 12 of them when they are written out."""


@pytest.mark.parametrize("name", [b"*l", b"0x" + b"f" * 5000, b"{a: *l}"], ids=["laughs", "digits", "inside"])
def test_names_that_are_none_are_empty(name: bytes) -> None:
    """The split may be in any part of a name."""
    card = read_card(
        b"---\nlaughs: [%s]\nconfigs:\n- config_name: %s\n  data_files: [{split: %s, path: a}]\n"
        b"dataset_info:\n  config_name: %s\n  features: [{name: %s, dtype: {class_label: {names: [%s, cat]}}}]\n---\n"
        % (LAUGHS, name, name, name, name, name)
    )
    assert (list(card.configs), dict(card.class_names)) == ([("", False, {"": ["a"]})], {("", ""): ["", "cat"]})
