"""The multilayer perceptron behind a policy: which tensors it has, and what it says, in numpy.

Layers `i` = 0, 1, … are `layer.i.weight` of shape (out, in) and `layer.i.bias` of shape (out,). The
last one gives a score for each action: the logits of PPO, the action values of DQN, and of QR-DQN
`quantiles` values for each action, of which the score is the mean. A policy acts on its highest
score. Its confidence is softmax(scores / temperature) of that action: for PPO, whose temperature
is 1, the probability that it was trained to give it; for learners of values a Boltzmann
distribution over them, so that the temperature says which difference in value counts as sure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from learners.tensor_file import Tensor

WIDTH_MAX = 4096
LAYERS_MAX = 8
ACTIONS_MAX = 64
QUANTILES_MAX = 200
PARAMETERS_MAX = 4_194_304
TEMPERATURE_MIN, TEMPERATURE_MAX = 1e-3, 1e3

Doubles = NDArray[np.float64]


def require_count(field: str, found: object, least: int, most: int) -> None:
    """Raise `InvalidInput` for anything but a whole number from `least` to `most`."""
    if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
        rule = f"must be a whole number from {least} to {most}"
        raise InvalidInput(field=field, rule=rule, found=found)


class Algorithm(StrEnum):
    """What trained a network, and so what its scores are."""

    PPO = "ppo"
    DQN = "dqn"
    QR_DQN = "qr_dqn"


class Activation(StrEnum):
    """The function after each layer but the last."""

    TANH = "tanh"
    RELU = "relu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The form of a network; `inputs` is the length of an observation.

    >>> Network(algorithm=Algorithm.DQN, inputs=3, hidden=(4,), activation=Activation.RELU,
    ...         actions=2, quantiles=1, temperature=0.1).shapes()["layer.0.weight"]
    (4, 3)
    """

    algorithm: Algorithm
    inputs: int
    hidden: tuple[int, ...]
    activation: Activation
    actions: int
    quantiles: int
    temperature: float

    def __post_init__(self) -> None:
        """Refuse a form outside the bounds, before anything is built by it."""
        require_count("inputs", self.inputs, 1, WIDTH_MAX)
        require_count("hidden layers", len(self.hidden), 0, LAYERS_MAX)
        for width in self.hidden:
            require_count("hidden", width, 1, WIDTH_MAX)
        require_count("actions", self.actions, 2, ACTIONS_MAX)
        quantiles_max = QUANTILES_MAX if self.algorithm is Algorithm.QR_DQN else 1
        require_count("quantiles", self.quantiles, 1, quantiles_max)
        if not TEMPERATURE_MIN <= self.temperature <= TEMPERATURE_MAX:
            rule = f"must be in [{TEMPERATURE_MIN:g}, {TEMPERATURE_MAX:g}]"
            raise InvalidInput(field="temperature", rule=rule, found=self.temperature)
        if self.algorithm is Algorithm.PPO and self.temperature != 1:
            rule = "must be 1 for ppo, whose scores are the logits of its probabilities"
            raise InvalidInput(field="temperature", rule=rule, found=self.temperature)
        parameters = sum(math.prod(shape) for shape in self.shapes().values())
        require_count("parameters", parameters, 1, PARAMETERS_MAX)

    @property
    def layers(self) -> int:
        """How many layers there are, the last one included."""
        return len(self.hidden) + 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor by name."""
        widths = (self.inputs, *self.hidden, self.actions * self.quantiles)
        shapes: dict[str, tuple[int, ...]] = {}
        for i in range(self.layers):
            shapes[f"layer.{i}.weight"] = (widths[i + 1], widths[i])
            shapes[f"layer.{i}.bias"] = (widths[i + 1],)
        return shapes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """What a network says of observations, in double precision: arrays (observations, actions).

    `magnitude` is the largest sum of absolute summands behind a score: single precision is off by
    a few 1e-8 of it.
    """

    scores: Doubles
    probabilities: Doubles
    magnitude: float


def evaluate(
    network: Network, tensors: Mapping[str, Tensor], observations: NDArray[np.floating]
) -> Evaluation:
    """Evaluate `observations` of shape (n, inputs), independently of any runtime.

    >>> network = Network(algorithm=Algorithm.PPO, inputs=1, hidden=(), activation=Activation.TANH,
    ...                   actions=2, quantiles=1, temperature=1.0)
    >>> tensors = {"layer.0.weight": np.array([[1], [3]], dtype=np.float32),
    ...            "layer.0.bias": np.zeros(2, dtype=np.float32)}
    >>> evaluate(network, tensors, np.array([[0.5]])).scores.tolist()
    [[0.5, 1.5]]
    """
    hidden: Doubles = observations.astype(np.float64)
    for i in range(network.layers - 1):
        summed = hidden @ _double(tensors, i, "weight").T + _double(tensors, i, "bias")
        hidden = _activated(network.activation, summed)
    weight, bias = (_double(tensors, network.layers - 1, part) for part in ("weight", "bias"))
    values = hidden @ weight.T + bias
    magnitude = np.abs(hidden) @ np.abs(weight.T) + np.abs(bias)
    scores: Doubles = values.reshape(-1, network.quantiles, network.actions).mean(axis=1)
    logits = scores / network.temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return Evaluation(
        scores=scores,
        probabilities=powers / powers.sum(axis=1, keepdims=True),
        magnitude=float(magnitude.max()),
    )


def from_stable_baselines(
    network: Network, parameters: Mapping[str, NDArray[np.floating]]
) -> dict[str, Tensor]:
    """Return the tensors that act, out of the parameters of a Stable-Baselines3 policy.

    `parameters` is the policy's `state_dict`, every tensor as an array; critics and target
    networks stay behind. Raises `InvalidInput` where a layer is missing or has another shape.
    """
    found: dict[str, Tensor] = {}
    for name, shape in network.shapes().items():
        _, layer, part = name.split(".")
        theirs = f"{_their_layer(network, int(layer))}.{part}"
        if theirs not in parameters or parameters[theirs].shape != shape:
            seen = parameters[theirs].shape if theirs in parameters else "nothing"
            raise InvalidInput(field=theirs, rule=f"must have the shape {shape}", found=seen)
        found[name] = np.ascontiguousarray(parameters[theirs], dtype=np.float32)
    return found


def _their_layer(network: Network, layer: int) -> str:
    # Stable-Baselines3 counts an activation as a layer, so that linear ones have even numbers.
    match network.algorithm:
        case Algorithm.PPO:
            is_last = layer == network.layers - 1
            return "action_net" if is_last else f"mlp_extractor.policy_net.{2 * layer}"
        case Algorithm.DQN:
            return f"q_net.q_net.{2 * layer}"
        case Algorithm.QR_DQN:
            return f"quantile_net.quantile_net.{2 * layer}"
        case _:
            assert_never(network.algorithm)


def _activated(activation: Activation, values: Doubles) -> Doubles:
    match activation:
        case Activation.TANH:
            return np.tanh(values)
        case Activation.RELU:
            return np.maximum(values, 0.0)
        case _:
            assert_never(activation)


def _double(tensors: Mapping[str, Tensor], layer: int, part: str) -> Doubles:
    return tensors[f"layer.{layer}.{part}"].astype(np.float64)
