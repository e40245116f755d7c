"""How sure a classifier may be of itself: temperature scaling (Guo et al. 2017, arXiv:1706.04599).

Dividing all scores by one number changes no choice, only how sure they look; the number is the one
under which rows that nothing was learnt from are the most likely.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from bandit.core.errors import InvalidInput
from learners.network import TEMPERATURE_MAX, TEMPERATURE_MIN, Doubles, require_count

BINS = 15


def calibrated_temperature(scores: Doubles, labels: NDArray[np.integer]) -> float:
    """Return the temperature that makes softmax(scores / temperature) fit held-out `labels` best.

    `scores` (n, classes), `labels` (n,) from 0. In 1 / temperature the negative log likelihood is
    convex, so it has one valley. Scores whose choice is always right get a temperature near 0, at
    which they are sure; such that are no better than none get the highest. Raises `InvalidInput`
    for labels that do not fit.

    >>> scores = np.log(np.array([[0.9, 0.1]] * 10))
    >>> calibrated_temperature(10 * scores, np.array([0] * 9 + [1]))  # ten times too sure
    10.0
    """
    _require_fit(scores, labels)
    each = np.arange(len(labels))

    def surprise(log_temperature: float) -> float:
        logits = scores / math.exp(log_temperature)
        logits = logits - logits.max(axis=1, keepdims=True)
        likelihood = logits[each, labels] - np.log(np.exp(logits).sum(axis=1))
        return -float(likelihood.mean())

    bounds = (math.log(TEMPERATURE_MIN), math.log(TEMPERATURE_MAX))
    found = minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    # More digits would be those of the search: the artefact of equal data is then equal, too.
    rounded = float(f"{math.exp(found.x):.4g}")
    return min(max(rounded, TEMPERATURE_MIN), TEMPERATURE_MAX)


def expected_calibration_error(
    probabilities: Doubles, labels: NDArray[np.integer], *, bins: int = BINS
) -> float:
    """Return how far confidence is from accuracy, 0 to 1, on average over `bins` of confidence.

    The confidence of a row is its highest probability; bins are equally wide and weigh as much as
    they have rows (Guo et al. 2017, equation 3).

    >>> expected_calibration_error(np.array([[0.8, 0.2]] * 4), np.array([0, 0, 0, 1]))  # 0.75 right
    0.05
    """
    _require_fit(probabilities, labels)
    require_count("bins", bins, 1, 1000)
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == labels
    of_row = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(of_row, weights=confidence - is_right, minlength=bins)
    return round(float(np.abs(gaps).sum()) / len(labels), 12)


def _require_fit(scores: Doubles, labels: NDArray[np.integer]) -> None:
    if len(labels) == 0 or labels.shape != scores.shape[:1]:
        rule = f"must be one for each of {len(scores)} rows, of which there must be one"
        raise InvalidInput(field="labels", rule=rule, found=labels.shape)
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        rule = f"must be 0 to {scores.shape[1] - 1}"
        raise InvalidInput(field="labels", rule=rule, found=f"{labels.min()} to {labels.max()}")
