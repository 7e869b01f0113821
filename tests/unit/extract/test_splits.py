"""Which split each file of a data set belongs to."""

from __future__ import annotations

import pytest

from larder.sources.cards import Card, choose, read_card
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
    ],
)  # fmt: skip
def test_splits_from_names(paths: list[str], splits: list[str]) -> None:
    assert choose(paths, Card(), "x").splits == dict(zip(paths, splits, strict=True))


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
    chosen = choose(paths, read_card(CARD), "x")
    assert chosen.config == "big"
    assert chosen.splits == {
        "big/one-1.parquet": "train", "big/two.parquet": "train", "big/rest/train.parquet": "held_out"
    }  # fmt: skip
    assert choose(paths[:1], read_card(CARD), "x").splits == {"small/tr-1.parquet": "train"}


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
    with pytest.raises(BadSourceError, match=r"several data sets|2 data sets") as error:
        choose(paths, card, "x")
    assert "hf://datasets/OWNER/NAME/FOLDER" in error.value.next_step


@pytest.mark.parametrize(
    "text",
    [b"", b"# no header", b"---\nconfigs: 3\n---", b"---\n: [\n---\n", b"---\n" + b"[" * 5000 + b"\n---\n",
     b"---\n\xff\xfe\n---\n",
     b"---\n!!python/object/apply:os.system ['false']\n---\n", b"---\nconfigs:\n- 3\n- {data_files: [1, 2]}\n---\n",
     b"---\ndataset_info: {features: [{name: label, dtype: {class_label: {names: 3}}}]}\n---\n"],
)  # fmt: skip
def test_a_card_that_says_nothing(text: bytes) -> None:
    card = read_card(text)
    assert (list(card.configs), dict(card.class_names)) == ([], {})
