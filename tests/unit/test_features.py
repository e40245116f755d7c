"""Features: worked out by hand, held against plain loops, the same from few bars as from all."""

import json
import math
from dataclasses import fields, replace
from datetime import timedelta

import numpy as np
import pytest
from made_up_candles import close_only, part, random_walk

from bandit.core.acting import ActingRules, Choice, acted
from bandit.core.errors import InvalidInput
from learners.market.candles import Candles, shipped_candles
from learners.market.features import (
    Features,
    FeatureSpec,
    features_of,
)
from learners.market.indicators import directional_movement, relative_strength

SMALL = FeatureSpec(
    return_bars=(1, 2),
    volatility_bars_short=2,
    volatility_bars_long=3,
    trend_bars=(3,),
    adx_bars=2,
    rsi_bars=2,
    volume_bars=3,
)


def column(features: Features, name: str) -> np.ndarray:
    return features.values[:, features.names.index(name)]


def wilder(values: list[float], period: int) -> float:
    """The average of the newest 10 x period values, as the definition reads."""
    newest_first = values[::-1][: 10 * period]
    assert len(newest_first) == 10 * period
    weights = [(1 - 1 / period) ** age for age in range(10 * period)]
    return math.fsum(w * v for w, v in zip(weights, newest_first, strict=True)) / math.fsum(weights)


def wilder_endless(values: list[float], period: int) -> list[float]:
    """Wilder's own recursion, started with a plain mean."""
    average = math.fsum(values[:period]) / period
    averages = [math.nan] * (period - 1) + [average]
    for value in values[period:]:
        average += (value - average) / period
        averages.append(average)
    return averages


def movements(candles: Candles) -> tuple[list[float], list[float], list[float]]:
    """True range, +DM and -DM from the second bar on, bar by bar."""
    true_range, plus, minus = [], [], []
    for bar in range(1, len(candles)):
        high, low, last = candles.high[bar], candles.low[bar], candles.close[bar - 1]
        up, down = high - candles.high[bar - 1], candles.low[bar - 1] - low
        true_range.append(float(max(high - low, abs(high - last), abs(low - last))))
        plus.append(float(up) if up > down and up > 0 else 0.0)
        minus.append(float(down) if down > up and down > 0 else 0.0)
    return true_range, plus, minus


def test_returns_volatility_trend_and_volume_are_as_worked_out_by_hand() -> None:
    features = features_of(close_only(100.0, 110.0, 99.0, 99.0), SMALL)
    up, down = math.log(1.1), math.log(0.9)

    assert column(features, "return_1")[1:].tolist() == pytest.approx([up, down, 0.0])
    assert column(features, "return_2")[2:].tolist() == pytest.approx([up + down, down])
    assert column(features, "volatility_2")[3] == pytest.approx(abs(down) / math.sqrt(2))
    usual = math.sqrt((up**2 + down**2) / 3)
    assert column(features, "volatility_3")[3] == pytest.approx(usual)
    ratio = abs(down) / math.sqrt(2) / usual
    assert column(features, "volatility_ratio")[3] == pytest.approx(ratio)
    assert column(features, "trend_3")[2:].tolist() == pytest.approx(
        [math.log(99 / 103), math.log(99 / (308 / 3))]
    )
    # volumes 1 2 3 4: 3 over the mean 2, 4 over the mean 3
    assert column(features, "relative_volume")[2:].tolist() == pytest.approx([1.5, 4 / 3])
    assert np.isnan(column(features, "return_2")[:2]).all()


def test_the_calendar_is_that_of_the_close_in_utc() -> None:
    # 2024-01-01 was a Monday: the bar that opens at 05:00 closes at 06:00, a quarter of the day
    features = features_of(random_walk(60, seed=1), SMALL)

    assert column(features, "time_of_day_sin")[5] == pytest.approx(1.0)
    assert column(features, "time_of_day_cos")[5] == pytest.approx(0.0, abs=1e-15)
    assert column(features, "day_of_week_sin")[5] == 0.0
    # the bar that opens at 23:00 closes on Tuesday
    assert column(features, "day_of_week_sin")[23] == pytest.approx(math.sin(2 * math.pi / 7))
    assert column(features, "day_of_week_cos")[23] == pytest.approx(math.cos(2 * math.pi / 7))


