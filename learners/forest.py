"""Boosted decision trees: which tensors they have, and what they say, in numpy and in ONNX.

Node n of tree t sends a row to `left` where its column `feature` is at most `threshold`, else to
`right`; a leaf, whose children are both 0, adds its `value` to the score of the tree's `target`
class, which begins at `base`. Every tensor is float32, indices too: those are whole numbers that
float32 holds exactly.

    base (classes,)   target (trees,)   feature, threshold, left, right, value (trees, nodes)

Node 0 is the root, children stand after their parent, and what a tree has fewer than `nodes` is
zeros at its end. Rows are compared in float32, the thresholds rounded down to it: for every x of
float32 and t of double precision, x <= t exactly where x <= t rounded down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from learners.form_fields import members
from learners.network import ACTIONS_MAX, PARAMETERS_MAX, Evaluation, require_count
from learners.onnx_bytes import TREES, Part, node
from learners.tabnet import INPUTS_MAX
from learners.tensor_file import Tensor

TREES_MAX = 8192
NODES_MAX = 1023
DEPTH_MAX = 32

_NODE_TENSORS = ("feature", "threshold", "left", "right", "value")
_Whole = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestForm:
    """The form of a forest: `inputs` columns to `classes` scores; no tree has more than `nodes`.

    >>> ForestForm(inputs=18, classes=3, trees=300, nodes=127).shapes()["threshold"]
    (300, 127)
    """

    inputs: int
    classes: int
    trees: int
    nodes: int

    def __post_init__(self) -> None:
        """Refuse a form outside the bounds, before anything is built by it."""
        require_count("forest.inputs", self.inputs, 1, INPUTS_MAX)
        require_count("forest.classes", self.classes, 2, ACTIONS_MAX)
        require_count("forest.trees", self.trees, 1, TREES_MAX)
        require_count("forest.nodes", self.nodes, 1, NODES_MAX)
        parameters = sum(math.prod(shape) for shape in self.shapes().values())
        require_count("forest.parameters", parameters, 1, PARAMETERS_MAX)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor by name."""
        every = dict.fromkeys(_NODE_TENSORS, (self.trees, self.nodes))
        return {"base": (self.classes,), "target": (self.trees,), **every}

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: object) -> ForestForm:
        """Return the form that `to_json` gave; raises `InvalidInput` for other fields and values.

        >>> form = ForestForm(inputs=18, classes=3, trees=300, nodes=127)
        >>> ForestForm.from_json(form.to_json()) == form
        True
        """
        return cls(**members(cls, stored, field="forest"))


def validated(form: ForestForm, tensors: Mapping[str, Tensor]) -> None:
    """Raise `InvalidInput` for tensors of the right shapes that are not trees, whoever wrote them.

    Each node but the root has one parent, which stands before it, so there is no cycle and no
    node that two paths share; none is deeper than `DEPTH_MAX`; every index is in its range.
    """
    for name, most in (
        ("target", form.classes - 1),
        ("feature", form.inputs - 1),
        ("left", form.nodes - 1),
        ("right", form.nodes - 1),
    ):
        _require(name, (tensors[name] >= 0) & (tensors[name] <= most), f"must be 0 to {most}")
        _require(name, tensors[name] == np.floor(tensors[name]), "must be whole")
    left, right = _whole(tensors["left"]), _whole(tensors["right"])
    places = np.arange(form.nodes)
    is_leaf = (left == 0) & (right == 0)
    _require("left", is_leaf | (left > places), "children must stand after their parent")
    _require("right", is_leaf | (right > places), "children must stand after their parent")
    parents = _parents(form, left, right)
    used = 1 + 2 * (~is_leaf).sum(axis=1, keepdims=True)
    expected = (places > 0) & (places < used)
    _require("nodes", parents == expected, "each node but the root must have one parent")
    # A split at or behind `used` has a child there, which the line above has refused.
    for name in ("feature", "threshold"):
        _require(name, ~is_leaf | (tensors[name] == 0), "must be 0 where a node does not split")
    _require("value", (places < used) | (tensors["value"] == 0), "must be 0 behind the last node")
    _require("value", is_leaf | (tensors["value"] == 0), "must be 0 where a node splits")
    _require("nodes", _depths(left, right) <= DEPTH_MAX, f"must be at most {DEPTH_MAX} deep")


