"""The live-ops checklist: expected band, flag and action of each row (SPEC F2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeVar

from bandit.core.lifecycle import ArmVerb
from bandit.core.model import ArmRole, ArmStatus, Verdict
from bandit.core.reading import ArmReading, ChecklistRule
from bandit.core.verdicts import Reason, at_least, at_most

PROFIT_FACTOR: Final = "pf_challenger_30"


_Action = TypeVar("_Action", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecklistRow(Generic[_Action]):
    """One row: the metric, the band it is expected in, the check, and what a FAIL asks for."""

    metric: str
    band: tuple[float, float]
    reason: Reason
    action: _Action

    @property
    def flagged(self) -> bool:
        """Whether the row asks for its action."""
        return self.reason.verdict is Verdict.FAIL

    def to_json(self) -> dict[str, object]:
        """Return the row as reports print it."""
        return {
            "metric": self.metric,
            "band": list(self.band),
            **self.reason.to_json(),
            "flagged": self.flagged,
            "action": self.action.value,
        }


ArmRow = ChecklistRow[ArmVerb]


def rows(reading: ArmReading, rule: ChecklistRule) -> tuple[ArmRow, ...]:
    """Hold a challenger's numbers against the checklist.

    The profit factor is judged on a full window only: fewer trades, or a window without a loss,
    are INCONCLUSIVE and ask for nothing.
    """
    short, drawdown = reading.judged
    return judged(short.value, f"{short.state}", n=short.n, drawdown_percent=drawdown, rule=rule)


def judged(
    pf_short: float | None, state: str, *, n: int, drawdown_percent: float, rule: ChecklistRule
) -> tuple[ArmRow, ...]:
    """Hold a profit factor of `n` trades and a drawdown against the checklist.

    >>> [row.flagged for row in judged(1.5, "finite", n=30, drawdown_percent=4.0,
    ...                                rule=ChecklistRule())]
    [True, False]
    """
    full = n >= rule.window
    note = f"{n} of {rule.window} trades" if not full else state
    value = pf_short if full else None
    return (
        ChecklistRow(
            metric=PROFIT_FACTOR,
            band=rule.pf_band,
            reason=at_least(PROFIT_FACTOR, value, rule.pf_throttle, note=note),
            action=ArmVerb.THROTTLE,
        ),
        ChecklistRow(
            metric="dd_challenger_pct",
            band=rule.drawdown_band_percent,
            reason=at_most("dd_challenger_pct", drawdown_percent, rule.drawdown_halt_percent),
            action=ArmVerb.HALT,
        ),
    )


def action_of(reading: ArmReading, rule: ChecklistRule) -> ArmRow | None:
    """Return the row whose action applies to the arm tonight: a halt before a throttle.

    Only a challenger that may still lose traffic is acted on, so a second look changes nothing.
    """
    place = reading.place
    if place.role is ArmRole.CHAMPION:
        return None
    flagged = {row.action: row for row in rows(reading, rule) if row.flagged}
    halt, throttle = flagged.get(ArmVerb.HALT), flagged.get(ArmVerb.THROTTLE)
    if halt is not None and place.status in (ArmStatus.ACTIVE, ArmStatus.THROTTLED):
        return halt
    return throttle if place.status is ArmStatus.ACTIVE else None


def actions(
    readings: Sequence[ArmReading], rule: ChecklistRule
) -> tuple[tuple[ArmReading, ArmRow], ...]:
    """Return the arms the checklist acts on, with the row that asks for it."""
    found = ((reading, action_of(reading, rule)) for reading in readings)
    return tuple((reading, row) for reading, row in found if row is not None)
