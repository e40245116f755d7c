"""The performance guard: who does badly trades smaller, then only on paper (SPEC F5).

A guard watches one scope, an experiment or an account, and reads its newest trades in the order in
which they arrived. Triggers only ever tighten it; only recovery ends what they began.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import Final, NamedTuple, TypeVar

from bandit.core.guard_rule import GuardRule, GuardState
from bandit.core.model import Verdict
from bandit.core.verdicts import Reason

# Far more than floats can err over a window, far less than two drawdowns of money usually differ.
_DOUBTFUL: Final = 1e-9

_Number = TypeVar("_Number", float, Fraction)


class GuardTrade(NamedTuple):
    """One trade: what it earned, and what its account stood at before, capital and all realised."""

    pnl: Decimal
    equity_before: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardChange:
    """A change of state with every check that was made of it."""

    before: GuardState
    after: GuardState
    reasons: tuple[Reason, ...]

    @property
    def text(self) -> str:
        """The change in words: what broke its limit, or that all of recovery was met."""
        broken = [r for r in self.reasons if r.verdict is Verdict.FAIL]
        return ", ".join(_said(reason) for reason in broken or self.reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """Where a guard stands: all that the next trade needs.

    `trades` are the newest of its window, oldest first. `losing_streak` counts the losses in a row
    that ended last, however long ago they began; `trades_since` what came in since its state was
    entered.

    >>> lost = [GuardTrade(Decimal(-10), Decimal(10_000))] * 5
    >>> guard, changes = folded(Guard(rule=GuardRule()), lost)
    >>> guard.state.value, [change.text for change in changes]
    ('PAUSED', ['win_rate_percent 0 under 30'])
    """

    rule: GuardRule
    state: GuardState = GuardState.NORMAL
    trades: tuple[GuardTrade, ...] = ()
    losing_streak: int = 0
    trades_since: int = 0

    def anew(self) -> Guard:
        """Return the guard as it began: NORMAL, with an empty window."""
        return Guard(rule=self.rule)

    @property
    def measured(self) -> Measured:
        """What its window says."""
        return Measured(self.trades, self.losing_streak, self.rule)

    def reasons(self) -> tuple[Reason, ...]:
        """Return what may tighten it next, and where it is not NORMAL, what must be met to end it.

        PAUSED is the tightest: only what ends it is told.
        """
        found, state = self.measured, self.state
        if state is GuardState.NORMAL:
            return found.triggers(GuardState.REDUCED)
        tighter = found.triggers(GuardState.PAUSED) if state is GuardState.REDUCED else ()
        return (*tighter, *found.recovery(self.trades_since))


class Measured:
    """A window of trades held against a rule, exactly at every limit; it moves on with `add`."""

    __slots__ = ("_factors", "_limits", "_n", "_rule", "_trades", "_wins", "streak")

    def __init__(self, trades: Iterable[GuardTrade], streak: int, rule: GuardRule) -> None:
        """Begin with the newest trades, oldest first, and the losses in a row that ended last."""
        self._rule = rule
        self._limits = _limits_of(rule)
        self._trades = deque(trades, rule.window)
        self._factors = deque(map(_factor, self._trades), rule.window)
        self._n = len(self._trades)
        self._wins = sum(trade.pnl > 0 for trade in self._trades)
        self.streak = streak

    def add(self, trade: GuardTrade) -> bool:
        """Take the next trade; False where it cannot have tightened anything that held before.

        A win takes no win from the window, ends every streak and deepens no fall: what was not
        triggered before it is not after it. But the first win rate that tells may be a low one.
        """
        told = self._n >= self._rule.recovery_trades
        if self._n == self._rule.window:
            self._wins -= self._trades[0].pnl > 0
        else:
            self._n += 1
        self._trades.append(trade)
        self._factors.append(_factor(trade))
        if trade.pnl > 0:
            self._wins += 1
            self.streak = 0
            return not told or trade.equity_before <= 0
        self.streak = self.streak + 1 if trade.pnl < 0 else 0
        return True

    @property
    def trades(self) -> tuple[GuardTrade, ...]:
        """The trades of the window, oldest first."""
        return tuple(self._trades)

    @property
    def drawdown(self) -> float:
        """The largest fall of the window from a running peak, as a fraction of that peak."""
        return 1.0 - _low(self._factors, 1.0)

    @property
    def win_rate(self) -> float | None:
        """Wins over all trades of the window; None while they are too few to tell."""
        return self._wins / self._n if self._n >= self._rule.recovery_trades else None

    def target(self) -> GuardState:
        """Return the state that the triggers ask for."""
        low = _low(self._factors, 1.0)
        if self._is_triggered(self._limits.paused, low):
            return GuardState.PAUSED
        triggered = self._is_triggered(self._limits.reduced, low)
        return GuardState.REDUCED if triggered else GuardState.NORMAL

    def recovers(self, trades_since: int) -> bool:
        """Say whether everything that ends a state is met, and nothing would begin one at once."""
        limits, least = self._limits, self._rule.recovery_trades
        if trades_since < least or self._n < least or self._wins < limits.recovery_wins[self._n]:
            return False
        low = _low(self._factors, 1.0)
        is_deep = self._against(limits.recovery_low, low) <= 0
        return not is_deep and not self._is_triggered(limits.reduced, low)

    def triggers(self, state: GuardState) -> tuple[Reason, ...]:
        """Return every check that may lead to `state`; a FAIL does."""
        rule, limits, low = self._rule, self._limits.of(state), _low(self._factors, 1.0)
        is_paused = state is GuardState.PAUSED
        win_rate = rule.win_rate_paused if is_paused else rule.win_rate_reduced
        drawdown = rule.drawdown_paused if is_paused else rule.drawdown_reduced
        holds = self._against(limits.low, low) >= 0
        return (
            self._win_rate("win_rate_percent", win_rate, limits.wins),
            _reason("losing_streak", self.streak, limits.streak, self.streak < limits.streak),
            _reason("drawdown_percent", 100 * (1.0 - low), 100 * drawdown, holds),
        )

    def recovery(self, trades_since: int) -> tuple[Reason, ...]:
        """Return every condition of recovery; it takes a PASS of all.

        Win rate and drawdown that recover trigger nothing; the losing streak has to say so itself.
        """
        rule, low = self._rule, _low(self._factors, 1.0)
        wins, streak = self._limits.recovery_wins, rule.losing_streak_reduced
        is_shallow = self._against(self._limits.recovery_low, low) > 0
        least, enough = rule.recovery_trades, trades_since >= rule.recovery_trades
        fall, most = 100 * (1.0 - low), 100 * rule.recovery_drawdown
        return (
            self._win_rate("recovery_win_rate_percent", rule.recovery_win_rate, wins),
            _reason("recovery_drawdown_percent", fall, most, is_shallow),
            _reason("recovery_trades", trades_since, least, enough),
            _reason("recovery_losing_streak", self.streak, streak, self.streak < streak),
        )

    def _win_rate(self, check: str, limit: float, wins: Sequence[int]) -> Reason:
        value = self.win_rate
        if value is None:
            note = f"{self._n} of {self._rule.recovery_trades} trades"
            verdict = Verdict.INCONCLUSIVE
            return Reason(
                check=check, value=None, limit=round(100 * limit, 9), verdict=verdict, note=note
            )
        return _reason(check, 100 * value, 100 * limit, self._wins >= wins[self._n])

    def _is_triggered(self, limits: _Triggers, low: float) -> bool:
        return (
            self._wins < limits.wins[self._n]
            or self.streak >= limits.streak
            or self._against(limits.low, low) < 0
        )

    def _against(self, bound: _Bound, low: float) -> int:
        """Return the sign of the lowest point less `bound`, exact where floats could err."""
        if abs(low - bound.number) > _DOUBTFUL:
            return 1 if low > bound.number else -1
        exact = _low(map(_exact_factor, self._trades), Fraction(1))
        return (exact > bound.exact) - (exact < bound.exact)


def folded(start: Guard, trades: Iterable[GuardTrade]) -> tuple[Guard, list[GuardChange]]:
    """Fold trades in the order they arrived; how they were batched makes no difference.

    A guard that is not enabled reads none and stays as it is.
    """
    if not start.rule.enabled:
        return start, []
    state, since, changes = start.state, start.trades_since, list[GuardChange]()
    found = start.measured
    for trade in trades:
        since += 1
        may_tighten = found.add(trade)
        if state is GuardState.NORMAL and not may_tighten:
            continue
        change = _change(state, found, since)
        if change is not None:
            changes.append(change)
            state, since = change.after, 0
    moved = replace(
        start, state=state, trades=found.trades, losing_streak=found.streak, trades_since=since
    )
    return moved, changes


def _change(state: GuardState, found: Measured, since: int) -> GuardChange | None:
    target = found.target()
    if target.severity > state.severity:
        return GuardChange(before=state, after=target, reasons=found.triggers(target))
    if state is GuardState.NORMAL or not found.recovers(since):
        return None
    return GuardChange(before=state, after=GuardState.NORMAL, reasons=found.recovery(since))


def _low(factors: Iterable[_Number], one: _Number) -> _Number:
    """Return the lowest that a product of factors gets, as a share of its running peak."""
    share = low = one
    for factor in factors:
        share *= factor
        if share > one:
            share = one
        elif share < low:
            low = share
    return low


def _factor(trade: GuardTrade) -> float:
    """Return what a trade multiplies its equity by; nothing is left of what is lost whole."""
    if trade.equity_before <= 0:
        return 0.0
    return max(0.0, 1.0 + float(trade.pnl) / float(trade.equity_before))


def _exact_factor(trade: GuardTrade) -> Fraction:
    if trade.equity_before <= 0:
        return Fraction(0)
    return max(Fraction(0), 1 + Fraction(trade.pnl) / Fraction(trade.equity_before))


class _Bound(NamedTuple):
    """The lowest point at which a drawdown is exactly at its limit."""

    number: float
    exact: Fraction

    @classmethod
    def of(cls, drawdown: float) -> _Bound:
        # By way of text: 0.05 is exact there, and as a float it is not.
        exact = 1 - Fraction(str(drawdown))
        return cls(float(exact), exact)


class _Triggers(NamedTuple):
    """What leads to one state: fewer wins of n trades, as many losses in a row, a lower point."""

    wins: tuple[int, ...]
    streak: int
    low: _Bound


class _Limits(NamedTuple):
    reduced: _Triggers
    paused: _Triggers
    recovery_wins: tuple[int, ...]
    recovery_low: _Bound

    def of(self, state: GuardState) -> _Triggers:
        return self.paused if state is GuardState.PAUSED else self.reduced


@lru_cache(maxsize=64)
def _limits_of(rule: GuardRule) -> _Limits:
    def wins(rate: float) -> tuple[int, ...]:
        # Whole numbers are below rate * n just where they are below the next whole number.
        return tuple(
            ceil(Fraction(str(rate)) * n) if n >= rule.recovery_trades else 0
            for n in range(rule.window + 1)
        )

    return _Limits(
        _Triggers(
            wins(rule.win_rate_reduced),
            rule.losing_streak_reduced,
            _Bound.of(rule.drawdown_reduced),
        ),
        _Triggers(
            wins(rule.win_rate_paused), rule.losing_streak_paused, _Bound.of(rule.drawdown_paused)
        ),
        wins(rule.recovery_win_rate),
        _Bound.of(rule.recovery_drawdown),
    )


def _reason(check: str, value: float, limit: float, holds: bool) -> Reason:
    verdict = Verdict.PASS if holds else Verdict.FAIL
    # 100 times a float: its last digit says nothing.
    return Reason(check=check, value=round(value, 9), limit=round(limit, 9), verdict=verdict)


def _said(reason: Reason) -> str:
    value = "unknown" if reason.value is None else f"{reason.value:.6g}"
    return f"{reason.check} {value} {_RELATIONS[reason.check]} {reason.limit:g}"


_RELATIONS: Final = {
    "win_rate_percent": "under",
    "losing_streak": "of at least",
    "drawdown_percent": "over",
    "recovery_win_rate_percent": "of at least",
    "recovery_drawdown_percent": "under",
    "recovery_trades": "of at least",
    "recovery_losing_streak": "under",
}