def evaluate(
    form: ForestForm, tensors: Mapping[str, Tensor], rows: NDArray[np.floating]
) -> Evaluation:
    """Evaluate `rows` of shape (n, inputs), rounded to float32, with tensors that are `validated`.

    `scores` are the sums of a class, `probabilities` their softmax.

    >>> form = ForestForm(inputs=1, classes=2, trees=1, nodes=3)
    >>> tensors = {name: np.zeros(shape, np.float32) for name, shape in form.shapes().items()}
    >>> tensors["target"][0] = 1
    >>> tensors["left"][0, 0], tensors["right"][0, 0], tensors["threshold"][0, 0] = 1, 2, 0.5
    >>> tensors["value"][0, 1:] = -1, 2
    >>> evaluate(form, tensors, np.array([[0.5], [0.75]])).scores.tolist()
    [[0.0, -1.0], [0.0, 2.0]]
    """
    single = rows.astype(np.float32)
    scores = np.tile(tensors["base"].astype(np.float64), (len(rows), 1))
    magnitude = np.abs(scores)
    targets = _whole(tensors["target"])
    for tree in range(form.trees):
        found = tensors["value"][tree].astype(np.float64)[_leaves(tensors, tree, single)]
        scores[:, targets[tree]] += found
        magnitude[:, targets[tree]] += np.abs(found)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return Evaluation(
        scores=scores,
        probabilities=powers / powers.sum(axis=1, keepdims=True),
        magnitude=float(magnitude.max(initial=0.0)),
    )


def nodes(form: ForestForm, tensors: Mapping[str, Tensor], *, source: str, prefix: str) -> Part:
    """Return the part of a graph that computes the scores (n, classes) out of `source`.

    `source` is float32 (n, inputs or more). One node of the domain `onnx_bytes.TREES`; its name
    begins with `prefix`.
    """
    left, right = _whole(tensors["left"]), _whole(tensors["right"])
    used = 1 + 2 * (left > 0).sum(axis=1, keepdims=True)
    tree, place = np.nonzero(np.arange(form.nodes) < used)
    is_leaf = left[tree, place] == 0
    leaf_trees = tree[is_leaf]
    regressor = node(
        "TreeEnsembleRegressor",
        [source],
        f"{prefix}scores",
        domain=TREES,
        n_targets=form.classes,
        base_values=tensors["base"].tolist(),
        nodes_treeids=tree.tolist(),
        nodes_nodeids=place.tolist(),
        nodes_featureids=_whole(tensors["feature"])[tree, place].tolist(),
        nodes_modes=["LEAF" if leaf else "BRANCH_LEQ" for leaf in is_leaf],
        nodes_values=tensors["threshold"][tree, place].tolist(),
        nodes_truenodeids=left[tree, place].tolist(),
        nodes_falsenodeids=right[tree, place].tolist(),
        target_treeids=leaf_trees.tolist(),
        target_nodeids=place[is_leaf].tolist(),
        target_ids=_whole(tensors["target"])[leaf_trees].tolist(),
        target_weights=tensors["value"][tree, place][is_leaf].tolist(),
    )
    return [regressor], {}, f"{prefix}scores"


def rounded_down(thresholds: NDArray[np.float64]) -> Tensor:
    """Return the largest float32 at or below each threshold.

    >>> rounded_down(np.array([0.1, 0.5])).astype(np.float64) <= np.array([0.1, 0.5])
    array([ True,  True])
    """
    nearest = thresholds.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > thresholds, below, nearest)


def _leaves(tensors: Mapping[str, Tensor], tree: int, rows: Tensor) -> _Whole:
    left, right = _whole(tensors["left"][tree]), _whole(tensors["right"][tree])
    feature, threshold = _whole(tensors["feature"][tree]), tensors["threshold"][tree]
    each = np.arange(len(rows))
    at: _Whole = np.zeros(len(rows), dtype=np.int64)
    for _ in range(DEPTH_MAX):
        child = np.where(rows[each, feature[at]] <= threshold[at], left[at], right[at])
        at = np.where(left[at] > 0, child, at)
    return at


def _parents(form: ForestForm, left: _Whole, right: _Whole) -> _Whole:
    """Return how many parents each node has; that of the root are those that say 0: none."""
    trees = np.arange(form.trees)[:, None] * form.nodes
    children = np.concatenate([(trees + left)[left > 0], (trees + right)[right > 0]])
    counts = np.bincount(children, minlength=form.trees * form.nodes)
    return counts.reshape(form.trees, form.nodes)


def _depths(left: _Whole, right: _Whole) -> _Whole:
    depths = np.zeros_like(left)
    trees = np.arange(len(left))
    for place in range(left.shape[1]):
        for children in (left, right):
            depths[trees, children[:, place]] = depths[:, place] + 1
    depths[:, 0] = 0  # the children of every leaf are the root
    return depths


def _require(name: str, holds: NDArray[np.bool_], rule: str) -> None:
    if not holds.all():
        at = ", ".join(str(index) for index in np.argwhere(~holds)[0])
        raise InvalidInput(field=f"forest.{name}", rule=rule, found=f"something else at {at}")


def _whole(tensor: Tensor) -> _Whole:
    return tensor.astype(np.int64)
