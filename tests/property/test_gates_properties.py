"""What must hold of the promotion gates whatever numbers come in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from bandit.core.errors import InvalidInput
from bandit.core.gates import (
    STANDARD,
    STRICT,
    Baseline,
    Gate,
    GateThresholds,
    Judgement,
    Performance,
    judge,
)
from bandit.core.model import Verdict

# Wall-clock limits of single examples would only measure how busy the machine is.
unhurried = settings(deadline=None, max_examples=1000)
RATIOS = (
    "sharpe_daily",
    "profit_factor",
    "profit_factor_low",
    "profit_factor_worst_block",
    "win_rate",
    "drawdown_max_percent",
    "marked_drawdown_low_percent",
    "marked_drawdown_high_percent",
    "worst_excursion_percent",
    "excursion_per_realised_loss",
    "return_on_capital",
)
COUNTS = ("trades", "days", "losses_realised")
MORE_IS_WORSE = frozenset(name for name in RATIOS if name.endswith("percent")) | {
    "excursion_per_realised_loss"
}
unknown = st.sampled_from([None, math.nan, math.inf, -math.inf])
anything = unknown | st.floats()
possible = unknown | st.floats(0, 1)
counts = st.integers(0, 10**6)
profiles = st.sampled_from([STANDARD, STRICT])
# Round the limits, so that verdicts of all kinds are common.
near = {
    "sharpe_daily": st.floats(0, 4),
    "profit_factor": st.floats(1, 2),
    "profit_factor_low": st.floats(0.8, 1.5),
    "profit_factor_worst_block": st.floats(0.8, 1.5),
    "win_rate": st.floats(0.5, 0.7),
    "drawdown_max_percent": st.floats(0, 25),
    "marked_drawdown_low_percent": st.floats(0, 12),
    "marked_drawdown_high_percent": st.floats(12, 25),
    "worst_excursion_percent": st.floats(0, 25),
    "excursion_per_realised_loss": st.floats(0, 6),
    "return_on_capital": st.floats(-0.1, 0.5),
    "trades": st.integers(40, 200),
    "days": st.integers(10, 40),
    "losses_realised": st.integers(15, 60),
}
near_baselines = st.builds(
    Baseline,
    trades=st.integers(25, 100),
    days=st.integers(10, 40),
    return_on_capital=st.floats(-0.1, 0.4),
)


def passes(judgement: Judgement) -> dict[str, bool]:
    return {reason.check: reason.verdict is Verdict.PASS for reason in judgement.reasons}


def is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def numbers_of(gate: str) -> tuple[str, ...]:
    """The numbers without which a gate cannot pass."""
    if gate == Gate.MARKED_DRAWDOWN:
        return ("marked_drawdown_low_percent", "marked_drawdown_high_percent")
    return (gate,)


counted = dict.fromkeys(COUNTS, counts)


@settings(deadline=None, max_examples=2000)
@given(
    st.fixed_dictionaries(dict.fromkeys(RATIOS, anything) | counted)
    | st.fixed_dictionaries(near)
    | st.fixed_dictionaries(dict.fromkeys(RATIOS, possible) | counted),
    st.none() | st.tuples(counts, counts, anything),
    profiles,
)
def test_gates_are_total_and_nothing_unknown_passes(
    numbers: dict[str, float | None],
    baseline: tuple[int, int, float | None] | None,
    limits: GateThresholds,
) -> None:
    try:
        found = Performance(**numbers)
    except InvalidInput as refused:
        value = numbers[refused.field]
        assert is_known(value)
        event("impossible number")
        return
    rival = None
    if baseline is not None:
        rival = Baseline(trades=baseline[0], days=baseline[1], return_on_capital=baseline[2])
    judgement = judge(found, limits, rival)
    json.dumps(judgement.to_json(), allow_nan=False)
    passed = passes(judgement)
    for gate, ok in passed.items():
        if ok:
            assert all(is_known(numbers[name]) for name in numbers_of(gate))
    earned = None if baseline is None else baseline[2]
    if not is_known(earned) or earned <= 0:
        assert not passed["return_on_capital"]
    assert (judgement.verdict is Verdict.PASS) == all(passed.values())


@unhurried
@given(
    st.fixed_dictionaries(
        {name: st.sampled_from([0, math.nan, math.inf, -math.inf]) for name in COUNTS}
    ),
    profiles,
)
def test_unknown_counts_pass_nothing(counted: dict[str, float], limits: GateThresholds) -> None:
    found = Performance(**dict.fromkeys(RATIOS, None), **counted)
    rival = Baseline(trades=math.nan, days=math.nan, return_on_capital=1.0)
    assert not any(passes(judge(found, limits, rival)).values())


@unhurried
@given(st.fixed_dictionaries(near), st.data(), near_baselines, profiles)
def test_worse_number_never_turns_a_gate_to_pass(
    numbers: dict[str, float], data: st.DataObject, rival: Baseline, limits: GateThresholds
) -> None:
    name = data.draw(st.sampled_from(sorted(numbers)))
    if name in COUNTS:
        worse: float = data.draw(st.integers(0, int(numbers[name])))
        # Fewer days of the candidate make the baseline cover more of them: another window.
        assume(name != "days" or rival.days >= limits.baseline_coverage_min * numbers["days"])
    else:
        change = data.draw(st.floats(0, 20))
        worse = numbers[name] + (change if name in MORE_IS_WORSE else -change)
    before = passes(judge(Performance(**numbers), limits, rival))
    try:
        found = Performance(**(numbers | {name: worse}))
    except InvalidInput:
        event("impossible number")
        return
    after = passes(judge(found, limits, rival))
    assert [gate for gate in after if after[gate] and not before[gate]] == []
    event(f"some gate flipped: {after != before}")


@settings(deadline=None, max_examples=300)
@given(st.fixed_dictionaries(near), near_baselines)
def test_strict_is_nowhere_laxer_than_standard(numbers: dict[str, float], rival: Baseline) -> None:
    found = Performance(**numbers)
    strict, standard = passes(judge(found, STRICT, rival)), passes(judge(found, STANDARD, rival))
    assert [gate for gate in standard if strict[gate] and not standard[gate]] == []


def test_the_generated_numbers_reach_a_pass() -> None:
    """The control: what the two properties above draw from holds candidates that pass strict."""
    best: Mapping[str, float] = {
        "sharpe_daily": 4.0,
        "profit_factor": 2.0,
        "profit_factor_low": 1.5,
        "profit_factor_worst_block": 1.5,
        "win_rate": 0.7,
        "drawdown_max_percent": 0.0,
        "marked_drawdown_low_percent": 0.0,
        "marked_drawdown_high_percent": 12.0,
        "worst_excursion_percent": 0.0,
        "excursion_per_realised_loss": 0.0,
        "return_on_capital": 0.5,
        "trades": 200,
        "days": 40,
        "losses_realised": 60,
    }
    assert best.keys() == near.keys()
    rival = Baseline(trades=100, days=40, return_on_capital=0.4)
    assert judge(Performance(**best), STRICT, rival).verdict is Verdict.PASS
    lax = replace(STRICT, sharpe_min=5.0)
    assert judge(Performance(**best), lax, rival).verdict is Verdict.FAIL


@pytest.mark.parametrize("name", RATIOS)
def test_each_number_is_read(name: str) -> None:
    """Each number alone, made unknown, keeps a passing candidate from passing."""
    passing: dict[str, float | None] = {
        **dict.fromkeys(RATIOS, 1.0),
        "sharpe_daily": 3.0,
        "profit_factor": 2.0,
        "profit_factor_low": 1.5,
    }
    rival = Baseline(trades=100, days=40, return_on_capital=0.4)
    whole = {"trades": 100, "days": 40, "losses_realised": 30}
    assert judge(Performance(**passing, **whole), STRICT, rival).verdict is Verdict.PASS
    found = Performance(**(passing | {name: None}), **whole)
    assert judge(found, STRICT, rival).verdict is Verdict.INCONCLUSIVE
