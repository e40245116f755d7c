"""What a classifier of bars is asked to fit: form, budget, and rows with their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandit.core.errors import InvalidInput
from learners import tensor_file
from learners.canonical_json import canonical
from learners.network import ACTIONS_MAX, require_count
from learners.tabnet import TabNetForm
from learners.tensor_file import Shapes, Tensor
from learners.timesnet import TimesNetForm
from learners.training_plan import DEADLINE_SECONDS_MAX, SEED_MAX

EPOCHS_MAX, BATCH_MAX = 1_000, 65_536
RATE_MAX, SPARSITY_MAX, DROPOUT_MAX = 1.0, 1.0, 0.9
HEAD_WEIGHT, HEAD_BIAS = "head.weight", "head.bias"


@dataclass(frozen=True, slots=True, kw_only=True)
class FittingPlan:
    """One fitting: `epochs` passes over the rows in batches of `batch`, by Adam.

    The learning rate falls from `learning_rate` to 0 along half a cosine. `sparsity` is what TabNet
    pays for looking at many columns, `dropout` the share that TimesNet forgets while it learns;
    each says nothing to the other. By `deadline_seconds` the fitting has ended, or is ended. Raises
    `InvalidInput` for what cannot be meant.
    """

    form: TimesNetForm | TabNetForm
    seed: int
    epochs: int
    batch: int
    learning_rate: float
    sparsity: float = 1e-3
    dropout: float = 0.1
    deadline_seconds: float = 600.0

    def __post_init__(self) -> None:
        """Refuse numbers outside their bounds."""
        require_count("seed", self.seed, 0, SEED_MAX)
        require_count("epochs", self.epochs, 1, EPOCHS_MAX)
        require_count("batch", self.batch, 2, BATCH_MAX)
        for name, most in (
            ("learning_rate", RATE_MAX),
            ("sparsity", SPARSITY_MAX),
            ("dropout", DROPOUT_MAX),
            ("deadline_seconds", DEADLINE_SECONDS_MAX),
        ):
            found: object = getattr(self, name)
            is_number = isinstance(found, int | float) and not isinstance(found, bool)
            if not is_number or not 0 <= getattr(self, name) <= most:
                raise InvalidInput(field=name, rule=f"must be in [0, {most:g}]", found=found)

    def to_json(self) -> dict[str, Any]:
        """Return all that decides what is fitted; the deadline does not."""
        return {
            "form": self.form.to_json(),
            "seed": self.seed,
            "epochs": self.epochs,
            "batch": self.batch,
            "learning_rate": self.learning_rate,
            "sparsity": self.sparsity,
            "dropout": self.dropout,
        }

    def batches(self, rows: int) -> int:
        """Return how many batches an epoch of so many rows has; the last one may be larger.

        No batch is small: whatever normalises by a batch would have nothing to do it by.
        """
        return max(1, rows // self.batch)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledRows:
    """Examples: each ends in a row of `series`, (rows, channels) float32, and has a label.

    TabNet sees the row `ends[i]` itself, TimesNet the window that ends there. `labels` are classes
    from 0 up to `classes`. Raises `InvalidInput` where they do not fit one another.
    """

    series: Tensor
    ends: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: int

    def __post_init__(self) -> None:
        """Refuse what cannot be learned from."""
        require_count("classes", self.classes, 2, ACTIONS_MAX)
        if self.series.ndim != 2 or self.series.dtype != np.float32:
            found = f"{self.series.dtype} {self.series.shape}"
            raise InvalidInput(field="series", rule="must be float32 (rows, channels)", found=found)
        if self.ends.shape != self.labels.shape or len(self.ends) < 2:
            found = f"{self.ends.shape} ends, {self.labels.shape} labels"
            raise InvalidInput(field="examples", rule="must be 2 or more", found=found)
        for name, values, most in (
            ("ends", self.ends, len(self.series)),
            ("labels", self.labels, self.classes),
        ):
            if values.min() < 0 or values.max() >= most:
                raise InvalidInput(field=name, rule=f"must be in [0, {most})", found=values)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all of it."""
        content = hashlib.sha256(canonical([*self.series.shape, self.classes, len(self.ends)]))
        content.update(np.ascontiguousarray(self.series, dtype="<f4").tobytes())
        for values in (self.ends, self.labels):
            content.update(np.ascontiguousarray(values, dtype="<i8").tobytes())
        return content.hexdigest()

    def windows(self, chosen: NDArray[np.int64], *, bars: int) -> Tensor:
        """Return the windows (n, bars, channels) that end in the examples `chosen`."""
        found: Tensor = self.series[self.ends[chosen, None] + np.arange(1 - bars, 1)]
        return found

    def require_history(self, bars: int) -> None:
        """Raise `InvalidInput` where an example ends before a whole window has passed."""
        if self.ends.min() < bars - 1:
            rule = f"must be {bars - 1} or more, for whole windows"
            raise InvalidInput(field="ends", rule=rule, found=int(self.ends.min()))


def learned_shapes(form: TimesNetForm | TabNetForm, classes: int) -> Shapes:
    """Return the shapes of what a fitting gives: of an encoder with the head it was taught by."""
    if isinstance(form, TabNetForm):
        return form.shapes()
    head = {HEAD_WEIGHT: (classes, form.embedding), HEAD_BIAS: (classes,)}
    return {**form.shapes(), **head}


def fitting_digest(
    plan: FittingPlan,
    rows: LabelledRows,
    *,
    start: Mapping[str, Tensor] | None,
    packages: Mapping[str, str],
) -> str:
    """Return the SHA-256 of all that decides the weights."""
    begun = None if start is None else hashlib.sha256(tensor_file.encoded(start)).hexdigest()
    made_by = {"plan": plan.to_json(), "rows": rows.digest, "start": begun}
    return hashlib.sha256(canonical({**made_by, "packages": dict(packages)})).hexdigest()
