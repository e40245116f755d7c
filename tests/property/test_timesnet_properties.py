"""Whatever its sizes, an encoder is read back as written, and its graph says what numpy says."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_up_encoder import weights_of, windows_of

from bandit.core.errors import InvalidInput
from learners.canonical_json import canonical, parsed
from learners.timesnet import TimesNetForm, evaluate, frequencies_of
from learners.timesnet_graph import EMBEDDING, INPUT, graph

small = st.integers(1, 9)


@st.composite
def forms(draw: st.DrawFn) -> TimesNetForm:
    bars = draw(st.integers(4, 40))
    by_period = {bars // frequency: frequency for frequency in range(1, bars // 2 + 1)}
    choices = st.lists(st.sampled_from(sorted(by_period.values())), unique=True, min_size=1)
    return TimesNetForm(
        bars=bars,
        channels=draw(small),
        frequencies=tuple(sorted(draw(choices)[:8])),
        d_model=draw(small),
        d_ff=draw(small),
        layers=draw(st.integers(1, 3)),
        kernels=draw(st.integers(1, 4)),
        embedding=draw(small),
    )


@given(form=forms(), seed=st.integers(0, 2**32 - 1), count=st.integers(1, 5))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_form_reads_back_and_both_runtimes_agree(
    form: TimesNetForm, seed: int, count: int
) -> None:
    assert TimesNetForm.from_json(parsed(canonical(form.to_json()), field="encoder")) == form
    weights = weights_of(form, seed=seed)
    windows = windows_of(form, count, seed=seed)
    session = onnxruntime.InferenceSession(graph(form, weights), providers=["CPUExecutionProvider"])
    [found] = session.run([EMBEDDING], {INPUT: windows})
    # A norm over two or three channels that are nearly equal enlarges what single precision loses.
    assert np.abs(found - evaluate(form, weights, windows)).max() < 1e-3


whatever = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(
    field=st.sampled_from(
        ["bars", "channels", "frequencies", "d_model", "d_ff", "layers", "kernels", "embedding"]
    ),
    found=whatever,
)
def test_any_other_value_is_a_form_or_refused(field: str, found: object) -> None:
    lawful = TimesNetForm(bars=48, channels=3, frequencies=(1, 2)).to_json()
    try:
        form = TimesNetForm.from_json({**lawful, field: found})
    except InvalidInput:
        return
    assert form.to_json() == {**lawful, field: found}


@given(seed=st.integers(0, 2**32 - 1), bars=st.integers(4, 60), count=st.integers(1, 3))
def test_found_frequencies_make_a_form_whatever_the_order_of_windows(
    seed: int, bars: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    windows = rng.standard_normal((20, bars, 2))
    if count > len({bars // frequency for frequency in range(1, bars // 2 + 1)}):
        with pytest.raises(InvalidInput, match="how many frequencies"):
            frequencies_of(windows, count)
        return
    found = frequencies_of(windows, count)
    assert len(TimesNetForm(bars=bars, channels=2, frequencies=found).periods) == count
    assert frequencies_of(rng.permutation(windows), count) == found
