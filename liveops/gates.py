"""Promotion gates over a trade log: what `liveops gates` measures, judges and prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bandit.core.errors import InvalidInput
from bandit.core.gates import (
    BLOCKS,
    Baseline,
    Gate,
    GateProfile,
    Judgement,
    Performance,
    judge,
    thresholds_of,
)
from bandit.core.marked_equity import HeldPosition, MarkedDrawdown, marked_drawdown
from bandit.core.model import Verdict
from bandit.core.profit_factor import quotient, worst_block
from liveops.connectors.trade_logs import LoggedTrade, load_trades
from liveops.evaluation import Evaluation, evaluate_trades

_MARK_COLUMNS: Final = ("opened_at", "entry_value", "worst_excursion")
_STATES: Final = (
    Gate.SHARPE,
    Gate.PROFIT_FACTOR,
    Gate.PROFIT_FACTOR_LOW,
    Gate.WIN_RATE,
    Gate.DRAWDOWN,
    Gate.OUTPERFORMANCE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """The judgement on one trade log, and what it was held against."""

    trades_file: str
    baseline_file: str | None
    profile: GateProfile
    judgement: Judgement

    def to_json(self) -> dict[str, object]:
        """Files and profile, the verdict, and every gate with value, limit, verdict and note."""
        return {
            "trades_file": self.trades_file,
            "baseline_file": self.baseline_file,
            "profile": self.profile.value,
            **self.judgement.to_json(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The trades of one policy in closing order, and the capital of its account."""

    trades: tuple[LoggedTrade, ...]
    starting_capital: Decimal | None

    def closed_between(self, first: date, last: date) -> Candidate:
        """The same account, with only what closed on these UTC days."""
        within = tuple(t for t in self.trades if first <= t.closed_at.date() <= last)
        return Candidate(trades=within, starting_capital=self.starting_capital)


def judge_file(
    path: Path,
    *,
    profile: GateProfile,
    baseline: Path | None,
    starting_capital: Decimal | None,
) -> GateReport:
    """Judge a trade log beside that of a baseline.

    `starting_capital` is that of each log and replaces what the file says. Raises `InvalidInput` as
    `load_trades` and `evaluate_trades` do, and for a file with the trades of several policies.
    """
    candidate = load_candidate(path, starting_capital)
    rival = None if baseline is None else load_candidate(baseline, starting_capital)
    return GateReport(
        trades_file=path.name,
        baseline_file=None if baseline is None else baseline.name,
        profile=profile,
        judgement=judge(
            performance_of(candidate),
            thresholds_of(profile),
            None if rival is None else baseline_of(rival, candidate),
        ),
    )


def load_candidate(path: Path, starting_capital: Decimal | None) -> Candidate:
    """Read the trades of the one policy that a log holds."""
    log = load_trades(path)
    policies = {trade.policy for trade in log.trades}
    if len(log.accounts) > 1 or len(policies) > 1:
        found = ", ".join(sorted(name or "(no name)" for name in policies))
        raise InvalidInput(field=path.name, rule="must hold trades of one policy", found=found)
    return Candidate(
        trades=tuple(sorted(log.trades, key=lambda trade: (trade.closed_at, trade.row))),
        starting_capital=log.starting_capital if starting_capital is None else starting_capital,
    )


def performance_of(candidate: Candidate) -> Performance:
    """Measure what the gates ask for; why a number is missing stands beside it."""
    trades = candidate.trades
    evaluation = evaluate_trades(trades, starting_capital=candidate.starting_capital)
    summary, interval = evaluation.summary, evaluation.summary.profit_factor_interval
    marked, excursion = _marked_drawdown(candidate), _worst_excursion(trades)
    loss = _worst_realised_loss(trades)
    equity = summary.equity if trades else None
    per_loss = None if excursion is None or loss is None else quotient(excursion, loss)
    return Performance(
        trades=summary.profit_factor.n,
        days=evaluation.daily.days,
        losses_realised=sum(trade.pnl < 0 and not trade.forced_exit for trade in trades),
        sharpe_daily=evaluation.daily.sharpe,
        profit_factor=summary.profit_factor.value,
        profit_factor_low=None if interval is None else interval.low,
        profit_factor_worst_block=worst_block([float(t.pnl) for t in trades], blocks=BLOCKS),
        win_rate=summary.win_rate,
        drawdown_max_percent=None if equity is None else equity.drawdown_max_percent,
        marked_drawdown_low_percent=None if marked is None else marked.low_percent,
        marked_drawdown_high_percent=None if marked is None else marked.high_percent,
        worst_excursion_percent=None if excursion is None else 100.0 * excursion,
        excursion_per_realised_loss=per_loss,
        return_on_capital=evaluation.return_on_capital,
        lacking=_lacking(candidate, evaluation),
    )


