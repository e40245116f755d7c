"""Rule-based policies for the paper market: a champion and three challengers of unlike quality.

They are a demonstration on known history, not evidence that any of them earns money: rules and
history were looked at together, sixteen variants were tried, and these four kept because they
differ. Measured on the shipped hourly BTCUSD with the costs of `PERPETUAL_TAKER`, every proposal
filled; PF is the profit factor, the months are the four 30-day blocks of the 120 nights:

    rule             last 120 nights                all 704 nights        PF by month
    momentum-12-48   2855 trades, PF 1.05, 45 % won  PF 1.01, 44 % won   1.06 1.22 0.92 0.98
    breakout-55-200  2414 trades, PF 1.21, 39 % won  PF 1.14, 39 % won   2.08 1.20 0.29 1.49
    coin-flip        2856 trades, PF 0.91, 43 % won  PF 0.90, 43 % won   0.92 1.00 0.89 0.80
    contrarian-1     2876 trades, PF 0.59, 58 % won  PF 0.49, 53 % won   0.63 0.59 0.54 0.56

A rule sees the candles up to and including the bar that just closed, never a later one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import assert_never

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bandit.core.paper_fills import Side
from learners.market.candles import Candles
from learners.market.paper_market import Proposal

# Part of every sha: raise it when the same parameters come to mean other trades.
RULES_VERSION = 1

Floats = NDArray[np.float64]
Directions = NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Momentum:
    """Long while the fast moving average of closes is above the slow one, short while below."""

    fast_bars: int
    slow_bars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakout:
    """Follow the last close outside the channel before it, while the long average agrees."""

    channel_bars: int
    trend_bars: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CoinFlip:
    """Long or short by a coin that depends on the seed and the bar's open time only."""

    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrarian:
    """Against the move of the last bars."""

    lookback_bars: int


Signal = Momentum | Breakout | CoinFlip | Contrarian


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A policy made of a signal and fixed exits; `sha` names what it does, `name` is a label."""

    name: str
    description: str
    signal: Signal
    stop_ratio: float
    take_profit_ratio: float
    holding_bars_max: int

    @property
    def spec(self) -> str:
        """Return the canonical JSON of everything that decides its trades."""
        content = {
            "rules_version": RULES_VERSION,
            "signal": type(self.signal).__name__,
            "parameters": asdict(self.signal),
            "stop_ratio": self.stop_ratio,
            "take_profit_ratio": self.take_profit_ratio,
            "holding_bars_max": self.holding_bars_max,
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @property
    def sha(self) -> str:
        """Return the SHA-256 of `spec` in hexadecimal."""
        return hashlib.sha256(self.spec.encode()).hexdigest()


CHAMPION = Rule(
    name="momentum-12-48",
    description="average of 12 bars against 48: the trend of two days",
    signal=Momentum(fast_bars=12, slow_bars=48),
    stop_ratio=0.02,
    take_profit_ratio=0.03,
    holding_bars_max=24,
)
CHALLENGERS = (
    Rule(
        name="breakout-55-200",
        description="breakout of a 55-bar channel with the 200-bar trend, profits left to run",
        signal=Breakout(channel_bars=55, trend_bars=200),
        stop_ratio=0.02,
        take_profit_ratio=0.06,
        holding_bars_max=24,
    ),
    Rule(
        name="coin-flip",
        description="the champion's exits on a coin: no edge, pays the costs",
        signal=CoinFlip(seed=1),
        stop_ratio=0.02,
        take_profit_ratio=0.03,
        holding_bars_max=24,
    ),
    Rule(
        name="contrarian-1",
        description="fades every bar for half a percent: many small gains, worse losses, all costs",
        signal=Contrarian(lookback_bars=1),
        stop_ratio=0.02,
        take_profit_ratio=0.005,
        holding_bars_max=2,
    ),
)


def proposals(rule: Rule, candles: Candles) -> tuple[Proposal | None, ...]:
    """Return what the rule proposes at the close of every bar; None where it declines.

    A rule declines until its longest average is full, and where its signal takes no side.

    >>> from learners.market.candles import shipped_candles
    >>> book = proposals(CHAMPION, shipped_candles())
    >>> book[46], book[47].side.value
    (None, 'long')
    """
    long, short = (
        Proposal(
            side=side,
            stop_ratio=rule.stop_ratio,
            take_profit_ratio=rule.take_profit_ratio,
            holding_bars_max=rule.holding_bars_max,
        )
        for side in (Side.LONG, Side.SHORT)
    )
    by_direction = {1: long, -1: short, 0: None}
    return tuple(
        by_direction[direction] for direction in _directions(rule.signal, candles).tolist()
    )


def _directions(signal: Signal, candles: Candles) -> Directions:
    """+1 long, -1 short, 0 neither, one a bar; entry i reads bars 0 to i."""
    match signal:
        case Momentum():
            return _sign(
                _mean(candles.close, signal.fast_bars) - _mean(candles.close, signal.slow_bars)
            )
        case Breakout():
            trend = _sign(candles.close - _mean(candles.close, signal.trend_bars))
            broken = _last_breakout(candles, signal.channel_bars)
            return np.where(broken == trend, broken, 0).astype(np.int8)
        case CoinFlip():
            return np.array(
                [_coin(signal.seed, time) for time in candles.opened_at.astype(int)], dtype=np.int8
            )
        case Contrarian():
            back = signal.lookback_bars
            moves = np.full(len(candles), np.nan)
            moves[back:] = candles.close[back:] - candles.close[:-back]
            return -_sign(moves)
        case _:
            assert_never(signal)


def _last_breakout(candles: Candles, channel_bars: int) -> Directions:
    """The direction of the last close outside the channel of the bars before its own."""
    directions = np.zeros(len(candles), dtype=np.int8)
    if len(candles) <= channel_bars:
        return directions
    upper = sliding_window_view(candles.high, channel_bars)[:-1].max(axis=1)
    lower = sliding_window_view(candles.low, channel_bars)[:-1].min(axis=1)
    closes = candles.close[channel_bars:]
    directions[channel_bars:] = (closes > upper).astype(np.int8) - (closes < lower)
    bars = np.where(directions != 0, np.arange(len(candles)), 0)
    return directions[np.maximum.accumulate(bars)]


def _coin(seed: int, time: int) -> int:
    # Keyed by the bar, not drawn in sequence: a bar gives the same side wherever the file begins.
    return 1 if hashlib.sha256(f"{seed}:{time}".encode()).digest()[0] & 1 else -1


def _mean(values: Floats, bars: int) -> Floats:
    """The mean of the last `bars` values, NaN until there are so many."""
    means = np.full(len(values), np.nan)
    if len(values) >= bars:
        means[bars - 1 :] = sliding_window_view(values, bars).mean(axis=1)
    return means


def _sign(values: Floats) -> Directions:
    return np.nan_to_num(np.sign(values)).astype(np.int8)
