"""TabNet as a part of an ONNX graph, out of its form and tensors.

Sparsemax needs no search for its support. With z falling and S_j the sum of the first j, let
f(j) = (S_j - 1) / j. f(j + 1) is the mean of f(j), j times, and z_(j+1): so f rises as long as
z_(j+1) > f(j), which is the condition of the support, and never after. The threshold is therefore
the largest f(j), whatever is tied, and sparsemax(z) = relu(z - max_j f(j)).

A layer's values and gates are two products rather than one that is split afterwards: measured, that
is the faster way for one row.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from learners.onnx_bytes import Attribute, Part, node
from learners.tabnet import TabNetForm
from learners.tensor_file import Tensor


def nodes(form: TabNetForm, tensors: Mapping[str, Tensor], *, source: str, prefix: str) -> Part:
    """Return the part that computes logits (n, classes) out of `source`, float32 (n, inputs).

    All its names begin with `prefix`.
    """
    part = _Part(form, tensors, prefix)
    scaled = part.add("Mul", [source, part.tensor("input.scale")], "scaled")
    values = part.add("Add", [scaled, part.tensor("input.shift")], "values")
    _, attended = part.halves(part.block(0, values), "first")
    prior, decided = None, []
    for step in range(form.steps):
        mask = part.mask(step, attended, prior)
        seen = part.add("Mul", [mask, values], f"seen.{step}")
        decision, attended = part.halves(part.block(step + 1, seen), f"step.{step}")
        decided.append(part.add("Relu", [decision], f"decided.{step}"))
        if step < form.steps - 1:
            prior = part.prior(step, mask, prior)
    summed = part.add("Sum", decided, "decided")
    logits = part.add("Gemm", [summed, part.tensor("output.weight")], "logits", transB=1)
    return part.nodes, part.constants, logits


class _Part:
    """What was written so far."""

    def __init__(self, form: TabNetForm, tensors: Mapping[str, Tensor], prefix: str) -> None:
        self._form, self._tensors, self._prefix = form, tensors, prefix
        self.nodes: list[bytes] = []
        self.constants: dict[str, np.ndarray] = {}

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Attribute) -> str:
        self.nodes.append(node(operator, inputs, self._prefix + output, domain="", **attributes))
        return self._prefix + output

    def constant(self, name: str, array: np.ndarray) -> str:
        self.constants[self._prefix + name] = array
        return self._prefix + name

    def tensor(self, name: str) -> str:
        return self.constant(name, self._tensors[name])

    def block(self, block: int, source: str) -> str:
        hidden = source
        for layer in range(self._form.layers):
            name = f"block.{block}.{layer}"
            gate = self._half(name, "gate", hidden)
            value = self._half(name, "value", hidden)
            opened = self.add("Sigmoid", [gate], f"{name}.opened")
            unit = self.add("Mul", [value, opened], f"{name}.unit")
            hidden = unit if layer == 0 else self.add("Add", [hidden, unit], f"{name}.sum")
        return hidden

    def _half(self, name: str, half: str, source: str) -> str:
        rows = (
            slice(0, 2 * self._form.width) if half == "value" else slice(2 * self._form.width, None)
        )
        read = [source]
        for part in ("weight", "bias"):
            read.append(
                self.constant(f"{name}.{half}.{part}", self._tensors[f"{name}.{part}"][rows])
            )
        return self.add("Gemm", read, f"{name}.{half}", transB=1)

    def halves(self, source: str, name: str) -> tuple[str, str]:
        """Split a block's output into what is decided and what steers the next mask."""
        width = self._form.width
        sizes = self.constant("halves", np.array([width, width], dtype="<i8"))
        names = (f"{self._prefix}{name}.decision", f"{self._prefix}{name}.attended")
        self.nodes.append(node("Split", [source, sizes], names, axis=1))
        return names

    def mask(self, step: int, attended: str, prior: str | None) -> str:
        name = f"attention.{step}"
        read = [attended, self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias")]
        values = self.add("Gemm", read, name, transB=1)
        if prior is not None:
            values = self.add("Mul", [values, prior], f"{name}.prior")
        return self.sparsemax(values, name)

    def sparsemax(self, values: str, name: str) -> str:
        inputs = self._form.inputs
        count = self.constant("inputs", np.array([inputs], dtype="<i8"))
        axis = self.constant("axis", np.array(1, dtype="<i8"))
        one = self.constant("one", np.array(1, dtype="<f4"))
        counts = self.constant("counts", np.arange(1, inputs + 1, dtype="<f4"))
        # Sums of large numbers would lose the differences that count.
        highest = self.add("ReduceMax", [values], f"{name}.highest", axes=[1], keepdims=1)
        shifted = self.add("Sub", [values, highest], f"{name}.shifted")
        falling = f"{self._prefix}{name}.falling"
        order = f"{self._prefix}{name}.order"
        self.nodes.append(node("TopK", [shifted, count], [falling, order], axis=1))
        summed = self.add("CumSum", [falling, axis], f"{name}.summed")
        excess = self.add("Sub", [summed, one], f"{name}.excess")
        means = self.add("Div", [excess, counts], f"{name}.means")
        threshold = self.add("ReduceMax", [means], f"{name}.threshold", axes=[1], keepdims=1)
        above = self.add("Sub", [shifted, threshold], f"{name}.above")
        return self.add("Relu", [above], f"{name}.mask")

    def prior(self, step: int, mask: str, prior: str | None) -> str:
        gamma = self.constant("gamma", np.array(self._form.gamma, dtype="<f4"))
        left = self.add("Sub", [gamma, mask], f"left.{step}")
        return left if prior is None else self.add("Mul", [prior, left], f"prior.{step}")
