"""The scaler: fitted on what it is given, exact after a way through JSON."""

import json
import math

import numpy as np
import pytest

from bandit.core.errors import InvalidInput
from learners.market.scaler import Scaler


def test_training_rows_come_out_with_mean_zero_and_spread_one() -> None:
    rows = np.random.default_rng(1).normal(7.0, 3.0, (500, 4))

    scaled = Scaler.fit(rows, clip=100.0).apply(rows)

    np.testing.assert_allclose(scaled.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(scaled.std(axis=0), 1.0, atol=1e-12)


def test_one_row_is_scaled_as_it_is_among_others() -> None:
    rows = np.random.default_rng(2).normal(size=(50, 3))
    scaler = Scaler.fit(rows)

    assert scaler.apply(rows[7]).tobytes() == scaler.apply(rows)[7].tobytes()


def test_a_constant_column_keeps_its_size_even_with_rounding() -> None:
    rows = np.stack([np.full(9, 0.1), np.arange(9.0)], axis=1)
    rows[3, 0] += 1e-17

    assert Scaler.fit(rows).scale[0] == 1.0


def test_the_numbers_survive_json_exactly() -> None:
    scaler = Scaler.fit(np.random.default_rng(3).normal(size=(40, 5)) / 3)

    assert Scaler.from_json(json.loads(json.dumps(scaler.to_json()))) == scaler


def test_two_complete_rows_are_the_least() -> None:
    rows = np.array([[1.0, 2.0], [math.nan, 3.0], [2.0, math.nan]])

    with pytest.raises(InvalidInput, match="must have two complete rows or more, found 1"):
        Scaler.fit(rows)


def test_rows_of_another_width_are_refused() -> None:
    scaler = Scaler(mean=(0.0, 0.0), scale=(1.0, 1.0), clip=5.0)

    with pytest.raises(InvalidInput, match=r"rows: must have 2 columns, found \(4, 3\)"):
        scaler.apply(np.zeros((4, 3)))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"mean": [0.0], "scale": [1.0]}, "must have the lists mean and scale, and clip"),
        ({"mean": 0.0, "scale": [1.0], "clip": 5.0}, "must have the lists"),
        ({"mean": [0.0], "scale": [], "clip": 5.0}, "must have a scale for a mean"),
        ({"mean": [], "scale": [], "clip": 5.0}, "must have a scale for a mean"),
        ({"mean": [math.nan], "scale": [1.0], "clip": 5.0}, "mean: must be finite floats"),
        ({"mean": ["0"], "scale": [1.0], "clip": 5.0}, "mean: must be finite floats"),
        ({"mean": [0.0], "scale": [0.0], "clip": 5.0}, "scale: must be positive"),
        ({"mean": [0.0], "scale": [1.0], "clip": -1.0}, "clip: must be positive"),
    ],
)
def test_a_document_that_is_no_scaler_is_refused(document: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Scaler.from_json(document)
