"""Make a classifier of bars: an encoder, TabNet and trees, from rows and what trades came to.

All of it is fitted on bars of `ClassRows` alone. The last of them are kept from every fitting: on
them the temperature is found, by which a classifier is as sure as it is right. The scaler of the
rows alone has seen them before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from bandit.core.errors import InvalidInput
from learners import ensemble
from learners.calibration import calibrated_temperature
from learners.classifier_plan import REFRESH_EPOCHS, ClassifierPlan
from learners.embedding import whole_windows
from learners.ensemble import Ensemble
from learners.environment import OWN_COLUMNS
from learners.environment_spec import EnvironmentSpec
from learners.fitting import fit
from learners.fitting_plan import LabelledRows
from learners.market.candles import Candles
from learners.market.labels import forward_returns
from learners.position_table import SIDES
from learners.tensor_file import Tensor
from learners.timesnet import TimesNetForm, frequencies_of
from learners.training_events import TrainingEvent

EXAMPLES_MIN: Final = 100
GOLDEN_MAX: Final = 32
UNKNOWN: Final = -1
"""The class of a bar whose trade does not end within the bars."""

Embed = Callable[[NDArray[np.float64], NDArray[np.bool_]], tuple[Tensor, NDArray[np.bool_]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where fittings keep checkpoints, the clock of their deadlines, and who hears of them."""

    folder: Path
    clock: Callable[[], float]
    report: Callable[[TrainingEvent], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassRows:
    """Bars of one instrument to learn from: scaled rows, which of them are known, and classes.

    `rows` (bars, columns) are 0 where they are not known; `labels` are -1 where no trade opened
    after the bar ends within the bars. `horizon_end` is the last bar that a label reads.
    """

    rows: NDArray[np.float64]
    complete: NDArray[np.bool_]
    labels: NDArray[np.int64]
    horizon_end: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaughtEncoder:
    """An encoder that was fitted, with its head; `windows` are some that it learned from.

    It passed over all of them `epochs` times.
    """

    form: TimesNetForm
    tensors: Mapping[str, Tensor]
    windows: Tensor
    classes: int
    epochs: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaughtClassifier:
    """A classifier that was fitted; `observations` are some that it was calibrated on.

    `confidences` and `hits` (1 where its class was right) are of all bars it was calibrated on.
    """

    form: Ensemble
    tensors: Mapping[str, Tensor]
    observations: Tensor
    confidences: NDArray[np.float64]
    hits: NDArray[np.float64]


def class_rows(
    candles: Candles,
    rows: NDArray[np.float64],
    complete: NDArray[np.bool_],
    *,
    bars: range,
    spec: EnvironmentSpec,
    horizon_bars: int,
) -> ClassRows:
    """Return `bars` of an instrument with their classes, the numbers of `Target`.

    `rows` and `complete` have an entry for every candle. Nothing outside `bars` is read.
    """
    here = slice(bars.start, bars.stop)
    returns = np.zeros((len(spec.targets), len(candles)))
    known = np.ones(len(candles), dtype=np.bool_)
    for target in spec.targets:
        if target not in SIDES:
            continue
        labels = forward_returns(
            candles,
            horizon_bars=horizon_bars,
            side=SIDES[target],
            fee_ratio=spec.costs.fee_ratio,
            slippage_ratio=spec.costs.slippage_ratio,
        )
        returns[target] = labels.returns
        known &= np.isfinite(labels.returns) & (labels.horizon_end < bars.stop)
    best = np.where(known, np.where(known, returns, 0.0).argmax(axis=0), UNKNOWN)
    return ClassRows(
        rows=rows[here],
        complete=complete[here],
        labels=best[here].astype(np.int64),
        horizon_end=labels.horizon_end[here] - bars.start,
    )


def taught_encoder(
    plan: ClassifierPlan,
    markets: Sequence[ClassRows],
    *,
    classes: int,
    bench: Bench,
    start: TaughtEncoder | None = None,
) -> TaughtEncoder:
    """Fit the encoder, from chance or from where `start` stands; raises as `learners.fitting.fit`.

    Its frequencies are those of the windows it learns from; a refresh keeps the stored ones.
    """
    assert plan.encoder is not None
    bars = plan.encoder.bars if start is None else start.form.bars
    examples = examples_of(plan, markets, history=bars, classes=classes).fitted
    some = examples.windows(_evenly(len(examples.ends), 4_096), bars=bars)
    if start is None:
        frequencies = frequencies_of(some, plan.encoder.frequencies)
        form = plan.encoder.form(channels=some.shape[2], frequencies=frequencies)
        epochs = plan.encoder.epochs
    else:
        form, epochs = start.form, REFRESH_EPOCHS
    fitting = plan.encoder.fitting(
        form, seed=plan.seed, epochs=epochs, deadline_seconds=plan.deadline_seconds
    )
    found = fit(
        fitting,
        examples,
        folder=bench.folder,
        clock=bench.clock,
        report=bench.report,
        start=None if start is None else start.tensors,
    )
    golden = examples.windows(_evenly(len(examples.ends), GOLDEN_MAX), bars=bars)
    return TaughtEncoder(
        form=form, tensors=found.tensors, windows=golden, classes=classes, epochs=epochs
    )


def taught_classifier(
    plan: ClassifierPlan, markets: Sequence[ClassRows], *, classes: int, bench: Bench
) -> TaughtClassifier:
    """Fit TabNet and trees on rows that hold the embedding already, and calibrate the two.

    Raises `InvalidInput` where there are too few examples or one of the classes never comes, and as
    `learners.fitting.fit`.
    """
    examples = examples_of(plan, markets, history=1, classes=classes)
    fitted, held_out = examples.fitted, examples.held_out
    seen = fitted.series.shape[1]
    form = plan.tabnet(inputs=seen, classes=classes)
    found = fit(
        plan.fitting(form), fitted, folder=bench.folder, clock=bench.clock, report=bench.report
    )
    trees, tree_tensors = None, None
    if plan.forest is not None:
        # Here, not above: who only asks what was made loads nothing that makes it.
        from learners import forest_fitting

        trees, tree_tensors = forest_fitting.fitted(
            fitted.series[fitted.ends],
            fitted.labels,
            classes=classes,
            plan=plan.forest,
            seed=plan.seed,
        )
    model = Ensemble(
        inputs=seen + OWN_COLUMNS,
        tabnet=form,
        forest=trees,
        forest_weight=0.0 if trees is None else plan.forest_weight,
    )
    tensors = ensemble.named(found.tensors, tree_tensors)
    rows = held_out.series[held_out.ends]
    scores = ensemble.evaluate(model, tensors, rows).scores
    model = replace(model, temperature=calibrated_temperature(scores, held_out.labels))
    golden = rows[_evenly(len(rows), GOLDEN_MAX)]
    held_nothing = np.zeros((len(golden), OWN_COLUMNS), dtype=np.float32)
    return TaughtClassifier(
        form=model,
        tensors=tensors,
        observations=np.concatenate([golden, held_nothing], axis=1),
        confidences=softmax(scores / model.temperature, axis=1).max(axis=1),
        hits=(scores.argmax(axis=1) == held_out.labels).astype(np.float64),
    )


def embedded(markets: Sequence[ClassRows], embed: Embed) -> list[ClassRows]:
    """Return the markets with an embedding behind every row, known where its window is."""
    found = []
    for market in markets:
        embeddings, is_known = embed(market.rows, market.complete)
        rows = np.concatenate([market.rows, embeddings.astype(np.float64)], axis=1)
        found.append(replace(market, rows=rows, complete=is_known))
    return found


def rows_digest(markets: Sequence[ClassRows]) -> str:
    """Return the SHA-256 of rows and classes."""
    content = hashlib.sha256()
    for market in markets:
        columns: tuple[NDArray[Any], ...] = (market.rows, market.complete, market.labels)
        for column in columns:
            content.update(repr(column.shape).encode())
            content.update(np.ascontiguousarray(column).tobytes())
    return content.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Examples to fit by, and later ones that nothing is fitted by."""

    fitted: LabelledRows
    held_out: LabelledRows


def examples_of(
    plan: ClassifierPlan, markets: Sequence[ClassRows], *, history: int, classes: int
) -> Examples:
    """Return the examples to fit, and later ones; no label of the former reaches the latter.

    The later ones end in the last `validation_share` of the bars. Raises `InvalidInput` where there
    are too few of either.
    """
    chosen: dict[bool, list[NDArray[np.int64]]] = {False: [], True: []}
    offset = 0
    for market in markets:
        bars = len(market.rows)
        cut = bars - int(plan.validation_share * bars)
        usable = whole_windows(market.complete, history) & (market.labels != UNKNOWN)
        place = np.arange(bars)
        fitted = usable & (market.horizon_end < cut)
        chosen[False].append(place[fitted] + offset)
        chosen[True].append(place[usable & (place >= cut)] + offset)
        offset += bars
    series = np.concatenate([market.rows for market in markets]).astype(np.float32)
    labels = np.concatenate([market.labels for market in markets])
    made = {}
    for is_held_out, ends in ((key, np.concatenate(parts)) for key, parts in chosen.items()):
        if len(ends) < EXAMPLES_MIN:
            part = "hold out" if is_held_out else "learn from"
            rule = f"must hold {EXAMPLES_MIN} known bars or more to {part}"
            raise InvalidInput(field="train_bars", rule=rule, found=len(ends))
        made[is_held_out] = LabelledRows(
            series=series, ends=ends, labels=labels[ends], classes=classes
        )
    return Examples(fitted=made[False], held_out=made[True])


def _evenly(count: int, most: int) -> NDArray[np.int64]:
    """Return up to `most` numbers under `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
