"""Whether claimed decisions come to something, and units go where the allocation says (SPEC E5).

A night looks at the newest `WINDOW`: what is older may have left the ledger. So each verdict is
one of its night, wrong with a probability of alpha at most, not one of a life.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from bandit.core.detectors import exceedance
from bandit.core.ladder import LadderRule
from bandit.core.verdicts import Reason, at_most

WINDOW: Final = timedelta(days=30)
"""How far a night looks back."""

UNREPORTED: Final = "unreported claims"
MISDRAWN: Final = "units drawn as allocated"

MISDRAWN_ALPHA: Final = 0.001
"""How often a night may say falsely that units are not drawn as allocated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """Decisions of an arm that a bot claimed, whose attribution window has closed.

    `failed` are those without an outcome, but for positions that were marked since, and those
    whose position was opened after the decision had expired.
    """

    n: int
    failed: int

    @property
    def failed_ratio(self) -> float:
        """The share that failed; there is at least one claim.

        >>> Claims(n=40, failed=3).failed_ratio
        0.075
        """
        return self.failed / self.n


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Units that chance routed, on how many versions of an allocation, and how they fell.

    `mismatch` is the log e-value of `detectors.ratio_mismatch`.
    """

    units: int
    versions: int
    mismatch: float


def unreported(claims: Claims, *, rule: LadderRule) -> Reason:
    """Say whether too many claimed decisions fail: FAIL when that was shown.

    >>> unreported(Claims(n=400, failed=20), rule=LadderRule()).verdict
    <Verdict.PASS: 'PASS'>
    >>> unreported(Claims(n=400, failed=60), rule=LadderRule()).verdict
    <Verdict.FAIL: 'FAIL'>
    """
    found = exceedance(claims.failed, claims.n, limit=rule.unreported_max)
    said = f"{claims.failed} of {claims.n} failed, {rule.unreported_max:g} of them may"
    return at_most(UNREPORTED, found, -math.log(rule.alpha), note=f"log e-value; {said}")


def drawn_as_allocated(draws: Draws) -> Reason:
    """Say whether arms got the units that their shares say: FAIL when they did not.

    >>> drawn_as_allocated(Draws(units=500, versions=2, mismatch=-1.5)).verdict
    <Verdict.PASS: 'PASS'>
    """
    note = f"log e-value; {draws.units} units on {draws.versions} versions"
    return at_most(MISDRAWN, draws.mismatch, -math.log(MISDRAWN_ALPHA), note=note)
