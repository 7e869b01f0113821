"""Which test runs each code block of a page, or why none does."""

from __future__ import annotations

import ast
import re
import runpy
import tomllib

import pytest

from tests.markdown import ROOT, Block, blocks, pages

PAGES = pages()
BLOCKS = {block.name: block for page in PAGES for block in blocks(page) if block.language in ("python", "sh")}
README, LAB = "tests/containers/test_readme.py", "tests/containers/test_lab.py"
STAGES = "tests/containers/test_stage_pages.py"
LOADERS = "tests/integration/loaders"
SCRIPTS = f"{LOADERS}/test_use_in_training.py"
HERE = "tests/unit/test_docs_blocks.py"
COMMANDS = "tests/unit/cli/test_command_line.py::test_documented_commands_have_valid_settings"
"""It reads a block's commands and settings as `larder` does, and runs nothing."""

RUN_BY = {
    "README.md: make demo": f"{README}::test_make_demo",
    "README.md: echo LARDER_DATASET=photos >> .env": f"{README}::test_my_photos",
    "README.md: make s3-check": f"{README}::test_my_bucket",
    "README.md: pip install '.[stream,torch]'": f"{HERE}::test_installed_extras_exist",
    "README.md: import torch": f"{LOADERS}/test_loaders.py::test_a_few_lines_train_from_shards_in_a_bucket",
    "README.md: cp provision/examples/block.toml provision.toml": f"{README}::test_the_clouds_commands_are_there",
    "docs/stages.md: make s3-up": f"{README}::test_into_a_store_and_back",
    "docs/stages.md: make ray-up": f"{README}::test_into_a_store_and_back",
    "docs/stages.md: make jupyter": f"{README}::test_into_a_store_and_back",
    "docs/stages.md: docker compose -f compose/local.yaml run --rm --build extrac": f"{README}::test_stage_by_stage",
    "docs/stream.md: pip install '.[stream,torch]'": f"{HERE}::test_installed_extras_exist",
    "docs/stream.md: import torch": f"{LOADERS}/test_stream.py::test_examples_of_the_page",
    "docs/stream.md: from larder.stream import ShardStream, normalize": (
        f"{LOADERS}/test_stream.py::test_examples_of_the_page"
    ),
    'docs/contract.md: for figures in (record, *record["then"]):': f"{HERE}::test_the_figures_of_all_passes",
    "docs/scale.md: python -m docs.scale --vcpu-hour 0.012 --image-bytes 300000": (
        "tests/unit/test_docs_scale.py::test_the_pages_command"
    ),
    "docs/operations.md: make s3-check": f"{README}::test_chameleons_commands",
    "docs/benchmarking.md: pip install 'larder-data[bench,dali,datasets,ray-data,s3torc": (
        f"{HERE}::test_installed_extras_exist"
    ),
    "docs/operations.md: set -a; . ./.larder/s3-compose.env; S3_ENDPOINT_URL=http://1": (
        "tests/containers/test_s3.py::test_a_program_of_one_s_own_reads_from_it"
    ),
    "docs/operations.md: python3 -m larder s3-up --latency 20ms --bandwidth 200mbit": (
        "tests/containers/test_s3.py::test_a_link_comes_changes_and_goes_without_losing_objects"
    ),
    "docs/benchmarking.md: make benchmarks": f"{HERE}::test_named_benchmarks_exist",
    "docs/use-in-training.md: # train_ddp.py": f"{SCRIPTS}::test_two_ranks_evaluate_every_sample_once",
    "provision/README.md: cp provision/examples/block.toml provision.toml # edit it: y": (
        f"{README}::test_the_clouds_commands_are_there"
    ),
    "provision/README.md: python3 -m larder --on object-netID s3-check": (
        "tests/openstack/test_remote_server.py::test_keys_are_where_the_work_is_and_commands_run_there"
    ),
    "services/shard/README.md: make ray-up": f"{README}::test_into_a_store_and_back",
}
RUN_BY |= {block.name: f"{LAB}::test_the_lab_to_the_letter" for block in blocks("docs/lab.md", "sh")}
RUN_BY = {
    block.name: f"{STAGES}::test_a_page"
    for page in PAGES
    if page.startswith("services/")
    for block in blocks(page)
    if block.language in ("python", "sh")
} | RUN_BY
RUN_BY = {block.name: f"{SCRIPTS}::test_a_script" for block in blocks("docs/use-in-training.md", "python")} | RUN_BY

