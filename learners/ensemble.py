"""A TabNet, alone or with a forest beside it, as a policy that can be asked for an action.

What the two give a class is mixed as probabilities, p = w softmax(forest) + (1 - w) softmax(logits)
with w the `forest_weight`. A score is log max(p, 1e-9): rare answers are no less than that, so that
no score is infinite. As of a network, the action is the highest score, and softmax(scores /
temperature) its confidence, which `learners.calibration` makes that of held-out rows.

Tensors have the names of their part, after `tabnet.` or `forest.`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from learners import forest, tabnet, tabnet_graph
from learners.forest import ForestForm
from learners.form_fields import members, number
from learners.network import (
    TEMPERATURE_MAX,
    TEMPERATURE_MIN,
    WIDTH_MAX,
    Evaluation,
    require_count,
)
from learners.onnx_bytes import FLOAT, INT64, TREES, TREES_VERSION, Part, model, node, value
from learners.onnx_graph import ACTION, INPUT, PROBABILITIES, SCORES
from learners.tabnet import TabNetForm
from learners.tensor_file import Tensor

FOREST_WEIGHT = 0.7
PROBABILITY_MIN = 1e-9
"""The least that a class is given before its logarithm is taken."""

_TABNET, _FOREST = "tabnet.", "forest."


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """The form of the policy; `inputs` is the length of an observation.

    An observation begins with the columns that the parts look at; those behind them, as of what is
    held, are left aside. `forest_weight` is the share of the forest, and 0 where there is none.

    >>> alone = Ensemble(inputs=21, tabnet=TabNetForm(inputs=18, classes=3), forest_weight=0)
    >>> alone.actions
    3
    """

    inputs: int
    tabnet: TabNetForm
    forest: ForestForm | None = None
    forest_weight: float = FOREST_WEIGHT
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Refuse parts that do not fit each other."""
        require_count("inputs", self.inputs, self.tabnet.inputs, WIDTH_MAX)
        weight = number("forest_weight", self.forest_weight, 0.0, 1.0)
        if (self.forest is None) != (weight == 0):
            rule = "must be 0 without a forest, and more than 0 with one"
            raise InvalidInput(field="forest_weight", rule=rule, found=weight)
        if self.forest is not None:
            for name in ("inputs", "classes"):
                found, expected = getattr(self.forest, name), getattr(self.tabnet, name)
                if found != expected:
                    rule = f"must be {expected}, as of the TabNet"
                    raise InvalidInput(field=f"forest.{name}", rule=rule, found=found)
        temperature = number("temperature", self.temperature, TEMPERATURE_MIN, TEMPERATURE_MAX)
        object.__setattr__(self, "forest_weight", weight)
        object.__setattr__(self, "temperature", temperature)

    @property
    def actions(self) -> int:
        """How many actions there are: one for each class."""
        return self.tabnet.classes

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor by name."""
        shapes = {_TABNET + name: shape for name, shape in self.tabnet.shapes().items()}
        if self.forest is not None:
            shapes |= {_FOREST + name: shape for name, shape in self.forest.shapes().items()}
        return shapes

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {
            "inputs": self.inputs,
            "tabnet": self.tabnet.to_json(),
            "forest": None if self.forest is None else self.forest.to_json(),
            "forest_weight": self.forest_weight,
            "temperature": self.temperature,
        }

    @classmethod
    def from_json(cls, stored: object) -> Ensemble:
        """Return the form that `to_json` gave; raises `InvalidInput` for other fields and values.

        >>> form = Ensemble(inputs=21, tabnet=TabNetForm(inputs=18, classes=3), forest_weight=0)
        >>> Ensemble.from_json(form.to_json()) == form
        True
        """
        found = members(cls, stored, field="ensemble")
        found["tabnet"] = TabNetForm.from_json(found["tabnet"])
        if found["forest"] is not None:
            found["forest"] = ForestForm.from_json(found["forest"])
        return cls(**found)


def named(
    tabnet_tensors: Mapping[str, Tensor], forest_tensors: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return the tensors of the parts under the names they have in the ensemble."""
    found = {_TABNET + name: tensor for name, tensor in tabnet_tensors.items()}
    return found | {_FOREST + name: tensor for name, tensor in (forest_tensors or {}).items()}


