"""The bounds of the marked drawdown hold what really happened, whenever positions stood worst."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from bandit.core.marked_equity import HeldPosition, marked_drawdown

START = datetime(2026, 1, 1, tzinfo=UTC)
CAPITAL = 1000.0
# Rounding of sums of at most a dozen amounts below 100 on a capital of 1000.
TOLERANCE = 1e-9


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[HeldPosition, float]]:
    """Positions that live one day or longer, and the day and a half each stood worst at."""
    history = []
    for _ in range(draw(st.integers(0, 12))):
        opened = draw(st.integers(0, 20))
        days = draw(st.integers(1, 10))
        position = HeldPosition(
            opened_at=START + timedelta(days=opened),
            closed_at=START + timedelta(days=opened + days),
            result=draw(st.floats(-90, 90)),
            worst=draw(st.floats(-90, 0)),
        )
        history.append((position, opened + draw(st.integers(0, days - 1)) + 0.5))
    return history


def true_drawdown(history: list[tuple[HeldPosition, float]]) -> float:
    """At its moment each position stands worst; before and after it is worth what it cost."""
    closings = [((p.closed_at - START).days, p.result, 0.0) for p, _ in history]
    worsts = [
        (moment, 0.0, sum(p.worst for p, at in history if at == moment))
        for moment in {at for _, at in history}
    ]
    equity = peak = CAPITAL
    deepest = 0.0
    for _, result, worst in sorted(closings + worsts, key=lambda step: step[0]):
        equity += result
        peak = max(peak, equity)
        deepest = max(deepest, 100.0 * (peak - equity - worst) / peak)
    return deepest


@settings(deadline=None, max_examples=500)
@given(histories())
def test_truth_lies_between_the_bounds(history: list[tuple[HeldPosition, float]]) -> None:
    bounds = marked_drawdown([p for p, _ in history], starting_capital=CAPITAL)
    truth = true_drawdown(history)
    assert bounds.low_percent <= truth + TOLERANCE
    assert truth <= bounds.high_percent + TOLERANCE
