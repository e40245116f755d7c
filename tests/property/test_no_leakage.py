"""Whatever the future brings, what was known at the close of a bar does not move.

`known` gathers what learning may use at the close of bar t: feature rows, ended labels, a scaler
fitted up to t and splits tested up to t. The bars after t are then changed, and compared is every
byte. The same check catches each of the planted leaks: it can fail.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_candles import part, random_walk

from bandit.core.paper_fills import Side
from learners.market.candles import Candles
from learners.market.features import Features, FeatureSpec, features_of
from learners.market.labels import Labels, forward_returns
from learners.market.scaler import Scaler
from learners.market.splits import Split, walking_splits

SPEC = FeatureSpec(
    return_bars=(1, 3),
    volatility_bars_short=3,
    volatility_bars_long=8,
    trend_bars=(5,),
    adx_bars=2,
    rsi_bars=2,
    volume_bars=4,
)
BARS = 200


def rows(candles: Candles) -> Features:
    return features_of(candles, SPEC)


def labels(candles: Candles) -> Labels:
    return forward_returns(
        candles, horizon_bars=4, side=Side.LONG, fee_ratio=0.001, slippage_ratio=0.0
    )


def fitted(features: Features, t: int) -> Scaler:
    return Scaler.fit(features.values[: t + 1])


def folds(candles: Candles) -> tuple[Split, ...]:
    return walking_splits(len(candles), train_bars=20, test_bars=6, reach_bars=5, embargo_bars=1)


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The parts of learning; a control swaps one for a part that leaks."""

    rows: Callable[[Candles], Features] = rows
    labels: Callable[[Candles], Labels] = labels
    fitted: Callable[[Features, int], Scaler] = fitted
    folds: Callable[[Candles], tuple[Split, ...]] = folds

    def known(self, candles: Candles, t: int) -> dict[str, object]:
        features, labelled = self.rows(candles), self.labels(candles)
        ended = labelled.horizon_end <= t
        scaler = self.fitted(features, t)
        return {
            "features": features.values[: t + 1].tobytes(),
            "complete": features.complete[: t + 1].tobytes(),
            "labels": labelled.returns[ended].tobytes(),
            "label ends": labelled.horizon_end[ended].tobytes(),
            "scaler": scaler,
            "scaled": scaler.apply(features.values[: t + 1]).tobytes(),
            "splits": tuple(fold for fold in self.folds(candles) if fold.test.stop <= t + 1),
        }


def changed_columns(
    candles: Candles, t: int, *, prices: float = 1.0, volume: float = 1.0
) -> Candles:
    factors = dict.fromkeys(("open", "high", "low", "close"), prices) | {"volume": volume}
    after = np.arange(len(candles)) > t
    return Candles(
        instrument=candles.instrument,
        opened_at=candles.opened_at,
        **{
            name: np.where(after, values * factors[name], values)
            for name, values in candles.numbers().items()
        },
    )


def spliced(past: Candles, future: Candles) -> Candles:
    return Candles(
        instrument=past.instrument,
        opened_at=np.concatenate([past.opened_at, future.opened_at]),
        **{
            name: np.concatenate([values, future.numbers()[name]])
            for name, values in past.numbers().items()
        },
    )


def another_future(candles: Candles, t: int, seed: int, *, skip: int = 0, more: int = 0) -> Candles:
    """The bars of another walk after t: `skip` of them missing at first, `more` of them at last."""
    other = random_walk(BARS + more, seed=seed)
    beginning = int(np.searchsorted(other.opened_at, candles.opened_at[t], side="right"))
    return spliced(part(candles, 0, t + 1), part(other, beginning + skip, len(other)))


CHANGES: dict[str, Callable[[Candles, int, int], Candles]] = {
    "prices": lambda candles, t, seed: changed_columns(candles, t, prices=(0.001, 1e6)[seed % 2]),
    "volumes": lambda candles, t, seed: changed_columns(candles, t, volume=(0.0, 1e6)[seed % 2]),
    "cut off": lambda candles, t, _seed: part(candles, 0, t + 1),
    "extended": lambda candles, t, seed: another_future(candles, t, seed, more=1 + seed % 50),
    "other bars": lambda candles, t, seed: another_future(candles, t, seed),
    "a gap": lambda candles, t, seed: another_future(candles, t, seed, skip=1 + seed % 5),
}