def validated(form: Ensemble, tensors: Mapping[str, Tensor]) -> None:
    """Raise `InvalidInput` for tensors of the right shapes that cannot be evaluated."""
    if form.forest is not None:
        forest.validated(form.forest, part_of(_FOREST, tensors))


def evaluate(
    form: Ensemble, tensors: Mapping[str, Tensor], observations: NDArray[np.floating]
) -> Evaluation:
    """Evaluate `observations` of shape (n, inputs) or of the columns that are looked at alone."""
    rows = observations[:, : form.tabnet.inputs]
    said = tabnet.evaluate(form.tabnet, part_of(_TABNET, tensors), rows)
    mixed, magnitude = said.probabilities, said.magnitude
    if form.forest is not None:
        grown = forest.evaluate(form.forest, part_of(_FOREST, tensors), rows)
        weight = form.forest_weight
        mixed = weight * grown.probabilities + (1.0 - weight) * mixed
        magnitude = max(magnitude, grown.magnitude)
    scores = np.log(np.maximum(mixed, PROBABILITY_MIN))
    logits = scores / form.temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return Evaluation(
        scores=scores,
        probabilities=powers / powers.sum(axis=1, keepdims=True),
        magnitude=magnitude,
    )


def graph(form: Ensemble, tensors: Mapping[str, Tensor]) -> bytes:
    """Return the model; inputs and outputs are those of `learners.onnx_graph.graph`."""
    seen = form.tabnet.inputs
    constants: dict[str, np.ndarray] = {
        "least": np.array(PROBABILITY_MIN, dtype="<f4"),
        "temperature": np.array(form.temperature, dtype="<f4"),
    }
    nodes, source = [], INPUT
    if form.inputs > seen:
        constants |= {"from": np.array([0]), "to": np.array([seen]), "axis": np.array([1])}
        nodes.append(node("Slice", [INPUT, "from", "to", "axis"], "seen"))
        source = "seen"
    part, read, mixed = _mixed(form, tensors, source)
    nodes += [
        *part,
        node("Max", [mixed, "least"], "kept"),
        node("Log", ["kept"], SCORES),
        node("Div", [SCORES, "temperature"], "logits"),
        node("Softmax", ["logits"], PROBABILITIES, axis=1),
        node("ArgMax", [SCORES], ACTION, axis=1, keepdims=0),
    ]
    return model(
        nodes,
        constants | read,
        inputs=[value(INPUT, FLOAT, form.inputs)],
        outputs=[
            value(SCORES, FLOAT, form.actions),
            value(PROBABILITIES, FLOAT, form.actions),
            value(ACTION, INT64),
        ],
        domains={} if form.forest is None else {TREES: TREES_VERSION},
    )


def part_of(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it.

    >>> part_of("forest.", {"forest.base": np.zeros(1), "tabnet.input.scale": np.ones(1)})
    {'base': array([0.])}
    """
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _mixed(form: Ensemble, tensors: Mapping[str, Tensor], source: str) -> Part:
    nodes, constants, logits = tabnet_graph.nodes(
        form.tabnet, part_of(_TABNET, tensors), source=source, prefix=_TABNET
    )
    nodes.append(node("Softmax", [logits], "tabnet.probabilities", axis=1))
    if form.forest is None:
        return nodes, constants, "tabnet.probabilities"
    trees, read, scores = forest.nodes(
        form.forest, part_of(_FOREST, tensors), source=source, prefix=_FOREST
    )
    shares = {"forest.share": form.forest_weight, "tabnet.share": 1.0 - form.forest_weight}
    constants |= read | {name: np.array(share, dtype="<f4") for name, share in shares.items()}
    nodes += [
        *trees,
        node("Softmax", [scores], "forest.probabilities", axis=1),
        node("Mul", ["forest.probabilities", "forest.share"], "forest.part"),
        node("Mul", ["tabnet.probabilities", "tabnet.share"], "tabnet.part"),
        node("Add", ["forest.part", "tabnet.part"], "mixed"),
    ]
    return nodes, constants, "mixed"
