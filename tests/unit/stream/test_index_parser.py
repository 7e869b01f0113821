"""Larder's index of samples, parsed in arrays: what the arrays hold is what single lines say."""

import io
import json
import random

import numpy as np
import pytest

from larder.contract import MAX_LINE_BYTES, parse_samples
from larder.entries import SampleEntry
from larder.errors import InputError
from larder.shards import member_names
from larder.stream.index_lines import parse_lines
from larder.stream.index_parser import IndexParser
from larder.stream.samples import SampleTable
from larder.tar import header_bytes, member_bytes

SOURCES = [
    "class_00/a.jpg", "class_01/b.JPEG", "class_02/c.jpeg", "class_02/deep/er/d.x.png", "class_02/f.d/e",
    "class_00/ü.jpg", 'class_00/quo"te.jpg', "class_00/back\\slash.jpg", "class_00/tab\t.jpg", "class_00/.hidden.jpg",
    "class_00/" + 88 * "n" + ".jpg", "class_00/" + 95 * "n" + ".jpeg", "class_00/" + 400 * "n" + ".webp", "x.jpg",
    "class_00/no-extension", "class_00/\x7f.jpg", "class_00/日本.jpg", "class_00/a..jpg",
]  # fmt: skip
KEYS = [None, "short", "class_00/a_0-791ba3bb", "ü", 96 * "k", 97 * "k", 300 * "k", "a/.b"]


def entries(number: int) -> list[SampleEntry]:
    """Entries of two splits whose shards are in order, with every kind of path and key."""
    found = []
    for at in range(number):
        split = "evaluation" if at < 5 else "training"
        source, key = f"{split}/{SOURCES[at % len(SOURCES)]}", KEYS[at // len(SOURCES) % len(KEYS)]
        digest = random.Random(at).randbytes(32).hex()
        shard = f"{split}/shard-{at // 40:06d}.tar" if at % 80 < 79 else f"{split}/schön-{at // 40:06d}.tar"
        found.append(SampleEntry(shard, 10_000 * (at + 1), 7 * at, digest, at % 12, source, key))
    return found


def text_of(found: list[SampleEntry]) -> bytes:
    return b"".join(entry.to_json().encode() + b"\n" for entry in found)


def parse(text: bytes, piece: int = 1 << 20, classes: int = 12) -> SampleTable:
    advanced = []
    parser = IndexParser("training", classes, "uri", "the index", advanced.append)
    for at in range(0, len(text), piece):
        parser.feed(text[at : at + piece])
    table = parser.finish()
    assert sum(advanced) == len(table)
    return table


@pytest.mark.parametrize("piece", [1, 97, 5000, 1 << 20])
def test_a_table_is_what_the_lines_say(piece: int):
    own = [entry for entry in entries(400) if entry.file.startswith("training/")]
    table = parse(text_of(entries(400)), piece)
    assert [table.shards[shard] for shard in table.shard] == [entry.file for entry in own]
    assert table.offset.tolist() == [entry.offset for entry in own]
    assert table.length.tolist() == [entry.bytes for entry in own]
    assert table.labels(np.arange(len(own))).tolist() == [entry.label for entry in own]
    assert table.digests is not None
    assert table.digests.tobytes().hex() == "".join(entry.sha256 for entry in own)
    names = [member_names(entry.source, entry.key) for entry in own]
    begin = [entry.offset - header_bytes(image) for entry, (image, _) in zip(own, names, strict=True)]
    assert table.begin.tolist() == begin
    assert table.end.tolist() == [
        entry.offset + entry.bytes + -entry.bytes % 512 + member_bytes(label, 1)
        for entry, (_, label) in zip(own, names, strict=True)
    ]


def test_usual_lines_are_parsed_together():
    """Else a million of them would take four times as long."""
    usual = [
        SampleEntry(f"training/shard-{at:06d}.tar", 512, at, f"{at:064x}", at, f"training/class_{at:04d}/{at}.jpg", key)
        for at in range(100)
        for key in (None, f"class/{at}_0-791ba3bb")
    ]
    assert parse_lines(text_of(usual)).is_plain.all()


@pytest.mark.parametrize("seed", range(20))
def test_a_changed_byte(seed: int):
    """Lines that are parsed together say what they would say alone, whatever byte is changed."""
    chance = random.Random(seed)
    plain = [entry for entry in entries(120) if parse_lines(text_of([entry])).is_plain[0]]
    for _ in range(200):
        text = bytearray(text_of(chance.sample(plain, 3)))
        at = chance.randrange(len(text))
        alternatives = chance.choice([b'"{}:,\\/.0123456789\n-+ eE', bytes(range(256))])
        text[at : at + chance.choice([0, 1, 1, 1, 2])] = bytes(
            chance.choices(alternatives, k=chance.choice([0, 1, 1, 2]))
        )
        text = bytes(text).rstrip(b"\n") + b"\n"
        lines = parse_lines(text)
        for number in np.flatnonzero(lines.is_plain).tolist():
            entry = SampleEntry.checked(lines.line(number, text))
            found = (
                lines.offset[number],
                lines.length[number],
                lines.label[number],
                lines.digest[number].tobytes().hex(),
            )
            assert found == (entry.offset, entry.bytes, entry.label, entry.sha256)
            assert text[lines.file_begin[number] : lines.file_end[number]].decode() == entry.file
            assert {header_bytes(name) for name in member_names(entry.source, entry.key)} == {512}
            if number and lines.is_same_file[number]:
                assert entry.file == SampleEntry.checked(lines.line(number - 1, text)).file


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{}", b"[]", b"null", b"{", b"\xff", b'{"file":"training/a.tar"}', b"x" * (MAX_LINE_BYTES + 1),
        text_of(entries(6)[5:])[:-1] + b"}", text_of(entries(6)[5:]).replace(b'"offset":', b'"offset":0')[:-1],
        text_of(entries(6)[5:]).replace(b'"offset":', b'"offset":-')[:-1],
        text_of(entries(6)[5:]).replace(b"training/class", b"training/../class")[:-1],
        text_of(entries(6)[5:]).replace(b"training/shard", b"/training/shard")[:-1],
        text_of(entries(6)[5:]).replace(b'"offset":', b'"offset":99999999999999999999')[:-1],
    ],
    ids=range(14),
)  # fmt: skip
@pytest.mark.parametrize("at", [0, 3, 7])
@pytest.mark.parametrize("piece", [300, 1 << 20])
def test_an_invalid_line(line: bytes, at: int, piece: int):
    """The message is that of other readers, which names the line."""
    lines = text_of(entries(12)[5:12]).splitlines()
    text = b"\n".join([*lines[:at], line, *lines[at:]]) + b"\n"
    with pytest.raises(InputError) as expected:
        list(parse_samples(io.BytesIO(text), "the index"))
    with pytest.raises(InputError) as found:
        parse(text, piece)
    if len(line) <= MAX_LINE_BYTES:
        assert found.value.what == expected.value.what
    assert found.value.what.startswith(f"line {at + 1} of the index is not an index entry")
    assert found.value.next_step == expected.value.next_step