def moved(pipeline: Pipeline, candles: Candles, other: Candles, t: int) -> set[str]:
    """Return the names of what was known at the close of bar t and is another thing now."""
    before, after = pipeline.known(candles, t), pipeline.known(other, t)
    return {name for name in before if before[name] != after[name]}


@given(
    seed=st.integers(0, 10_000),
    t=st.integers(130, BARS - 12),
    # Two gaps at most: between three of them there may be no row that is complete.
    gaps=st.sets(st.integers(1, BARS - 2), max_size=2),
    change=st.sampled_from(sorted(CHANGES)),
    how=st.integers(10_001, 20_000),
)
def test_the_past_does_not_move_when_the_future_changes(
    seed: int, t: int, gaps: set[int], change: str, how: int
) -> None:
    candles = random_walk(BARS, seed=seed, skip=tuple(gaps))
    other = CHANGES[change](candles, t, how)

    assert other.digest != candles.digest
    assert moved(Pipeline(), candles, other, t) == set()


def tomorrows_return(candles: Candles) -> Features:
    features = rows(candles)
    values = features.values.copy()
    values[:, 0] = np.append(values[1:, 0], np.nan)
    return replace(features, values=values)


def centred_volume(candles: Candles) -> Features:
    features = rows(candles)
    values = features.values.copy()
    values[:, 0] = np.convolve(candles.volume, np.ones(3) / 3, mode="same")
    return replace(features, values=values)


def normalised_over_everything(candles: Candles) -> Features:
    features = rows(candles)
    return replace(features, values=features.values - np.nanmean(features.values, axis=0))


def gap_filled_from_both_sides(candles: Candles) -> Features:
    """The bars a gap lacks, drawn as a line to the bar behind it: the rows of the gap know it."""
    features = rows(candles)
    hour = np.timedelta64(1, "h")
    times = np.arange(candles.opened_at[0], candles.opened_at[-1] + hour, hour).astype(np.int64)
    line = np.interp(
        times + hour.astype("timedelta64[us]").astype(np.int64),
        candles.opened_at.astype(np.int64),
        candles.close,
    )
    values = features.values.copy()
    values[:, 0] = line[np.searchsorted(times, candles.opened_at.astype(np.int64))]
    return replace(features, values=values)


def ends_a_bar_early(candles: Candles) -> Labels:
    honest = labels(candles)
    return replace(honest, horizon_end=honest.horizon_end - 1)


LEAKS = {
    "tomorrow's return": (Pipeline(rows=tomorrows_return), "features"),
    "a centred mean of the volume": (Pipeline(rows=centred_volume), "features"),
    "a mean over the whole series": (Pipeline(rows=normalised_over_everything), "features"),
    "a gap filled from both sides": (Pipeline(rows=gap_filled_from_both_sides), "features"),
    "a label that ends a bar too early": (Pipeline(labels=ends_a_bar_early), "labels"),
    "a scaler fitted on everything": (
        Pipeline(fitted=lambda features, _t: Scaler.fit(features.values)),
        "scaler",
    ),
    "splits counted from the end": (
        Pipeline(
            folds=lambda candles: tuple(
                Split(
                    train=range(len(candles) - 6 * back - 6),
                    test=range(len(candles) - 6 * back - 6, len(candles) - 6 * back),
                )
                for back in range(10)
            )
        ),
        "splits",
    ),
}


@pytest.mark.parametrize(("pipeline", "told"), LEAKS.values(), ids=LEAKS.keys())
def test_a_planted_leak_is_caught(pipeline: Pipeline, told: str) -> None:
    candles, t = random_walk(BARS, seed=1), 130

    caught = [moved(pipeline, candles, change(candles, t, 7), t) for change in CHANGES.values()]

    assert told in set.union(*caught)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_change_of_the_future_catches_a_leak(
    change: Callable[[Candles, int, int], Candles],
) -> None:
    candles, t = random_walk(BARS, seed=1), 130
    other = change(candles, t, 7)

    assert any(moved(pipeline, candles, other, t) for pipeline, _ in LEAKS.values())
