"""The rules: no look-ahead, and the table in their docstring is what they earn."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from learners.market.candles import Candles, shipped_candles
from learners.market.paper_market import PERPETUAL_TAKER, Side, open_position, settle
from liveops.connectors import rules
from liveops.connectors.rules import (
    CHALLENGERS,
    CHAMPION,
    Breakout,
    CoinFlip,
    Contrarian,
    Momentum,
    Rule,
    Signal,
    proposals,
)

ALL = (CHAMPION, *CHALLENGERS)


def closing_at(*closes: float) -> Candles:
    """Bars without wicks that open where the last one closed."""
    ends = np.array(closes, dtype=float)
    starts = np.concatenate((ends[:1], ends[:-1]))
    return Candles(
        instrument="BTCUSD",
        opened_at=np.datetime64("2024-01-01", "us") + np.arange(len(ends)) * np.timedelta64(1, "h"),
        open=starts,
        high=np.maximum(starts, ends),
        low=np.minimum(starts, ends),
        close=ends,
        volume=np.ones(len(ends)),
    )


def sides(signal: Signal, candles: Candles) -> str:
    """L, S or - for every bar."""
    book = proposals(replace(CHAMPION, signal=signal), candles)
    letters = {Side.LONG: "L", Side.SHORT: "S"}
    return "".join("-" if wish is None else letters[wish.side] for wish in book)


def test_momentum_follows_the_fast_average_once_the_slow_one_is_full() -> None:
    # averages of 2 and 3: -, -, 11.5/11, 10.5/31:3, 9/29:3, 10/29:3, 12/10.67
    candles = closing_at(10, 11, 12, 9, 9, 11, 13)

    assert sides(Momentum(fast_bars=2, slow_bars=3), candles) == "--LSSLL"


def test_breakout_follows_the_last_break_while_the_trend_agrees() -> None:
    candles = closing_at(11, 11, 11, 12, 11, 8, 8.5, 13)

    # bar 3: 12 is above the channel's 11 and the average of 11.33; bar 4: last break up, but 11 is
    # below 11.33; bar 5: 8 is below the channel's 11 and the average of 10.33; bar 6: last break
    # down and 8.5 below 9.17; bar 7: 13 is above the channel's 11 and the average of 9.83
    assert sides(Breakout(channel_bars=2, trend_bars=3), candles) == "---L-SSL"


def test_contrarian_fades_the_move_and_declines_where_there_was_none() -> None:
    assert sides(Contrarian(lookback_bars=1), closing_at(10, 11, 11, 9, 12)) == "-S-LS"


def test_the_coin_belongs_to_the_bar_whatever_came_before() -> None:
    candles = shipped_candles()
    later = Candles(
        instrument="BTCUSD",
        opened_at=candles.opened_at[100:],
        **{name: values[100:] for name, values in candles.numbers().items()},
    )

    tosses = sides(CoinFlip(seed=1), candles)

    assert sides(CoinFlip(seed=1), later) == tosses[100:]
    assert sides(CoinFlip(seed=2), candles) != tosses
    # 16,901 fair tosses: 8,450 expected, standard deviation 65
    assert 8_200 < tosses.count("L") < 8_700


@pytest.mark.parametrize("rule", ALL, ids=[rule.name for rule in ALL])
def test_the_future_moves_no_decision(rule: Rule) -> None:
    candles = shipped_candles()
    known = 2_000
    rng = np.random.default_rng(5)
    shift = np.ones(len(candles))
    shift[known:] = rng.uniform(0.3, 3.0, len(candles) - known)
    other_future = Candles(
        instrument="BTCUSD",
        opened_at=candles.opened_at,
        volume=candles.volume,
        **{name: getattr(candles, name) * shift for name in ("open", "high", "low", "close")},
    )
    no_future = Candles(
        instrument="BTCUSD",
        opened_at=candles.opened_at[:known],
        **{name: values[:known] for name, values in candles.numbers().items()},
    )

    decisions = proposals(rule, candles)

    assert proposals(rule, other_future)[:known] == decisions[:known]
    assert proposals(rule, no_future) == decisions[:known]
    # the altered part does differ, unless the rule looks at no price at all
    if not isinstance(rule.signal, CoinFlip):
        assert proposals(rule, other_future)[known:] != decisions[known:]


@pytest.mark.parametrize("rule", ALL, ids=[rule.name for rule in ALL])
def test_a_file_shorter_than_the_averages_gets_no_answer_but_the_coin(rule: Rule) -> None:
    answered = [wish is not None for wish in proposals(rule, closing_at(10, 10))]

    assert any(answered) is isinstance(rule.signal, CoinFlip)


def test_a_proposal_carries_the_exits_of_its_rule() -> None:
    wish = proposals(CHALLENGERS[0], shipped_candles())[-1]

    assert wish is not None
    assert (wish.stop_ratio, wish.take_profit_ratio, wish.holding_bars_max) == (0.02, 0.06, 24)


def test_the_sha_is_that_of_what_decides_the_trades() -> None:
    spec = (
        '{"holding_bars_max":24,"parameters":{"fast_bars":12,"slow_bars":48},"rules_version":1,'
        '"signal":"Momentum","stop_ratio":0.02,"take_profit_ratio":0.03}'
    )

    assert CHAMPION.sha == hashlib.sha256(spec.encode()).hexdigest()
    assert replace(CHAMPION, name="other", description="other").sha == CHAMPION.sha
    assert replace(CHAMPION, stop_ratio=0.03).sha != CHAMPION.sha
    assert len({rule.sha for rule in ALL}) == len({rule.name for rule in ALL}) == 4


def returns_by_bar(rule: Rule, candles: Candles, bars: range) -> dict[int, float]:
    book = proposals(rule, candles)
    returns = {}
    for bar in bars:
        wish = book[bar]
        if wish is None:
            continue
        position = open_position(
            candles, bar=bar, proposal=wish, notional=Decimal(100), costs=PERPETUAL_TAKER
        )
        closed = None if position is None else settle(candles, position)
        if closed is not None:
            returns[bar] = float(closed.return_ratio)
    return returns


def profit_factor(returns: Iterable[float]) -> str:
    gains = np.array(list(returns))
    return f"{gains[gains > 0].sum() / -gains[gains < 0].sum():.2f}"


@pytest.mark.parametrize("rule", ALL, ids=[rule.name for rule in ALL])
def test_the_table_of_the_docstring_is_what_the_last_120_nights_give(rule: Rule) -> None:
    candles = shipped_candles()
    bars = candles.last_nights(120)
    returns = returns_by_bar(rule, candles, bars)
    won = 100 * sum(value > 0 for value in returns.values()) / len(returns)
    months = [
        profit_factor(returns[bar] for bar in bars[start : start + 720] if bar in returns)
        for start in range(0, len(bars), 720)
    ]

    row = next(line for line in str(rules.__doc__).splitlines() if rule.name in line)

    factor = profit_factor(returns.values())
    assert row.startswith(
        f"    {rule.name:<16} {len(returns)} trades, PF {factor}, {won:.0f} % won"
    )
    assert row.endswith(" ".join(months))
    # it trades on most of the bars it is asked about
    assert len(returns) > 0.8 * len(bars)
