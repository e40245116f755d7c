"""What a week was to who owns the accounts: the weekly report as a value (SPEC L4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import accumulate
from typing import Any

from bandit.core.model import WHOLE_PPM, ArmRole, ArmStatus, DecisionKind, PolicyName
from bandit.core.notices import Notice, NoticeKind, Severity
from bandit.core.profit_factor import ProfitFactor
from bandit.core.week import Week

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFigures:
    """What an arm's closed trades of some time come to: money exact, ratios on returns.

    `drawdown_percent` is the deepest at nominal size; None where trades of that time have left for
    an archive.
    """

    trades: int
    wins: int
    pnl: Decimal
    profit_factor: ProfitFactor
    drawdown_percent: float | None

    @property
    def win_rate(self) -> float | None:
        """The part of the trades that won; None without a trade."""
        return self.wins / self.trades if self.trades else None

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a JSON document."""
        return {
            "trades": self.trades,
            "wins": self.wins,
            "win_rate": self.win_rate,
            "pnl": f"{self.pnl:f}",
            "profit_factor": self.profit_factor.to_json(),
            "drawdown_max_percent": self.drawdown_percent,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmWeek:
    """An arm: what it did in the week and in its whole life, and where it stands now, in words."""

    policy: PolicyName
    role: ArmRole
    status: ArmStatus
    ppm: int
    week: ArmFigures
    life: ArmFigures
    by_day: Mapping[date, Decimal]
    evidence: str

    def to_json(self) -> dict[str, Any]:
        """Return the arm as a JSON document."""
        return {
            "policy": self.policy,
            "role": self.role.value,
            "status": self.status.value,
            "traffic_allocation": self.ppm / WHOLE_PPM,
            "week": self.week.to_json(),
            "life": self.life.to_json(),
            "evidence": self.evidence,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """An arm's part in ppm before and after a decision; None before it joined."""

    policy: PolicyName
    before: int | None
    after: int

    @property
    def text(self) -> str:
        """The move in words.

        >>> Move(policy=PolicyName("a"), before=100_000, after=150_000).text
        'a 10 % to 15 %'
        """
        came = "joins with" if self.before is None else f"{_percent(self.before)} to"
        return f"{self.policy} {came} {_percent(self.after)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A decision on an experiment, and the parts that it moved."""

    at: datetime
    kind: DecisionKind
    by: str
    reason: str
    policy: str | None
    moves: tuple[Move, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the change as a JSON document."""
        return {
            "at": self.at.isoformat(),
            "kind": self.kind.value,
            "by": self.by,
            "reason": self.reason,
            "policy": self.policy,
            "moves": [move.text for move in self.moves],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentWeek:
    """An experiment: what its arms did, and what was decided about them."""

    name: str
    account: str
    currency: str
    champion: PolicyName
    arms: tuple[ArmWeek, ...]
    changes: tuple[Change, ...]

    @property
    def pnl(self) -> Decimal:
        """What all its arms earned."""
        return sum((arm.week.pnl for arm in self.arms), _ZERO)

    @property
    def trades(self) -> int:
        """How many trades closed."""
        return sum(arm.week.trades for arm in self.arms)

    def to_json(self) -> dict[str, Any]:
        """Return the experiment as a JSON document."""
        return {
            "experiment": self.name,
            "account": self.account,
            "currency": self.currency,
            "champion": self.champion,
            "pnl": f"{self.pnl:f}",
            "trades": self.trades,
            "arms": [arm.to_json() for arm in self.arms],
            "changes": [change.to_json() for change in self.changes],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountWeek:
    """An account's closed money by day, and what it is worth now with what is open.

    `opening` is the capital of the experiments that were open by the end of the week, and all that
    closed before it.
    """

    name: str
    currency: str
    opening: Decimal
    by_day: Mapping[date, Decimal]
    equity_now: Decimal
    drawdown_percent_now: float
    is_killed: bool

    @property
    def pnl(self) -> Decimal:
        """What the week's closed trades earned."""
        return sum(self.by_day.values(), _ZERO)

    @property
    def closing(self) -> Decimal:
        """What the account had at the end of the week, without what was open."""
        return self.opening + self.pnl

    @property
    def percent(self) -> float | None:
        """What the week earned, in percent of what it began with; None of nothing."""
        return float(100 * self.pnl / self.opening) if self.opening > 0 else None

    def levels(self, week: Week) -> list[Decimal]:
        """Return the closed equity at the beginning of the week and at the end of each day."""
        steps = (self.by_day.get(day, _ZERO) for day in week.days)
        return list(accumulate(steps, initial=self.opening))

    def to_json(self, week: Week) -> dict[str, Any]:
        """Return the account as a JSON document."""
        return {
            "account": self.name,
            "currency": self.currency,
            "opening": f"{self.opening:f}",
            "closing": f"{self.closing:f}",
            "pnl": f"{self.pnl:f}",
            "percent": self.percent,
            "levels": [f"{level:f}" for level in self.levels(week)],
            "equity_now": f"{self.equity_now:f}",
            "drawdown_percent_now": self.drawdown_percent_now,
            "killed": self.is_killed,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A turn of the kill switch, or a change of a performance guard."""

    at: datetime
    title: str
    by: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the event as a JSON document."""
        told = {"title": self.title, "by": self.by, "reason": self.reason}
        return {"at": self.at.isoformat(), **told}


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftState:
    """What the newest drift run of an artefact found."""

    subject: str
    checked_at: datetime
    checks: int
    drifted: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON document."""
        return {
            "subject": self.subject,
            "checked_at": self.checked_at.isoformat(),
            "checks": self.checks,
            "drifted": list(self.drifted),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WeeklyReport:
    """A week of everything that a ledger holds; what stands now is as of `made_at`.

    `notices` counts what people were told in the week by kind, `told` by channel and state of
    delivery; `awaiting` is what a person has to decide.
    """

    week: Week
    made_at: datetime
    accounts: tuple[AccountWeek, ...]
    experiments: tuple[ExperimentWeek, ...]
    events: tuple[Event, ...]
    notices: Mapping[str, int]
    told: Mapping[tuple[str, str], int]
    drift: tuple[DriftState, ...]
    awaiting: tuple[str, ...]

    @property
    def trades(self) -> int:
        """How many trades closed."""
        return sum(each.trades for each in self.experiments)

    @property
    def headline(self) -> str:
        """The week in one line."""
        said = [self._money(), _counted(self.trades, "trade")]
        kinds = Counter(change.kind for each in self.experiments for change in each.changes)
        if promoted := kinds[DecisionKind.PROMOTE]:
            said.append(_counted(promoted, "promotion"))
        if self.awaiting:
            said.append(f"{len(self.awaiting)} to decide")
        return f"Week {self.week.name}: {', '.join(said)}"

    def _money(self) -> str:
        by_currency: dict[str, Decimal] = {}
        for account in self.accounts:
            earned = by_currency.get(account.currency, _ZERO) + account.pnl
            by_currency[account.currency] = earned
        return ", ".join(f"{shown_money(m)} {c}" for c, m in by_currency.items()) or "no account"

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON document; money is text, nothing is NaN or Infinity."""
        return {
            "week": self.week.name,
            "from": self.week.start.isoformat(),
            "to": self.week.end.isoformat(),
            "made_at": self.made_at.isoformat(),
            "headline": self.headline,
            "accounts": [account.to_json(self.week) for account in self.accounts],
            "experiments": [experiment.to_json() for experiment in self.experiments],
            "events": [event.to_json() for event in self.events],
            "notices": dict(self.notices),
            "told": [
                {"channel": channel, "state": state, "notices": n}
                for (channel, state), n in self.told.items()
            ],
            "drift": [state.to_json() for state in self.drift],
            "awaiting": list(self.awaiting),
        }


def weekly_notice(report: WeeklyReport) -> Notice:
    """Return what every channel is told of a week; a mail has the whole report beside it."""
    lines = [f"{a.name}: {shown_money(a.pnl)} {a.currency}" for a in report.accounts]
    lines += [f"to decide: {each}" for each in report.awaiting]
    return Notice(
        kind=NoticeKind.WEEKLY_REPORT,
        severity=Severity.INFO,
        title=report.headline,
        text="\n".join(lines) or "No account had an experiment yet.",
        at=report.made_at,
        incident=incident_of(report.week),
        fields=(("from", f"{report.week.start:%Y-%m-%d}"), ("to", f"{report.week.end:%Y-%m-%d}")),
    )


_INCIDENT = "weekly report "


def incident_of(week: Week) -> str:
    """Return what names the one notice of a week."""
    return f"{_INCIDENT}{week.name}"


def week_of(notice: Notice) -> Week:
    """Return the week that a notice tells of.

    >>> week_of(Notice(kind=NoticeKind.WEEKLY_REPORT, severity=Severity.INFO, title="x", text="",
    ...                at=datetime.min, incident="weekly report 2026-W10")).name
    '2026-W10'
    """
    return Week.named(notice.incident.removeprefix(_INCIDENT))


def shown_money(amount: Decimal, *, signed: bool = True) -> str:
    """Return money as people read it: to the hundredth, and exact where that would hide it all.

    >>> shown_money(Decimal("1234.5678")), shown_money(Decimal("-0.0040000"))
    ('+1,234.57', '-0.004')
    >>> shown_money(Decimal("0"))
    '0.00'
    """
    sign = "+" if signed and amount > 0 else ""
    if amount and abs(amount) < Decimal("0.005"):
        return f"{sign}{amount.normalize():f}"
    return f"{sign}{amount:,.2f}" if amount else "0.00"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _percent(ppm: int) -> str:
    return f"{ppm / 10_000:.4g} %"
