"""The ONNX graph of a network, written byte for byte from its form and weights.

A reader of artefacts does not ask whether a graph that it found is harmless: it writes the graph
that the specification and the weights imply and compares. For that the bytes have to be a function
of the content alone. Protocol buffers leave their form to the library and its version; so the few
messages that a perceptron takes are written here, each field once and in the order of its number.
The field numbers are those of `onnx.proto`, IR version 8 with operator set 17.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import assert_never

import numpy as np

from learners.network import Activation, Network
from learners.tensor_file import Tensor

INPUT = "observation"
SCORES, PROBABILITIES, ACTION = "scores", "probabilities", "action"

IR_VERSION = 8
OPERATOR_SET = 17
_FLOAT, _INT64 = 1, 7  # TensorProto.DataType
_ATTRIBUTE_INT, _ATTRIBUTE_INTS = 2, 7  # AttributeProto.AttributeType
_OPERATORS = {Activation.TANH: "Tanh", Activation.RELU: "Relu"}


def graph(network: Network, tensors: Mapping[str, Tensor]) -> bytes:
    """Return the model: `observation` (n, inputs) to `scores`, `probabilities` and `action`.

    `scores` and `probabilities` are float32 (n, actions), `action` is the int64 (n,) index of the
    first highest score.
    """
    constants = {name: tensors[name] for name in sorted(network.shapes())}
    outputs = [
        _value(SCORES, _FLOAT, network.actions),
        _value(PROBABILITIES, _FLOAT, network.actions),
        _value(ACTION, _INT64, None),
    ]
    extra = {"temperature": np.array(network.temperature, dtype="<f4")}
    if network.quantiles > 1:
        extra["form"] = np.array([-1, network.quantiles, network.actions], dtype="<i8")
    body = b"".join(
        [
            *(_message(1, node) for node in _nodes(network)),
            _text(2, "policy"),
            *(_message(5, _tensor(name, array)) for name, array in {**constants, **extra}.items()),
            _message(11, _value(INPUT, _FLOAT, network.inputs)),
            *(_message(12, output) for output in outputs),
        ]
    )
    operators = _text(1, "") + _number(2, OPERATOR_SET)
    return _number(1, IR_VERSION) + _text(2, "liveops") + _message(7, body) + _message(8, operators)


def _nodes(network: Network) -> list[bytes]:
    nodes = []
    current = INPUT
    last = network.layers - 1
    for i in range(network.layers):
        summed = f"sum.{i}" if i < last or network.quantiles > 1 else SCORES
        inputs = [current, f"layer.{i}.weight", f"layer.{i}.bias"]
        nodes.append(_node("Gemm", inputs, summed, transB=1))
        if i < last:
            current = f"hidden.{i}"
            nodes.append(_node(_OPERATORS[network.activation], [summed], current))
    if network.quantiles > 1:
        nodes.append(_node("Reshape", [f"sum.{last}", "form"], "quantiles"))
        nodes.append(_node("ReduceMean", ["quantiles"], SCORES, axes=[1], keepdims=0))
    nodes.append(_node("Div", [SCORES, "temperature"], "logits"))
    nodes.append(_node("Softmax", ["logits"], PROBABILITIES, axis=1))
    nodes.append(_node("ArgMax", [SCORES], ACTION, axis=1, keepdims=0))
    return nodes


def _node(
    operator: str, inputs: Sequence[str], output: str, **attributes: int | list[int]
) -> bytes:
    return b"".join(
        [
            *(_text(1, name) for name in inputs),
            _text(2, output),
            _text(4, operator),
            *(_message(5, _attribute(name, attributes[name])) for name in sorted(attributes)),
        ]
    )


def _attribute(name: str, value: int | list[int]) -> bytes:
    match value:
        case int():
            return _text(1, name) + _number(3, value) + _number(20, _ATTRIBUTE_INT)
        case list():
            numbers = b"".join(_number(8, item) for item in value)
            return _text(1, name) + numbers + _number(20, _ATTRIBUTE_INTS)
        case _:
            assert_never(value)


def _tensor(name: str, array: np.ndarray) -> bytes:
    is_whole = array.dtype.kind == "i"
    data = np.ascontiguousarray(array, dtype="<i8" if is_whole else "<f4").tobytes()
    return b"".join(
        [
            *(_number(1, size) for size in array.shape),
            _number(2, _INT64 if is_whole else _FLOAT),
            _text(8, name),
            _message(9, data),
        ]
    )


def _value(name: str, element: int, width: int | None) -> bytes:
    dimensions = [_text(2, "n")] if width is None else [_text(2, "n"), _number(1, width)]
    shape = b"".join(_message(1, dimension) for dimension in dimensions)
    tensor = _number(1, element) + _message(2, shape)
    return _text(1, name) + _message(2, _message(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode("ascii"))


def _message(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F)
    return struct.pack(f"{len(groups)}B", *(g | 0x80 for g in groups[:-1]), groups[-1])
