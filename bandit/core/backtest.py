"""Backtests: what one measured, its record as a trial, and what it has to show (SPEC H6).

A *backtest trial* is one policy that was made and measured, whatever became of it. The record of
all of them is what the deflated Sharpe ratio counts, so none may be left out of it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, NewType

from bandit.core.errors import InvalidInput
from bandit.core.live_gap import TradeSample
from bandit.core.model import PolicyKind, Verdict, checked_instant, checked_name, checked_text
from bandit.core.multiplicity import ReturnMoments, Search, deflated_sharpe
from bandit.core.profit_factor import ProfitFactor
from bandit.core.verdicts import Reason, above, at_least

TrialId = NewType("TrialId", str)

_DIGEST = re.compile(r"[0-9a-f]{64}")
_WHOLE_LIMIT: Final = 2**63


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestMetrics:
    """What a policy earned on bars that it was not made from, net of costs.

    `moments` are those of the returns by period, of which a year has `periods_per_year`;
    `profit_factor` counts returns of closed trades; `total_return` and the deepest drawdown are
    those of the whole account, which began with 1. `promise` is what live trades are held against;
    None of what was recorded before the ledger kept it.
    """

    moments: ReturnMoments
    periods_per_year: float
    profit_factor: ProfitFactor
    total_return: float
    drawdown_max_percent: float
    promise: TradeSample | None

    def __post_init__(self) -> None:
        """Refuse numbers that are none."""
        if not 0.0 < self.periods_per_year < math.inf:
            found = self.periods_per_year
            raise InvalidInput(field="periods_per_year", rule="must be positive", found=found)
        if not -1.0 <= self.total_return < math.inf:
            rule = "must be finite and at least -1"
            raise InvalidInput(field="total_return", rule=rule, found=self.total_return)
        if not 0.0 <= self.drawdown_max_percent <= 100.0:
            found = self.drawdown_max_percent
            raise InvalidInput(field="drawdown_max_percent", rule="must lie in 0..100", found=found)
        if self.promise is not None:
            _require_promise(self.promise, of=self.profit_factor)

    @property
    def annual_sharpe(self) -> float | None:
        """The Sharpe ratio by period times √(periods a year); None where that has none."""
        sharpe = self.moments.sharpe
        return None if sharpe is None else sharpe * math.sqrt(self.periods_per_year)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSubject:
    """What was tried: the same again is the same trial.

    `family` names the search it belongs to. `spec`, `data` and `features` are digests (SHA-256, 64
    hexadecimal digits); the window is that of all bars it was made and measured on; `seed` is that
    of its randomness and `steps` how long it learned.
    """

    family: str
    kind: PolicyKind
    spec: str
    data: str
    features: str
    window_first: datetime
    window_last: datetime
    seed: int
    steps: int

    def __post_init__(self) -> None:
        """Refuse what no ledger can hold."""
        checked_name(self.family, field="family")
        for name in ("spec", "data", "features"):
            if _DIGEST.fullmatch(getattr(self, name)) is None:
                rule = "must be 64 lower-case hexadecimal digits"
                raise InvalidInput(field=name, rule=rule, found=repr(getattr(self, name)))
        for name in ("window_first", "window_last"):
            object.__setattr__(self, name, checked_instant(getattr(self, name), field=name))
        if self.window_first > self.window_last:
            found = self.window_last.isoformat()
            raise InvalidInput(field="window_last", rule="must not precede the first", found=found)
        for name in ("seed", "steps"):
            if not 0 <= getattr(self, name) < _WHOLE_LIMIT:
                found = getattr(self, name)
                raise InvalidInput(field=name, rule="must lie in 0..2^63 - 1", found=found)

    def trial_id(self, failure: str | None = None) -> TrialId:
        """Return the id of a trial of this: one that measured something, or that failed so."""
        tried = asdict(self) | {"failure": failure}
        text = json.dumps(tried, sort_keys=True, default=datetime.isoformat)
        return TrialId(hashlib.sha256(text.encode()).hexdigest())


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestTrial:
    """One trial: what was tried, when, and either what it measured or why it failed.

    `verdict` is that at the time: the more is tried later, the less it is worth.
    """

    subject: TrialSubject
    started_at: datetime
    finished_at: datetime
    metrics: BacktestMetrics | None
    verdict: Verdict
    failure: str | None = None

    def __post_init__(self) -> None:
        """Refuse a trial that both failed and measured something, or neither."""
        for name in ("started_at", "finished_at"):
            object.__setattr__(self, name, checked_instant(getattr(self, name), field=name))
        if self.started_at > self.finished_at:
            found = self.finished_at.isoformat()
            raise InvalidInput(field="finished_at", rule="must not precede the start", found=found)
        if (self.metrics is None) != (self.failure is not None):
            rule = "must be given exactly where there are no metrics"
            raise InvalidInput(field="failure", rule=rule, found=self.failure)
        if self.failure is not None:
            kept = checked_text(self.failure, field="failure", length_max=1000)
            object.__setattr__(self, "failure", kept)
            if self.verdict is not Verdict.FAIL:
                rule = "must be FAIL where the trial failed"
                raise InvalidInput(field="verdict", rule=rule, found=self.verdict)

    @property
    def id(self) -> TrialId:
        """Name the trial by what was tried and how it failed: made again, it has the same id."""
        return self.subject.trial_id(self.failure)

    @property
    def annual_sharpe(self) -> float | None:
        """What it adds to the spread of all trials; None where it measured none."""
        return None if self.metrics is None else self.metrics.annual_sharpe


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestRule:
    """What a backtest has to show: least trades and periods, and the least deflated ratio."""

    trades_min: int = 30
    periods_min: int = 60
    deflated_min: float = 0.95

    def __post_init__(self) -> None:
        """Refuse rules that a handful of trades could satisfy, or nothing could."""
        for name in ("trades_min", "periods_min"):
            if not 2 <= getattr(self, name) <= 10**6:
                found = getattr(self, name)
                raise InvalidInput(field=name, rule="must lie in 2..1000000", found=found)
        if not 0.5 <= self.deflated_min < 1.0:
            rule = "must be at least 0.5 and below 1"
            raise InvalidInput(field="deflated_min", rule=rule, found=self.deflated_min)


def _require_promise(promise: TradeSample, *, of: ProfitFactor) -> None:
    counted = (promise.n, promise.mean is not None, promise.error is not None)
    if counted != (of.n, of.n > 0, of.n > 1):
        rule = f"must be of the {of.n} trades that were measured"
        raise InvalidInput(field="promise", rule=rule, found=promise.n)
    if promise.wins > of.n - of.n_losses:
        rule = f"must win no trade of the {of.n_losses} that lost"
        raise InvalidInput(field="promise", rule=rule, found=promise.wins)
    slips = promise.slippage
    if slips is None or not 0.0 <= slips < math.inf or promise.n_slippage:
        raise InvalidInput(field="promise", rule="must assume a slippage", found=slips)


def judged(
    metrics: BacktestMetrics, *, buy_and_hold: float, search: Search, rule: BacktestRule
) -> tuple[Reason, ...]:
    """Hold a backtest against its rule; `buy_and_hold` is that total return on the same bars.

    Luck is judged only of enough trades and periods: two that went well have no error to speak of.
    """
    n, days = metrics.profit_factor.n, metrics.moments.n
    deflated = None
    if n >= rule.trades_min and days >= rule.periods_min:
        deflated = deflated_sharpe(
            metrics.moments, search, periods_per_year=metrics.periods_per_year
        )
    tried = f"{search.n_trials} trials, {search.n_measured} with a Sharpe ratio"
    return (
        at_least("trades", n, rule.trades_min),
        at_least("periods", days, rule.periods_min),
        above("total return", metrics.total_return, 0.0),
        above("total return beside buy-and-hold", metrics.total_return, buy_and_hold),
        at_least("deflated Sharpe ratio", deflated, rule.deflated_min, note=tried),
    )


def verdict_of(reasons: tuple[Reason, ...]) -> Verdict:
    """Return FAIL where a check fails, PASS where all pass, else INCONCLUSIVE.

    >>> verdict_of(()).value
    'INCONCLUSIVE'
    """
    verdicts = {reason.verdict for reason in reasons}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.PASS if verdicts == {Verdict.PASS} else Verdict.INCONCLUSIVE
