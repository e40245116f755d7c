"""The ONNX graph of a perceptron, as `learners.onnx_bytes` writes it from form and weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from learners.network import Activation, Network
from learners.onnx_bytes import FLOAT, INT64, model, node, value
from learners.tensor_file import Tensor

INPUT = "observation"
SCORES, PROBABILITIES, ACTION = "scores", "probabilities", "action"

_OPERATORS = {Activation.TANH: "Tanh", Activation.RELU: "Relu"}


def graph(network: Network, tensors: Mapping[str, Tensor]) -> bytes:
    """Return the model: `observation` (n, inputs) to `scores`, `probabilities` and `action`.

    `scores` and `probabilities` are float32 (n, actions), `action` is the int64 (n,) index of the
    first highest score.
    """
    constants: dict[str, np.ndarray] = {name: tensors[name] for name in sorted(network.shapes())}
    constants["temperature"] = np.array(network.temperature, dtype="<f4")
    if network.quantiles > 1:
        constants["form"] = np.array([-1, network.quantiles, network.actions], dtype="<i8")
    return model(
        _nodes(network),
        constants,
        inputs=[value(INPUT, FLOAT, network.inputs)],
        outputs=[
            value(SCORES, FLOAT, network.actions),
            value(PROBABILITIES, FLOAT, network.actions),
            value(ACTION, INT64),
        ],
    )


def _nodes(network: Network) -> list[bytes]:
    nodes = []
    current = INPUT
    last = network.layers - 1
    for i in range(network.layers):
        summed = f"sum.{i}" if i < last or network.quantiles > 1 else SCORES
        inputs = [current, f"layer.{i}.weight", f"layer.{i}.bias"]
        nodes.append(node("Gemm", inputs, summed, transB=1))
        if i < last:
            current = f"hidden.{i}"
            nodes.append(node(_OPERATORS[network.activation], [summed], current))
    if network.quantiles > 1:
        nodes.append(node("Reshape", [f"sum.{last}", "form"], "quantiles"))
        nodes.append(node("ReduceMean", ["quantiles"], SCORES, axes=[1], keepdims=0))
    nodes.append(node("Div", [SCORES, "temperature"], "logits"))
    nodes.append(node("Softmax", ["logits"], PROBABILITIES, axis=1))
    nodes.append(node("ArgMax", [SCORES], ACTION, axis=1, keepdims=0))
    return nodes
