"""Promotion gates: what a policy must have shown before it may replace another (SPEC G1).

Total: whatever numbers come in, a gate that does not know is INCONCLUSIVE and never passes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Final, assert_never

from bandit.core.errors import InvalidInput
from bandit.core.model import Verdict
from bandit.core.verdicts import Reason, above, at_least, at_most, below, known, overall


class Gate(StrEnum):
    """The gates; each is also the name of the number it holds against a limit."""

    TRADES = "trades"
    DAYS = "days"
    LOSSES = "losses_realised"
    SHARPE = "sharpe_daily"
    PROFIT_FACTOR = "profit_factor"
    PROFIT_FACTOR_LOW = "profit_factor_low"
    PROFIT_FACTOR_BLOCKS = "profit_factor_worst_block"
    WIN_RATE = "win_rate"
    DRAWDOWN = "drawdown_max_percent"
    MARKED_DRAWDOWN = "marked_drawdown_percent"
    EXCURSION = "worst_excursion_percent"
    HELD_LOSSES = "excursion_per_realised_loss"
    OUTPERFORMANCE = "return_on_capital"


BLOCKS: Final = 3
"""Consecutive parts of a log, equally many trades each, whose worst profit factor is judged."""


class GateProfile(StrEnum):
    """Named sets of thresholds."""

    STANDARD = "standard"
    STRICT = "strict"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateThresholds:
    """The limits of every gate; the defaults are those of `standard`.

    `losses_realised_min`: the size of gross loss, which a profit factor divides by, is known to
    √(2 / k) of itself from k losses of exponential sizes: to a third from 20.
    `excursion_per_loss_max`: with stops that fill late about 3; who takes no loss has hundreds.
    `limits_pass`: whether Sharpe ratio, win rate and percentages may stand exactly at their limit.
    """

    trades_min: int = 50
    days_min: int = 14
    losses_realised_min: int = 20
    sharpe_min: float = 1.0
    profit_factor_min: float = 1.2
    profit_factor_low_min: float = 1.0
    profit_factor_block_min: float = 1.0
    win_rate_min: float | None = None
    drawdown_max_percent: float = 20.0
    excursion_max_percent: float = 20.0
    excursion_per_loss_max: float = 5.0
    margin_over_baseline: float = 0.0
    baseline_trades_min: int = 30
    baseline_coverage_min: float = 0.9
    limits_pass: bool = True

    def __post_init__(self) -> None:
        """Refuse a limit that nothing can break, or nothing can hold."""
        for name in ("trades_min", "days_min", "losses_realised_min", "baseline_trades_min"):
            self._check(name, getattr(self, name) >= 1, "must be >= 1")
        for name in ("sharpe_min", "profit_factor_min", "excursion_per_loss_max"):
            self._check(name, 0 < getattr(self, name) <= 100, "must be above 0 and at most 100")
        for name in ("profit_factor_low_min", "profit_factor_block_min"):
            rule = "must lie between 0 and profit_factor_min"
            self._check(name, 0 < getattr(self, name) <= self.profit_factor_min, rule)
        for name in ("drawdown_max_percent", "excursion_max_percent"):
            rule = "must be above 0 and at most 100 percent"
            self._check(name, 0 < getattr(self, name) <= 100, rule)
        win_rate = self.win_rate_min
        rule = "must lie between 0 and 1"
        self._check("win_rate_min", win_rate is None or 0 < win_rate < 1, rule)
        self._check("margin_over_baseline", 0 <= self.margin_over_baseline <= 10, "must be 0..10")
        self._check("baseline_coverage_min", 0 < self.baseline_coverage_min <= 1, rule)

    def _check(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise InvalidInput(field=name, rule=rule, found=getattr(self, name))


STANDARD: Final = GateThresholds()
STRICT: Final = GateThresholds(
    sharpe_min=2.0,
    win_rate_min=0.55,
    drawdown_max_percent=15.0,
    excursion_max_percent=15.0,
    margin_over_baseline=0.1,
    limits_pass=False,
)


def thresholds_of(profile: GateProfile) -> GateThresholds:
    """The limits of a profile.

    >>> thresholds_of(GateProfile.STRICT).sharpe_min
    2.0
    """
    match profile:
        case GateProfile.STANDARD:
            return STANDARD
        case GateProfile.STRICT:
            return STRICT
        case _:
            assert_never(profile)


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """What a candidate has shown, at its nominal size; None, NaN and infinities are unknown.

    `losses_realised` are those it took itself, without positions that the end of the log closed.
    The marked drawdown lies between its two bounds, which are equal where it is known exactly.
    `lacking` says, by gate, why a number is missing.
    """

    trades: int
    days: int
    losses_realised: int
    sharpe_daily: float | None
    profit_factor: float | None
    profit_factor_low: float | None
    profit_factor_worst_block: float | None
    win_rate: float | None
    drawdown_max_percent: float | None
    marked_drawdown_low_percent: float | None
    marked_drawdown_high_percent: float | None
    worst_excursion_percent: float | None
    excursion_per_realised_loss: float | None
    return_on_capital: float | None
    lacking: Mapping[Gate, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be, such as a negative drawdown: it would pass any limit."""
        free = ("sharpe_daily", "return_on_capital", "lacking")
        for name in (f.name for f in fields(self) if f.name not in free):
            value = known(getattr(self, name))
            if value is not None and value < 0:
                raise InvalidInput(field=name, rule="must not be negative", found=value)
        win_rate = known(self.win_rate)
        if win_rate is not None and win_rate > 1:
            raise InvalidInput(field="win_rate", rule="must be at most 1", found=win_rate)
        low = known(self.marked_drawdown_low_percent)
        high = known(self.marked_drawdown_high_percent)
        if low is not None and high is not None and low > high:
            rule = f"must not exceed marked_drawdown_high_percent = {high:g}"
            raise InvalidInput(field="marked_drawdown_low_percent", rule=rule, found=low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What the policy to be replaced earned over the candidate's own calendar window."""

    trades: int
    days: int
    return_on_capital: float | None

    def __post_init__(self) -> None:
        for name in ("trades", "days"):
            if getattr(self, name) < 0:
                found = getattr(self, name)
                raise InvalidInput(field=name, rule="must not be negative", found=found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What came of every gate."""

    reasons: tuple[Reason, ...]

    @property
    def verdict(self) -> Verdict:
        """PASS only if every gate passed, FAIL if any failed, else INCONCLUSIVE."""
        return overall(self.reasons)

    def to_json(self) -> dict[str, object]:
        """Numbers a strict JSON reader takes."""
        return {
            "verdict": self.verdict.value,
            "gates": [reason.to_json() for reason in self.reasons],
        }


def judge(
    performance: Performance, thresholds: GateThresholds, baseline: Baseline | None
) -> Judgement:
    """Hold a candidate's numbers against every gate of a profile.

    >>> nothing = Performance(trades=0, days=0, losses_realised=0, **dict.fromkeys((
    ...     "sharpe_daily", "profit_factor", "profit_factor_low", "profit_factor_worst_block",
    ...     "win_rate", "drawdown_max_percent", "marked_drawdown_low_percent",
    ...     "marked_drawdown_high_percent", "worst_excursion_percent",
    ...     "excursion_per_realised_loss", "return_on_capital")))
    >>> {reason.verdict.value for reason in judge(nothing, STRICT, None).reasons}
    {'INCONCLUSIVE'}
    """
    return Judgement(
        reasons=(
            *_amount_gates(performance, thresholds),
            *_profit_gates(performance, thresholds),
            *_loss_gates(performance, thresholds),
            _outperformance(performance, thresholds, baseline),
        )
    )


def _amount_gates(found: Performance, limits: GateThresholds) -> tuple[Reason, ...]:
    few = "too few to judge by"
    return (
        _unless_short(_held(at_least, Gate.TRADES, found, limits.trades_min), few),
        _unless_short(_held(at_least, Gate.DAYS, found, limits.days_min), few),
        _unless_short(_held(at_least, Gate.LOSSES, found, limits.losses_realised_min), few),
    )


def _profit_gates(found: Performance, limits: GateThresholds) -> tuple[Reason, ...]:
    reaches = at_least if limits.limits_pass else above
    low = _held(at_least, Gate.PROFIT_FACTOR_LOW, found, limits.profit_factor_low_min)
    win_rate = limits.win_rate_min
    return (
        _held(reaches, Gate.SHARPE, found, limits.sharpe_min),
        _profit_factor(found, limits),
        _unless_short(low, "luck alone could have earned this"),
        _held(at_least, Gate.PROFIT_FACTOR_BLOCKS, found, limits.profit_factor_block_min),
        *([] if win_rate is None else [_held(reaches, Gate.WIN_RATE, found, win_rate)]),
    )


def _profit_factor(found: Performance, limits: GateThresholds) -> Reason:
    """Check the quotient, which passes nobody while hardly a loss stands in its denominator."""
    reason = _held(at_least, Gate.PROFIT_FACTOR, found, limits.profit_factor_min)
    if found.losses_realised >= limits.losses_realised_min or reason.verdict is not Verdict.PASS:
        return reason
    told = f"rests on {found.losses_realised} realised losses"
    return replace(reason, verdict=Verdict.INCONCLUSIVE, note=told)


def _loss_gates(found: Performance, limits: GateThresholds) -> tuple[Reason, ...]:
    stays = at_most if limits.limits_pass else below
    return (
        _held(stays, Gate.DRAWDOWN, found, limits.drawdown_max_percent),
        _marked_drawdown(found, limits),
        _held(stays, Gate.EXCURSION, found, limits.excursion_max_percent),
        _held(at_most, Gate.HELD_LOSSES, found, limits.excursion_per_loss_max),
    )


def _marked_drawdown(found: Performance, limits: GateThresholds) -> Reason:
    """Fail on the lower bound, pass on the upper one; between them nobody knows."""
    stays, gate = at_most if limits.limits_pass else below, Gate.MARKED_DRAWDOWN
    surely, possibly = (
        stays(gate.value, bound, limits.drawdown_max_percent, note=_lacking(gate, found, bound))
        for bound in (found.marked_drawdown_low_percent, found.marked_drawdown_high_percent)
    )
    if surely.verdict is not Verdict.PASS:
        return surely
    return _unless_short(possibly, "so deep if all positions stood at their worst at once")


def _outperformance(
    found: Performance, limits: GateThresholds, baseline: Baseline | None
) -> Reason:
    """Check that more was earned than the baseline's return and its margin.

    A baseline that earned nothing, or lost, lets nobody pass: to lose less is no merit, and a
    margin in percent of a loss has the wrong sign. To be no better than it is a FAIL all the same.
    """
    lacking = _lacking_baseline(found, limits, baseline)
    if baseline is None or lacking:
        return above(Gate.OUTPERFORMANCE.value, found.return_on_capital, None, note=lacking)
    earned = known(baseline.return_on_capital)
    if earned is None or earned > 0:
        limit = None if earned is None else earned * (1.0 + limits.margin_over_baseline)
        return _held(above, Gate.OUTPERFORMANCE, found, limit)
    beaten = _held(above, Gate.OUTPERFORMANCE, found, earned)
    if beaten.verdict is not Verdict.PASS:
        return beaten
    told = "the baseline earned nothing that could be beaten"
    return replace(beaten, verdict=Verdict.INCONCLUSIVE, note=told)


def _lacking_baseline(found: Performance, limits: GateThresholds, baseline: Baseline | None) -> str:
    if baseline is None:
        return "no baseline was given"
    # Written so that what is unknown lacks too.
    if not (known(baseline.trades) or 0) >= limits.baseline_trades_min:
        return f"{baseline.trades} of {limits.baseline_trades_min} baseline trades in the window"
    if not (known(baseline.days) or 0) >= limits.baseline_coverage_min * found.days:
        return f"the baseline covers {baseline.days} of {found.days} days"
    if known(baseline.return_on_capital) is None:
        return "the baseline's return is not known"
    return ""


def _held(
    holds: Callable[..., Reason], gate: Gate, found: Performance, limit: float | None
) -> Reason:
    """Hold the number of a gate against its limit, or say why there is none."""
    value = getattr(found, gate.value)
    return holds(gate.value, value, limit, note=_lacking(gate, found, value))


def _lacking(gate: Gate, found: Performance, value: float | None) -> str:
    return found.lacking.get(gate, "") if known(value) is None else ""


def _unless_short(reason: Reason, note: str) -> Reason:
    """Where more data could lift the number over its limit, to miss it is no failure yet."""
    if reason.verdict is not Verdict.FAIL:
        return reason
    return replace(reason, verdict=Verdict.INCONCLUSIVE, note=note)
