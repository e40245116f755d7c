"""Anomalies: what is planted is found, ordinary markets are left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_up_candles import HOUR, part, random_walk

from learners.market.anomalies import (
    AnomalyKind,
    AnomalySeverity,
    NewBars,
    anomalies_of,
)
from learners.market.candles import Candles, load_candles
from learners.market.validation import Floats

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "candles"
START, STOP = 1_000, 1_024
BAR = 1_010


def market(
    *, seed: int, common: Floats | None = None, jumps: dict[int, float] | None = None
) -> Candles:
    """Bars of normal returns, half of them those of `common`, with factors on the price."""
    rng = np.random.default_rng(seed)
    moves = rng.normal(0, 0.01, STOP)
    if common is not None:
        moves = 0.5 * moves + common
    for bar, factor in (jumps or {}).items():
        moves[bar] += np.log(factor)
    close = 100 * np.exp(np.cumsum(moves))
    opens = np.concatenate(([100.0], close[:-1]))
    edge = np.exp(np.abs(rng.normal(0, 0.004, STOP)))
    return Candles(
        instrument="X",
        opened_at=np.datetime64("2024-01-01", "us") + np.arange(STOP) * np.timedelta64(1, "h"),
        bar_interval=HOUR,
        open=opens,
        high=np.maximum(opens, close) * edge,
        low=np.minimum(opens, close) / edge,
        close=close,
        volume=np.exp(rng.normal(3, 0.5, STOP)),
    )


def with_volume(candles: Candles, bar: int, volume: float) -> Candles:
    numbers = {name: values.copy() for name, values in candles.numbers().items()}
    numbers["volume"][bar] = volume
    return Candles(instrument="X", opened_at=candles.opened_at, bar_interval=HOUR, **numbers)


def found(**markets: Candles) -> list[tuple[str, AnomalyKind, AnomalySeverity, int]]:
    told = {name: NewBars(candles=candles, start=START) for name, candles in markets.items()}
    anomalies, too_short = anomalies_of(told)
    assert too_short == []
    return [(a.series, a.kind, a.severity, a.count) for a in anomalies]


WARNING, CRITICAL = AnomalySeverity.WARNING, AnomalySeverity.CRITICAL


def test_an_ordinary_night_is_left_alone() -> None:
    assert found(a=market(seed=1), b=market(seed=2)) == []


def test_a_jump_is_a_warning_and_one_beyond_all_measure_is_critical() -> None:
    assert found(a=market(seed=1, jumps={BAR: 1.18})) == [
        ("a", AnomalyKind.RETURN, WARNING, 1),
    ]
    told = found(a=market(seed=1, jumps={BAR: 100.0}))
    assert ("a", AnomalyKind.RETURN, CRITICAL, 1) in told


@pytest.mark.parametrize(("together", "severity"), [(False, CRITICAL), (True, WARNING)])
def test_a_jump_alone_is_worse_than_one_of_the_whole_market(
    together: bool, severity: AnomalySeverity
) -> None:
    common = np.random.default_rng(0).normal(0, 0.01, STOP)
    jump = {BAR: 1.30}
    one = market(seed=1, common=common, jumps=jump)
    other = market(seed=2, common=common, jumps=jump if together else None)

    told = found(a=one, b=other)

    assert [each for each in told if each[0] == "a" and each[1] is AnomalyKind.RETURN] == [
        ("a", AnomalyKind.RETURN, severity, 1)
    ]


def test_an_instrument_that_never_moved_along_is_no_witness() -> None:
    told = found(a=market(seed=1, jumps={BAR: 1.30}), b=market(seed=2))
    assert ("a", AnomalyKind.RETURN, WARNING, 1) in told


def test_volume_in_another_unit_and_none_at_all_are_found() -> None:
    usual = market(seed=1)
    assert found(a=with_volume(usual, BAR, 1e6)) == [("a", AnomalyKind.VOLUME, WARNING, 1)]
    assert found(a=with_volume(usual, BAR, 0.0)) == [("a", AnomalyKind.ZERO_VOLUME, WARNING, 1)]


def test_a_bad_print_that_is_taken_back_is_told_by_the_validations_own_check() -> None:
    told = found(a=market(seed=1, jumps={BAR: 1.25, BAR + 1: 0.8}))
    assert ("a", AnomalyKind.OUTLIER, WARNING, 1) in told


def test_what_was_there_before_is_not_told_again() -> None:
    # The same jump in the history: the new one is not further out.
    jumps = {500: 1.19, BAR: 1.18}
    assert found(a=market(seed=1, jumps=jumps)) == []
    old = with_volume(market(seed=1), 900, 0.0)
    assert found(a=old) == []


def test_a_short_history_says_nothing_but_that_it_is_short() -> None:
    told = {"a": NewBars(candles=random_walk(150, seed=1), start=100)}
    assert anomalies_of(told) == ([], ["a"])
    nothing = {"a": NewBars(candles=random_walk(150, seed=1), start=150)}
    assert anomalies_of(nothing) == ([], [])


def test_a_market_that_stands_still_has_no_usual_spread() -> None:
    walk = random_walk(STOP, seed=1)
    flat = dict.fromkeys(("open", "high", "low", "close"), np.ones(STOP))
    still = Candles(
        instrument="X", opened_at=walk.opened_at, bar_interval=HOUR, **flat, volume=np.ones(STOP)
    )
    assert found(a=still) == []


def test_false_alarms_over_seeds_are_as_rare_as_is_said() -> None:
    """100 days of Student t: a day is flagged with probability 24 / 1001 for each measure at most.

    So 7.2 of 100 are expected at most; more than 18 have a probability under 0.0003 (Poisson).
    """
    flagged = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        moves = 0.006 * rng.standard_t(3, STOP)
        close = 100 * np.exp(np.cumsum(moves))
        walk = random_walk(STOP, seed=seed)
        bars = Candles(
            instrument="X",
            opened_at=walk.opened_at,
            bar_interval=HOUR,
            open=close,
            high=close * (1 + np.abs(moves)),
            low=close / (1 + np.abs(moves)),
            close=close,
            volume=np.exp(rng.normal(3, 1, STOP)),
        )
        flagged += bool(found(a=bars))
    assert flagged <= 18


def test_real_candles_raise_no_critical_finding_and_few_warnings() -> None:
    if not REAL.exists():
        pytest.skip("the data are not beside this checkout")
    names = ("BTC", "ETH", "SOL")
    real = {name: load_candles(REAL / f"{name}_USDT-5m.csv.gz") for name in names}
    warned, days = 0, range(60, 150, 6)
    for day in days:
        told = {
            name: NewBars(candles=part(candles, 0, 288 * (day + 1)), start=288 * day)
            for name, candles in real.items()
        }
        anomalies, _ = anomalies_of(told)
        assert [a for a in anomalies if a.severity is CRITICAL] == []
        warned += bool(anomalies)
    assert warned <= len(days) // 3
