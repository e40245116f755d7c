"""The exploration budget: how much less than the champion all challengers may ever earn (SPEC E6).

Before a decision goes to a challenger, what it may cost at worst is set aside; once its outcome is
told, what it did cost takes the place of that. So long as no outcome is told that loses more than
was set aside, spent and reserved together never pass the budget, in whatever order outcomes come. A
later correction is charged as well, and may pass it.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, localcontext

from bandit.core.errors import InvalidInput
from bandit.core.model import checked_amount

_ZERO = Decimal(0)
_EXACT_DIGITS = 64
_STEP = Decimal("0.00000001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What is set aside for one decision of a challenger, in the account's currency.

    `at_risk` is what it may lose, `expected` what its champion earns with a decision in the mean.
    """

    at_risk: Decimal
    expected: Decimal

    @property
    def charge(self) -> Decimal:
        """What it takes of the budget until its outcome is told."""
        return self.at_risk + self.expected

    def shortfall(self, pnl: Decimal) -> Decimal:
        """Return how much less than its champion it earned; below 0 where it earned more.

        >>> Reservation(at_risk=Decimal(20), expected=Decimal(1)).shortfall(Decimal(-5))
        Decimal('6')
        """
        return self.expected - pnl


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """What an arm's decisions as a challenger cost: those still open at worst, the others in fact.

    Exact sums of a set: any order gives the same, and a corrected outcome is taken back. What was
    `charged` for decisions when they were taken, `released` when they were told, and `spent` by
    these.

    >>> kept = Reservation(at_risk=Decimal(20), expected=Decimal(1))
    >>> after = Explored.opened(kept) + Explored.told(kept, Decimal(-5))
    >>> after.n_open, after.reserved, after.spent
    (0, Decimal('0'), Decimal('6'))
    """

    n_opened: int = 0
    charged: Decimal = _ZERO
    n_told: int = 0
    released: Decimal = _ZERO
    spent: Decimal = _ZERO

    @classmethod
    def opened(cls, kept: Reservation) -> Explored:
        """Return what a decision adds when it is taken."""
        return cls(n_opened=1, charged=kept.charge)

    @classmethod
    def told(cls, kept: Reservation, pnl: Decimal) -> Explored:
        """Return what its outcome adds when it is told; a follower's, which has no charge, money.

        A later decision about a position is charged with what it earns, and opens nothing.
        """
        opened = 1 if kept.charge else 0
        return cls(n_told=opened, released=kept.charge, spent=kept.shortfall(pnl))

    @classmethod
    def corrected(cls, *, before: Decimal, after: Decimal) -> Explored:
        """Return what it adds that an outcome earned `after`, and not `before`."""
        return cls(spent=before - after)

    @property
    def n_open(self) -> int:
        """Decisions that nobody has told the outcome of."""
        return self.n_opened - self.n_told

    @property
    def reserved(self) -> Decimal:
        """What is set aside for these."""
        return self.charged - self.released

    def __add__(self, other: Explored) -> Explored:
        """Count both."""
        with localcontext(prec=_EXACT_DIGITS):
            both = {name: getattr(self, name) + getattr(other, name) for name in self.__slots__}
        return Explored(**both)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplorationBudget:
    """A budget in the account's currency, and what the next decision is charged.

    >>> budget = ExplorationBudget(
    ...     amount=Decimal(100), at_risk=Decimal(20), expected=Decimal(1))
    >>> budget.room(Explored(spent=Decimal(30)))
    3
    """

    amount: Decimal
    at_risk: Decimal
    expected: Decimal = _ZERO

    def __post_init__(self) -> None:
        """Refuse amounts that nothing could be charged to."""
        for name in ("amount", "at_risk", "expected"):
            exact = checked_amount(getattr(self, name), field=name)
            object.__setattr__(self, name, exact)
        for name in ("amount", "at_risk"):
            if getattr(self, name) <= 0:
                raise InvalidInput(field=name, rule="must be above 0", found=getattr(self, name))
        if self.expected < 0:
            raise InvalidInput(field="expected", rule="must be >= 0", found=self.expected)

    @property
    def reservation(self) -> Reservation:
        """What is set aside for a decision that is taken now."""
        return Reservation(at_risk=self.at_risk, expected=self.expected)

    def left(self, explored: Explored) -> Decimal:
        """Return what is neither spent nor set aside; below 0 once a decision lost too much."""
        return self.amount - explored.spent - explored.reserved

    def room(self, explored: Explored) -> int:
        """Return how many more decisions may be drawn before any outcome is told."""
        return max(0, int(self.left(explored) // self.reservation.charge))

    def admits(self, n: int, explored: Explored) -> bool:
        """Say whether `n` decisions may be drawn, whoever they fall to.

        Never by the arms that were drawn: what is kept back for those would leave in the evidence
        more decisions of the champion than chance had given it.
        """
        return n == 0 or n * self.reservation.charge <= self.left(explored)


def expected_of(pnl: Decimal, n: int) -> Decimal:
    """Return what a champion is taken to earn with a decision: the mean, and never less than 0.

    Who loses less than a losing champion earns no budget by that.

    >>> expected_of(Decimal(10), 3)
    Decimal('3.33333334')
    """
    if n == 0 or pnl <= 0:
        return _ZERO
    with localcontext(prec=_EXACT_DIGITS):
        return (pnl / n).quantize(_STEP, rounding=ROUND_CEILING)
