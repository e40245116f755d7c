"""A measured value held against a limit, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bandit.core.model import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One check of a decision: what was measured, the limit, the verdict.

    `value` and `limit` are in the unit the check's name carries; `note` says why a value is
    missing or what followed. INCONCLUSIVE is an answer: nothing unknown ever passes.
    """

    check: str
    value: float | None
    limit: float | None
    verdict: Verdict
    note: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the reason as it is stored with its decision."""
        return {
            "check": self.check,
            "value": self.value,
            "limit": self.limit,
            "verdict": self.verdict.value,
            "note": self.note,
        }


def at_least(check: str, value: float | None, limit: float | None, *, note: str = "") -> Reason:
    """Check that `value` reaches `limit`; either unknown is INCONCLUSIVE.

    >>> at_least("trades", 30, 30).verdict
    <Verdict.PASS: 'PASS'>
    >>> at_least("pf_150", None, 1.2, note="no losses").verdict
    <Verdict.INCONCLUSIVE: 'INCONCLUSIVE'>
    """
    return _reason(check, value, limit, lambda v, bound: v >= bound, note)


def at_most(check: str, value: float | None, limit: float | None, *, note: str = "") -> Reason:
    """Check that `value` does not exceed `limit`; either unknown is INCONCLUSIVE."""
    return _reason(check, value, limit, lambda v, bound: v <= bound, note)


def below(check: str, value: float | None, limit: float | None, *, note: str = "") -> Reason:
    """Check that `value` stays under `limit`; either unknown is INCONCLUSIVE."""
    return _reason(check, value, limit, lambda v, bound: v < bound, note)


def above(check: str, value: float | None, limit: float | None, *, note: str = "") -> Reason:
    """Check that `value` exceeds `limit`; either unknown is INCONCLUSIVE.

    >>> above("win_rate", 0.55, 0.55).verdict
    <Verdict.FAIL: 'FAIL'>
    """
    return _reason(check, value, limit, lambda v, bound: v > bound, note)


def overall(reasons: Sequence[Reason]) -> Verdict:
    """PASS when there are checks and all pass, FAIL when any fails, else INCONCLUSIVE.

    >>> overall([])
    <Verdict.INCONCLUSIVE: 'INCONCLUSIVE'>
    >>> overall([at_most("a", 1.0, 2.0), at_most("b", None, 2.0)])
    <Verdict.INCONCLUSIVE: 'INCONCLUSIVE'>
    """
    verdicts = {reason.verdict for reason in reasons}
    if verdicts == {Verdict.PASS}:
        return Verdict.PASS
    return Verdict.FAIL if Verdict.FAIL in verdicts else Verdict.INCONCLUSIVE


def known(value: float | None) -> float | None:
    """Return a value that can be held against a limit: NaN and infinities are unknown.

    >>> known(1.5), known(float("nan")), known(float("inf"))
    (1.5, None, None)
    """
    return value if value is not None and math.isfinite(value) else None


def _reason(
    check: str,
    value: float | None,
    limit: float | None,
    holds: Callable[[float, float], bool],
    note: str,
) -> Reason:
    value, limit = known(value), known(limit)
    if value is None or limit is None:
        verdict = Verdict.INCONCLUSIVE
    else:
        verdict = Verdict.PASS if holds(value, limit) else Verdict.FAIL
    return Reason(check=check, value=value, limit=limit, verdict=verdict, note=note)
