"""Tables of the fields of manifests, indexes and records, made from the code, for docs/contract.md."""

from __future__ import annotations

import ast
import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from larder.bench.provenance import PROVENANCE_FIELDS
from larder.bench.run_record import DATASET_FIELDS, RECORD_FIELDS, RecordField
from larder.bench.training import TRAINING_FIELDS
from larder.contract import Manifest
from larder.entries import IndexEntry, SampleEntry
from larder.stage import RunRecord
from services.extract.extract import ExtractRunRecord
from services.index.index import IndexRunRecord
from services.load.commit import LoadRunRecord
from services.transform.transform import TransformRunRecord

RUN_RECORDS = {
    "all": RunRecord,
    "extract": ExtractRunRecord,
    "transform": TransformRunRecord,
    "load": LoadRunRecord,
    "index": IndexRunRecord,
}
KEYS = {"label": "class"}
"""Fields whose key in JSON differs from their name in Python."""
INTERNAL = {("IndexEntry", "key")}
"""Fields that are never written."""
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


class _Field(NamedTuple):
    name: str
    type: str
    meaning: str


def tables() -> dict[str, str]:
    """Return each table as Markdown, by its name in docs/contract.md."""
    runs = [(*field, stage) for stage, kind in RUN_RECORDS.items() for field in _fields_of(kind)]
    return {
        "manifest": _table(("key", "type", "meaning"), _fields_of(Manifest)),
        "index": _table(("key", "type", "meaning"), _fields_of(IndexEntry)),
        "samples": _table(("key", "type", "meaning"), _fields_of(SampleEntry)),
        "run": _table(("key", "type", "meaning", "stage"), runs),
        "record": _record_table(RECORD_FIELDS),
        "dataset": _record_table(DATASET_FIELDS),
        "provenance": _record_table(PROVENANCE_FIELDS),
        "training": _record_table(TRAINING_FIELDS),
    }


def with_tables(text: str) -> str:
    """Return a page with each `<!-- fields: NAME -->` … `<!-- end -->` block replaced by the table of that name.

    Raises:
        KeyError: If there is no such table.
    """
    rendered = tables()

    def block(match: re.Match[str]) -> str:
        return f"<!-- fields: {match[1]} -->\n{rendered[match[1]]}\n<!-- end -->"

    return re.sub(r"<!-- fields: (\w+) -->\n.*?<!-- end -->", block, text, flags=re.DOTALL)


def _record_table(fields: Mapping[str, RecordField]) -> str:
    rows = [(f"`{name}`", field.unit, field.meaning) for name, field in fields.items()]
    return _markdown(("key", "unit", "meaning"), rows)


def _table(head: tuple[str, ...], rows: typing.Iterable[tuple[str, ...]]) -> str:
    return _markdown(head, [(f"`{name}`", *cells) for name, *cells in rows])


def _markdown(head: tuple[str, ...], rows: typing.Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _fields_of(kind: type, prefix: str = "") -> Iterator[_Field]:
    """Yield the fields of a class with their docstrings, and after each nested model the fields of that."""
    meanings, hints = _docstrings(kind), typing.get_type_hints(kind, include_extras=True)
    for name, hint in hints.items():
        if (kind.__name__, name) in INTERNAL or name == "model_config":
            continue
        key = prefix + KEYS.get(name, name)
        yield _Field(key, _type_name(hint), meanings[name])
        nested, inner = _nested_model(hint)
        if nested is not None:
            yield from _fields_of(nested, f"{key}{inner}.")


def _docstrings(kind: type) -> dict[str, str]:
    """Return the text below each field of a class. Raise KeyError if a field has none."""
    body = typing.cast(ast.ClassDef, ast.parse(inspect.getsource(kind)).body[0]).body
    fields = {}
    for field, below in zip(body, [*body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            if not (isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)):
                raise KeyError(f"{kind.__name__}.{field.target.id} has no docstring")
            fields[field.target.id] = " ".join(str(below.value.value).split()).replace("|", "\\|")
    return fields


def _type_name(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        names = dict.fromkeys(_type_name(arg) for arg in args if arg is not type(None))
        return " or ".join(names) + (", optional" if type(None) in args else "")
    if origin is typing.NotRequired:
        return f"{_type_name(args[0])}, optional"
    if origin is typing.Annotated:
        return _type_name(args[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin is list:
        return f"list of {_type_name(args[0])}s"
    return _TYPES.get(hint, "object")


def _nested_model(hint: Any) -> tuple[type[BaseModel] | None, str]:
    """Return the model inside of a type, if there is one, and what precedes its keys in the table."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint, ""
    for arg in typing.get_args(hint):  # of a union with None, or of a dict
        if isinstance(arg, type) and issubclass(arg, BaseModel):
            return arg, ".<name>" if typing.get_origin(hint) is dict else ""
    return None, ""
