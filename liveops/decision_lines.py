"""Decisions in lines for a terminal: when, what, and the checks behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from bandit.core.model import DecisionKind
from bandit.service.scaling import Night
from bandit.storage.decisions import DecisionRecord

# What a line of a night shows, and how it calls it; the API has every check.
_DECISIVE = {
    "pf_150 >= pf_prod": "pf_150/pf_prod",
    "dd_150 percent": "dd_150/limit",
    "evidence of the mean": "evidence/proof",
}


def night_lines(night: Night) -> list[Text]:
    """Return what a night did, a line a decision, with the reasons behind every moved arm.

    A night that was decided before did nothing.
    """
    if night.already_done:
        return []
    decisions = [*night.actions, night.decision]
    return [
        line
        for decision in decisions
        if decision.kind is not DecisionKind.HOLD
        for line in decision_lines(decision)
    ]


def decision_lines(decision: DecisionRecord) -> list[Text]:
    """Return one decision: when, what, and the checks of each arm it concerns."""
    head = Text(f"{moment_of(decision)} ")
    head.append(f"{decision.kind.value} ", style="bold")
    head.append(subject_of(decision))
    lines = [head]
    for policy, reasons in _concerned(decision).items():
        checks = ", ".join(_check(reason) for reason in reasons if reason["check"] in _DECISIVE)
        lines.append(Text(f"  {policy}: {checks}", style="dim"))
    return lines


def moment_of(decision: DecisionRecord) -> str:
    """Return when it was decided: a night's decision belongs to its day, others have a time."""
    moment = "%Y-%m-%d" if decision.trading_day is not None else "%Y-%m-%d %H:%M"
    return f"{decision.decided_at:{moment}}"


def subject_of(decision: DecisionRecord) -> str:
    """Return what was decided, and about whom where it concerns one arm."""
    policy = decision.inputs.get("policy")
    return decision.reason if policy is None else f"{policy}: {decision.reason}"


def _concerned(decision: DecisionRecord) -> Mapping[str, list[dict[str, Any]]]:
    before, proposed = decision.inputs.get("before"), decision.inputs.get("proposed")
    if decision.kind is not DecisionKind.RESCALE or not before or not proposed:
        return {}
    return {
        policy: reasons
        for policy, reasons in decision.reasons.items()
        if before.get(policy) != proposed.get(policy)
    }


def _check(reason: Mapping[str, Any]) -> str:
    value, limit = (
        "-" if reason[key] is None else f"{reason[key]:.3g}" for key in ("value", "limit")
    )
    return f"{_DECISIVE[reason['check']]} {value}/{limit} {reason['verdict']}"
