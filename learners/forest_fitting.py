"""Gradient boosting with scikit-learn, converted into the tensors of `learners.forest`.

Imports scikit-learn: only what trains imports this module. The histogram-based booster keeps its
trees in attributes that scikit-learn does not document; so every conversion is held against the
booster's own decision function on the rows that it has learnt from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from bandit.core.errors import InvalidInput
from learners.boosting_plan import BoostingPlan
from learners.forest import ForestForm, evaluate, rounded_down, validated
from learners.network import ACTIONS_MAX, Doubles, require_count
from learners.tensor_file import Tensor

_CHECKED_ROWS = 1000
_TOLERANCE = 1e-5


def fitted(
    rows: Tensor, labels: NDArray[np.integer], *, classes: int, plan: BoostingPlan, seed: int
) -> tuple[ForestForm, dict[str, Tensor]]:
    """Boost trees on `rows` (n, inputs) and their `labels`, each from 0 to `classes` - 1.

    Equal arguments give equal trees: one thread, no early stopping. Raises `InvalidInput` for rows
    that are not finite, and for labels of which one is missing: nothing could be learnt about it.
    """
    require_count("classes", classes, 2, ACTIONS_MAX)
    if not np.isfinite(rows).all():
        raise InvalidInput(field="rows", rule="must be finite", found="NaN or infinite")
    found = np.unique(labels)
    if not np.array_equal(found, np.arange(classes)):
        rule = f"must be 0 to {classes - 1}, each at least once"
        raise InvalidInput(field="labels", rule=rule, found=found.tolist())
    booster = HistGradientBoostingClassifier(
        max_iter=plan.rounds,
        max_depth=plan.depth,
        max_leaf_nodes=None,
        learning_rate=plan.learning_rate,
        min_samples_leaf=plan.leaf_rows_min,
        l2_regularization=plan.l2_regularization,
        early_stopping=False,
        categorical_features=None,
        random_state=seed,
    )
    # Sums of floats depend on how many threads share them.
    with threadpool_limits(limits=1, user_api="openmp"):
        booster.fit(rows, labels)
        form, tensors = _converted(booster, inputs=rows.shape[1], classes=classes)
        validated(form, tensors)
        checked = rows[:_CHECKED_ROWS]
        _require_equal(form, tensors, checked, decided=booster.decision_function(checked))
    return form, tensors


def _converted(booster: Any, *, inputs: int, classes: int) -> tuple[ForestForm, dict[str, Tensor]]:
    trees = [tree.nodes for each_round in booster._predictors for tree in each_round]
    # Of two classes, only the second has trees: the first one's score is 0.
    targets = np.arange(len(trees)) % classes if classes > 2 else np.ones(len(trees))
    base = np.ravel(booster._baseline_prediction)
    form = ForestForm(
        inputs=inputs, classes=classes, trees=len(trees), nodes=max(len(tree) for tree in trees)
    )
    tensors = {name: np.zeros(shape, np.float32) for name, shape in form.shapes().items()}
    tensors["base"][-len(base) :] = base
    tensors["target"][:] = targets
    for index, tree in enumerate(trees):
        for name, column in _columns(tree).items():
            tensors[name][index, : len(tree)] = column
    return form, tensors


def _columns(tree: NDArray[np.void]) -> dict[str, NDArray[Any]]:
    is_leaf = tree["is_leaf"].astype(bool)
    return {
        "feature": np.where(is_leaf, 0, tree["feature_idx"]),
        "threshold": np.where(is_leaf, 0, rounded_down(tree["num_threshold"])),
        "left": np.where(is_leaf, 0, tree["left"]),
        "right": np.where(is_leaf, 0, tree["right"]),
        "value": np.where(is_leaf, tree["value"], 0),
    }


def _require_equal(
    form: ForestForm, tensors: Mapping[str, Tensor], rows: Tensor, *, decided: Doubles
) -> None:
    said = evaluate(form, tensors, rows)
    ours = said.scores if form.classes > 2 else said.scores[:, 1] - said.scores[:, 0]
    assert np.abs(ours - decided).max() <= _TOLERANCE * max(1.0, said.magnitude)
