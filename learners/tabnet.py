"""TabNet for inference: which tensors it has, and what it says, in numpy.

A classifier of rows of numbers that looks at a few columns at a time (Arik and Pfister, "TabNet:
Attentive Interpretable Tabular Learning", AAAI 2021, arXiv:1908.07442), as pytorch-tabnet computes
it in evaluation mode, without embeddings of categories. With w the width and s = sqrt(1/2):

    x       = row * scale + shift
    block_b = h_(L-1), where h_0 = glu_0 and h_l = (h_(l-1) + glu_l(h_(l-1))) s
    glu(v)  = (A v + a) * sigmoid(B v + b)
    mask_i  = sparsemax(prior_i * (C_i attended_(i-1) + c_i)), prior_0 = 1
    prior_i = prior_(i-1) * (gamma - mask_(i-1))
    decided_i, attended_i = halves of block_(i+1)(mask_i * x); attended_(-1) is the second of
                            block_0(x)
    logits  = W sum_i relu(decided_i)

Batch normalisation works with its running statistics then, so it is a factor and a summand of every
sum: both are folded into the weights. So is s: a block computes h_l / s^l, without the factor
in each of its layers, and what reads it (attention, output) is multiplied by s^(L-1) instead.
`learners.tabnet_module` folds; by name there remain

    input.scale, input.shift                     (inputs,)
    block.b.l.weight, block.b.l.bias             (4 w, inputs or 2 w), (4 w,): A above B
    attention.i.weight, attention.i.bias         (inputs, w), (inputs,)
    output.weight                                (classes, w)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learners.form_fields import members, number
from learners.network import ACTIONS_MAX, PARAMETERS_MAX, Doubles, Evaluation, require_count
from learners.tensor_file import Tensor

INPUTS_MAX = 1024
STEPS_MAX = 10
WIDTH_MAX = 128
LAYERS_MAX = 4
GAMMA_MIN, GAMMA_MAX = 1.0, 4.0
EPSILON_MIN, EPSILON_MAX = 1e-30, 1e-3

_ROUNDING = 2.0**-24
_SHAKEN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TabNetForm:
    """The form of a TabNet: `inputs` columns to `classes` logits.

    `steps` are its decisions, each with a mask; `width` is that of a decision and of what steers
    the next mask (n_d = n_a); a block has `shared` layers, whose weights before normalisation all
    blocks have in common, and `independent` ones. A column that was used is taken again the more
    readily, the larger `gamma`. `epsilon` keeps the logarithm of the sparsity finite in training.

    >>> TabNetForm(inputs=18, classes=3).shapes()["block.0.0.weight"]
    (32, 18)
    """

    inputs: int
    classes: int
    steps: int = 3
    width: int = 8
    shared: int = 2
    independent: int = 2
    gamma: float = 1.3
    epsilon: float = 1e-15

    def __post_init__(self) -> None:
        """Refuse a form outside the bounds, before anything is built by it."""
        require_count("tabnet.inputs", self.inputs, 1, INPUTS_MAX)
        require_count("tabnet.classes", self.classes, 2, ACTIONS_MAX)
        require_count("tabnet.steps", self.steps, 1, STEPS_MAX)
        require_count("tabnet.width", self.width, 1, WIDTH_MAX)
        require_count("tabnet.shared", self.shared, 0, LAYERS_MAX)
        require_count("tabnet.independent", self.independent, 0, LAYERS_MAX)
        require_count("tabnet.layers", self.layers, 1, 2 * LAYERS_MAX)
        gamma = number("tabnet.gamma", self.gamma, GAMMA_MIN, GAMMA_MAX)
        epsilon = number("tabnet.epsilon", self.epsilon, EPSILON_MIN, EPSILON_MAX)
        object.__setattr__(self, "gamma", gamma)
        object.__setattr__(self, "epsilon", epsilon)
        parameters = sum(math.prod(shape) for shape in self.shapes().values())
        require_count("tabnet.parameters", parameters, 1, PARAMETERS_MAX)

    @property
    def layers(self) -> int:
        """How many layers a block has."""
        return self.shared + self.independent

    @property
    def residual(self) -> float:
        """What a block's numbers are multiplied by to be those of the paper."""
        return math.sqrt(0.5) ** (self.layers - 1)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor by name."""
        shapes: dict[str, tuple[int, ...]] = {
            "input.scale": (self.inputs,),
            "input.shift": (self.inputs,),
            "output.weight": (self.classes, self.width),
        }
        for block in range(self.steps + 1):
            for layer in range(self.layers):
                read = self.inputs if layer == 0 else 2 * self.width
                shapes[f"block.{block}.{layer}.weight"] = (4 * self.width, read)
                shapes[f"block.{block}.{layer}.bias"] = (4 * self.width,)
        for step in range(self.steps):
            shapes[f"attention.{step}.weight"] = (self.inputs, self.width)
            shapes[f"attention.{step}.bias"] = (self.inputs,)
        return shapes

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: object) -> TabNetForm:
        """Return the form that `to_json` gave; raises `InvalidInput` for other fields and values.

        >>> form = TabNetForm(inputs=18, classes=3, gamma=1.0)
        >>> TabNetForm.from_json(form.to_json()) == form
        True
        """
        return cls(**members(cls, stored, field="tabnet"))


def evaluate(
    form: TabNetForm, tensors: Mapping[str, Tensor], rows: NDArray[np.floating]
) -> Evaluation:
    """Evaluate `rows` of shape (n, inputs), independently of any runtime: scores are logits.

    `magnitude` is measured: how far the logits go when every sum on the way is off by a rounding of
    single precision, over that rounding.

    >>> form = TabNetForm(inputs=1, classes=2, steps=1, width=1, shared=0, independent=1)
    >>> tensors = {name: np.ones(shape, np.float32) for name, shape in form.shapes().items()}
    >>> logits = evaluate(form, tensors, np.array([[2.0]])).scores  # (x + 1) sigmoid(x + 1), x = 3
    >>> logits.round(4).tolist()
    [[3.9281, 3.9281]]
    """
    scores = _Walk(form, tensors, rows).logits()
    shaken = [_Walk(form, tensors, rows, shaken=seed).logits() for seed in range(_SHAKEN)]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return Evaluation(
        scores=scores,
        probabilities=powers / powers.sum(axis=1, keepdims=True),
        # Not the last layer's summands: what is rounded early decides which columns are seen later.
        magnitude=float(np.abs(np.array(shaken) - scores).max(initial=0.0)) / _ROUNDING,
    )


def masks(form: TabNetForm, tensors: Mapping[str, Tensor], rows: NDArray[np.floating]) -> Doubles:
    """Return how much each column of each row said, (n, inputs) numbers of 0 and more.

    The masks of the steps, each times the sum of what its step decided (the paper's aggregate
    decision mask before it is normalised; `explain` of pytorch-tabnet).
    """
    walk = _Walk(form, tensors, rows)
    said = [mask * taken.sum(axis=1, keepdims=True) for mask, taken in walk.taken()]
    explained: Doubles = np.sum(said, axis=0) * form.residual
    return explained


def importance(masks: Doubles) -> Doubles:
    """Return the share of each column in masks of many rows, or zeros where no step said anything.

    >>> importance(np.array([[1.0, 0.0], [1.0, 2.0]])).tolist()
    [0.5, 0.5]
    """
    summed: Doubles = masks.sum(axis=0)
    total = summed.sum()
    if total > 0:
        summed /= total
    return summed


def sparsemax(values: Doubles) -> Doubles:
    """Return the point of the probability simplex nearest to each row (Martins and Astudillo 2016).

    >>> sparsemax(np.array([[0.5, 0.5, -1.0], [3.0, 1.0, 1.0]])).tolist()
    [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]
    """
    shifted = values - values.max(axis=1, keepdims=True)
    falling = -np.sort(-shifted, axis=1)
    summed = falling.cumsum(axis=1) - 1.0
    counts = np.arange(1, values.shape[1] + 1)
    support = (counts * falling > summed).sum(axis=1, keepdims=True)
    threshold = np.take_along_axis(summed, support - 1, axis=1) / support
    chosen: Doubles = np.maximum(shifted - threshold, 0.0)
    return chosen


class _Walk:
    """One way through the network: what every step masked and decided.

    With a seed in `shaken`, every sum is off by 2^-24 of the absolute values that it adds up, up or
    down at random: what single precision may do to it.
    """

    def __init__(
        self,
        form: TabNetForm,
        tensors: Mapping[str, Tensor],
        rows: NDArray[np.floating],
        *,
        shaken: int | None = None,
    ) -> None:
        self._form, self._tensors = form, tensors
        self._rng = None if shaken is None else np.random.default_rng(shaken)
        self.masks: list[Doubles] = []
        self.decided: list[Doubles] = []
        scale, shift = self._double("input.scale"), self._double("input.shift")
        scaled = rows.astype(np.float64) * scale
        values = self._rounded(scaled + shift, np.abs(scaled) + np.abs(shift))
        attended = self._block(0, values)[:, form.width :]
        prior = np.ones_like(values)
        for step in range(form.steps):
            mask = sparsemax(prior * self._linear(f"attention.{step}", attended))
            prior = prior * (form.gamma - mask)
            out = self._block(step + 1, mask * values)
            attended = out[:, form.width :]
            self.masks.append(mask)
            self.decided.append(np.maximum(out[:, : form.width], 0.0))

    def taken(self) -> list[tuple[Doubles, Doubles]]:
        """Return mask and decision of every step."""
        return list(zip(self.masks, self.decided, strict=True))

    def logits(self) -> Doubles:
        """Return what all steps together say of each class."""
        return self._linear("output", np.sum(self.decided, axis=0))

    def _linear(self, name: str, values: Doubles) -> Doubles:
        weight = self._double(f"{name}.weight")
        bias = self._double(f"{name}.bias") if name != "output" else np.zeros(len(weight))
        sizes = np.abs(values) @ np.abs(weight.T) + np.abs(bias)
        return self._rounded(values @ weight.T + bias, sizes)

    def _block(self, block: int, values: Doubles) -> Doubles:
        hidden: Doubles = np.zeros(1)
        for layer in range(self._form.layers):
            summed = self._linear(f"block.{block}.{layer}", values if layer == 0 else hidden)
            value, gate = np.split(summed, 2, axis=1)
            hidden = hidden + value * _sigmoid(gate)
        return hidden

    def _double(self, name: str) -> Doubles:
        return self._tensors[name].astype(np.float64)

    def _rounded(self, sums: Doubles, sizes: Doubles) -> Doubles:
        if self._rng is None:
            return sums
        return sums + _ROUNDING * self._rng.choice([-1.0, 1.0], sums.shape) * sizes


def _sigmoid(values: Doubles) -> Doubles:
    # exp(-|v|) cannot overflow.
    power = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, power) / (1.0 + power)
