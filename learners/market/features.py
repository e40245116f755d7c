"""Features: what a policy sees of the market at the close of a bar, and nothing that comes later.

Row t is made of bars up to t and is known at the close of bar t. It reads the last `bars_needed`
bars only, in a fixed order of arithmetic: a service that keeps just these bars computes the very
same row. A gap starts the series again: a feature is NaN until the bars it reads all follow one
another without a gap.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bandit.core.acting import ActingRules, Regime
from bandit.core.errors import InvalidInput
from learners.canonical_json import as_float
from learners.market.candles import Candles
from learners.market.indicators import (
    directional_movement,
    lagged,
    moving_average,
    quotient,
    realised_volatility,
    relative_strength,
    wilder_memory,
)
from learners.market.validation import Floats, Times

FEATURES_VERSION = 1  # raised whenever the same spec would give other numbers

_WINDOW_MAX, _PERIOD_MAX, _WINDOWS_MAX = 5_000, 200, 16
_DAY_MICROSECONDS = 86_400_000_000
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0
_USUAL = ActingRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSpec:
    """Which features, over how many bars of which length; equal digests, equal numbers.

    Each of `return_bars` and `trend_bars` gives a feature of its own. `adx_trending` (ADX points)
    and `volatility_ratio_high` (times the usual) are the limits of the regime columns, as those of
    `bandit.core.acting`. Raises `InvalidInput` for windows that are not rising whole numbers within
    bounds.

    >>> FeatureSpec().bars_needed, FeatureSpec().digest[:12]
    (280, 'aa210ba0fc23')
    """

    interval: timedelta = timedelta(hours=1)
    return_bars: tuple[int, ...] = (1, 4, 24)
    volatility_bars_short: int = 24
    volatility_bars_long: int = 168
    trend_bars: tuple[int, ...] = (24, 168)
    adx_bars: int = 14
    rsi_bars: int = 14
    volume_bars: int = 24
    adx_trending: float = _USUAL.adx_min
    volatility_ratio_high: float = _USUAL.volatility_max

    def __post_init__(self) -> None:
        """Refuse what cannot be computed, and what would take for ever."""
        seconds = self.interval.total_seconds()
        if not (1 <= seconds <= 7 * 86_400 and seconds.is_integer()):
            rule = "must be whole seconds, 1 to a week"
            raise InvalidInput(field="interval", rule=rule, found=self.interval)
        for name in ("return_bars", "trend_bars"):
            windows = getattr(self, name)
            for window in windows:
                _require_window(name, window, least=1, most=_WINDOW_MAX)
            if not 1 <= len(windows) <= _WINDOWS_MAX or list(windows) != sorted(set(windows)):
                rule = f"must be 1 to {_WINDOWS_MAX} rising numbers"
                raise InvalidInput(field=name, rule=rule, found=windows)
        _require_window("volatility_bars_long", self.volatility_bars_long, most=_WINDOW_MAX)
        longest = self.volatility_bars_long - 1
        _require_window("volatility_bars_short", self.volatility_bars_short, least=1, most=longest)
        _require_window("volume_bars", self.volume_bars, most=_WINDOW_MAX)
        _require_window("adx_bars", self.adx_bars, most=_PERIOD_MAX)
        _require_window("rsi_bars", self.rsi_bars, most=_PERIOD_MAX)
        for name, most in (("adx_trending", 100.0), ("volatility_ratio_high", 1e6)):
            limit = getattr(self, name)
            if type(limit) is not float or not 0 < limit <= most:
                rule = f"must be a float in (0, {most:g}]"
                raise InvalidInput(field=name, rule=rule, found=limit)

    @property
    def bars_needed(self) -> int:
        """Return how many bars a complete row reads: those up to its own, without a gap."""
        return max(
            self.return_bars[-1] + 1,
            self.volatility_bars_long + 1,
            self.trend_bars[-1],
            2 * wilder_memory(self.adx_bars),
            wilder_memory(self.rsi_bars) + 1,
            self.volume_bars,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the features, in the order of a row.

        >>> FeatureSpec().names[:4]
        ('return_1', 'return_4', 'return_24', 'volatility_24')
        """
        return (
            *(f"return_{bars}" for bars in self.return_bars),
            f"volatility_{self.volatility_bars_short}",
            f"volatility_{self.volatility_bars_long}",
            "volatility_ratio",
            *(f"trend_{bars}" for bars in self.trend_bars),
            *("adx", "direction", "rsi", "relative_volume"),
            *("time_of_day_sin", "time_of_day_cos", "day_of_week_sin", "day_of_week_cos"),
            *("regime_trend", "regime_high_volatility"),
        )

    @property
    def digest(self) -> str:
        """Return the SHA-256 that names the features: this spec and `FEATURES_VERSION`."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the spec as a JSON document; `from_json` reads it back."""
        return {
            "features_version": FEATURES_VERSION,
            "interval_seconds": int(self.interval.total_seconds()),
            "return_bars": list(self.return_bars),
            "volatility_bars_short": self.volatility_bars_short,
            "volatility_bars_long": self.volatility_bars_long,
            "trend_bars": list(self.trend_bars),
            "adx_bars": self.adx_bars,
            "rsi_bars": self.rsi_bars,
            "volume_bars": self.volume_bars,
            "adx_trending": self.adx_trending,
            "volatility_ratio_high": self.volatility_ratio_high,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; raises `InvalidInput` for anything else, another version too.

        >>> FeatureSpec.from_json(FeatureSpec(rsi_bars=7).to_json()).rsi_bars
        7
        """
        known = cls().to_json()
        if not isinstance(document, Mapping) or document.keys() != known.keys():
            found = sorted(document) if isinstance(document, Mapping) else type(document).__name__
            raise InvalidInput(field="feature spec", rule=f"must have {list(known)}", found=found)
        if document["features_version"] != FEATURES_VERSION:
            rule, found = f"must be {FEATURES_VERSION}", document["features_version"]
            raise InvalidInput(field="features_version", rule=rule, found=found)
        values = {name: document[name] for name in known if name != "features_version"}
        for name in ("return_bars", "trend_bars"):
            if type(values[name]) is not list:
                raise InvalidInput(field=name, rule="must be a list", found=values[name])
            values[name] = tuple(values[name])
        for name in ("adx_trending", "volatility_ratio_high"):
            values[name] = as_float(values[name])
        seconds = values.pop("interval_seconds")
        _require_window("interval_seconds", seconds, least=1, most=7 * 86_400)
        return cls(interval=timedelta(seconds=seconds), **values)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """The features of a series: `values` has a row a bar and a column a name, read-only.

    `opened_at` is when the bar of a row opened; the row is known at its close. `complete` tells the
    rows without a NaN, `warm_up` is the first of them, or the number of bars where there is none.
    """

    values: Floats
    names: tuple[str, ...]
    opened_at: Times
    complete: NDArray[np.bool_]
    warm_up: int
    spec_digest: str

    def regime(self, bar: int) -> Regime:
        """Return the regime at the close of a bar; what is not known yet is not finite.

        >>> from learners.market.candles import shipped_candles
        >>> found = features_of(shipped_candles(), FeatureSpec()).regime(300)
        >>> round(found.adx, 1), found.trend, round(found.volatility, 2)
        (15.0, -1, 0.85)
        """
        return regime_of(dict(zip(self.names, self.values[bar].tolist(), strict=True)))


def regime_of(row: Mapping[str, float]) -> Regime:
    """Return the regime that a row of features tells, by name and not scaled.

    >>> regime_of({"adx": 31.0, "direction": -0.2, "volatility_ratio": 1.5}).trend
    -1
    """
    direction = row["direction"]
    trend = (direction > 0) - (direction < 0)
    return Regime(adx=row["adx"], trend=trend, volatility=row["volatility_ratio"])


def features_of(candles: Candles, spec: FeatureSpec) -> Features:
    """Compute every feature of every bar.

    `return_n` is the log return over n bars; `volatility_n` the realised volatility a bar;
    `volatility_ratio` the short over the long one; `trend_n` the log distance of the close from its
    mean of n bars; `adx`, `direction` and `rsi` Wilder's; `relative_volume` the volume over its
    mean (0 where nothing was traded); time of day and day of week, of the close in UTC, as sine and
    cosine; `regime_trend` is 1, -1 or 0 (an ADX under `adx_trending`), `regime_high_volatility` 1
    or 0. Raises `InvalidInput` for bars of another length than those of the spec.

    >>> from learners.market.candles import shipped_candles
    >>> features = features_of(shipped_candles(), FeatureSpec())
    >>> features.values.shape, features.warm_up
    ((16901, 18), 279)
    """
    if candles.interval != spec.interval:
        rule = f"must have a bar every {spec.interval}"
        raise InvalidInput(field=candles.instrument, rule=rule, found=candles.interval)
    bars_in_a_row = _bars_in_a_row(candles)
    names, columns = [], []
    for name, bars, column in _columns(candles, spec):
        names.append(name)
        columns.append(np.where(bars_in_a_row >= bars, column, np.nan))
    assert tuple(names) == spec.names
    values = np.stack(columns, axis=1)
    complete = np.isfinite(values).all(axis=1)
    for array in (values, complete):
        array.flags.writeable = False
    return Features(
        values=values,
        names=spec.names,
        opened_at=candles.opened_at,
        complete=complete,
        warm_up=int(complete.argmax()) if complete.any() else len(candles),
        spec_digest=spec.digest,
    )


def _columns(candles: Candles, spec: FeatureSpec) -> Iterator[tuple[str, int, Floats]]:
    """Yield name, bars read and values of each feature; values before that many bars are junk."""
    price = np.log(candles.close)
    for bars in spec.return_bars:
        yield f"return_{bars}", bars + 1, price - lagged(price, bars)
    returns = price - lagged(price, 1)
    short, long = spec.volatility_bars_short, spec.volatility_bars_long
    now, usual = realised_volatility(returns, short), realised_volatility(returns, long)
    volatility_ratio = quotient(now, usual, otherwise=1.0)
    yield f"volatility_{short}", short + 1, now
    yield f"volatility_{long}", long + 1, usual
    yield "volatility_ratio", long + 1, volatility_ratio
    for bars in spec.trend_bars:
        yield f"trend_{bars}", bars, np.log(candles.close / moving_average(candles.close, bars))
    adx, direction = directional_movement(candles.high, candles.low, spec.adx_bars)
    memory = wilder_memory(spec.adx_bars)
    yield "adx", 2 * memory, adx
    yield "direction", memory + 1, direction
    memory = wilder_memory(spec.rsi_bars)
    yield "rsi", memory + 1, relative_strength(candles.close, spec.rsi_bars)
    volume = moving_average(candles.volume, spec.volume_bars)
    yield "relative_volume", spec.volume_bars, quotient(candles.volume, volume, otherwise=0.0)
    yield from _calendar(candles)
    high_volatility = (volatility_ratio > spec.volatility_ratio_high).astype(np.float64)
    trend = np.where(adx >= spec.adx_trending, np.sign(direction), 0.0)
    yield "regime_trend", 2 * wilder_memory(spec.adx_bars), trend
    yield "regime_high_volatility", long + 1, high_volatility


def _calendar(candles: Candles) -> Iterator[tuple[str, int, Floats]]:
    closed = candles.opened_at.astype("datetime64[us]") + np.timedelta64(candles.interval, "us")
    days, moment = np.divmod(closed.astype(np.int64), _DAY_MICROSECONDS)
    turns = {"time_of_day": (moment, _DAY_MICROSECONDS), "day_of_week": (days + _EPOCH_WEEKDAY, 7)}
    for name, (count, turn) in turns.items():
        at, where = np.unique(count % turn, return_inverse=True)
        angles = [2.0 * math.pi * step / turn for step in at.tolist()]
        # Python's own sine: numpy's may round another way at another place of an array.
        yield f"{name}_sin", 1, np.array([math.sin(angle) for angle in angles])[where]
        yield f"{name}_cos", 1, np.array([math.cos(angle) for angle in angles])[where]


def _bars_in_a_row(candles: Candles) -> NDArray[np.int64]:
    """Return how many bars up to each one follow one another without a gap."""
    bars = np.arange(len(candles))
    after_gap = np.diff(candles.opened_at) != np.timedelta64(candles.interval, "us")
    starts = np.concatenate(([0], bars[1:] * after_gap))
    in_a_row: NDArray[np.int64] = bars - np.maximum.accumulate(starts) + 1
    return in_a_row


def _require_window(name: str, bars: object, *, least: int = 2, most: int) -> None:
    if type(bars) is not int or not least <= bars <= most:
        rule = f"must be a whole number in [{least}, {most}]"
        raise InvalidInput(field=name, rule=rule, found=bars)
