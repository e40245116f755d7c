"""Trees are refused unless they are trees, and say the same in numpy and in ONNX Runtime."""

from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import pytest
from made_up_classifier import model_of, rows_of, run, stumps

from bandit.core.errors import InvalidInput
from learners.canonical_json import canonical, parsed
from learners.forest import (
    DEPTH_MAX,
    ForestForm,
    evaluate,
    nodes,
    rounded_down,
    validated,
)
from learners.tensor_file import Tensor

FORM = ForestForm(inputs=4, classes=3, trees=6, nodes=5)


def chain(depth: int) -> tuple[ForestForm, dict[str, Tensor]]:
    """One tree that goes right `depth` times: its leaves say 0, 1, 2, … from the left."""
    form = ForestForm(inputs=1, classes=2, trees=1, nodes=2 * depth + 1)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in form.shapes().items()}
    for level in range(depth):
        split = 2 * level
        tensors["threshold"][0, split] = level
        tensors["left"][0, split], tensors["right"][0, split] = split + 1, split + 2
        tensors["value"][0, split + 1] = level
    tensors["value"][0, 2 * depth] = depth
    return form, tensors


def said_by_graph(form: ForestForm, tensors: dict[str, Tensor], rows: Tensor) -> np.ndarray:
    content = model_of(
        nodes(form, tensors, source="rows", prefix="forest."),
        inputs=rows.shape[1],
        outputs=form.classes,
    )
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    return run(content, rows)


def test_a_form_comes_back_from_canonical_json() -> None:
    assert ForestForm.from_json(parsed(canonical(FORM.to_json()), field="spec")) == FORM


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"inputs": 0}, "forest.inputs"),
        ({"inputs": 2**60}, "forest.inputs"),
        ({"classes": 1}, "forest.classes"),
        ({"trees": 0}, "forest.trees"),
        ({"trees": 2**60}, "forest.trees"),
        ({"nodes": True}, "forest.nodes"),
        ({"nodes": 1024}, "forest.nodes"),
        ({"trees": 8192, "nodes": 1023}, "forest.parameters"),
        ({"depth": 6}, "must have the keys"),
    ],
)
def test_other_forms_are_refused_before_anything_has_their_size(
    change: dict[str, object], match: str
) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=match):
            ForestForm.from_json({**FORM.to_json(), **change})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


# What is wrong, the tensor, the node of the third tree, the value there.
FAULTS = [
    ("a column that is none", "feature", 0, 4, r"forest.feature: must be 0 to 3, .* at 2, 0"),
    ("a column before the first", "feature", 0, -1, "feature: must be 0 to 3"),
    ("half a column", "feature", 0, 0.5, "feature: must be whole"),
    ("no number", "feature", 0, np.nan, "feature: must be 0 to 3"),
    ("a child that is none", "left", 0, 5, "left: must be 0 to 4"),
    ("a child far away", "right", 0, 3e38, "right: must be 0 to 4"),
    ("half a child", "right", 0, 1.5, "right: must be whole"),
    ("itself as a child", "left", 1, 1, "left: children must stand after"),
    ("a way back", "right", 2, 1, "children must stand after"),
    ("one child only", "right", 0, 0, "right: children must stand after"),
    ("one child twice", "right", 0, 1, "nodes: each node but the root must have one parent"),
    ("a node passed over", "right", 0, 3, "nodes: each node but the root must have one parent"),
    ("a column of a leaf", "feature", 1, 1, "feature: must be 0 where a node does not split"),
    ("a threshold of a leaf", "threshold", 4, 1, "threshold: must be 0 where a node does not"),
    ("a value behind the last node", "value", 3, 1, "value: must be 0 behind the last node"),
    ("a value of a split", "value", 0, 1, "value: must be 0 where a node splits"),
]


@pytest.mark.parametrize(("name", "place", "found", "match"), [fault[1:] for fault in FAULTS],
                         ids=[fault[0] for fault in FAULTS])  # fmt: skip
def test_what_is_no_tree_is_refused(name: str, place: int, found: float, match: str) -> None:
    tensors = stumps(FORM)
    validated(FORM, tensors)
    tensors[name][2, place] = found
    with pytest.raises(InvalidInput, match=match):
        validated(FORM, tensors)


