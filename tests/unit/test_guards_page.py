"""What docs/guards.md says of chance is worked out here, for every history of the window."""

from __future__ import annotations

import re
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from bandit.core.guard_rule import GuardRule, GuardState
from bandit.core.performance_guard import Guard, GuardTrade, folded

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guards.md").read_text(encoding="utf-8")
RULE = GuardRule()
# So small that no drawdown speaks.
RESULTS = {won: GuardTrade(Decimal(1 if won else -1), Decimal(10**6)) for won in (True, False)}
RATES = (0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70)


class Place(NamedTuple):
    """All that the next trade depends on: the window, the state, and how long it has stood."""

    window: tuple[bool, ...]
    state: GuardState
    since: int

    def after(self, won: bool) -> Place:
        lost = next((i for i, w in enumerate(reversed(self.window)) if w), len(self.window))
        held = Guard(
            rule=RULE,
            state=self.state,
            trades=tuple(RESULTS[w] for w in self.window),
            losing_streak=lost,
            trades_since=self.since,
        )
        guard, _ = folded(held, [RESULTS[won]])
        return Place(
            tuple(trade.pnl > 0 for trade in guard.trades),
            guard.state,
            min(guard.trades_since, RULE.recovery_trades),
        )


@cache
def chain() -> tuple[list[Place], NDArray[np.int64]]:
    """Every place a guard can come to, and where a win and a loss lead from it."""
    places, leads = [Place((), GuardState.NORMAL, 0)], list[tuple[int, int]]()
    known = {places[0]: 0}
    for place in places:  # grows while it is read
        for following in (place.after(True), place.after(False)):
            if following not in known:
                known[following] = len(places)
                places.append(following)
        leads.append((known[place.after(True)], known[place.after(False)]))
    return places, np.array(leads)


def moved(shares: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    _, leads = chain()
    won = np.bincount(leads[:, 0], weights=rate * shares, minlength=len(shares))
    return won + np.bincount(leads[:, 1], weights=(1 - rate) * shares, minlength=len(shares))


def in_the_long_run(rate: float) -> dict[GuardState, float]:
    """Share of trades that find a guard in each state, a year of trades after it began."""
    places, leads = chain()
    shares = np.zeros(len(leads))
    shares[0] = 1.0
    for _ in range(5000):
        shares = moved(shares, rate)
    of = np.array([list(GuardState).index(place.state) for place in places])
    return {state: float(shares[of == i].sum()) for i, state in enumerate(GuardState)}


def leaves_normal_within(trades: int, rate: float) -> float:
    """Chance that a guard that begins is not NORMAL throughout."""
    places, leads = chain()
    normal = np.array([place.state is GuardState.NORMAL for place in places])
    shares = np.zeros(len(leads))
    shares[0] = 1.0
    for _ in range(trades):
        shares = moved(shares, rate) * normal
    return 1.0 - float(shares.sum())


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


@pytest.mark.parametrize("rate", RATES)
def test_the_page_says_how_often_chance_alone_reduces_and_pauses(rate: float) -> None:
    found = in_the_long_run(rate)
    assert abs(sum(found.values()) - 1) < 1e-9
    row = f"| {rate:.0%} | " + " | ".join(percent(found[state]) for state in GuardState)
    first = " | ".join(percent(leaves_normal_within(n, rate)) for n in (10, 50))
    assert f"{row} | {first} |" in PAGE, f"{row} | {first} |"


def test_the_page_has_no_other_rows() -> None:
    assert len(re.findall(r"^\| \d+% \|", PAGE, re.MULTILINE)) == len(RATES)


def test_every_place_leads_back_to_normal() -> None:
    places, leads = chain()
    # By wins alone, ten of them.
    for start in range(len(places)):
        at = start
        for _ in range(10):
            at = leads[at, 0]
        assert places[at].state is GuardState.NORMAL
