"""What a challenger may cost is set aside first; then the budget holds in every order of things."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit.core.errors import InvalidInput
from bandit.core.exploration import ExplorationBudget, Explored, Reservation, expected_of

money = st.decimals(min_value="0.01", max_value=1000, places=2)
CENT = Decimal("0.01")


def budget(amount: object = 100, at_risk: object = 20, expected: object = 1) -> ExplorationBudget:
    return ExplorationBudget(
        amount=Decimal(str(amount)), at_risk=Decimal(str(at_risk)), expected=Decimal(str(expected))
    )


def test_decision_takes_its_charge_and_its_outcome_gives_it_back() -> None:
    kept = budget().reservation
    after = Explored.opened(kept)
    assert (after.n_open, after.reserved, after.spent) == (1, 21, 0)
    after += Explored.told(kept, Decimal(5))
    assert (after.n_open, after.reserved, after.spent) == (0, 0, -4)
    after += Explored.corrected(before=Decimal(5), after=Decimal(-20))
    assert after.spent == 21


def test_room_counts_whole_charges_and_is_never_negative() -> None:
    assert budget().room(Explored()) == 4
    assert budget().room(Explored(spent=Decimal(80))) == 0
    assert budget().room(Explored(spent=Decimal(500))) == 0
    assert budget().left(Explored(spent=Decimal(500))) == -400


def test_batch_is_admitted_as_a_whole_or_not() -> None:
    assert budget().admits(4, Explored())
    assert not budget().admits(5, Explored())
    # What is not drawn costs nothing, even when all is gone: the champion and open positions go on.
    assert budget().admits(0, Explored(spent=Decimal(500)))
    assert not budget().admits(1, Explored(spent=Decimal(500)))


def test_champion_that_loses_expects_nothing() -> None:
    assert expected_of(Decimal(-5), 10) == 0
    assert expected_of(Decimal(0), 0) == 0
    assert expected_of(Decimal("0.00000001"), 3) == Decimal("0.00000001")  # never rounded to less


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": "NaN"}, "amount"),
        ({"amount": "0.000000001"}, "amount"),
        ({"at_risk": 0}, "at_risk"),
        ({"expected": -1}, "expected"),
    ],
)
def test_budget_that_means_nothing_is_refused(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput, match=rf"^{field}: "):
        budget(**changes)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[ExplorationBudget, list[tuple[str, int, Decimal]]]:
    at_risk = draw(money)
    made = ExplorationBudget(
        amount=at_risk + draw(money), at_risk=at_risk, expected=draw(st.sampled_from([0, 1])) * CENT
    )
    # How much of what is at risk is lost, in hundredths; gains are negative.
    lost = st.integers(-300, 100).map(lambda part: (part * at_risk / 100).quantize(CENT) - CENT)
    steps = st.tuples(
        st.sampled_from(["batch", "tell", "correct", "expect"]), st.integers(0, 40), lost
    )
    return made, draw(st.lists(steps, max_size=60))


@given(schedules())
def test_what_is_spent_and_set_aside_never_passes_the_budget(
    schedule: tuple[ExplorationBudget, list[tuple[str, int, Decimal]]],
) -> None:
    made, steps = schedule
    explored, opened, settled, raised = Explored(), list[Reservation](), list[Decimal](), Decimal(0)
    for what, number, lost in steps:
        if what == "batch" and made.admits(number, explored):
            # Chance decides who of the batch is a challenger.
            mine = number // 2
            opened += [made.reservation] * mine
            explored = sum([Explored.opened(made.reservation)] * mine, explored)
        elif what == "tell" and opened:
            kept = opened.pop(number % len(opened))
            pnl = -min(lost, kept.at_risk)
            explored += Explored.told(kept, pnl)
            settled.append(pnl)
        elif what == "correct" and settled:
            before = settled.pop(number % len(settled))
            settled.append(-lost)
            explored += Explored.corrected(before=before, after=-lost)
            raised += max(Decimal(0), before + lost)
        elif what == "expect":
            made = budget(made.amount, made.at_risk, number * CENT)
        # Only what corrections added may pass it.
        assert explored.reserved >= 0
        assert explored.spent + explored.reserved <= made.amount + raised
        assert explored.n_open == len(opened)
        assert explored.reserved == sum((kept.charge for kept in opened), Decimal(0))
