"""A curve in a line: its ends, its extremes, and what does not move."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from liveops.sparkline import LEVELS, sparkline

NUMBERS = st.floats(-1e9, 1e9)


@given(values=st.lists(NUMBERS, max_size=80), width=st.integers(1, 40))
def test_it_fits_ends_where_the_values_end_and_shows_the_extremes(
    values: list[float], width: int
) -> None:
    drawn = sparkline(values, width=width)
    assert len(drawn) == min(len(values), width)
    assert set(drawn) <= set(LEVELS)
    if len(values) <= width and len(set(values)) > 1:
        assert drawn[values.index(min(values))] == LEVELS[0]
        assert drawn[values.index(max(values))] == LEVELS[-1]


# Halving the smallest of all numbers rounds.
@given(
    values=st.lists(NUMBERS.map(lambda x: x if abs(x) > 1e-300 else 0.0), min_size=2, max_size=30),
    factor=st.sampled_from([0.5, 4.0]),
)
def test_only_the_form_counts_not_the_size(values: list[float], factor: float) -> None:
    scaled = [factor * value for value in values]
    assert sparkline(scaled, width=30) == sparkline(values, width=30)
