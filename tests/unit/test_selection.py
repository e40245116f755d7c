"""The strongest symbols: ranked by score, chosen by rule, scored from candles."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger import NOON

from bandit.core.errors import InvalidInput
from bandit.core.selection import SelectionRule, select
from learners.market.candles import Candles
from learners.market.momentum import momentum

UNIVERSE = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
RULE = SelectionRule(enabled=True, top_k=2, universe=UNIVERSE)
HOUR = timedelta(hours=1)


def hourly(closes: list[float], *, start: int = 0) -> Candles:
    opened = np.datetime64("2026-01-01T00:00:00", "us") + np.arange(
        start, start + len(closes)
    ) * np.timedelta64(1, "h")
    prices = np.asarray(closes, dtype=np.float64)
    return Candles(
        instrument="BTCUSDT",
        opened_at=opened,
        open=prices,
        high=prices,
        low=prices,
        close=prices,
        volume=np.ones_like(prices),
        bar_interval=HOUR,
    )


@given(
    st.dictionaries(
        st.sampled_from(UNIVERSE), st.none() | st.floats(-1, 1, allow_nan=False), min_size=1
    ),
    st.integers(1, 5),
)
def test_no_symbol_left_out_is_stronger_than_one_chosen(
    scores: dict[str, float | None], top_k: int
) -> None:
    rule = SelectionRule(enabled=True, top_k=top_k, universe=UNIVERSE)
    known = {symbol: score for symbol, score in scores.items() if score is not None}
    if not known:
        with pytest.raises(InvalidInput, match="must have a score"):
            select(scores, rule=rule, now=NOON)
        return
    made = select(scores, rule=rule, now=NOON)
    assert len(made.chosen) == len(set(made.chosen)) == min(top_k, len(known))
    assert [known[symbol] for symbol in made.chosen] == sorted(known.values(), reverse=True)[:top_k]
    assert set(made.scores) == set(UNIVERSE)


def test_equal_scores_are_chosen_by_name_whatever_their_order() -> None:
    forward = dict.fromkeys(UNIVERSE, 0.1)
    backward = dict.fromkeys(reversed(UNIVERSE), 0.1)
    assert select(forward, rule=RULE, now=NOON) == select(backward, rule=RULE, now=NOON)
    assert select(forward, rule=RULE, now=NOON).chosen == ("BTCUSDT", "ETHUSDT")


@pytest.mark.parametrize(
    ("scores", "field"),
    [
        ({"DOGEUSDT": 1.0}, "scores"),
        ({"BTCUSDT": math.nan}, "scores.BTCUSDT"),
        ({"BTCUSDT": math.inf}, "scores.BTCUSDT"),
        ({}, "scores"),
        ({"BTCUSDT": None}, "scores"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores: dict[str, float | None], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        select(scores, rule=RULE, now=NOON)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"top_k": 0}, "top_k"),
        ({"rebalance_minutes": 0}, "rebalance_minutes"),
        ({"lookback_days": 4000}, "lookback_days"),
        ({"universe": ()}, "universe"),
        ({"universe": ("BTCUSDT", "BTCUSDT")}, "universe"),
        ({"universe": ("no symbol",)}, "universe"),
    ],
)
def test_rule_under_which_nothing_could_be_chosen_is_refused(
    values: dict[str, object], field: str
) -> None:
    lawful: dict[str, object] = {"universe": UNIVERSE}
    with pytest.raises(InvalidInput) as refused:
        SelectionRule(enabled=True, **(lawful | values))
    assert refused.value.field == field


def test_momentum_compares_closes_of_two_moments_and_reads_nothing_later() -> None:
    candles = hourly([100.0] * 24 + [110.0] * 24 + [500.0])
    at = candles.closing(47)
    assert momentum(candles, at=at, lookback=timedelta(days=1)) == pytest.approx(0.1)
    # A minute before the bar of 500 closes, it is not known.
    almost = candles.closing(48) - timedelta(minutes=1)
    assert momentum(candles, at=almost, lookback=timedelta(days=1)) == pytest.approx(0.1)
    assert momentum(candles, at=candles.closing(48), lookback=timedelta(days=1)) == pytest.approx(
        500 / 110 - 1
    )


def test_momentum_is_not_known_before_its_past_or_on_old_candles() -> None:
    candles = hourly([100.0] * 48)
    end = candles.closing(47)
    assert momentum(candles, at=end, lookback=timedelta(days=3)) is None
    assert momentum(candles, at=end + timedelta(days=1), lookback=timedelta(days=1)) == 0
    late = end + timedelta(days=1, seconds=1)
    assert momentum(candles, at=late, lookback=timedelta(days=1)) is None
