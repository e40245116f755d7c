"""Where the performance guard draws its lines, worked out by hand."""

from __future__ import annotations

from decimal import Decimal

import pytest

from bandit.core.errors import InvalidInput
from bandit.core.guard_rule import GuardRule, GuardState
from bandit.core.performance_guard import Guard, GuardTrade, folded

NORMAL, REDUCED, PAUSED = GuardState
BEGUN = Guard(rule=GuardRule())
EQUITY = Decimal(1000)


def seen(results: str, guard: Guard = BEGUN, *, size: str = "1") -> Guard:
    """Wins, losses and ties of one size each, of an equity of a thousand."""
    sizes = {"w": Decimal(size), "l": -Decimal(size), "0": Decimal(0)}
    return folded(guard, [GuardTrade(sizes[result], EQUITY) for result in results])[0]


def fallen(*results: str) -> Guard:
    return folded(BEGUN, [GuardTrade(Decimal(result), EQUITY) for result in results])[0]


@pytest.mark.parametrize(
    ("results", "state"),
    [
        ("llll", NORMAL),  # four trades tell no win rate
        ("wwlll", NORMAL),  # two of five: 40 percent exactly
        ("wllll", PAUSED),  # one of five
        ("wwwwlllll", REDUCED),  # four of nine, but the fifth loss in a row
        ("wwlwlwlllw", NORMAL),  # five of ten
        ("lwwllwwlll", NORMAL),  # four of ten: 40 percent exactly
        ("lwlwlwllwwlll", REDUCED),  # from the newest ten on: lwllwwlll and one before
        ("wwwlllllll", REDUCED),  # three of ten are 30 percent exactly, not under it
        ("0000w", PAUSED),  # what earned nothing is no win
    ],
)
def test_win_rate_and_streak(results: str, state: GuardState) -> None:
    assert seen(results).state is state


@pytest.mark.parametrize(
    ("results", "state"),
    [
        (["-50"], NORMAL),
        (["-50.00000001"], REDUCED),
        (["-100"], REDUCED),
        (["-100.00000001"], PAUSED),
        # One after another they compound: 0.95 * 0.95 is 0.9025, and 9.75 percent are lost.
        (["-50", "-50"], REDUCED),
        # From a peak in the middle: 1.1 * 0.95 is 5 percent under 1.1.
        (["100", "-50"], NORMAL),
        (["100", "-50.00000001"], REDUCED),
        # A third twice leaves 4/9; floats could not tell its limits from their neighbours.
        (["100", "-1"] * 4, NORMAL),
    ],
)
def test_drawdown_is_of_the_windows_own_peak_and_exact(
    results: list[str], state: GuardState
) -> None:
    assert fallen(*results).state is state


def test_streak_outlives_the_window() -> None:
    rule = GuardRule(window=5, win_rate_paused=0, win_rate_reduced=0, recovery_win_rate=0)
    guard = seen("llllllllll", Guard(rule=rule))
    assert (guard.losing_streak, len(guard.trades), guard.state) == (10, 5, PAUSED)
    # What earned nothing lost nothing either.
    assert seen("llll0llll", Guard(rule=rule)).state is NORMAL


def test_recovery_takes_five_trades_half_of_ten_won_and_a_shallow_fall() -> None:
    paused = seen("wllll")
    assert paused.state is PAUSED
    # After four wins five of nine are won, but only four trades came in.
    assert seen("wwww", paused).state is PAUSED
    assert seen("wwwww", paused).state is NORMAL
    # Four wins and a loss: of the newest ten five are won.
    assert seen("wwwwl", paused).state is NORMAL
    assert seen("wwwll", paused).state is PAUSED
    # One fall of 5 percent in the window, and not less.
    assert seen("wwwww", seen("l", paused, size="50")).state is PAUSED


def test_recovery_from_paused_leads_to_normal_and_not_to_reduced() -> None:
    changes = folded(seen("wllll"), [GuardTrade(Decimal(1), EQUITY)] * 5)[1]
    assert [(change.before, change.after) for change in changes] == [(PAUSED, NORMAL)]
    assert changes[0].text == (
        "recovery_win_rate_percent 60 of at least 45, recovery_drawdown_percent 0.3994 under 5, "
        "recovery_trades 5 of at least 5, recovery_losing_streak 0 under 5"
    )


def test_equity_that_is_gone_is_a_total_loss_whatever_a_trade_earned() -> None:
    gone, _ = folded(BEGUN, [GuardTrade(Decimal(5), Decimal(0))])
    assert (gone.state, gone.measured.drawdown) == (PAUSED, 1.0)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"window": 0}, "window"),
        ({"window": 201}, "window"),
        ({"win_rate_paused": 0.5}, "win_rate_paused"),
        ({"win_rate_reduced": 0.46}, "win_rate_reduced"),
        ({"recovery_drawdown": 0.0}, "recovery_drawdown"),
        ({"recovery_drawdown": 0.06}, "recovery_drawdown"),
        ({"drawdown_reduced": 0.11}, "drawdown_reduced"),
        ({"losing_streak_reduced": 11}, "losing_streak_reduced"),
        ({"losing_streak_reduced": 0}, "losing_streak_reduced"),
        ({"recovery_trades": 11}, "recovery_trades"),
        ({"size_multiplier": 1.1}, "size_multiplier"),
        ({"confidence_bump": float("nan")}, "confidence_bump"),
    ],
)
def test_rule_that_could_pause_for_ever_is_refused(given: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        GuardRule(**given)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_reasons_say_what_is_next() -> None:
    names = [[r.check for r in seen(results).reasons()] for results in ("w", "wwwlllll", "wllll")]
    triggers = ["win_rate_percent", "losing_streak", "drawdown_percent"]
    recovery = [
        "recovery_win_rate_percent",
        "recovery_drawdown_percent",
        "recovery_trades",
        "recovery_losing_streak",
    ]
    assert names == [triggers, triggers + recovery, recovery]
