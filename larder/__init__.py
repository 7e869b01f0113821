"""larder: store an image dataset in the layouts that training scripts read, and load it from them."""

# This file also runs on Python 3.6, so that __main__ can say which version is needed.
__version__: str


def __getattr__(name: str) -> str:
    """Look up the version on first use: importing importlib.metadata takes longer than importing this package."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _version()


def _version() -> str:
    """Return the version of the checkout that contains this file, else the version of the installed package."""
    import re
    from pathlib import Path

    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    if pyproject.is_file():
        text = pyproject.read_text(encoding="utf-8")  # no tomllib in Python 3.9 and 3.10
        match = re.search(r'^name = "larder-data"\nversion = "([^"]+)"', text, re.MULTILINE)
        if match:
            return match[1]
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("larder-data")
    except PackageNotFoundError:  # this folder was copied without its metadata
        return "unknown"
