"""Promotion gates over a trade log: what `liveops gates` measures, judges and prints."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bandit.core import merits
from bandit.core.errors import InvalidInput
from bandit.core.gates import (
    Baseline,
    GateProfile,
    Judgement,
    Performance,
    judge,
    thresholds_of,
)
from bandit.core.merits import MarkedTrade
from bandit.core.model import Verdict
from liveops.connectors.trade_logs import LoggedTrade, load_trades
from liveops.evaluation import evaluate_trades


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
    marked = [_marked(trade) for trade in candidate.trades]
    return merits.performance_of(marked, starting_capital=candidate.starting_capital)


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


def _marked(trade: LoggedTrade) -> MarkedTrade:
    return MarkedTrade(
        closed_at=trade.closed_at,
        unit=f"{trade.row:09d}",
        pnl=trade.pnl,
        opened_at=trade.opened_at,
        entry_value=trade.entry_value,
        worst_excursion=trade.worst_excursion,
        forced_exit=trade.forced_exit,
    )


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
