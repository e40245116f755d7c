"""Fitting encoders and TabNets: repeatable, resumable, and refused where rows do not fit."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bandit.core.errors import InvalidInput
from learners import tabnet, timesnet
from learners.fitting import FittedModel, fit
from learners.fitting_plan import HEAD_BIAS, HEAD_WEIGHT, FittingPlan, LabelledRows
from learners.tabnet import TabNetForm
from learners.tensor_file import Tensor, encoded
from learners.timesnet import TimesNetForm
from learners.training_events import (
    Begun,
    CheckpointUnfit,
    CheckpointWritten,
    DeadlinePassed,
    TrainingEvent,
)
from liveops.clock import monotonic
from tests.training_markets import HaltingClock

LAG = 5
ENCODER = FittingPlan(
    form=TimesNetForm(
        bars=8, channels=2, frequencies=(1, 2), d_model=4, d_ff=4, layers=1, kernels=2, embedding=4
    ),
    seed=3,
    epochs=3,
    batch=64,
    learning_rate=0.01,
)
TABNET = FittingPlan(
    form=TabNetForm(inputs=2, classes=2, width=4, steps=2),
    seed=3,
    epochs=3,
    batch=64,
    learning_rate=0.02,
)
PLANS = {"encoder": ENCODER, "tabnet": TABNET}


def rows(*, lag: int = 0, count: int = 600, seed: int = 1) -> LabelledRows:
    """The class is the sign of the first column, so many rows ago."""
    series = np.random.default_rng(seed).standard_normal((count, 2)).astype(np.float32)
    ends = np.arange(10, count)
    labels = (series[ends - lag, 0] > 0).astype(np.int64)
    return LabelledRows(series=series, ends=ends, labels=labels, classes=2)


def fitted(
    plan: FittingPlan,
    folder: Path,
    *,
    found: LabelledRows | None = None,
    start: Mapping[str, Tensor] | None = None,
    report: Callable[[TrainingEvent], None] = lambda _: None,
) -> FittedModel:
    examples = rows() if found is None else found
    return fit(plan, examples, folder=folder, clock=monotonic, report=report, start=start)


class Killer:
    """Kills the worker with SIGKILL as it hears of so many batches kept."""

    def __init__(self, at: list[int]) -> None:
        self.at = at

    def __call__(self, event: TrainingEvent) -> None:
        if isinstance(event, Begun | CheckpointWritten) and self.at and event.steps >= self.at[0]:
            self.at.pop(0)
            [worker] = multiprocessing.active_children()
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)


@pytest.mark.parametrize("name", PLANS)
def test_a_fitting_killed_again_and_again_ends_as_if_it_had_not_been(
    name: str, tmp_path: Path
) -> None:
    plan = PLANS[name]
    whole = fitted(plan, tmp_path / "whole")
    killer = Killer([0, 1, 10])
    resumed = []
    while killer.at:
        with pytest.raises(Exception, match="worker ended with exit code -9"):
            fitted(plan, tmp_path / "killed", report=killer)
    again = fitted(plan, tmp_path / "killed", report=resumed.append)
    assert 0 < again.resumed_batches < whole.batches
    assert encoded(again.tensors) == encoded(whole.tensors)
    assert again.losses == pytest.approx(whole.losses, rel=1e-6)
    kept = [event.steps for event in resumed if isinstance(event, CheckpointWritten)]
    assert all(before < after for before, after in pairwise(kept))
    # What is finished is only read.
    once_more = fitted(plan, tmp_path / "killed")
    assert once_more.resumed_batches == whole.batches
    assert encoded(once_more.tensors) == encoded(whole.tensors)


def test_a_damaged_checkpoint_is_set_aside(tmp_path: Path) -> None:
    whole = fitted(TABNET, tmp_path)
    newest = max(tmp_path.glob("*/" + "[0-9]" * 12 + "/*/tensors.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-4] + b"\0\0\0\0")
    heard: list[TrainingEvent] = []
    again = fitted(TABNET, tmp_path, report=heard.append)
    assert [event for event in heard if isinstance(event, CheckpointUnfit)]
    assert 0 < again.resumed_batches < whole.batches
    assert encoded(again.tensors) == encoded(whole.tensors)


def test_another_seed_or_other_rows_are_another_fitting(tmp_path: Path) -> None:
    others = [
        fitted(TABNET, tmp_path),
        fitted(replace(TABNET, seed=4), tmp_path),
        fitted(TABNET, tmp_path, found=rows(seed=2)),
    ]
    assert len({encoded(other.tensors) for other in others}) == 3


def test_a_window_tells_what_a_row_does_not(tmp_path: Path) -> None:
    """The class is told five rows before: the encoder learns it, TabNet cannot."""
    seen, unseen = rows(lag=LAG, count=4_000), rows(lag=LAG, count=1_000, seed=9)
    encoder = fitted(replace(ENCODER, epochs=8), tmp_path, found=seen)
    own = {name: encoder.tensors[name] for name in ENCODER.form.shapes()}
    windows = unseen.windows(np.arange(len(unseen.ends)), bars=8)
    assert isinstance(ENCODER.form, TimesNetForm)
    embeddings = timesnet.evaluate(ENCODER.form, own, windows)
    said = embeddings @ encoder.tensors[HEAD_WEIGHT].T + encoder.tensors[HEAD_BIAS]
    assert np.mean(said.argmax(axis=1) == unseen.labels) > 0.9
    flat = fitted(replace(TABNET, epochs=8), tmp_path, found=seen)
    assert isinstance(TABNET.form, TabNetForm)
    found = tabnet.evaluate(TABNET.form, flat.tensors, unseen.series[unseen.ends]).scores
    assert abs(np.mean(found.argmax(axis=1) == unseen.labels) - 0.5) < 0.1


def test_a_refresh_goes_on_from_stored_weights(tmp_path: Path) -> None:
    stored = fitted(replace(ENCODER, epochs=8), tmp_path, found=rows(lag=LAG, count=4_000))
    newest = rows(lag=LAG, seed=5)
    once = replace(ENCODER, epochs=1)
    afresh = fitted(once, tmp_path, found=newest)
    refreshed = fitted(once, tmp_path, found=newest, start=stored.tensors)
    assert refreshed.losses[0] < 0.8 * afresh.losses[0]


def test_a_deadline_ends_it_where_it_can_go_on(tmp_path: Path) -> None:
    batches = ENCODER.batches(590)
    with pytest.raises(DeadlinePassed) as stopped:
        fit(
            replace(ENCODER, deadline_seconds=1000.0),
            rows(),
            folder=tmp_path,
            clock=HaltingClock(looks=2 * batches),
            report=lambda _: None,
        )
    assert not stopped.value.killed
    assert stopped.value.steps == batches
    whole = fitted(ENCODER, tmp_path / "whole")
    again = fitted(ENCODER, tmp_path)
    assert again.resumed_batches == batches
    assert encoded(again.tensors) == encoded(whole.tensors)


@pytest.mark.parametrize(
    ("plan", "found", "field"),
    [
        (ENCODER, replace(rows(), series=np.zeros((600, 3), np.float32)), "series"),
        (TABNET, replace(rows(), series=np.zeros((600, 3), np.float32)), "series"),
        (TABNET, replace(rows(), classes=3), "tabnet.classes"),
        (ENCODER, replace(rows(), ends=np.arange(590)), "ends"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    plan: FittingPlan, found: LabelledRows, field: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=f"^{field}: "):
        fitted(plan, tmp_path, found=found)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"labels": np.full(590, 2)}, "labels"),
        ({"ends": np.arange(11, 601)}, "ends"),
        ({"ends": np.arange(3)}, "examples"),
        ({"series": np.zeros((600, 2))}, "series"),
        ({"classes": 1}, "classes"),
    ],
)
def test_rows_are_checked(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{field}: "):
        replace(rows(), **changes)  # type: ignore[arg-type]  # fields by name


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 0}, {"batch": 1}, {"learning_rate": float("nan")}, {"dropout": 1.0}, {"seed": -1}],
)
def test_a_plan_is_checked(changes: dict[str, object]) -> None:
    [field] = changes
    with pytest.raises(InvalidInput, match=f"^{field}: "):
        replace(ENCODER, **changes)  # type: ignore[arg-type]  # fields by name


def test_only_an_encoder_goes_on_from_another(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"^start: "):
        fitted(TABNET, tmp_path, start={"input.scale": np.ones(2, np.float32)})
    with pytest.raises(InvalidInput, match=r"^start: "):
        fitted(ENCODER, tmp_path, start={"norm.bias": np.ones(4, np.float32)})
