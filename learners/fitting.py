"""Fit a classifier of bars: in a process of its own, resumable after any epoch, repeatable.

The same plan, rows, start and package versions give the same weights, bit by bit, however often the
fitting was killed and begun again on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bandit.core.errors import InvalidInput
from learners import tensor_file
from learners.fitting_plan import FittingPlan, LabelledRows, fitting_digest, learned_shapes
from learners.installed import versions
from learners.tensor_file import Tensor
from learners.timesnet import TimesNetForm
from learners.training_events import Fitted, TrainingEvent
from learners.training_process import GRACE_SECONDS, working

PACKAGES = ("numpy", "pytorch-tabnet", "scikit-learn", "torch")

_WORKER = "learners.fitting_worker"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedModel:
    """What a fitting gave; `losses` are the mean cross entropies of the first and last epoch."""

    tensors: Mapping[str, Tensor]
    losses: tuple[float, float]
    batches: int
    resumed_batches: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittingOrder:
    """What the worker is told; see `learners.training_process.Order`."""

    plan: FittingPlan
    rows: LabelledRows
    start: Mapping[str, Tensor] | None
    run: str
    folder: Path
    deadline_at: float
    clock: Callable[[], float]

    @property
    def deadline_seconds(self) -> float:
        """Return how long all of it may take."""
        return self.plan.deadline_seconds


def fit(
    plan: FittingPlan,
    rows: LabelledRows,
    *,
    folder: Path,
    clock: Callable[[], float],
    report: Callable[[TrainingEvent], None],
    start: Mapping[str, Tensor] | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> FittedModel:
    """Fit by a plan, in a worker process.

    `start` are an encoder's weights to go on from, with its head; else all begin by chance.
    Checkpoints lie below `folder`, apart for each run; `clock` and `report` are those of
    `learners.reinforcement.train`, steps are batches. Raises `InvalidInput` for rows or a start
    that do not fit the form, and as `train`.
    """
    _require_fit(plan, rows, start)
    run = fitting_digest(plan, rows, start=start, packages=versions(PACKAGES))
    order = FittingOrder(
        plan=plan,
        rows=rows,
        start=start,
        run=run,
        folder=folder / run[:16],
        deadline_at=clock() + plan.deadline_seconds,
        clock=clock,
    )
    shapes = learned_shapes(plan.form, rows.classes)
    with working(_WORKER, order, report=report, grace_seconds=grace_seconds) as heard:
        fitted = heard.ending(Fitted)
        tensors = tensor_file.decoded(heard.received(), shapes, file="tensors")
    return FittedModel(
        tensors=tensors,
        losses=(fitted.loss_first, fitted.loss_last),
        batches=fitted.batches,
        resumed_batches=fitted.resumed_batches,
    )


def _require_fit(plan: FittingPlan, rows: LabelledRows, start: Mapping[str, Tensor] | None) -> None:
    form = plan.form
    channels = form.channels if isinstance(form, TimesNetForm) else form.inputs
    if rows.series.shape[1] != channels:
        rule = f"must have {channels} columns"
        raise InvalidInput(field="series", rule=rule, found=rows.series.shape[1])
    if isinstance(form, TimesNetForm):
        rows.require_history(form.bars)
    elif form.classes != rows.classes:
        rule = f"must be {rows.classes}"
        raise InvalidInput(field="tabnet.classes", rule=rule, found=form.classes)
    if start is None:
        return
    shapes = learned_shapes(form, rows.classes)
    if not isinstance(form, TimesNetForm) or {n: t.shape for n, t in start.items()} != shapes:
        rule = "must be an encoder's tensors with its head"
        raise InvalidInput(field="start", rule=rule, found=", ".join(sorted(start)))
