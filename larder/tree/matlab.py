"""Read struct arrays of numbers and texts from MATLAB files; lists of samples are published in that format.

The format, level 5: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import NamedTuple

MAX_BYTES = 16 << 20
"""Maximum length of a decompressed variable."""
_HEADER_BYTES = 128
_MAX_ELEMENTS, _MAX_VALUE_BYTES = 200_000, 1 << 20
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q", 16: "B", 17: "H"}
"""Format character of each data type for Python's `struct`; 16 and 17 are text in UTF-8 and UTF-16."""
_CELL, _STRUCT, _TEXT = 1, 2, 4
_UTF8 = 16

Value = str | float | None


class _Element(NamedTuple):
    kind: int
    data: memoryview


def read_structs(data: bytes) -> list[dict[str, Value]]:
    """Return the elements of the first struct array in a file, as dicts of fields.

    A field is text, a number, or None for any other type.

    Raises:
        ValueError: If `data` isn't a valid MATLAB file with a struct array.
    """
    order = {b"IM": "<", b"MI": ">"}.get(data[_HEADER_BYTES - 2 : _HEADER_BYTES])
    if order is None:
        raise ValueError("it is not a MATLAB file of level 5")
    try:
        return next(
            structs
            for element in _elements(memoryview(data)[_HEADER_BYTES:], order)
            if (structs := _structs(element, order)) is not None
        )
    except StopIteration:
        raise ValueError("it holds no struct array") from None
    except (struct.error, zlib.error, IndexError, UnicodeDecodeError) as fault:
        raise ValueError(f"it breaks off, or is damaged ({fault})") from None


def _elements(data: memoryview, order: str) -> list[_Element]:
    elements: list[_Element] = []
    while data:
        element, size = _element(data, order)
        elements.append(element)
        if len(elements) > _MAX_ELEMENTS:
            raise ValueError(f"it has more than {_MAX_ELEMENTS:,} elements")
        data = data[size:]
    return elements


def _element(data: memoryview, order: str, packed: bool = False) -> tuple[_Element, int]:
    """Return the first element and its padded length. A compressed element can't contain another one."""
    kind, size = struct.unpack_from(f"{order}II", data)
    if kind >> 16:  # a small element has length and data in its tag
        kind, size = kind & 0xFFFF, kind >> 16
        return _Element(kind, data[4 : 4 + size]), 8
    if size > len(data) - 8:
        raise ValueError(f"an element of {size:,} bytes extends beyond its end")
    content = data[8 : 8 + size]
    if kind != _COMPRESSED or packed:
        return _Element(kind, content), 8 + size + -size % 8
    unpack = zlib.decompressobj()
    plain = unpack.decompress(content, MAX_BYTES)
    if unpack.unconsumed_tail:
        raise ValueError(f"a variable has more than {MAX_BYTES:,} bytes")
    return _element(memoryview(plain), order, packed=True)[0], 8 + size


def _structs(element: _Element, order: str) -> list[dict[str, Value]] | None:
    """Return the elements of a struct array; None for any other variable."""
    if element.kind != _MATRIX:
        return None
    parts = _elements(element.data, order)
    if parts[0].data[_class_offset(order)] != _STRUCT:
        return None
    count = math.prod(_numbers(parts[1], order))
    width, names = int(_numbers(parts[3], order)[0]), bytes(parts[4].data)
    fields = [names[at : at + width].partition(b"\0")[0].decode() for at in range(0, len(names), max(width, 1))]
    values = [_value(part, order) for part in parts[5:]]
    if not fields or count != len(values) / len(fields):
        raise ValueError(f"it has {len(values):,} values for {count:,} elements of {len(fields):,} fields")
    step = len(fields)
    return [dict(zip(fields, values[at : at + step], strict=True)) for at in range(0, len(values), step)]


def _value(element: _Element, order: str) -> Value:
    """Return a field's text or number; None for any other type."""
    if element.kind != _MATRIX or not element.data:
        return None
    parts = _elements(element.data, order)
    kind = parts[0].data[_class_offset(order)]
    if kind in (_CELL, _STRUCT) or len(parts) < 4:
        return None
    if kind == _TEXT and parts[3].kind == _UTF8:
        return bytes(parts[3].data).decode()
    numbers = _numbers(parts[3], order)
    if kind == _TEXT:
        return "".join(map(chr, map(int, numbers)))
    return numbers[0] if len(numbers) == 1 else None


def _class_offset(order: str) -> int:
    """Return the offset of the array class in the array flags: the lowest byte of the first word."""
    return 0 if order == "<" else 3


def _numbers(element: _Element, order: str) -> tuple[float, ...]:
    code = _NUMBERS.get(element.kind)
    if code is None or len(element.data) > _MAX_VALUE_BYTES:
        raise ValueError(f"it has data of kind {element.kind}")
    return struct.unpack(f"{order}{len(element.data) // struct.calcsize(code)}{code}", element.data)
