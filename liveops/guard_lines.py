"""Performance guards in lines for a terminal and for the report's page."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.text import Text

from bandit.core.guard_rule import GuardState
from bandit.core.model import Verdict
from bandit.core.verdicts import Reason
from bandit.service.performance_guarding import GuardReport

STYLES: Final = {GuardState.NORMAL: "", GuardState.REDUCED: "yellow", GuardState.PAUSED: "bold red"}


def guard_lines(guards: Iterable[GuardReport]) -> list[Text]:
    """Say where guards stand: in yellow what is REDUCED, in red what is PAUSED, both with why."""
    return [Text(line_of(report), style=STYLES[report.record.guard.state]) for report in guards]


def line_of(report: GuardReport) -> str:
    """Return one guard in words, and where it is not NORMAL, since when, why, and what is open."""
    record, guard, newest = report.record, report.record.guard, report.newest
    name = f"guard of {record.kind} {record.name}"
    if not guard.rule.enabled:
        return f"{name}: off"
    found = guard.measured
    rate = "unknown" if found.win_rate is None else f"{100 * found.win_rate:.0f}%"
    said = (
        f"{name}: {guard.state}, {len(guard.trades)} of {guard.rule.window} trades, "
        f"win rate {rate}, {guard.losing_streak} lost in a row, "
        f"drawdown {100 * found.drawdown:.2f}%"
    )
    if guard.state is GuardState.NORMAL or newest is None:
        return said
    effect = guard.rule.effect(guard.state)
    does = (
        "nothing new opens"
        if guard.state is GuardState.PAUSED
        else f"sizes x {effect.size_multiplier:g}, confidence + {effect.confidence_bump:g}"
    )
    missing = [_missing(r) for r in found.recovery(guard.trades_since) if _is_missing(r)]
    return (
        f"{said}\n  since {newest.at:%Y-%m-%d %H:%M} {does}: {newest.reason}"
        f"\n  to recover: {', '.join(missing) or 'the next trade'}"
    )


def _is_missing(reason: Reason) -> bool:
    return reason.verdict is not Verdict.PASS


def _missing(reason: Reason) -> str:
    value = reason.note if reason.value is None else f"{reason.value:.4g}"
    limit = "" if reason.limit is None else f" of {reason.limit:g}"
    return f"{reason.check.removeprefix('recovery_')} {value}{limit}"
