"""One arm as an operator reads it: its place, its numbers, and what they are held against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, localcontext
from typing import Any

from bandit.core.checklist import ArmRow
from bandit.core.daily import Contribution, DailyNumbers
from bandit.core.model import WHOLE_PPM, ArmRole
from bandit.core.performance import NumberState, WindowNumbers, stated
from bandit.core.profit_factor import Interval
from bandit.core.reading import ArmReading
from bandit.core.upkeep import UpkeepRow
from bandit.core.verdicts import Reason
from bandit.service.live_gaps import BesideBacktest
from bandit.service.pairing import OnPaper
from bandit.storage.experiments import ArmRecord
from bandit.storage.statistics import ArmStatistics

_EXACT_DIGITS = 100

DAILY_WINDOW = 365
"""Days that an arm's daily ratios look back: a report costs the same after ten years."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmReport:
    """One arm: its place, its numbers over everything, both windows and days, its checklist.

    `evidence` is what the newest night, that of `evidence_night`, held against the ladder's limits;
    an arm that no night has looked at has none. `claims` is what that night found of the decisions
    that bots claimed, where there were any. `encoder` is the checklist's row of its policy's
    encoder, where that was ever checked, and `encoder_run` the drift run that it is of. Beside all
    this, and in none of it, stands what its results on paper say, and what its policy's backtest
    promised, where it names one.

    `profit_by_day` is its net money by UTC day, of days on which it closed something. The daily
    ratios are those of its last `DAILY_WINDOW` days, as if the experiment's capital were
    all its own; `contribution` is over the same days. `short_interval` and `long_interval` are the
    95 % ones of the windows' profit factors.
    """

    arm: ArmRecord
    statistics: ArmStatistics
    reading: ArmReading
    short: WindowNumbers
    short_interval: Interval | None
    long: WindowNumbers
    long_interval: Interval | None
    checklist: tuple[ArmRow, ...]
    encoder: UpkeepRow | None
    encoder_run: str | None
    profit_by_day: Mapping[date, Decimal]
    daily: DailyNumbers
    contribution: Contribution
    evidence: tuple[Reason, ...]
    evidence_night: date | None
    claims: Reason | None
    on_paper: OnPaper
    beside_backtest: BesideBacktest | None

    def to_json(self) -> dict[str, Any]:
        """Return the arm under the glossary's names; no NaN, no Infinity."""
        place, sums, fold = self.arm.place, self.statistics.sums, self.statistics.fold
        beside = self.beside_backtest
        weighed = self.reading.moments
        spread = NumberState.TOO_FEW if sums.n_trades < 2 else NumberState.NO_SPREAD
        return {
            "policy": place.policy,
            "policy_sha": self.arm.policy_sha,
            "kind": self.arm.policy_kind.value,
            "role": place.role.value,
            "status": place.status.value,
            "status_reason": self.arm.status_reason,
            "mode": place.mode.value,
            "traffic_allocation": place.ppm / WHOLE_PPM,
            "rung": place.rung.value,
            "joined_at": self.arm.joined_at.isoformat(),
            "outcomes": sums.n_outcomes,
            "trades": sums.n_trades,
            "wins": sums.n_wins,
            "losses": sums.n_losses,
            "expired": sums.n_expired,
            "unclaimed": sums.n_unclaimed,
            "pnl": f"{sums.pnl:f}",
            "fees": f"{sums.fees:f}",
            "profit_factor": sums.profit_factor.to_json(),
            "win_rate": _ratio(sums.n_wins, sums.n_trades),
            "trade_sharpe": stated(self.trade_sharpe, spread),
            "sqn": stated(self.sqn, spread),
            **self.daily.to_json(),
            "losing_streak": fold.streaks.current_losing,
            "losing_streak_max": fold.streaks.longest_losing,
            "drawdown_percent": fold.equity.drawdown_percent,
            "drawdown_max_percent": fold.equity.drawdown_max_percent,
            "pf_30": self.short.profit_factor.to_json(),
            **_ends("pf_30", self.short, self.short_interval),
            "dd_30": self.short.drawdown_percent,
            "pf_150": self.long.profit_factor.to_json(),
            **_ends("pf_150", self.long, self.long_interval),
            "dd_150": self.long.drawdown_percent,
            "dd_contrib": self.contribution.percent,
            "dd_contrib_max": self.contribution.max_percent,
            "pf_prod": None if place.role is ArmRole.CHAMPION else self.reading.pf_prod.to_json(),
            "checklist": [row.to_json() for row in self.rows],
            "evidence": [reason.to_json() for reason in self.evidence],
            "evidence_night": str(self.evidence_night) if self.evidence else None,
            "claims": None if self.claims is None else self.claims.to_json(),
            "weighed": None if weighed is None else weighed.kind.value,
            "on_paper": self.on_paper.to_json(),
            "backtest_gap": None if beside is None else beside.to_json(),
        }

    @property
    def rows(self) -> tuple[ArmRow | UpkeepRow, ...]:
        """The checklist of the arm: what may stop it, and what its encoder may need."""
        return (*self.checklist, *(() if self.encoder is None else (self.encoder,)))

    @property
    def trade_sharpe(self) -> float | None:
        """Mean return of a trade over its standard deviation (ddof 1), not annualised."""
        sums = self.statistics.sums
        n = sums.n_trades
        if n < 2:
            return None
        # Exact decimals, so the difference of large sums loses nothing.
        with localcontext(prec=_EXACT_DIGITS):
            total = sums.return_gain - sums.return_loss
            variance = (n * sums.return_squares - total * total) / n / (n - 1)
            return None if variance <= 0 else float(total / n) / math.sqrt(variance)

    @property
    def sqn(self) -> float | None:
        """System quality number: the square root of n times `trade_sharpe`."""
        sharpe = self.trade_sharpe
        return None if sharpe is None else math.sqrt(self.statistics.sums.n_trades) * sharpe


def _ends(name: str, window: WindowNumbers, interval: Interval | None) -> dict[str, object]:
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    factor = window.profit_factor
    why = NumberState.TOO_FEW
    if not factor.n_losses:
        why = NumberState.NO_LOSSES if factor.n else NumberState.NO_TRADES
    return {f"{name}_low": stated(low, why), f"{name}_high": stated(high, why)}


def _ratio(part: int, whole: int) -> float | None:
    return None if whole == 0 else part / whole
