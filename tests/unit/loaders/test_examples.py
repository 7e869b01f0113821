"""The examples in loaders' docstrings that need no store; tests/integration/loaders has the others."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize("name", ["larder.loaders.preprocessing", "larder.store"])
def test_examples_give_what_they_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(name)
    for unset in ("S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "LARDER_LOG"):
        monkeypatch.delenv(unset, raising=False)
    failed, tried = doctest.testmod(module)
    assert (failed, tried > 0) == (0, True)