@pytest.mark.parametrize("period", [2, 5, 14])
def test_adx_and_rsi_are_as_plain_loops_over_their_definition(period: int) -> None:
    candles = random_walk(40 * period, seed=period)
    true_range, plus, minus = movements(candles)
    directions = []
    for bar in range(10 * period, len(true_range) + 1):
        span = wilder(true_range[:bar], period)
        up = 100 * wilder(plus[:bar], period) / span
        down = 100 * wilder(minus[:bar], period) / span
        directions.append((up - down) / (up + down))
    moves = np.diff(candles.close).tolist()
    rises = wilder([max(move, 0.0) for move in moves], period)
    falls = wilder([max(-move, 0.0) for move in moves], period)

    adx, direction = directional_movement(candles.high, candles.low, period)

    assert direction[10 * period :].tolist() == pytest.approx(directions, abs=1e-12)
    assert np.isnan(direction[: 10 * period]).all()
    assert adx[-1] == pytest.approx(100 * wilder([abs(d) for d in directions], period))
    assert np.isnan(adx[: 20 * period - 1]).all()
    assert np.isfinite(adx[20 * period - 1 :]).all()
    expected = 100 - 100 / (1 + rises / falls)
    assert relative_strength(candles.close, period)[-1] == pytest.approx(expected)


def test_the_finite_memory_is_within_a_hundredth_of_wilders_endless_one() -> None:
    candles = part(shipped_candles(), 0, 5000)
    true_range, plus, minus = (wilder_endless(values, 14)[13:] for values in movements(candles))
    endless = []
    for span, rise, fall in zip(true_range, plus, minus, strict=True):
        up, down = 100 * rise / span, 100 * fall / span
        endless.append(100 * abs(up - down) / (up + down))

    adx, _ = directional_movement(candles.high, candles.low, 14)

    # After 1000 bars what the recursion started with has gone.
    difference = adx[1000:] - np.array(wilder_endless(endless, 14))[1000 - 14 :]
    assert np.abs(difference).max() < 0.01


def test_a_market_that_stands_still_has_no_direction_and_an_even_rsi() -> None:
    flat = close_only(*([50.0] * 60))
    features = features_of(flat, SMALL)

    last = dict(zip(features.names, features.values[-1], strict=True))

    assert (last["adx"], last["direction"], last["rsi"]) == (0.0, 0.0, 50.0)
    assert (last["volatility_3"], last["volatility_ratio"], last["trend_3"]) == (0.0, 1.0, 0.0)
    assert (last["regime_trend"], last["regime_high_volatility"]) == (0.0, 0.0)


def test_a_market_without_trades_has_no_relative_volume() -> None:
    candles = close_only(*([50.0] * 60))
    quiet = Candles(
        instrument="X",
        opened_at=candles.opened_at,
        **{**candles.numbers(), "volume": np.zeros(60)},
    )

    assert column(features_of(quiet, SMALL), "relative_volume")[-1] == 0.0


@pytest.mark.parametrize("spec", [FeatureSpec(), SMALL])
def test_a_row_is_bit_for_bit_the_same_from_the_last_bars_alone(spec: FeatureSpec) -> None:
    candles = shipped_candles()
    whole = features_of(candles, spec)
    needed = spec.bars_needed
    rng = np.random.default_rng(5)

    for bar in [needed - 1, *rng.integers(needed, len(candles), 40).tolist(), len(candles) - 1]:
        few = features_of(part(candles, bar + 1 - needed, bar + 1), spec)
        assert few.values[-1].tobytes() == whole.values[bar].tobytes(), bar
        assert (few.warm_up, few.complete.sum()) == (needed - 1, 1)


def test_one_bar_less_than_needed_is_no_complete_row() -> None:
    needed = FeatureSpec().bars_needed
    features = features_of(random_walk(needed - 1, seed=3), FeatureSpec())

    assert features.warm_up == len(features.values)
    assert not features.complete.any()
    # the windows that are full are there all the same
    assert np.isfinite(column(features, "rsi")[-1])


def test_no_feature_reads_across_a_gap() -> None:
    candles = random_walk(200, seed=4, skip=(100, 101))
    features, after = (
        features_of(candles, SMALL),
        features_of(part(candles, 100, len(candles)), SMALL),
    )
    needed = SMALL.bars_needed

    assert candles.opening(100) - candles.opening(99) == timedelta(hours=3)
    # what comes after the gap is what it would be if the series began there
    np.testing.assert_array_equal(features.values[100:], after.values)
    assert np.isnan(column(features, "return_1")[100])
    assert np.isfinite(column(features, "return_1")[101])
    assert features.complete[needed - 1 : 100].all()
    assert not features.complete[100 : 100 + needed - 1].any()
    assert features.complete[100 + needed - 1 :].all()


