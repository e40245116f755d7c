"""The performance guard follows the documents' table, ends by itself, and does not flap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from bandit.core.guard_rule import GuardRule, GuardState
from bandit.core.model import Verdict
from bandit.core.performance_guard import Guard, GuardChange, GuardTrade, folded

NORMAL, REDUCED, PAUSED = GuardState
RULE = GuardRule()


@dataclass
class Oracle:
    """The documents' table read aloud, in fractions, from the whole history at every trade."""

    history: list[tuple[Fraction, Fraction]] = field(default_factory=list)
    state: GuardState = NORMAL
    since: int = 0

    def see(self, pnl: Decimal, equity: Decimal) -> GuardState:
        self.history.append((Fraction(pnl), Fraction(equity)))
        self.since += 1
        window = self.history[-10:]
        n, wins = len(window), sum(pnl > 0 for pnl, _ in window)
        streak = 0
        while streak < len(self.history) and self.history[-1 - streak][0] < 0:
            streak += 1
        curve = [Fraction(1)]
        for earned, before in window:
            grown = 1 + earned / before if before > 0 else Fraction(0)
            curve.append(curve[-1] * max(grown, Fraction(0)))
        drawdown = max(1 - curve[j] / max(curve[: j + 1]) for j in range(len(curve)))
        tells = n >= 5
        reduced = (tells and 100 * wins < 40 * n) or streak >= 5 or 100 * drawdown > 5
        paused = (tells and 100 * wins < 30 * n) or streak >= 10 or 100 * drawdown > 10
        recovers = tells and 100 * wins >= 45 * n and 100 * drawdown < 5 and self.since >= 5
        before = self.state
        if paused:
            self.state = PAUSED
        elif reduced and self.state is NORMAL:
            self.state = REDUCED
        elif recovers and not reduced:
            self.state = NORMAL
        if self.state is not before:
            self.since = 0
        return self.state


def states(trades: Sequence[GuardTrade]) -> list[GuardState]:
    """The state after every trade, each told by itself."""
    guard, found = Guard(rule=RULE), []
    for trade in trades:
        guard, _ = folded(guard, [trade])
        found.append(guard.state)
    return found


def told(trades: Sequence[GuardTrade]) -> list[GuardState]:
    oracle = Oracle()
    return [oracle.see(*trade) for trade in trades]


def of(*results: str, equity: str = "1000") -> list[GuardTrade]:
    return [GuardTrade(Decimal(result), Decimal(equity)) for result in results]


# Around every limit: losses that make a drawdown of exactly 5 and 10 percent, at once or in two.
PNL = st.sampled_from(
    [
        "-1000",
        "-101",
        "-100.00000001",
        "-100",
        "-99.99999999",
        "-52.5",
        "-50.00000001",
        "-50",
        "-49.99999999",
        "-26",
        "-25",
        "-0.00000001",
        "0",
        "0.00000001",
        "1",
        "25",
        "50",
        "60",
        "1000",
    ]
)
TRADES = st.lists(
    st.builds(
        lambda pnl, equity: GuardTrade(Decimal(pnl), Decimal(equity)),
        PNL,
        st.sampled_from(["1000", "1000", "1000", "2000", "950", "0.00000001", "0", "-5"]),
    ),
    max_size=60,
)


def test_every_history_of_twelve_wins_losses_and_ties_follows_the_table() -> None:
    one = {
        "w": GuardTrade(Decimal(1), Decimal(10_000)),
        "l": GuardTrade(Decimal(-1), Decimal(10_000)),
    }
    for history in product("wl", repeat=12):
        trades = [one[result] for result in history]
        assert states(trades) == told(trades), history


@given(TRADES)
def test_every_history_follows_the_table(trades: list[GuardTrade]) -> None:
    assert states(trades) == told(trades)


@given(TRADES, st.lists(st.integers(min_value=1, max_value=9), min_size=1, max_size=60))
def test_batches_make_no_difference(trades: list[GuardTrade], sizes: list[int]) -> None:
    whole, changes = folded(Guard(rule=RULE), trades)
    guard, found, left = Guard(rule=RULE), list[GuardChange](), list(trades)
    for size in sizes * 60:
        guard, some = folded(guard, left[:size])
        found, left = found + some, left[size:]
    assert (guard, found) == (whole, changes)


@given(TRADES)
def test_changes_are_a_chain_with_reasons_that_hold(trades: list[GuardTrade]) -> None:
    guard, changes = folded(Guard(rule=RULE), trades)
    at = NORMAL
    for change in changes:
        assert change.before is at is not change.after
        verdicts = {reason.verdict for reason in change.reasons}
        if change.after is NORMAL:
            assert verdicts == {Verdict.PASS}, "no recovery skips a condition"
        else:
            assert change.after.severity > change.before.severity, "only recovery loosens"
            assert Verdict.FAIL in verdicts
        at = change.after
    assert guard.state is at


@given(TRADES, st.decimals(min_value="0.01", max_value="1000", places=2))
def test_a_winning_run_ends_every_state(trades: list[GuardTrade], won: Decimal) -> None:
    guard, _ = folded(Guard(rule=RULE), trades)
    guard, _ = folded(guard, [GuardTrade(won, Decimal(1000))] * 10)
    assert guard.state is NORMAL


@given(TRADES, st.lists(st.sampled_from(["0.01", "5", "1000"]), max_size=25))
def test_only_a_trade_that_did_not_win_tightens_after_a_recovery(
    trades: list[GuardTrade], wins: list[str]
) -> None:
    guard = Guard(rule=RULE)
    for trade in trades:
        guard, changes = folded(guard, [trade])
        if changes and changes[0].after is NORMAL:
            assert states_from(guard, wins) == {NORMAL}


def states_from(guard: Guard, wins: Sequence[str]) -> set[GuardState]:
    found = {guard.state}
    for won in wins:
        guard, _ = folded(guard, of(won))
        found.add(guard.state)
    return found


@given(TRADES)
def test_guard_that_is_off_stays_normal(trades: list[GuardTrade]) -> None:
    off = Guard(rule=GuardRule(enabled=False))
    assert folded(off, trades) == (off, [])


@given(st.lists(PNL, max_size=40).map(lambda found: [p for p in found if p != "-1000"]))
def test_window_without_deposits_is_the_equity_path(results: list[str]) -> None:
    equity, path, trades = Decimal(10_000), [Decimal(10_000)], []
    for result in results:
        trades.append(GuardTrade(Decimal(result), equity))
        equity += Decimal(result)
        path.append(equity)
    guard, _ = folded(Guard(rule=RULE), trades)
    newest = path[-11:]
    falls = [1 - newest[j] / max(newest[: j + 1]) for j in range(len(newest))]
    assert abs(guard.measured.drawdown - float(max(falls))) < 1e-12