@pytest.mark.parametrize("found", [-1, 3, 0.5])
def test_a_class_that_is_none_is_refused(found: float) -> None:
    tensors = stumps(FORM)
    tensors["target"][1] = found
    with pytest.raises(InvalidInput, match=r"forest.target: must be .* at 1"):
        validated(FORM, tensors)


def test_a_node_that_two_paths_share_is_refused() -> None:
    form, tensors = chain(2)
    tensors["left"][0, 2] = 4
    with pytest.raises(InvalidInput, match="must have one parent"):
        validated(form, tensors)


def test_trees_are_as_deep_as_they_may_be_and_no_deeper() -> None:
    form, tensors = chain(DEPTH_MAX)
    validated(form, tensors)
    rows = np.arange(-0.5, DEPTH_MAX + 1, dtype=np.float32)[:, None]
    expected = np.minimum(np.arange(len(rows)), DEPTH_MAX)
    assert evaluate(form, tensors, rows).scores[:, 0].tolist() == expected.tolist()
    assert said_by_graph(form, tensors, rows)[:, 0].tolist() == expected.tolist()
    with pytest.raises(InvalidInput, match=f"must be at most {DEPTH_MAX} deep"):
        validated(*chain(DEPTH_MAX + 1))


def test_a_tree_of_one_leaf_says_the_same_of_every_row() -> None:
    form = ForestForm(inputs=2, classes=2, trees=2, nodes=3)
    tensors = stumps(form)
    for name in ("feature", "threshold", "left", "right", "value"):
        tensors[name][0] = 0
    tensors["value"][0, 0] = 0.25
    tensors["base"][:] = [1, -1]
    validated(form, tensors)
    rows = rows_of(2, 20)
    assert set(evaluate(form, tensors, rows).scores[:, 0].tolist()) == {1.25}
    assert set(said_by_graph(form, tensors, rows)[:, 0].tolist()) == {1.25}


@pytest.mark.parametrize("classes", [2, 3])
def test_onnx_runtime_says_what_numpy_says(classes: int) -> None:
    form = ForestForm(inputs=4, classes=classes, trees=50, nodes=4)
    tensors = stumps(form)
    rows = rows_of(6)  # more columns than the trees look at
    expected = evaluate(form, tensors, rows)
    assert np.abs(said_by_graph(form, tensors, rows) - expected.scores).max() < 1e-5
    assert np.abs(said_by_graph(form, tensors, rows[:1]) - expected.scores[:1]).max() < 1e-5
    assert expected.probabilities.sum(axis=1) == pytest.approx(np.ones(len(rows)), abs=1e-12)


def test_the_magnitude_is_the_largest_sum_of_absolute_values() -> None:
    form = ForestForm(inputs=1, classes=2, trees=2, nodes=3)
    tensors = stumps(form)
    tensors["target"][:] = 1
    tensors["base"][:] = [3, -4]
    tensors["value"][:, 1:3] = [[-2, 2], [5, -5]]
    assert evaluate(form, tensors, rows_of(1, 5)).magnitude == 11


def test_rounding_down_keeps_every_comparison_of_a_float32() -> None:
    rng = np.random.default_rng(1)
    singles = rng.standard_normal(500).astype(np.float32)
    above, below = (np.nextafter(singles, np.float32(side)) for side in (np.inf, -np.inf))
    doubles = singles.astype(np.float64)
    middle = (doubles + above) / 2
    for thresholds in (doubles, middle, np.nextafter(doubles, 9), np.nextafter(doubles, -9)):
        rounded = rounded_down(thresholds)
        assert rounded.dtype == np.float32
        for asked in (below, singles, above):
            assert ((asked <= rounded) == (asked.astype(np.float64) <= thresholds)).all()


def test_a_row_on_a_threshold_goes_left_and_the_next_number_right() -> None:
    form = ForestForm(inputs=1, classes=2, trees=1, nodes=3)
    tensors = stumps(form)
    tensors["base"][:], tensors["target"][:] = 0, 0
    tensors["value"][0, 1:3] = [-1, 1]
    threshold = np.float32(0.1)
    tensors["threshold"][0, 0] = threshold
    rows = np.array([[np.nextafter(threshold, np.float32(s))] for s in (-1, 1)] + [[threshold]])
    rows = rows.astype(np.float32)
    assert evaluate(form, tensors, rows).scores[:, 0].tolist() == [-1, 1, -1]
    assert said_by_graph(form, tensors, rows)[:, 0].tolist() == [-1, 1, -1]
