"""Temperature scaling finds the temperature that was planted, and confidence is then accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from bandit.core.errors import InvalidInput
from learners.calibration import calibrated_temperature, expected_calibration_error
from learners.network import TEMPERATURE_MAX, TEMPERATURE_MIN


def drawn(temperature: float, *, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Scores of three classes, and labels drawn from softmax(scores / temperature)."""
    rng = np.random.default_rng(6)
    scores = rng.standard_normal((rows, 3)) * 3
    # Gumbel's maximum: the argmax of logits plus noise is a draw from their softmax.
    labels = (scores / temperature + rng.gumbel(size=scores.shape)).argmax(axis=1)
    return scores, labels


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_a_planted_temperature_is_found(temperature: float) -> None:
    scores, labels = drawn(temperature)
    # The standard error of the estimate is about 1 % here.
    assert calibrated_temperature(scores, labels) == pytest.approx(temperature, rel=0.05)


def test_a_calibrated_classifier_is_as_often_right_as_it_says() -> None:
    scores, labels = drawn(4.0)
    before = expected_calibration_error(softmax(scores), labels)
    found = calibrated_temperature(scores, labels)
    after = expected_calibration_error(softmax(scores / found), labels)
    assert before > 0.2
    assert after < 0.02


def test_scores_that_are_always_right_become_sure_and_such_that_are_always_wrong_unsure() -> None:
    scores = np.array([[1.0, 0.0], [0.0, 1.0]])
    right = calibrated_temperature(scores, np.array([0, 1]))
    assert right >= TEMPERATURE_MIN
    assert softmax(scores / right).max(axis=1) == pytest.approx([1, 1], abs=1e-12)
    wrong = calibrated_temperature(scores, np.array([1, 0]))
    assert wrong <= TEMPERATURE_MAX
    assert wrong == pytest.approx(TEMPERATURE_MAX, rel=0.01)


def test_the_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.85, 0.15], [0.4, 0.6], [0.3, 0.7]])
    labels = np.array([0, 1, 1, 1])
    # Bins of a half: all four above, three right: 3.1 / 4 against 3 / 4.
    assert expected_calibration_error(probabilities, labels, bins=2) == pytest.approx(0.025)
    # Bins of a tenth: 0.05, 0.85, 0.4, 0.3 on average.
    assert expected_calibration_error(probabilities, labels, bins=10) == pytest.approx(0.4)
    sure = np.array([[1.0, 0.0]])
    assert expected_calibration_error(sure, np.array([0])) == 0
    assert expected_calibration_error(sure, np.array([1])) == 1


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ([], "labels: must be one for each of 2 rows"),
        ([0], "labels: must be one for each"),
        ([0, 3], "labels: must be 0 to 2, found 0 to 3"),
        ([-1, 0], "labels: must be 0 to 2, found -1 to 0"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: list[int], match: str) -> None:
    scores = np.full((2, 3), 1 / 3)
    with pytest.raises(InvalidInput, match=match):
        calibrated_temperature(scores, np.array(labels, dtype=np.int64))
    with pytest.raises(InvalidInput, match=match):
        expected_calibration_error(scores, np.array(labels, dtype=np.int64))
