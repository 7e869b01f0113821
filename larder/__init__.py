"""larder: an image data set in every layout a trainer may read, and loaders that feed training from it."""

# In Python 3.6, as a bare machine may have: it gets as far as __main__, which says what is needed.
__version__: str


def __getattr__(name: str) -> str:
    """Find the version when somebody asks for it, since importlib.metadata takes longer to import than all of this."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _version()


def _version() -> str:
    """Return the version of the checkout that this file lies in, or else that of the installed package."""
    import re
    from pathlib import Path

    pyproject = Path(__file__).resolve().parents[1] / "pyproject.toml"
    if pyproject.is_file():
        text = pyproject.read_text(encoding="utf-8")  # Python 3.9 to 3.10 has no parser for it
        found = re.search(r'^name = "larder-data"\nversion = "([^"]+)"', text, re.MULTILINE)
        if found:
            return found[1]
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("larder-data")
    except PackageNotFoundError:  # a copy of this folder alone
        return "unknown"