def test_the_regime_columns_say_what_the_regime_filter_says() -> None:
    candles = shipped_candles()
    features = features_of(candles, FeatureSpec())
    seen = set()

    for bar in range(features.warm_up, len(candles), 7):
        allowed = []
        for position in (1.0, -1.0):
            wanted = Choice(name="open", position=position, confidence=1.0)
            action = acted(
                wanted, held=0.0, regime=features.regime(bar), rules=ActingRules(adx_min=25.0)
            )
            allowed += [position] if action.position else []
            size = abs(action.position) or 1.0
            if action.position:
                high = column(features, "regime_high_volatility")[bar]
                assert size == (0.5 if high else 1.0)
        trend = float(column(features, "regime_trend")[bar])
        seen.add(trend)
        assert allowed == ([trend] if trend else [])

    assert seen == {0.0, 1.0, -1.0}


def test_a_regime_that_is_not_known_is_not_finite() -> None:
    features = features_of(random_walk(60, seed=1), SMALL)
    found = features.regime(0)
    assert (math.isnan(found.adx), found.trend, math.isnan(found.volatility)) == (True, 0, True)


def test_features_cannot_be_written() -> None:
    features = features_of(random_walk(60, seed=1), SMALL)

    with pytest.raises(ValueError, match="read-only"):
        features.values[0, 0] = 1.0


def test_bars_of_another_length_are_refused() -> None:
    five_minutes = random_walk(60, seed=1, interval=timedelta(minutes=5))

    with pytest.raises(InvalidInput, match=r"BTCUSD: must have a bar every 1:00:00, found 0:05:00"):
        features_of(five_minutes, SMALL)


def test_every_setting_changes_the_digest_and_survives_json() -> None:
    other = {
        "interval": timedelta(minutes=5),
        "return_bars": (1, 4),
        "volatility_bars_short": 23,
        "volatility_bars_long": 169,
        "trend_bars": (24,),
        "adx_bars": 13,
        "rsi_bars": 13,
        "volume_bars": 23,
        "adx_trending": 30.0,
        "volatility_ratio_high": 1.5,
    }
    assert set(other) == {field.name for field in fields(FeatureSpec)}
    specs = [FeatureSpec(), *(replace(FeatureSpec(), **{name: other[name]}) for name in other)]

    assert len({spec.digest for spec in specs}) == len(specs)
    for spec in specs:
        again = FeatureSpec.from_json(json.loads(json.dumps(spec.to_json())))
        assert (again, again.digest) == (spec, spec.digest)


BAD_DOCUMENTS = {
    "another version": ({"features_version": 2}, "features_version: must be 1, found 2"),
    "a key too many": ({"extra": 1}, "feature spec: must have"),
    "a word": ({"adx_bars": "14"}, r"adx_bars: must be a whole number in \[2, 200\], found 14"),
    "true": ({"rsi_bars": True}, "rsi_bars: must be a whole number"),
    "an endless window": ({"volume_bars": 10**9}, "volume_bars: must be a whole number"),
    "no window": ({"return_bars": []}, "return_bars: must be 1 to 16 rising numbers"),
    "a window twice": ({"return_bars": [4, 4]}, "return_bars: must be 1 to 16 rising numbers"),
    "a list in a list": ({"trend_bars": [[4]]}, "trend_bars: must be a whole number"),
    "a number for a list": ({"trend_bars": 4}, "trend_bars: must be a list"),
    "short not under long": ({"volatility_bars_short": 168}, r"must be a whole number in \[1, 167"),
    "a limit that is none": ({"adx_trending": math.nan}, r"adx_trending: must be a float in"),
    "no time at all": ({"interval_seconds": 0}, "interval_seconds: must be a whole number"),
}


@pytest.mark.parametrize(("change", "message"), BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS.keys())
def test_a_spec_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        FeatureSpec.from_json(FeatureSpec().to_json() | change)


@pytest.mark.parametrize("interval", [timedelta(0), timedelta(days=8), timedelta(seconds=1.5)])
def test_an_interval_is_whole_seconds_up_to_a_week(interval: timedelta) -> None:
    with pytest.raises(InvalidInput, match="interval: must be whole seconds, 1 to a week"):
        FeatureSpec(interval=interval)
