"""TabNet and forest as one policy: form, mixture, graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from made_up_classifier import rows_of, session, stumps, tensors_of_tabnet

from bandit.core.errors import InvalidInput
from learners import forest, tabnet
from learners.canonical_json import canonical, parsed
from learners.ensemble import PROBABILITY_MIN, Ensemble, evaluate, graph, named, validated
from learners.forest import ForestForm
from learners.tabnet import TabNetForm
from learners.tensor_file import Tensor, decoded, encoded

TABNET = TabNetForm(inputs=6, classes=3)
FOREST = ForestForm(inputs=6, classes=3, trees=12, nodes=5)
FORMS = {
    "both": Ensemble(inputs=9, tabnet=TABNET, forest=FOREST, temperature=2.0),
    "alone": Ensemble(inputs=9, tabnet=TABNET, forest_weight=0),
    "every_column": Ensemble(inputs=6, tabnet=TABNET, forest=FOREST, forest_weight=0.25),
    "forest_decides": Ensemble(inputs=7, tabnet=TABNET, forest=FOREST, forest_weight=1),
}


def tensors_of(form: Ensemble) -> dict[str, Tensor]:
    return named(
        tensors_of_tabnet(form.tabnet), None if form.forest is None else stumps(form.forest)
    )


@pytest.mark.parametrize("name", FORMS)
def test_a_form_comes_back_from_canonical_json(name: str) -> None:
    stored = parsed(canonical(FORMS[name].to_json()), field="spec")
    again = Ensemble.from_json(stored)
    assert again == FORMS[name]
    assert (type(again.forest_weight), type(again.temperature)) == (float, float)


def test_the_forest_has_seven_tenths_unless_somebody_says_otherwise() -> None:
    assert FORMS["both"].forest_weight == 0.7


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"inputs": 5}, "inputs: must be a whole number from 6 to 4096"),
        ({"inputs": 4097}, "inputs"),
        ({"temperature": 0}, "temperature: must be a number from 0.001 to 1000"),
        ({"temperature": float("inf")}, "temperature"),
        ({"forest_weight": 1.5}, "forest_weight: must be a number from 0 to 1"),
        ({"forest_weight": 0}, "forest_weight: must be 0 without a forest, and more than 0"),
        ({"forest": None}, "forest_weight: must be 0 without a forest"),
        ({"forest": []}, "forest: must be an object"),
        ({"forest": replace(FOREST, inputs=5).to_json()}, "forest.inputs: must be 6"),
        ({"forest": replace(FOREST, classes=2).to_json()}, "forest.classes: must be 3"),
        ({"tabnet": None}, "tabnet: must be an object"),
        ({"tabnet": {**TABNET.to_json(), "gamma": 9}}, "tabnet.gamma"),
        ({"weights": 1}, "ensemble: must have the keys"),
    ],
)
def test_other_forms_are_refused(change: dict[str, object], match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        Ensemble.from_json({**FORMS["both"].to_json(), **change})


def test_tensors_are_those_of_the_parts_and_fit_into_a_file() -> None:
    form = FORMS["both"]
    tensors = tensors_of(form)
    assert {name: tensor.shape for name, tensor in tensors.items()} == form.shapes()
    again = decoded(encoded(tensors), form.shapes(), file="weights")
    validated(form, again)
    assert evaluate(form, again, rows_of(9)).scores.tolist() == (
        evaluate(form, tensors, rows_of(9)).scores.tolist()
    )


def test_a_forest_that_is_none_is_refused() -> None:
    form = FORMS["both"]
    tensors = tensors_of(form)
    tensors["forest.left"][0, 0] = 0
    with pytest.raises(InvalidInput, match=r"forest.left: children must stand after"):
        validated(form, tensors)


def test_the_mixture_by_its_parts() -> None:
    form = FORMS["both"]
    tensors = tensors_of(form)
    rows = rows_of(9)
    neural = tabnet.evaluate(TABNET, tensors_of_tabnet(TABNET), rows[:, :6])
    grown = forest.evaluate(FOREST, stumps(FOREST), rows[:, :6])
    mixed = 0.7 * grown.probabilities + 0.3 * neural.probabilities
    found = evaluate(form, tensors, rows)
    assert found.scores == pytest.approx(np.log(mixed), abs=1e-12)
    # softmax(log p / 2) is sqrt(p), normalised.
    roots = np.sqrt(mixed)
    expected = roots / roots.sum(axis=1, keepdims=True)
    assert found.probabilities == pytest.approx(expected, abs=1e-12)
    assert found.magnitude == max(neural.magnitude, grown.magnitude)


@pytest.mark.parametrize("name", FORMS)
def test_a_graph_is_checked_and_says_what_numpy_says(name: str) -> None:
    form = FORMS[name]
    tensors = tensors_of(form)
    content = graph(form, tensors)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    asked = session(content)
    assert [(one.name, one.shape, one.type) for one in asked.get_inputs()] == [
        ("observation", ["n", form.inputs], "tensor(float)")
    ]
    assert [(one.name, one.shape, one.type) for one in asked.get_outputs()] == [
        ("scores", ["n", 3], "tensor(float)"),
        ("probabilities", ["n", 3], "tensor(float)"),
        ("action", ["n"], "tensor(int64)"),
    ]
    rows = rows_of(form.inputs)
    expected = evaluate(form, tensors, rows)
    for count in (1, len(rows)):
        scores, probabilities, actions = asked.run(None, {"observation": rows[:count]})
        assert np.abs(scores - expected.scores[:count]).max() < 1e-5
        assert np.abs(probabilities - expected.probabilities[:count]).max() < 1e-5
        assert actions.tolist() == scores.argmax(axis=1).tolist()


def test_what_is_held_changes_nothing() -> None:
    form = FORMS["both"]
    tensors = tensors_of(form)
    rows = rows_of(9)
    held = rows.copy()
    held[:, 6:] = 100
    asked = session(graph(form, tensors))
    for name in ("scores", "probabilities", "action"):
        [once], [again] = (asked.run([name], {"observation": these}) for these in (rows, held))
        assert once.tolist() == again.tolist()
    alone = evaluate(form, tensors, rows[:, :6])
    assert alone.scores.tolist() == evaluate(form, tensors, held).scores.tolist()


def test_a_class_without_any_probability_has_the_least_score_and_no_infinite_one() -> None:
    form = FORMS["both"]
    tensors = tensors_of(form)
    tensors["tabnet.output.weight"][:] = [[1e4], [0], [-1e4]]
    tensors["forest.base"][:] = [500, 0, -500]
    rows = rows_of(9)
    expected = evaluate(form, tensors, rows)
    assert expected.scores.min() == np.log(PROBABILITY_MIN)
    assert expected.scores.max() == 0
    scores, probabilities, _ = session(graph(form, tensors)).run(None, {"observation": rows})
    assert np.abs(scores - expected.scores).max() < 1e-5
    assert np.abs(probabilities - expected.probabilities).max() < 1e-5


def test_equal_content_is_the_same_graph_and_every_part_of_it_counts() -> None:
    form = FORMS["both"]
    tensors = tensors_of(form)
    content = graph(form, tensors)
    assert graph(form, dict(reversed(tensors.items()))) == content
    for change in ({"temperature": 3.0}, {"forest_weight": 0.6}, {"inputs": 10}):
        assert graph(replace(form, **change), tensors) != content  # type: ignore[arg-type]
    for name in ("forest.base", "forest.value", "forest.threshold", "tabnet.output.weight"):
        other = tensors[name].copy()
        other.flat[0 if other.ndim == 1 or name != "forest.value" else 1] += 1
        assert graph(form, {**tensors, name: other}) != content, name
