"""The encoder's form is bounded, its frequencies are found, and its two runtimes agree."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from made_up_encoder import FORMS, reference, reference_form, weights_of, windows_of

from bandit.core.errors import InvalidInput
from learners.canonical_json import canonical, parsed
from learners.tensor_file import Tensor
from learners.timesnet import TimesNetForm, evaluate, frequencies_of, positions
from learners.timesnet_graph import EMBEDDING, INPUT, graph


def form_of(**changed: Any) -> TimesNetForm:
    return TimesNetForm.from_json({**FORMS["nothing padded"].to_json(), **changed})


def test_parameters_are_those_of_the_published_layers() -> None:
    form = TimesNetForm(bars=48, channels=18, frequencies=(1, 2, 7))
    # 3 taps x 18 x 16; two blocks of two 16 x 16 x 5 x 5 kernels with biases; norm; projection.
    assert form.parameters == 864 + 2 * (2 * 6400 + 32) + 32 + 272
    assert form.shapes()["block.1.narrow.weight"] == (16, 16, 5, 5)


def test_multiplications_count_the_padded_images() -> None:
    form = FORMS["all odd"]
    # Periods 11, 4, 3 and 2 pad 23 bars to 33, 24, 24 and 24; kernels have 7 x 7 numbers.
    block = 105 * 2 * 7 * 9 * 49 + 2 * 4 * 23 * 7
    assert form.multiplications == 3 * 23 * 5 * 7 + 2 * block + 7 * 3


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bars": 3}, "bars: must be a whole number from 4 to 1024, found 3"),
        ({"bars": 10**12}, "bars"),
        ({"bars": True}, "bars"),
        ({"bars": 24.0}, "bars"),
        ({"bars": "24"}, "bars"),
        ({"channels": 0}, "channels"),
        ({"channels": 2**63}, "channels"),
        ({"d_model": 257}, "d_model"),
        ({"d_ff": -1}, "d_ff"),
        ({"embedding": None}, "embedding"),
        ({"layers": 9}, "layers"),
        ({"kernels": 7}, "kernels"),
        ({"frequencies": []}, "how many frequencies"),
        ({"frequencies": list(range(1, 10))}, "how many frequencies"),
        ({"frequencies": [0, 1]}, "frequencies: must be a whole number from 1 to 12, found 0"),
        ({"frequencies": [1, 13]}, "frequencies"),
        ({"frequencies": [1, [3]]}, "frequencies"),
        ({"frequencies": [3, 1]}, "must ascend"),
        ({"frequencies": [3, 3]}, "must ascend"),
        ({"frequencies": [9, 10]}, "each to another period"),  # both fold to 2 bars
        ({"frequencies": 3}, "frequencies: must be a list"),
        ({"frequencies": "13"}, "frequencies: must be a list"),
        ({"more": 1}, "encoder: must have exactly"),
        ({"d_model": 256, "d_ff": 256, "kernels": 6}, "parameters"),
        ({"bars": 1024, "d_model": 128, "d_ff": 128, "layers": 8}, "multiplications"),
    ],
)
def test_other_forms_are_refused_before_anything_is_built(
    changed: dict[str, Any], said: str
) -> None:
    stored = {**FORMS["nothing padded"].to_json(), **changed}
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput, match=said):
            TimesNetForm.from_json(stored)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000


@pytest.mark.parametrize("stored", [{}, {"bars": 24}, [], None, 7])
def test_anything_but_a_form_is_refused(stored: Any) -> None:
    with pytest.raises(InvalidInput, match="encoder: must have exactly"):
        TimesNetForm.from_json(stored)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_form_survives_canonical_json(form: TimesNetForm) -> None:
    content = canonical(form.to_json())
    assert TimesNetForm.from_json(parsed(content, field="encoder")) == form


def test_planted_frequencies_are_found_in_noise() -> None:
    rng = np.random.default_rng(1)
    time = np.arange(96)
    phases = rng.uniform(0, 2 * np.pi, (1300, 1, 2))
    windows = rng.standard_normal((1300, 96, 2))
    # A level and three cycles: 24, 6 and 4 bars long; more windows than are read at once.
    windows += 5.0
    for frequency, strength in ((4, 1.0), (16, 0.6), (24, 0.3)):
        windows += strength * np.sin(2 * np.pi * frequency * time[:, None] / 96 + phases)
    assert [frequencies_of(windows, count) for count in (1, 2, 3)] == [(4,), (4, 16), (4, 16, 24)]
    form = TimesNetForm(bars=96, channels=2, frequencies=frequencies_of(windows, 3))
    assert form.periods == (24, 6, 4)


def test_every_window_counts_also_the_last_of_many() -> None:
    windows = np.zeros((1025, 24, 1))
    windows[-1, :, 0] = np.cos(2 * np.pi * 5 * np.arange(24) / 24)
    assert frequencies_of(windows, 1) == (5,)


def test_of_frequencies_with_one_period_the_strongest_counts() -> None:
    time = np.arange(24)
    window = sum(
        strength * np.sin(2 * np.pi * frequency * time / 24)
        for frequency, strength in ((2, 1.0), (9, 3.0), (10, 2.0))
    )
    # 9 and 10 cycles of 24 bars both fold to 2 bars.
    assert frequencies_of(window[None, :, None], 2) == (2, 9)


def test_of_equal_frequencies_the_lowest_count() -> None:
    impulse = np.zeros((1, 16, 1))
    impulse[0, 0] = 1.0  # every amplitude is exactly 1
    assert frequencies_of(impulse, 3) == (1, 2, 3)


@pytest.mark.parametrize(
    ("windows", "count", "said"),
    [
        (np.zeros((0, 24, 3)), 1, "windows: must have the shape"),
        (np.zeros((5, 24, 0)), 1, "windows: must have the shape"),
        (np.zeros((24, 3)), 1, "windows: must have the shape"),
        (np.zeros((5, 3, 3)), 1, "bars"),
        (np.full((5, 24, 3), np.nan), 1, "windows: must be finite"),
        (np.full((5, 24, 3), np.inf), 1, "windows: must be finite"),
        (np.zeros((5, 24, 3)), 0, "how many frequencies"),
        (np.zeros((5, 24, 3)), 9, "how many frequencies"),
        (np.zeros((5, 8, 3)), 4, "from 1 to 3"),  # 8 bars have the periods 8, 4 and 2
    ],
)
def test_windows_without_frequencies_are_refused(
    windows: np.ndarray, count: int, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        frequencies_of(windows, count)


@pytest.mark.parametrize("case", ["even", "odd", "one"])
def test_frequencies_are_those_of_the_reference(case: str) -> None:
    found = reference(case)
    frequencies = frequencies_of(found["embedded"][None], len(found["frequencies"]))
    assert list(frequencies) == found["frequencies"].tolist()
    form = reference_form(case, layers=1)
    assert sorted(form.periods) == found["periods"].tolist()


@pytest.mark.parametrize("case", ["even", "odd", "one"])
@pytest.mark.parametrize("layers", [1, 2])
def test_series_are_those_of_the_reference(case: str, layers: int) -> None:
    found = reference(case)
    form = reference_form(case, layers=layers)
    weights = reference_weights(form, found)
    embedding = evaluate(form, weights, found["window"][None])[0]
    # The projection is one to one: what comes out is tanh of the mean of the last series.
    expected = np.tanh(found[f"series.{layers - 1}"].mean(axis=0))
    assert np.abs(embedding - expected).max() < 1e-6


def reference_weights(form: TimesNetForm, found: dict[str, np.ndarray]) -> dict[str, Tensor]:
    weights = {
        "embedding.weight": found["weight/embedding.value_embedding.tokenConv.weight"],
        "norm.weight": found["weight/norm.weight"],
        "norm.bias": found["weight/norm.bias"],
        "projection.weight": np.eye(form.d_model, dtype=np.float32),
        "projection.bias": np.zeros(form.d_model, dtype=np.float32),
    }
    for i in range(form.layers):
        for stage, place in (("widen", 0), ("narrow", 2)):
            name = f"block.{i}.{stage}"
            merged = np.zeros(form.shapes()[f"{name}.weight"])
            bias = np.zeros(form.shapes()[f"{name}.bias"])
            for j in range(form.kernels):
                branch = f"weight/blocks.{i}.conv.{place}.kernels.{j}"
                inside = slice(form.kernels - 1 - j, form.kernels + j)
                merged[:, :, inside, inside] += found[f"{branch}.weight"] / form.kernels
                bias += found[f"{branch}.bias"] / form.kernels
            weights[f"{name}.weight"] = merged.astype(np.float32)
            weights[f"{name}.bias"] = bias.astype(np.float32)
    return weights


def test_positions_are_the_sinusoids_of_the_formula() -> None:
    form = form_of(d_model=4)
    assert positions(form)[5] == pytest.approx(
        [np.sin(5), np.cos(5), np.sin(0.05), np.cos(0.05)], abs=1e-15
    )


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_graph_says_what_numpy_says(form: TimesNetForm) -> None:
    weights = weights_of(form)
    windows = windows_of(form, 40)
    expected = evaluate(form, weights, windows)
    found = answers(form, weights, windows)
    assert found.shape == expected.shape == (40, form.embedding)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-5
    assert 0.01 < np.abs(expected).max() < 1.0


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_an_embedding_does_not_depend_on_its_batch_mates(form: TimesNetForm) -> None:
    weights = weights_of(form)
    windows = windows_of(form, 7)
    windows[1:] *= 30.0  # mates with another spectrum
    together, alone = (evaluate(form, weights, part)[0] for part in (windows, windows[:1]))
    assert np.abs(together - alone).max() < 1e-12
    together, alone = (answers(form, weights, part)[0] for part in (windows, windows[:1]))
    assert np.abs(together - alone).max() < 1e-6


def test_a_window_without_any_variation_has_an_embedding() -> None:
    form = FORMS["as it comes"]
    flat = np.full((1, form.bars, form.channels), 2.0, dtype=np.float32)
    expected = evaluate(form, weights_of(form), flat)
    assert np.isfinite(expected).all()
    assert np.abs(answers(form, weights_of(form), flat) - expected).max() < 1e-5


def answers(form: TimesNetForm, weights: dict[str, Tensor], windows: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        graph(form, weights), sess_options=options, providers=["CPUExecutionProvider"]
    )
    [found] = session.run([EMBEDDING], {INPUT: windows})
    return found


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_graphs_are_sound_and_always_the_same_bytes(form: TimesNetForm) -> None:
    content = graph(form, weights_of(form))
    assert content == graph(form, weights_of(form))
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (
        8,
        [("", 17)],
    )
    [given], [made] = model.graph.input, model.graph.output
    assert (given.name, sizes(given)) == ("window", ["n", form.bars, form.channels])
    assert (made.name, sizes(made)) == ("embedding", ["n", form.embedding])
    used = {name for node in model.graph.node for name in node.input}
    assert {constant.name for constant in model.graph.initializer} <= used


def sizes(value: onnx.ValueInfoProto) -> list[object]:
    dimensions = value.type.tensor_type.shape.dim
    return [dimension.dim_param or dimension.dim_value for dimension in dimensions]


@pytest.mark.parametrize("shape", [(24, 3), (2, 23, 3), (2, 24, 4), (1, 2, 24, 3)])
def test_windows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    form = FORMS["nothing padded"]
    with pytest.raises(InvalidInput, match=r"windows: must have the shape \(n, 24, 3\)"):
        evaluate(form, weights_of(form), np.zeros(shape))


def test_numbers_and_graphs_need_neither_torch_nor_scipy() -> None:
    program = (
        "import sys, learners.timesnet, learners.timesnet_graph;"
        "heavy = {'torch', 'scipy'} & sys.modules.keys();"
        "sys.exit(f'{heavy} loaded' if heavy else 0)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