def test_the_last_line_needs_no_newline():
    assert len(parse(text_of(entries(20))[:-1])) == 15
    with pytest.raises(InputError, match="line 20 of the index"):
        parse(text_of(entries(20))[:-5])


def test_faults_are_told_in_the_order_of_lines():
    found = entries(30)
    found[20] = found[20]._replace(label=12)
    found[25] = found[25]._replace(offset=0)
    with pytest.raises(InputError, match="has class 12; the manifest names 12"):
        parse(text_of(found))
    with pytest.raises(InputError, match="aren't listed together"):
        parse(text_of(found), classes=13)
    with pytest.raises(InputError, match="aren't listed together"):
        parse(text_of(found[:26]) + b"{}\n", classes=13)


def test_an_endless_line_takes_no_memory():
    parser = IndexParser("training", 3, "uri", "the index", lambda _: None)
    for _ in range(100):
        parser.feed(b"x" * MAX_LINE_BYTES)
    with pytest.raises(InputError, match="line 1 of the index is not an index entry"):
        parser.finish()
    assert len(parser._rest) <= 2 * MAX_LINE_BYTES


def test_positions_beyond_2_gib():
    """The table's numbers are as small as possible, and not smaller."""
    found = [entry for entry in entries(12) if entry.file.startswith("training/")]
    far = [entry._replace(offset=entry.offset + (1 << 33), label=40_000) for entry in found]
    table = parse(text_of(found) + text_of(far), classes=40_001)
    assert table.offset.tolist() == [entry.offset for entry in [*found, *far]]
    assert table.labels(np.arange(14)).tolist() == [entry.label for entry in [*found, *far]]


def test_other_orders_of_fields():
    """Other programs may write an index with spaces, or with its fields in another order."""
    found = entries(60)
    text = b"".join(json.dumps(dict(reversed(json.loads(entry.to_json()).items()))).encode() + b"\n" for entry in found)
    ours, theirs = parse(text), parse(text_of(found))
    assert ours.digest() == theirs.digest()
    assert ours.end.tolist() == theirs.end.tolist()
