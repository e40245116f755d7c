"""How often a policy wanted in, and what kept it out: why a challenger trades as often as it does.

Counted at closes at which nothing was held. A wish that several rules stand against counts with
each of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from bandit.core.acting import Action
from bandit.core.model import Verdict
from bandit.core.verdicts import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """What became of a policy that was asked while flat.

    `asked` closes, at `wanted` of which it wanted a position; `unsure` times it was less confident
    than it has to be, `off_regime` times the market's regime forbade it or was not known; it
    `entered` the rest.

    >>> Entries(asked=9, wanted=5, unsure=4, off_regime=2, entered=1) + Entries(asked=1)
    Entries(asked=10, wanted=5, unsure=4, off_regime=2, entered=1)
    """

    asked: int = 0
    wanted: int = 0
    unsure: int = 0
    off_regime: int = 0
    entered: int = 0

    @classmethod
    def of(cls, action: Action) -> Entries:
        """Count one action that was taken while nothing was held."""
        against = [each for each in action.reasons if each.verdict is not Verdict.PASS]
        is_in = action.position != 0
        return cls(
            asked=1,
            wanted=int(action.choice.position != 0),
            unsure=int(any(each.check == "confidence" for each in against)),
            off_regime=int(any(_forbids(each) for each in against)),
            entered=int(is_in),
        )

    def __add__(self, other: Entries) -> Entries:
        """Return both together."""
        return Entries(
            asked=self.asked + other.asked,
            wanted=self.wanted + other.wanted,
            unsure=self.unsure + other.unsure,
            off_regime=self.off_regime + other.off_regime,
            entered=self.entered + other.entered,
        )


def _forbids(found: Reason) -> bool:
    """Say whether a rule of the regime that does not pass keeps a policy out."""
    # A volatile market makes an entry smaller and forbids none; one that is not known does.
    is_smaller = found.check == "volatility" and found.verdict is Verdict.FAIL
    return found.check != "confidence" and not is_smaller
