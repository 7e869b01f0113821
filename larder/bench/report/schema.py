"""Check JSON against the part of JSON Schema that the schema of a record uses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

KEYWORDS = frozenset({
    "$ref", "anyOf", "const", "enum", "type", "minimum", "maximum", "properties", "required", "additionalProperties",
    "items", "minItems",
})  # fmt: skip
"""The keywords that are checked."""
ANNOTATIONS = frozenset({"$schema", "$id", "$defs", "title", "description", "default"})
"""Keywords without an effect on what is valid."""
MAX_NUMBER = 1e18
"""Larger numbers can't come from a measurement, and take many digits to print."""
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "null": (type(None),),
    "integer": (int,), "number": (int, float),
}  # fmt: skip


def find_faults(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "") -> Iterator[str]:
    """Yield what is wrong with a value, as "provenance.cores: must be a number".

    Args:
        value: The value, as `json` reads it.
        schema: Its schema.
        root: The whole schema, in which references are looked up.
        where: Path of the value, for messages.
    """
    schema = _resolve(schema, root)
    if "anyOf" in schema:
        yield from _check_any_of(value, schema["anyOf"], root, where)
    elif not _has_type(value, schema.get("type")):
        yield f"{where or 'the record'}: must be of type {schema['type']}"
    else:
        yield from _check_limits(value, schema, where)
        if isinstance(value, dict):
            yield from _check_object(value, schema, root, where)
        elif isinstance(value, list):
            for at, item in enumerate(value):
                yield from find_faults(item, schema.get("items", {}), root, _join(where, str(at)))


def _resolve(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = root["$defs"][name] if name else schema
    return found


def _check_any_of(value: Any, options: list[dict[str, Any]], root: dict[str, Any], where: str) -> Iterator[str]:
    """Yield the faults of the nearest option: that with the value's type, if there is one."""
    faults = [list(find_faults(value, option, root, where)) for option in options]
    if all(faults):
        fitting = [
            each for each, option in zip(faults, options) if _has_type(value, _resolve(option, root).get("type"))
        ]
        yield from (fitting or faults)[0]


def _has_type(value: Any, name: str | None) -> bool:
    if name is None:
        return True
    if isinstance(value, bool) and name != "boolean":  # in Python, True is also an int
        return False
    return isinstance(value, _TYPES[name])


def _check_limits(value: Any, schema: dict[str, Any], where: str) -> Iterator[str]:
    if "const" in schema and value != schema["const"]:
        yield f"{where}: must be {schema['const']}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: must be one of {', '.join(map(str, schema['enum']))}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value < schema.get("minimum", -MAX_NUMBER):
            yield f"{where}: must be {schema.get('minimum', -MAX_NUMBER):g} or more"
        if value > schema.get("maximum", MAX_NUMBER):
            yield f"{where}: must be {schema.get('maximum', MAX_NUMBER):g} or less"
    if isinstance(value, list) and len(value) < schema.get("minItems", 0):
        yield f"{where}: must have {schema['minItems']} or more"


def _check_object(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], where: str) -> Iterator[str]:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    yield from (f"{_join(where, name)}: is missing" for name in schema.get("required", ()) if name not in value)
    for name, inner in value.items():
        if name in known:
            yield from find_faults(inner, known[name], root, _join(where, name))
        elif isinstance(others, dict):
            yield from find_faults(inner, others, root, _join(where, name))
        elif not others:
            yield f"{_join(where, name)}: is unknown"


def _join(where: str, name: str) -> str:
    return f"{where}.{name[:80]}" if where else name[:80]