def baseline_of(rival: Candidate, candidate: Candidate) -> Baseline | None:
    """What the rival earned on the days from the candidate's first close to its last."""
    if not candidate.trades:
        return None
    first, last = candidate.trades[0].closed_at.date(), candidate.trades[-1].closed_at.date()
    within = rival.closed_between(first, last)
    evaluation = evaluate_trades(within.trades, starting_capital=within.starting_capital)
    return Baseline(
        trades=len(within.trades),
        days=evaluation.daily.days,
        return_on_capital=evaluation.return_on_capital,
    )


def _worst_excursion(trades: Sequence[LoggedTrade]) -> float | None:
    """The deepest of all positions, a ratio of its entry value; what it lost at last counts too."""
    depths = [trade.worst_excursion for trade in trades if trade.worst_excursion is not None]
    if not trades or len(depths) < len(trades):
        return None
    return max(chain(depths, map(_lost, trades)))


def _lost(trade: LoggedTrade) -> float:
    return 0.0 if trade.entry_value is None else max(float(-trade.pnl / trade.entry_value), 0.0)


def _worst_realised_loss(trades: Sequence[LoggedTrade]) -> float | None:
    """The largest loss a policy took itself, a ratio of its entry value; None without one."""
    if any(trade.entry_value is None for trade in trades):
        return None
    return max((_lost(trade) for trade in trades if not trade.forced_exit), default=0.0) or None


def _marked_drawdown(candidate: Candidate) -> MarkedDrawdown | None:
    if candidate.starting_capital is None or not candidate.trades:
        return None
    held = []
    for trade in candidate.trades:
        if trade.opened_at is None or trade.entry_value is None or trade.worst_excursion is None:
            return None
        position = HeldPosition(
            opened_at=trade.opened_at,
            closed_at=trade.closed_at,
            result=float(trade.pnl),
            worst=-trade.worst_excursion * float(trade.entry_value),
        )
        held.append(position)
    return marked_drawdown(held, starting_capital=float(candidate.starting_capital))


def _lacking(candidate: Candidate, evaluation: Evaluation) -> dict[Gate, str]:
    """Why a number is missing where it is, by gate."""
    numbers, trades = evaluation.to_json(), candidate.trades
    absent = {
        column: f"{column} is missing for {count} of {len(trades)} trades"
        for column in _MARK_COLUMNS
        if (count := sum(getattr(trade, column) is None for trade in trades))
    }
    excursion, entry_value = absent.get("worst_excursion"), absent.get("entry_value")
    capital = "no starting capital" if candidate.starting_capital is None else None
    whys = {
        Gate.EXCURSION: [excursion],
        Gate.MARKED_DRAWDOWN: [capital, *absent.values()],
        Gate.HELD_LOSSES: [excursion, entry_value],
    }
    told = {gate: "; ".join(filter(None, why)) for gate, why in whys.items()}
    told[Gate.HELD_LOSSES] = told[Gate.HELD_LOSSES] or "no realised loss"
    told[Gate.PROFIT_FACTOR_BLOCKS] = "a third of the log holds no loss"
    if not trades:
        return dict.fromkeys(Gate, "no trades")
    return told | {gate: _state(numbers[gate.value]) for gate in _STATES}


def _state(number: object) -> str:
    assert isinstance(number, dict)
    return "" if number["state"] == "finite" else str(number["state"]).replace("_", " ")


_STYLES: Final = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.INCONCLUSIVE: "yellow"}


def render_gates(report: GateReport) -> Group:
    """The gates as a table for a terminal, and the verdict under it."""
    table = Table("gate", "value", "limit", "verdict", "note", title=Text(report.trades_file))
    for reason in report.judgement.reasons:
        table.add_row(
            reason.check,
            _cell(reason.value),
            _cell(reason.limit),
            Text(reason.verdict.value, style=_STYLES[reason.verdict]),
            Text(reason.note),
        )
    beside = report.baseline_file or "no baseline"
    verdict = report.judgement.verdict.value
    return Group(table, Text(f"{verdict}, profile {report.profile.value}, against {beside}"))


def _cell(number: float | None) -> str:
    return "unknown" if number is None else f"{number:,.5g}"
