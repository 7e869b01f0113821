"""`.env` means the same to larder as to compose: the same variables, or both refuse it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from larder.cli import dotenv
from larder.errors import ConfigurationError

NAMES = ("A", "B", "C", "D", "E", "a.b", "a-b", "A_1", "export", "ä", "FROM_ENV", "EMPTY")
ENVIRON = {"FROM_ENV": "outside", "EMPTY": ""}
FILES = {
    "plain": "A=1\nB=two words\nC=\nD= \nE=a=b\n", "none": "", "blank-lines": "\n\n A=1\n\n\tB=2\n  \n",
    "no-final-newline": "A=1\nB=2", "crlf": "A=1\r\nB='x'\r\nC=\"y\"\r\n\r\nD=3\r\n", "cr": "A=1\rB=2\r",
    "bom": "\ufeffA=1\nB=2\n", "comments": "# A=0\nA=1 # one\nB=2# two\nC=3 #\n  # D=1\nE=#5\n",
    "only-comment": "# A=1",
    "comment-behind-quotes": "A='1' # one\nB=\"2\" # two\nC='3'# three\n", "hash": "A=a#b\nB='a # b'\nC=\"a # b\"\n",
    "export": "export A=1\nexport  B=2\nexport\tC=3\nexport D = 4\nexport E\nexport=x\n",
    "export-alone": "export\n", "blanks-around": "A = 1\nB= 2 \nC =3\n D=4\n\tE = 5\t\n",
    "colon": "A: 1\nB:2\nC : 3\nD:=4\n",
    "yaml-in-value": "A=b: c\nB: c=d\n", "quotes": "A='it'\nB=\"it\"\nC='a\"b'\nD=\"a'b\"\nE=''\n",
    "quotes-inside": "A=a'b'c\nB=it's\nC=a\"b\nD=say \"x\" now\n", "after-quotes": "A='x'y\nB=\"x\" y\n",
    "unclosed": "A='x\nB=1\n",
    "unclosed-double": "A=\"x\nB=1\n", "unclosed-hash": "A='x # y\n",
    "escapes": "A=\"a\\nb\\tc\\\\d\\\"e\\$f\\ag\\qh\"\n",
    "escapes-in-single": "A='a\\nb\\'c\\\\d'\n", "escapes-plain": "A=a\\nb\\tc\\\\d\\$e\n",
    "octal": "A=\"\\0101\\0101x\\08\\01\"\n",
    "multi-line": "A='one\ntwo'\nB=\"one\ntwo\n# three\"\nC=1\n", "backslash-at-end": "A=1\\\nB=2\nC=\"x\\\ny\"\n",
    "variable": "A=1\nB=$A\nC=${A}x\nD=\"$A $B\"\nE='$A'\n",
    "from-environment": "A=$FROM_ENV\nB=${FROM_ENV}\nC=$NOT_SET|\nFROM_ENV=in\n",
    "default": "A=${X:-b}\nB=${X-b}\nC=${EMPTY:-d}\nD=${EMPTY-d}\nE=${FROM_ENV:-d}\n",
    "nested-default": "A=${X:-${Y:-z}}\nB=${X:-$FROM_ENV}\nC=${X:-a:b}\nD=${X:-}\n", "alternative": "A=${FROM_ENV:+yes}\nB=${X:+yes}\n"  # noqa: E501
    "C=${EMPTY:+yes}|\nD=${EMPTY+yes}\n", "required": "A=${FROM_ENV:?no}\nB=${FROM_ENV?no}\n",
    "required-missing": "A=${X:?it is needed}\n",
    "required-empty": "A=${EMPTY:?no}\n", "required-set-empty": "A=${EMPTY?no}\n",
    "dollars": "A=$$\nB=a$$b\nC=$\nD=a$ b\nE=$1\n",
    "dollars-quoted": "A=\"$$x\"\nB=\"a$\"\nC=\"\\$FROM_ENV\"\nD='$$'\n", "bad-brace": "A=${\n",
    "bad-name": "A=${1x}\n", "empty-brace": "A=${}\n",
    "shell": "A=$(date)\nB=`date`\nC=\"$(date)\"\n", "duplicates": "A=1\nA=2\nB=$A\nA=3\n",
    "name-alone": "FROM_ENV\nA\nB=1\n",
    "unicode": "A=ä写🥫\nB='é'\nä=1\n", "names": "a.b=1\na-b=2\nA_1=3\n", "name-with-blank": "A B=1\n",
    "no-name": "=1\n",
    "name-with-slash": "A/B=1\n", "sentence": "this is no setting\n", "json": '{"A": 1}\n', "brackets": "A[0]=1\n",
    "dashes": "---\nA=1\n",
    "quote-in-name": "'A'=1\n", "windows-path": "A=C:\\Users\\new\nB=\"C:\\\\x\"\n",
    "url": "A=https://u:p@h/x?a=b&c=d#e\n",
    "trailing-blanks": "A=1  \nB='1'  \nC=\"1\"\t\n", "nbsp": "A=\u00a01\u00a0\n\u00a0B=2\n",
    "form-feed": "A=1\x0c\n\x0bB=2\n",
    "vertical-space": "A=1\n\x85B=2\n", "tab-before-hash": "A=1\t# one\n", "two-on-a-line": "A='1' B='2'\n",
    "semicolon": "A=1; B=2\n",
    "empty-quoted": "A=\"\"\nB=''x\n", "a-users": "export S3_BUCKET=mine\nA=$S3_BUCKET\n", "nul": "A=a\0b\n",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dotenv")
    service = {"image": "scratch", "environment": dict.fromkeys(NAMES)}
    (folder / "compose.yaml").write_text(json.dumps({"name": "larder-test", "services": {"stage": service}}))
    return folder


def by_compose(folder: Path, *texts: str) -> Mapping[str, str] | None:
    """Return what compose reads; None if it refuses the file."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    words = ["docker", "compose"]
    for at, text in enumerate(texts):
        (folder / f"env{at}").write_bytes(text.encode())
        words += ["--env-file", f"env{at}"]
    ended = subprocess.run(
        [*words, "config", "--format", "json"],
        cwd=folder,
        env=kept | ENVIRON,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if ended.returncode:
        return None
    by_compose = json.loads(ended.stdout)["services"]["stage"]["environment"]
    return {name: value.replace("$$", "$") for name, value in by_compose.items() if value is not None}


def by_larder(folder: Path, *texts: str) -> Mapping[str, str] | None:
    files = [folder / f"ours{at}" for at in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        file.write_bytes(text.encode())
    try:
        settings = dotenv.read(files, ENVIRON)
    except ConfigurationError as error:
        assert "ours" in error.what
        return None
    return {name: value for name, value in {**settings, **ENVIRON}.items() if name in NAMES}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("text", FILES.values(), ids=FILES)
def test_the_same_as_compose(folder: Path, text: str) -> None:
    assert by_larder(folder, text) == by_compose(folder, text)


def test_two_files(folder: Path) -> None:
    texts = ("A=1\nB=$A\nC=one\n", "A=2\nD=$A\nE=$C\n")
    assert by_larder(folder, *texts) == by_compose(folder, *texts)


PIECES = ("A", "B", "FROM_ENV", "=", " = ", ": ", "\n", "\n", " ", "\t", "#", " # ", "'", '"', "\\", "\\n", '\\"', "\\$", "$",  # noqa: E501
          "$$", "$A", "${A}", "${X:-", "${A:+", "${", "}", ":-", "export ", "x", "1", "ä", "\r\n", ".", "-", "[")  # fmt: skip  # noqa: E501


@pytest.mark.exhaustive
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES), max_size=14).map(lambda pieces: "A=1\nB" + "".join(pieces)))
def test_whatever_the_file_the_same_as_compose(folder: Path, text: str) -> None:
    assert by_larder(folder, text) == by_compose(folder, text)
