"""An account's equity in the order its money arrived, and the loss limits that kill it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal, localcontext
from enum import StrEnum
from typing import assert_never

from bandit.core.errors import InvalidInput
from bandit.core.kill_switch import KillCause, KillEvent, KillKind
from bandit.core.model import Verdict
from bandit.core.verdicts import Reason

DRAWDOWN_HARD_LIMIT = Decimal("0.15")
"""No setting and no optimiser may allow a deeper drawdown (SPEC F6)."""

_ZERO = Decimal(0)
# Sums of money have up to 38 digits, a limit times one of them more: nothing may be rounded.
_EXACT_DIGITS = 80


class LossLimit(StrEnum):
    """What an account may lose before it is killed; values name columns and checks."""

    DAILY_LOSS = "daily_loss"
    DRAWDOWN = "drawdown"
    HARD_DRAWDOWN = "hard_drawdown"

    @property
    def cause(self) -> KillCause:
        """Why the kill switch says it was turned."""
        return KillCause.DAILY_LOSS if self is LossLimit.DAILY_LOSS else KillCause.DRAWDOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class LossLimits:
    """The loss limits of one account, as fractions; what exceeds one of them kills.

    `daily_loss` is a fraction of the equity that the UTC day began with, `drawdown` one of the
    peak.

    >>> LossLimits(drawdown=Decimal("0.2"))
    Traceback (most recent call last):
    bandit.core.errors.InvalidInput: drawdown: must be above 0 and at most 0.15, found 0.2
    """

    daily_loss: Decimal = Decimal("0.03")
    drawdown: Decimal = Decimal("0.10")

    def __post_init__(self) -> None:
        """Refuse a limit that never kills, and one above the hard limit."""
        if not 0 < self.daily_loss <= 1:
            rule = "must be above 0 and at most 1"
            raise InvalidInput(field="daily_loss", rule=rule, found=self.daily_loss)
        if not 0 < self.drawdown <= DRAWDOWN_HARD_LIMIT:
            rule = f"must be above 0 and at most {DRAWDOWN_HARD_LIMIT}"
            raise InvalidInput(field="drawdown", rule=rule, found=self.drawdown)

    def of(self, limit: LossLimit) -> Decimal:
        """Return the fraction that `limit` allows."""
        match limit:
            case LossLimit.DAILY_LOSS:
                return self.daily_loss
            case LossLimit.DRAWDOWN:
                return self.drawdown
            case LossLimit.HARD_DRAWDOWN:
                return DRAWDOWN_HARD_LIMIT
            case _:
                assert_never(limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyChange:
    """What one outcome or mark does to an account: `realised` is banked, `unrealised` is marked."""

    realised: Decimal = _ZERO
    unrealised: Decimal = _ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountEquity:
    """Where an account's money stands: all that the next outcome or mark needs, in O(1).

    `capital` is that of its experiments; what they add is a deposit and moves every level of money
    with it, so that it is neither a profit nor hides a loss. `day_start` is the equity that the UTC
    day `day` began with. `lows` holds, for each limit that is broken, the lowest equity since it
    was crossed: the loss the kill switch has spoken for.

    >>> opened = AccountEquity.opened(day=date(2026, 3, 1), limits=LossLimits())
    >>> account = opened.with_capital(Decimal(10_000), day=date(2026, 3, 1))
    >>> lost, breaches = account.after(MoneyChange(realised=Decimal(-301)), day=date(2026, 3, 1))
    >>> lost.daily_loss_percent
    3.01
    >>> [(breach.limit.value, breach.reasons[0].verdict.value) for breach in breaches]
    [('daily_loss', 'FAIL')]
    """

    limits: LossLimits
    capital: Decimal
    realised: Decimal
    unrealised: Decimal
    peak: Decimal
    day: date
    day_start: Decimal
    lows: Mapping[LossLimit, Decimal] = field(default_factory=dict)

    @classmethod
    def opened(cls, *, day: date, limits: LossLimits) -> AccountEquity:
        """Return an account before its first experiment."""
        return cls(
            limits=limits,
            capital=_ZERO,
            realised=_ZERO,
            unrealised=_ZERO,
            peak=_ZERO,
            day=day,
            day_start=_ZERO,
        )

    @property
    def equity(self) -> Decimal:
        """Capital with everything earned, open positions at their newest mark."""
        with localcontext(prec=_EXACT_DIGITS):
            return self.capital + self.realised + self.unrealised

    @property
    def drawdown_percent(self) -> float:
        """How far the equity stands under its peak, in percent of the peak."""
        return _percent(self.peak - self.equity, self.peak)

    @property
    def daily_loss_percent(self) -> float:
        """What the day has lost, in percent of the equity it began with; 0 when it has gained."""
        return _percent(max(self.day_start - self.equity, _ZERO), self.day_start)

    def on(self, day: date) -> AccountEquity:
        """Return the account on `day`: a new day begins with what there is, none ever comes back.

        The clocks of two replicas differ, so the day before may still send its last outcome.
        """
        if day <= self.day:
            return self
        lows = dict(self.lows)
        lows.pop(LossLimit.DAILY_LOSS, None)
        return replace(self, day=day, day_start=self.equity, lows=lows)

    def with_capital(self, added: Decimal, *, day: date) -> AccountEquity:
        """Return the account after an experiment brought its capital."""
        held = self.on(day)
        with localcontext(prec=_EXACT_DIGITS):
            return replace(
                held,
                capital=held.capital + added,
                peak=held.peak + added,
                day_start=held.day_start + added,
                lows={limit: low + added for limit, low in held.lows.items()},
            )

    def after(self, change: MoneyChange, *, day: date) -> tuple[AccountEquity, tuple[Breach, ...]]:
        """Return the account one outcome or mark later, and the limits that speak because of it.

        A limit speaks when it is crossed; while it stays broken, only at a new low. So a release is
        not undone by the very loss it was given for, nor by an outcome that recovers some of it.
        """
        held = self.on(day)
        with localcontext(prec=_EXACT_DIGITS):
            moved = replace(
                held,
                realised=held.realised + change.realised,
                unrealised=held.unrealised + change.unrealised,
            )
        moved = replace(moved, peak=max(held.peak, moved.equity))
        broken = [limit for limit in LossLimit if moved.is_broken(limit)]
        lows = {limit: min(held.lows.get(limit, moved.equity), moved.equity) for limit in broken}
        moved = replace(moved, lows=lows)
        spoken = [limit for limit in broken if held.lows.get(limit) != lows[limit]]
        reasons = moved.reasons() if spoken else ()
        return moved, tuple(Breach(limit=limit, reasons=reasons) for limit in spoken)

    def is_broken(self, limit: LossLimit) -> bool:
        """Say, exactly, whether the loss exceeds the limit; at the limit it does not."""
        return self.equity < self._least(limit, self.peak)

    def least(self, peak: Decimal) -> Decimal:
        """Return the least equity that breaks no limit, once the peak is `peak`."""
        return max(self._least(limit, peak) for limit in LossLimit)

    def _least(self, limit: LossLimit, peak: Decimal) -> Decimal:
        start = self.day_start if limit is LossLimit.DAILY_LOSS else peak
        with localcontext(prec=_EXACT_DIGITS):
            return start - self.limits.of(limit) * max(start, _ZERO)

    def reasons(self) -> tuple[Reason, ...]:
        """Return every limit with what is measured against it, in percent."""
        return tuple(
            Reason(
                check=f"{limit}_percent",
                value=self.daily_loss_percent
                if limit is LossLimit.DAILY_LOSS
                else self.drawdown_percent,
                limit=float(100 * self.limits.of(limit)),
                # Exact, where percentages in floating point could not tell a hundred-millionth.
                verdict=Verdict.FAIL if self.is_broken(limit) else Verdict.PASS,
            )
            for limit in LossLimit
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A loss limit that asks for the kill switch, with everything measured at that moment."""

    limit: LossLimit
    reasons: tuple[Reason, ...]

    @property
    def text(self) -> str:
        """The breach in words, for the event of the kill switch."""
        reason = next(r for r in self.reasons if r.check == f"{self.limit}_percent")
        named = self.limit.value.replace("_", " ")
        return f"{named} of {reason.value:.6g} % exceeds its limit of {reason.limit:g} %"


