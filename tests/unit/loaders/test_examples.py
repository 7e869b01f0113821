"""The examples in docstrings that need no store; tests/integration/loaders has the others."""

import doctest

import pytest

from larder import store
from larder.loaders import preprocessing


@pytest.mark.parametrize("module", [preprocessing, store], ids=lambda module: module.__name__)
def test_examples(module, monkeypatch):
    for name in ("S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "LARDER_LOG"):
        monkeypatch.delenv(name, raising=False)
    failed, tried = doctest.testmod(module)
    assert (failed, tried > 0) == (0, True)
