"""A forest that was converted decides as the booster of scikit-learn that it was converted from."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_classifier import model_of, rows_of, run
from sklearn.ensemble import HistGradientBoostingClassifier

from bandit.core.errors import InvalidInput
from learners.boosting_plan import BoostingPlan
from learners.forest import evaluate, nodes, validated
from learners.forest_fitting import fitted
from learners.tensor_file import Tensor

PLAN = BoostingPlan(rounds=12, depth=4, learning_rate=0.3, leaf_rows_min=5, l2_regularization=2.0)


def planted(count: int, *, classes: int, seed: int = 7) -> tuple[Tensor, np.ndarray]:
    rows = rows_of(5, count, seed)
    labels = (rows[:, 0] > 0).astype(np.int64)
    return rows, labels + (classes == 3) * (rows[:, 1] > rows[:, 2])


def booster_of(rows: Tensor, labels: np.ndarray) -> HistGradientBoostingClassifier:
    booster = HistGradientBoostingClassifier(
        max_iter=PLAN.rounds, max_depth=PLAN.depth, max_leaf_nodes=None,
        learning_rate=PLAN.learning_rate, l2_regularization=PLAN.l2_regularization,
        min_samples_leaf=PLAN.leaf_rows_min, early_stopping=False, categorical_features=None,
        random_state=1,
    )  # fmt: skip
    return booster.fit(rows, labels)


def beside_thresholds(rows: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """Rows with each threshold of the trees in its column, and the numbers next to it."""
    tree, place = np.nonzero(tensors["left"])
    found = [
        (int(tensors["feature"][t, p]), tensors["threshold"][t, p])
        for t, p in zip(tree, place, strict=True)
    ]
    planted = np.repeat(rows[: len(found)], 3, axis=0)
    for index, (column, threshold) in enumerate(found[: len(rows)]):
        sides = [np.nextafter(threshold, np.float32(side)) for side in (-np.inf, np.inf)]
        planted[3 * index : 3 * index + 3, column] = [sides[0], threshold, sides[1]]
    return planted


@pytest.mark.parametrize("classes", [2, 3])
def test_a_forest_decides_as_the_booster_also_beside_its_thresholds(classes: int) -> None:
    rows, labels = planted(600, classes=classes)
    form, tensors = fitted(rows, labels, classes=classes, plan=PLAN, seed=1)
    validated(form, tensors)
    assert {name: tensor.shape for name, tensor in tensors.items()} == form.shapes()
    booster = booster_of(rows, labels)
    asked = np.concatenate([rows_of(5, 500, 8), beside_thresholds(rows, tensors)])
    found = evaluate(form, tensors, asked)
    decided = booster.decision_function(asked)
    ours = found.scores if classes == 3 else found.scores[:, 1]
    assert np.abs(ours - decided).max() < 1e-5
    assert np.abs(found.probabilities - booster.predict_proba(asked)).max() < 1e-5
    part = nodes(form, tensors, source="rows", prefix="")
    served = run(model_of(part, inputs=5, outputs=classes), asked)
    assert np.abs(served - found.scores).max() < 1e-5


def test_a_planted_rule_is_learnt() -> None:
    rows, labels = planted(600, classes=3)
    form, tensors = fitted(rows, labels, classes=3, plan=PLAN, seed=1)
    asked, answers = planted(1000, classes=3, seed=9)
    # Always the most frequent class is right about 500 times.
    assert (evaluate(form, tensors, asked).scores.argmax(axis=1) == answers).sum() > 850


def test_equal_arguments_give_equal_trees() -> None:
    rows, labels = planted(300, classes=3)
    (form, once), (_, again) = (
        fitted(rows, labels, classes=3, plan=PLAN, seed=1) for _ in range(2)
    )
    assert all(np.array_equal(once[name], again[name]) for name in form.shapes())


def test_rows_without_any_pattern_give_trees_of_one_leaf() -> None:
    rows = np.zeros((60, 2), np.float32)
    labels = np.arange(60) % 3
    form, tensors = fitted(rows, labels, classes=3, plan=PLAN, seed=1)
    assert form.nodes == 1
    probabilities = evaluate(form, tensors, rows[:1]).probabilities[0]
    assert probabilities == pytest.approx([1 / 3] * 3, abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ([0, 1, 0, 1], "labels: must be 0 to 2, each at least once, found .0, 1."),
        ([0, 1, 2, 3], "labels: must be 0 to 2"),
        ([-1, 0, 1, 2], "labels: must be 0 to 2"),
    ],
)
def test_other_labels_are_refused(labels: list[int], match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        fitted(np.zeros((4, 2), np.float32), np.array(labels), classes=3, plan=PLAN, seed=1)


def test_rows_that_are_not_finite_are_refused() -> None:
    rows, labels = planted(50, classes=2)
    rows[3, 1] = np.nan
    with pytest.raises(InvalidInput, match="rows: must be finite"):
        fitted(rows, labels, classes=2, plan=PLAN, seed=1)


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 0}, {"rounds": 1001}, {"depth": 10}, {"leaf_rows_min": 0},
        {"learning_rate": 0.0}, {"learning_rate": 1.5}, {"l2_regularization": -1.0},
    ],
    ids=str,
)  # fmt: skip
def test_other_plans_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(change))):
        BoostingPlan(**change)  # type: ignore[arg-type]
