"""Whatever a trade log holds, the gates answer, and deeper positions never help."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import event, given, settings
from hypothesis import strategies as st

from bandit.core.errors import InvalidInput
from bandit.core.gates import STANDARD, Judgement, judge
from bandit.core.model import Verdict
from liveops.connectors.trade_logs import LoggedTrade
from liveops.gates import Candidate, baseline_of, performance_of

START = datetime(2026, 1, 1, tzinfo=UTC)
unhurried = settings(deadline=None, max_examples=100)
amounts = st.decimals(-(10**15), 10**15, places=8) | st.decimals(-50, 50, places=2)


@st.composite
def candidates(draw: st.DrawFn) -> Candidate:
    trades = []
    for row in range(draw(st.integers(0, 20))):
        opened = START + timedelta(hours=12 * row + draw(st.integers(0, 24)))
        trades.append(
            LoggedTrade(
                row=row,
                closed_at=opened + timedelta(hours=draw(st.integers(0, 48))),
                opened_at=draw(st.sampled_from([opened, opened, opened, None])),
                pnl=draw(amounts),
                entry_value=draw(st.none() | st.decimals("1e-8", 10**15, places=8)),
                worst_excursion=draw(st.none() | st.floats(0, 1e16) | st.floats(0, 0.3)),
                forced_exit=draw(st.booleans()),
            )
        )
    capital = draw(st.none() | st.decimals("1e-8", 10**15, places=8))
    ordered = sorted(trades, key=lambda trade: (trade.closed_at, trade.row))
    return Candidate(trades=tuple(ordered), starting_capital=capital)


@unhurried
@given(candidates(), candidates())
def test_any_log_is_judged_or_refused_as_input(candidate: Candidate, rival: Candidate) -> None:
    try:
        baseline = baseline_of(rival, candidate)
        judgement = judge(performance_of(candidate), STANDARD, baseline)
    except InvalidInput as refused:
        event(f"refused: {refused.field}")
        return
    json.dumps(judgement.to_json(), allow_nan=False)
    unknown = [reason for reason in judgement.reasons if reason.value is None]
    assert {reason.verdict for reason in unknown} <= {Verdict.INCONCLUSIVE}
    assert [reason.check for reason in unknown if not reason.note] == []


def steady() -> Candidate:
    """Sixty days of two winners and two losers a day, every loser worth half of a winner."""
    trades = []
    for row in range(240):
        opened = START + timedelta(hours=6 * row)
        trades.append(
            LoggedTrade(
                row=row,
                opened_at=opened,
                closed_at=opened + timedelta(hours=8),  # two positions overlap
                pnl=Decimal(20 + row % 5 if row % 2 else -10),
                entry_value=Decimal(1000),
                worst_excursion=0.012,
            )
        )
    return Candidate(trades=tuple(trades), starting_capital=Decimal(5000))


def judged(candidate: Candidate) -> Judgement:
    """Beside a baseline whose winners earn half as much."""
    half = tuple(
        replace(trade, pnl=trade.pnl / 2) if trade.pnl > 0 else trade for trade in steady().trades
    )
    rival = Candidate(trades=half, starting_capital=Decimal(5000))
    return judge(performance_of(candidate), STANDARD, baseline_of(rival, candidate))


def test_the_steady_log_passes() -> None:
    assert judged(steady()).verdict is Verdict.PASS


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 239), st.floats(0.012, 1.0), st.floats(0, 1.0))
def test_deeper_position_never_turns_a_gate_to_pass(row: int, depth: float, more: float) -> None:
    def with_depth(excursion: float) -> dict[str, bool]:
        trades = list(steady().trades)
        trades[row] = replace(trades[row], worst_excursion=excursion)
        judgement = judged(replace(steady(), trades=tuple(trades)))
        return {r.check: r.verdict is Verdict.PASS for r in judgement.reasons}

    before, after = with_depth(depth), with_depth(depth + more)
    event(f"some gate flipped: {after != before}")
    assert [check for check in after if after[check] and not before[check]] == []
