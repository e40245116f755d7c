"""ONNX models written byte for byte: the same content is always the same file.

A reader of artefacts does not ask whether a graph that it found is harmless: it writes the graph
that the specification and the weights imply and compares. For that the bytes have to be a function
of the content alone. Protocol buffers leave their form to the library and its version; so the few
messages that a model takes are written here, each field once and in the order of its number. The
field numbers are those of `onnx.proto`, IR version 8 with operator set 17.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import assert_never

import numpy as np

IR_VERSION = 8
OPERATOR_SET = 17
TREES, TREES_VERSION = "ai.onnx.ml", 3
"""The domain of tree ensembles, and its operator set that goes with the IR version."""

FLOAT, INT64 = 1, 7  # TensorProto.DataType
_ATTRIBUTE_FLOAT, _ATTRIBUTE_INT, _ATTRIBUTE_STRING = 1, 2, 3  # AttributeProto.AttributeType
_ATTRIBUTE_FLOATS, _ATTRIBUTE_INTS, _ATTRIBUTE_STRINGS = 6, 7, 8

Attribute = int | float | str | list[int] | list[float] | list[str]

Part = tuple[list[bytes], dict[str, np.ndarray], str]
"""A part of a graph: nodes in the order of their work, constants by name, the output's name."""


def model(
    nodes: Sequence[bytes],
    constants: Mapping[str, np.ndarray],
    *,
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    domains: Mapping[str, int] | None = None,
) -> bytes:
    """Return a model of nodes in the order of their work; `domains` are those besides ONNX's own.

    `constants` are float or int64 arrays by name, written in their order.
    """
    body = b"".join(
        [
            *(_message(1, node) for node in nodes),
            _text(2, "policy"),
            *(_message(5, _tensor(name, array)) for name, array in constants.items()),
            *(_message(11, value) for value in inputs),
            *(_message(12, value) for value in outputs),
        ]
    )
    used = {"": OPERATOR_SET, **(domains or {})}
    operators = [_message(8, _text(1, name) + _number(2, used[name])) for name in used]
    return b"".join([_number(1, IR_VERSION), _text(2, "liveops"), _message(7, body), *operators])


def node(
    operator: str,
    inputs: Sequence[str],
    output: str | Sequence[str],
    *,
    domain: str = "",
    **attributes: Attribute,
) -> bytes:
    """Return a node; an attribute's kind follows from its Python type, a list's from its first."""
    outputs = [output] if isinstance(output, str) else output
    return b"".join(
        [
            *(_text(1, name) for name in inputs),
            *(_text(2, name) for name in outputs),
            _text(4, operator),
            *(_message(5, _attribute(name, attributes[name])) for name in sorted(attributes)),
            *([_text(7, domain)] if domain else []),
        ]
    )


def value(name: str, element: int, *sizes: int) -> bytes:
    """Return an input or output of shape (n, *sizes)."""
    dimensions = [_text(2, "n"), *(_number(1, size) for size in sizes)]
    shape = b"".join(_message(1, dimension) for dimension in dimensions)
    tensor = _number(1, element) + _message(2, shape)
    return _text(1, name) + _message(2, _message(1, tensor))


def _attribute(name: str, found: Attribute) -> bytes:
    match found:
        case int():
            return _text(1, name) + _number(3, found) + _number(20, _ATTRIBUTE_INT)
        case float():
            return _text(1, name) + _single(2, found) + _number(20, _ATTRIBUTE_FLOAT)
        case str():
            return _text(1, name) + _text(4, found) + _number(20, _ATTRIBUTE_STRING)
        case list():
            return _text(1, name) + _listed(found)
        case _:
            assert_never(found)


def _listed(found: list[int] | list[float] | list[str]) -> bytes:
    match found[0]:
        case int():
            numbers = b"".join(_number(8, int(item)) for item in found)
            return numbers + _number(20, _ATTRIBUTE_INTS)
        case float():
            numbers = b"".join(_single(7, float(item)) for item in found)
            return numbers + _number(20, _ATTRIBUTE_FLOATS)
        case str():
            texts = b"".join(_text(9, str(item)) for item in found)
            return texts + _number(20, _ATTRIBUTE_STRINGS)
        case _:
            assert_never(found[0])


def _tensor(name: str, array: np.ndarray) -> bytes:
    is_whole = array.dtype.kind == "i"
    data = np.ascontiguousarray(array, dtype="<i8" if is_whole else "<f4").tobytes()
    return b"".join(
        [
            *(_number(1, size) for size in array.shape),
            _number(2, INT64 if is_whole else FLOAT),
            _text(8, name),
            _message(9, data),
        ]
    )


def _single(field: int, found: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", found)


def _number(field: int, found: int) -> bytes:
    return _varint(field << 3) + _varint(found)


def _text(field: int, found: str) -> bytes:
    return _message(field, found.encode("ascii"))


def _message(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(body)) + body


def _varint(found: int) -> bytes:
    found &= 0xFFFF_FFFF_FFFF_FFFF  # a negative number is written as its 64 bits
    groups = [found & 0x7F]
    while found := found >> 7:
        groups.append(found & 0x7F)
    return struct.pack(f"{len(groups)}B", *(g | 0x80 for g in groups[:-1]), groups[-1])
