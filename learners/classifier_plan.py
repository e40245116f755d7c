"""How a classifier of bars is made: an encoder, TabNet and trees; a frozen value JSON can hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from bandit.core.errors import InvalidInput
from bandit.core.model import PolicySha
from learners.artifact_spec import HORIZON_BARS_MAX
from learners.boosting_plan import BoostingPlan
from learners.ensemble import FOREST_WEIGHT
from learners.fitting_plan import FittingPlan
from learners.form_fields import number
from learners.network import require_count
from learners.tabnet import TabNetForm
from learners.timesnet import BARS_MAX, BARS_MIN, FREQUENCIES_MAX, TimesNetForm
from learners.training_plan import DEADLINE_SECONDS_MAX, SEED_MAX

REFRESH_EPOCHS: Final = 10
"""Epochs that a refresh teaches a stored encoder by the newest bars."""

_SHARE_MIN, _SHARE_MAX = 0.05, 0.5
_BOOSTING = BoostingPlan()


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPlan:
    """A TimesNet of windows of `bars`, folded along the `frequencies` strongest in training."""

    bars: int = 48
    frequencies: int = 3
    d_model: int = 16
    d_ff: int = 16
    layers: int = 2
    kernels: int = 3
    embedding: int = 8
    epochs: int = 10
    batch: int = 128
    learning_rate: float = 1e-3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuse numbers outside their bounds; the rest is for the forms to refuse."""
        require_count("encoder.bars", self.bars, BARS_MIN, BARS_MAX)
        require_count("encoder.frequencies", self.frequencies, 1, FREQUENCIES_MAX)

    def form(self, *, channels: int, frequencies: tuple[int, ...]) -> TimesNetForm:
        """Return the form for rows of `channels` numbers."""
        return TimesNetForm(
            bars=self.bars,
            channels=channels,
            frequencies=frequencies,
            d_model=self.d_model,
            d_ff=self.d_ff,
            layers=self.layers,
            kernels=self.kernels,
            embedding=self.embedding,
        )

    def fitting(
        self, form: TimesNetForm, *, seed: int, epochs: int, deadline_seconds: float
    ) -> FittingPlan:
        """Return how it is fitted."""
        return FittingPlan(
            form=form,
            seed=seed,
            epochs=epochs,
            batch=self.batch,
            learning_rate=self.learning_rate,
            dropout=self.dropout,
            deadline_seconds=deadline_seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierPlan:
    """One classifier: which way a bar is to be traded, learned from what trades came to.

    A bar's class is the side whose position, opened after it and held for `horizon_bars`, would
    have earned more, net of fees and slippage; flat where neither earns anything. The last
    `validation_share` of the bars say how sure the classifier may be of itself (its temperature),
    and teach it nothing else. TabNet sees the features and, with an `encoder`, the embedding; with
    a `forest`, gradient boosting on the same columns has `forest_weight` of the say. Where
    `refreshed` names a stored encoder, the newest training goes on from it. Each of the trainings
    has `deadline_seconds`. Raises `InvalidInput` for what cannot be meant.
    """

    seed: int
    horizon_bars: int = 12
    validation_share: float = 0.15
    encoder: EncoderPlan | None = EncoderPlan()
    width: int = 8
    decisions: int = 3
    epochs: int = 20
    batch: int = 512
    learning_rate: float = 0.01
    sparsity: float = 1e-3
    forest: BoostingPlan | None = _BOOSTING
    forest_weight: float = FOREST_WEIGHT
    refreshed: PolicySha | None = None
    deadline_seconds: float = 600.0

    def __post_init__(self) -> None:
        """Refuse numbers outside their bounds; the rest is for the forms to refuse."""
        require_count("seed", self.seed, 0, SEED_MAX)
        require_count("horizon_bars", self.horizon_bars, 1, HORIZON_BARS_MAX)
        number("validation_share", self.validation_share, _SHARE_MIN, _SHARE_MAX)
        number("deadline_seconds", self.deadline_seconds, 1e-3, DEADLINE_SECONDS_MAX)
        if self.refreshed is not None and self.encoder is None:
            rule = "must go with an encoder"
            raise InvalidInput(field="refreshed", rule=rule, found=self.refreshed)

    @property
    def steps(self) -> int:
        """Return how often its rows are passed over in all: what a training of it is made of."""
        return self.epochs + (0 if self.encoder is None else self.encoder.epochs)

    def decisive(self) -> dict[str, Any]:
        """Return all that decides what is made."""
        values = asdict(self)
        del values["deadline_seconds"]
        return {"classifier": values}

    def tabnet(self, *, inputs: int, classes: int) -> TabNetForm:
        """Return the form of its TabNet."""
        return TabNetForm(inputs=inputs, classes=classes, width=self.width, steps=self.decisions)

    def fitting(self, form: TabNetForm) -> FittingPlan:
        """Return how its TabNet is fitted."""
        return FittingPlan(
            form=form,
            seed=self.seed,
            epochs=self.epochs,
            batch=self.batch,
            learning_rate=self.learning_rate,
            sparsity=self.sparsity,
            deadline_seconds=self.deadline_seconds,
        )
