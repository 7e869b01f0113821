"""larder: the library that every stage imports and nobody runs."""

__version__ = "0.1.0"