NOT_RUN = {
    "docs/use-in-training.md: export S3_ENDPOINT_URL=https://my-store:9000 AWS_ACCESS_KEY_": (
        f"the tests of the scripts set these variables to a store's: {SCRIPTS}"
    ),
    "docs/benchmarking.md: make compare": (
        f"half an hour; {COMMANDS} reads them, tests/integration/bench/test_compare.py runs compare"
    ),
    "docs/benchmarking.md: make report": (
        f"its records are placeholders; {COMMANDS} reads them, tests/unit/cli/test_report.py runs report"
    ),
    "docs/benchmarking.md: pip install scikit-image scikit-learn pillow && python -m be": (
        f"20 minutes, and packages that nothing else needs; {COMMANDS} reads its commands"
    ),
    'docs/operations.md: docker compose -f compose/load.yaml run --rm -v "$PWD/ca.pem': (
        "needs a store with a certificate of its own"
    ),
    "docs/operations.md: source CHI-XXXXXX-openrc.sh": "needs an account at Chameleon",
}


def test_every_block_is_run_or_has_a_reason() -> None:
    assert sorted(BLOCKS) == sorted(RUN_BY | NOT_RUN)
    assert not RUN_BY.keys() & NOT_RUN.keys()


def test_blocks_of_a_page_differ_in_their_first_lines() -> None:
    assert len(BLOCKS) == sum(block.language in ("python", "sh") for page in PAGES for block in blocks(page))


@pytest.mark.parametrize("test", sorted({*RUN_BY.values(), COMMANDS}))
def test_the_test_exists(test: str) -> None:
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


COMMAND_WORDS = ("docker", "export", "larder", "make", "pip", "python", "python3", "source")


def test_commands_have_a_language() -> None:
    """Blocks without one are drawings and lists of files."""
    for page in PAGES:
        for block in blocks(page):
            first = block.text.split()[0]
            assert block.language or first not in COMMAND_WORDS, block.name


def installs() -> list[Block]:
    return [block for block in BLOCKS.values() if block.text.startswith("pip install") and "[" in block.text]


@pytest.mark.parametrize("block", installs(), ids=lambda block: block.page)
def test_installed_extras_exist(block: Block) -> None:
    """tests/integration/test_package.py installs the wheel, and finds that all extras can be had together."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [extras] = re.findall(r"^pip install '(?:\.|larder-data)\[(.+)\]'", block.text)
    assert set(extras.split(",")) <= set(known)


def test_named_benchmarks_exist() -> None:
    known = runpy.run_path(str(ROOT / "benchmarks" / "names.py"))["NAMES"]
    commands = BLOCKS["docs/benchmarking.md: make benchmarks"].commands
    words = [word for command in commands for word in command.partition("-m benchmarks")[2].split()]
    assert {word for word in words if word.isidentifier()} <= set(known)
    assert "extract_speed" in words


def test_the_figures_of_all_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """Only what follows the first pass has no arm of its own: it is the record's."""
    cold = {"arm": "litdata_streaming", "pass": "cold", "imgs/s": 10.0}
    record = cold | {"then": [{"pass": "warm", "imgs/s": 20.0}]}
    [script] = blocks("docs/contract.md", "python")
    exec(script.text, {"record": record})  # noqa: S102
    assert capsys.readouterr().out == "litdata_streaming cold 10.0\nlitdata_streaming warm 20.0\n"
