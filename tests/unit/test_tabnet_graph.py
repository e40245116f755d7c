"""The graph of a TabNet says what numpy says, for one row and for many."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from made_up_classifier import FORMS, model_of, rows_of, run, session, tensors_of_tabnet

from learners.tabnet import TabNetForm, evaluate, sparsemax
from learners.tabnet_graph import nodes


@pytest.mark.parametrize("name", FORMS)
def test_a_graph_is_checked_and_says_what_numpy_says(name: str) -> None:
    form = FORMS[name]
    tensors = tensors_of_tabnet(form)
    content = model_of(
        nodes(form, tensors, source="rows", prefix="tabnet."),
        inputs=form.inputs,
        outputs=form.classes,
    )
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    rows = rows_of(form.inputs)
    expected = evaluate(form, tensors, rows)
    difference = np.abs(run(content, rows) - expected.scores).max()
    assert difference < 1e-5
    assert difference < 1e-6 * max(1.0, expected.magnitude)
    assert np.abs(run(content, rows[:1]) - expected.scores[:1]).max() < 1e-5


def test_equal_content_is_the_same_graph_and_other_weights_are_another() -> None:
    form = FORMS["default"]
    tensors = tensors_of_tabnet(form)

    def content(found: dict[str, np.ndarray]) -> bytes:
        part = nodes(form, found, source="rows", prefix="a.")
        return model_of(part, inputs=form.inputs, outputs=form.classes)

    assert content(tensors) == content(dict(reversed(tensors.items())))
    for tensor in tensors:
        other = tensors[tensor].copy()
        other.flat[0] += 1
        assert content({**tensors, tensor: other}) != content(tensors), tensor


def test_every_name_of_a_part_has_its_prefix_and_every_constant_a_reader() -> None:
    form = FORMS["many_steps"]
    part, constants, said = nodes(form, tensors_of_tabnet(form), source="rows", prefix="left.")
    read, written = set(), set()
    for each in part:
        found = onnx.NodeProto.FromString(each)
        read |= set(found.input)
        written |= set(found.output)
    assert all(name.startswith("left.") for name in written | constants.keys() | {said})
    assert read <= written | constants.keys() | {"rows"}
    assert constants.keys() <= read


def mask_by_graph(values: list[float]) -> np.ndarray:
    """What the graph makes of attention values that do not depend on the row."""
    form = TabNetForm(inputs=len(values), classes=2, steps=1, width=1)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in form.shapes().items()}
    tensors["attention.0.bias"][:] = values
    content = model_of(
        nodes(form, tensors, source="rows", prefix=""),
        inputs=form.inputs,
        outputs=form.inputs,
        name="attention.0.mask",
    )
    return run(content, np.ones((1, form.inputs), np.float32))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0] * 4, [0.25] * 4),
        ([7.0] * 16, [1 / 16] * 16),
        ([1e6, 1e6, 0.0, -1e6], [0.5, 0.5, 0.0, 0.0]),
        ([1e6 + 0.5, 1e6, -1e6], [0.75, 0.25, 0.0]),
        ([1e30, 1e30, -1e30], [0.5, 0.5, 0.0]),
        ([2.0, 1.0, 1.0], [1.0, 0.0, 0.0]),
        ([1.0, 2.0, 1.5, 2.0], [0.0, 0.5, 0.0, 0.5]),
        ([-3.0], [1.0]),
    ],
)
def test_sparsemax_in_the_graph_is_exact_for_ties_and_large_values(
    values: list[float], expected: list[float]
) -> None:
    assert mask_by_graph(values).tolist() == [expected]


def test_sparsemax_in_the_graph_is_that_of_numpy() -> None:
    rng = np.random.default_rng(4)
    for count in (2, 3, 10, 64):
        # Thirds: many are tied.
        values = (np.round(rng.standard_normal(count) * 6) / 3).astype(np.float32)
        found = mask_by_graph(values.tolist())
        expected = sparsemax(values[None].astype(np.float64))
        assert np.abs(found - expected).max() < 1e-6
        for tied in values[found[0] > 0]:
            assert len(set(found[0][values == tied].tolist())) == 1


def test_a_graph_takes_no_rows_at_all() -> None:
    form = FORMS["default"]
    part = nodes(form, tensors_of_tabnet(form), source="rows", prefix="")
    content = model_of(part, inputs=form.inputs, outputs=form.classes)
    [found] = session(content).run(None, {"rows": np.zeros((0, form.inputs), np.float32)})
    assert found.shape == (0, form.classes)