def folded(
    start: AccountEquity, changes: Iterable[MoneyChange], *, day: date
) -> tuple[AccountEquity, list[Breach]]:
    """Fold changes in the order they arrived; how they were batched makes no difference."""
    state, breaches, left = start, list[Breach](), deque(changes)
    while left:
        if not state.lows:
            state = _undisturbed(state.on(day), left)
        if left:
            state, found = state.after(left.popleft(), day=day)
            breaches += found
    return state, breaches


def _undisturbed(held: AccountEquity, left: deque[MoneyChange]) -> AccountEquity:
    """Take changes from the left as long as they break no limit, and return what `after` would.

    Nearly all changes are such, and a state of its own for each would be most of their cost.
    """
    realised, unrealised, peak = held.realised, held.unrealised, held.peak
    with localcontext(prec=_EXACT_DIGITS):
        least = held.least(peak)
        while left:
            banked = realised + left[0].realised
            marked = unrealised + left[0].unrealised
            equity = held.capital + banked + marked
            if equity > peak:
                least = held.least(equity)
            if equity < least:
                break
            realised, unrealised, peak = banked, marked, max(peak, equity)
            left.popleft()
    return replace(held, realised=realised, unrealised=unrealised, peak=peak)


def is_news(limit: LossLimit, newest: KillEvent | None, *, day: date) -> bool:
    """Say whether a limit that speaks is another event for an account whose newest event this is.

    A killed account is not killed again by each further loss. But a drawdown is written over any
    other cause, which could end sooner; and the loss of a later day over that of an earlier one,
    so that the end of the earlier day does not release both.
    """
    if newest is None or newest.kind is KillKind.RELEASE:
        return True
    if limit.cause is KillCause.DAILY_LOSS:
        return newest.cause is KillCause.DAILY_LOSS and newest.at.date() < day
    return newest.cause is not KillCause.DRAWDOWN


def _percent(part: Decimal, whole: Decimal) -> float:
    if whole <= 0:
        return 100.0 if part > 0 else 0.0
    return float(100 * part / whole)
