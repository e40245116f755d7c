"""The form of a TabNet, what it says by hand, and that reading it loads no framework."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from made_up_classifier import FORMS, rows_of, tensors_of_tabnet

from bandit.core.errors import InvalidInput
from learners.canonical_json import canonical, parsed
from learners.tabnet import TabNetForm, evaluate, importance, masks, sparsemax


@pytest.mark.parametrize("name", FORMS)
def test_a_form_comes_back_from_canonical_json(name: str) -> None:
    stored = parsed(canonical(FORMS[name].to_json()), field="spec")
    again = TabNetForm.from_json(stored)
    assert again == FORMS[name]
    assert (type(again.gamma), type(again.epsilon)) == (float, float)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"inputs": 0}, "tabnet.inputs: must be a whole number from 1 to 1024"),
        ({"inputs": 10**12}, "tabnet.inputs"),
        ({"inputs": 18.0}, "tabnet.inputs"),
        ({"inputs": True}, "tabnet.inputs"),
        ({"classes": 1}, "tabnet.classes"),
        ({"classes": 65}, "tabnet.classes"),
        ({"steps": 0}, "tabnet.steps"),
        ({"steps": 10**9}, "tabnet.steps"),
        ({"width": 0}, "tabnet.width"),
        ({"width": "8"}, "tabnet.width"),
        ({"shared": -1}, "tabnet.shared"),
        ({"independent": 5}, "tabnet.independent"),
        ({"shared": 0, "independent": 0}, "tabnet.layers"),
        ({"gamma": 0.99}, "tabnet.gamma: must be a number from 1 to 4"),
        ({"gamma": float("nan")}, "tabnet.gamma"),
        ({"gamma": True}, "tabnet.gamma"),
        ({"gamma": None}, "tabnet.gamma"),
        ({"gamma": 10**400}, "tabnet.gamma"),
        ({"epsilon": 0}, "tabnet.epsilon"),
        ({"epsilon": [1e-15]}, "tabnet.epsilon"),
        ({"inputs": 1024, "width": 128, "steps": 10, "shared": 4}, "tabnet.parameters"),
        ({"dropout": 0.1}, "must have the keys .* found a difference in 'dropout'"),
    ],
)
def test_other_forms_are_refused(change: dict[str, object], match: str) -> None:
    stored = TabNetForm(inputs=18, classes=3).to_json()
    with pytest.raises(InvalidInput, match=match):
        TabNetForm.from_json({**stored, **change})


@pytest.mark.parametrize("stored", [None, [], "tabnet", 3])
def test_what_is_no_object_is_refused(stored: object) -> None:
    with pytest.raises(InvalidInput, match="tabnet: must be an object"):
        TabNetForm.from_json(stored)


def test_hostile_sizes_are_refused_before_anything_has_their_size() -> None:
    stored = TabNetForm(inputs=18, classes=3).to_json()
    tracemalloc.start()
    try:
        for name in ("inputs", "classes", "steps", "width", "shared", "independent"):
            with pytest.raises(InvalidInput, match=f"tabnet.{name}"):
                TabNetForm.from_json({**stored, name: 2**60})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_logits_and_masks_by_hand() -> None:
    form = TabNetForm(inputs=2, classes=2, steps=1, width=1, shared=0, independent=2, gamma=1.0)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in form.shapes().items()}
    tensors["input.scale"][:] = [2, 1]
    tensors["input.shift"][:] = [0, -1]
    # x = (2 * 1.5, 4 - 1) = (3, 3); sparsemax(1, 0.5) = (0.75, 0.25); seen = (2.25, 0.75).
    tensors["attention.0.bias"][:] = [1, 0.5]
    # Decided and attended, gates of sigmoid(0) = 0.5: (2.25 + 0.75, 0.75) / 2, then both doubled.
    tensors["block.1.0.weight"][:2] = [[1, 1], [0, 1]]
    tensors["block.1.1.weight"][:2] = [[2, 0], [0, 2]]
    tensors["output.weight"][:] = [[1], [-2]]
    found = evaluate(form, tensors, np.array([[1.5, 4.0]]))
    assert found.scores.tolist() == [[3.0, -6.0]]
    assert found.probabilities[0, 0] == pytest.approx(1 / (1 + np.exp(-9)), abs=1e-15)
    # A step says what its decisions add up to: 3, times sqrt(1/2) for the one residual layer.
    explained = masks(form, tensors, np.array([[1.5, 4.0]]))
    assert explained[0] == pytest.approx([0.75 * 3 * 0.5**0.5, 0.25 * 3 * 0.5**0.5], abs=1e-12)
    assert importance(explained) == pytest.approx([0.75, 0.25], abs=1e-12)


def test_a_network_that_decides_nothing_gives_no_column_any_importance() -> None:
    assert importance(np.zeros((3, 2))).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]),
        ([1e6, 1e6, 0.0], [0.5, 0.5, 0.0]),
        ([1e6 + 0.5, 1e6, -1e6], [0.75, 0.25, 0.0]),
        ([2.0, 1.0, 1.0], [1.0, 0.0, 0.0]),  # at the border of the support
        ([-5.0], [1.0]),
    ],
)
def test_sparsemax_by_hand(values: list[float], expected: list[float]) -> None:
    assert sparsemax(np.array([values])).tolist() == [expected]


def test_sparsemax_is_the_nearest_point_of_the_simplex() -> None:
    rng = np.random.default_rng(2)
    values = rng.standard_normal((50, 6)) * rng.uniform(0.1, 5, (50, 1))
    found = sparsemax(values)
    assert (found >= 0).all()
    assert found.sum(axis=1) == pytest.approx(np.ones(50), abs=1e-12)
    others = rng.dirichlet(np.ones(6), (50, 200))
    nearest = np.linalg.norm(found - values, axis=1)[:, None]
    assert (np.linalg.norm(others - values[:, None], axis=2) >= nearest).all()


def test_the_magnitude_grows_with_the_weights_that_carry_a_rounding() -> None:
    form = FORMS["default"]
    tensors = tensors_of_tabnet(form)
    rows = rows_of(form.inputs)
    before = evaluate(form, tensors, rows)
    louder = {**tensors, "output.weight": 8 * tensors["output.weight"]}
    after = evaluate(form, louder, rows)
    assert after.scores == pytest.approx(8 * before.scores, rel=1e-12)
    assert after.magnitude == pytest.approx(8 * before.magnitude, rel=1e-6)
    assert evaluate(form, tensors, rows).magnitude == before.magnitude


def test_forms_and_graphs_load_no_framework() -> None:
    program = (
        "import json, sys\n"
        "import learners.ensemble, learners.forest, learners.tabnet, learners.tabnet_graph\n"
        "print(json.dumps([*sys.modules]))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    heavy = {"torch", "pytorch_tabnet", "sklearn", "scipy", "onnx", "onnxruntime", "pandas"}
    loaded = set(json.loads(ran.stdout))
    assert "learners.ensemble" in loaded
    assert not loaded & heavy
