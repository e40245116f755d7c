"""The models that a policy may act by, asked alike: perceptrons, TabNet, and TabNet with trees."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from learners import ensemble, network, onnx_graph
from learners.ensemble import Ensemble
from learners.network import Evaluation, Network
from learners.tensor_file import Tensor

Model = Network | Ensemble


def evaluate(
    model: Model, tensors: Mapping[str, Tensor], observations: NDArray[np.floating]
) -> Evaluation:
    """Evaluate `observations` of shape (n, inputs) in double precision, without any runtime."""
    if isinstance(model, Network):
        return network.evaluate(model, tensors, observations)
    return ensemble.evaluate(model, tensors, observations)


def graph(model: Model, tensors: Mapping[str, Tensor]) -> bytes:
    """Return the ONNX graph of a model, by the inputs and outputs of `learners.onnx_graph`."""
    if isinstance(model, Network):
        return onnx_graph.graph(model, tensors)
    return ensemble.graph(model, tensors)


def require_sound(model: Model, tensors: Mapping[str, Tensor]) -> None:
    """Raise `InvalidInput` for tensors of the right shapes that no model can have."""
    if isinstance(model, Ensemble):
        ensemble.validated(model, tensors)
