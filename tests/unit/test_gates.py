"""The promotion gates, one broken number at a time."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bandit.core.errors import InvalidInput
from bandit.core.gates import (
    STANDARD,
    STRICT,
    Baseline,
    Gate,
    GateProfile,
    GateThresholds,
    Judgement,
    Performance,
    judge,
    thresholds_of,
)
from bandit.core.model import Verdict

HEALTHY = Performance(
    trades=200,
    days=60,
    losses_realised=80,
    sharpe_daily=3.0,
    profit_factor=1.8,
    profit_factor_low=1.3,
    profit_factor_worst_block=1.4,
    win_rate=0.6,
    drawdown_max_percent=5.0,
    marked_drawdown_low_percent=6.0,
    marked_drawdown_high_percent=9.0,
    worst_excursion_percent=4.0,
    excursion_per_realised_loss=1.5,
    return_on_capital=0.5,
)
BASELINE = Baseline(trades=150, days=58, return_on_capital=0.2)
NAN, INF = float("nan"), float("inf")


def verdicts(judgement: Judgement) -> dict[str, str]:
    return {r.check: r.verdict.value for r in judgement.reasons if r.verdict is not Verdict.PASS}


@pytest.mark.parametrize("thresholds", [STANDARD, STRICT])
def test_healthy_candidate_passes(thresholds: GateThresholds) -> None:
    judgement = judge(HEALTHY, thresholds, BASELINE)
    assert verdicts(judgement) == {}
    assert judgement.verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("change", "gate", "verdict"),
    [
        ({"trades": 49}, Gate.TRADES, "INCONCLUSIVE"),
        ({"days": 13}, Gate.DAYS, "INCONCLUSIVE"),
        ({"sharpe_daily": 0.99}, Gate.SHARPE, "FAIL"),
        ({"profit_factor": 1.19}, Gate.PROFIT_FACTOR, "FAIL"),
        ({"profit_factor_low": 0.99}, Gate.PROFIT_FACTOR_LOW, "INCONCLUSIVE"),
        ({"profit_factor_worst_block": 0.99}, Gate.PROFIT_FACTOR_BLOCKS, "FAIL"),
        ({"drawdown_max_percent": 20.01}, Gate.DRAWDOWN, "FAIL"),
        ({"marked_drawdown_high_percent": 20.01}, Gate.MARKED_DRAWDOWN, "INCONCLUSIVE"),
        (
            {"marked_drawdown_low_percent": 20.01, "marked_drawdown_high_percent": 30.0},
            Gate.MARKED_DRAWDOWN,
            "FAIL",
        ),
        ({"worst_excursion_percent": 20.01}, Gate.EXCURSION, "FAIL"),
        ({"excursion_per_realised_loss": 5.01}, Gate.HELD_LOSSES, "FAIL"),
        ({"return_on_capital": 0.2}, Gate.OUTPERFORMANCE, "FAIL"),
    ],
)
def test_each_defect_flips_the_gate_that_names_it_and_no_other(
    change: dict[str, float], gate: Gate, verdict: str
) -> None:
    judgement = judge(replace(HEALTHY, **change), STANDARD, BASELINE)
    assert verdicts(judgement) == {gate.value: verdict}
    assert judgement.verdict.value == verdict


def test_few_losses_leave_their_own_gate_and_the_profit_factor_open() -> None:
    judgement = judge(replace(HEALTHY, losses_realised=19), STANDARD, BASELINE)
    open_gates = {Gate.LOSSES.value, Gate.PROFIT_FACTOR.value}
    assert verdicts(judgement) == dict.fromkeys(open_gates, "INCONCLUSIVE")
    notes = {reason.check: reason.note for reason in judgement.reasons}
    assert notes["profit_factor"] == "rests on 19 realised losses"


@pytest.mark.parametrize("unknown", [None, NAN, INF, -INF])
@pytest.mark.parametrize("gate", [g for g in Gate if g is not Gate.MARKED_DRAWDOWN])
def test_unknown_number_leaves_its_gate_open(gate: Gate, unknown: float | None) -> None:
    found = replace(HEALTHY, **{gate.value: 0 if unknown is None else unknown})
    if unknown is None and gate not in (Gate.TRADES, Gate.DAYS, Gate.LOSSES):
        found = replace(HEALTHY, **{gate.value: None, "lacking": {gate: "because"}})
    by_name = {reason.check: reason for reason in judge(found, STRICT, BASELINE).reasons}
    assert by_name[gate.value].verdict is Verdict.INCONCLUSIVE
    if found.lacking:
        assert (by_name[gate.value].value, by_name[gate.value].note) == (None, "because")


@pytest.mark.parametrize("unknown", [None, NAN, INF, -INF])
@pytest.mark.parametrize("bound", ["low", "high"])
def test_unknown_bound_leaves_the_marked_drawdown_open(bound: str, unknown: float | None) -> None:
    found = replace(HEALTHY, **{f"marked_drawdown_{bound}_percent": unknown})
    assert verdicts(judge(found, STANDARD, BASELINE)) == {"marked_drawdown_percent": "INCONCLUSIVE"}


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"sharpe_daily": 2.0}, Gate.SHARPE),
        ({"win_rate": 0.55}, Gate.WIN_RATE),
        ({"drawdown_max_percent": 15.0}, Gate.DRAWDOWN),
        ({"worst_excursion_percent": 15.0}, Gate.EXCURSION),
    ],
)
def test_limit_itself_passes_standard_and_fails_strict(
    change: dict[str, float], gate: Gate
) -> None:
    at_limit = replace(HEALTHY, **change)
    assert verdicts(judge(at_limit, STRICT, BASELINE)) == {gate.value: "FAIL"}
    at_limit = replace(HEALTHY, sharpe_daily=1.0, drawdown_max_percent=20.0)
    assert verdicts(judge(at_limit, STANDARD, BASELINE)) == {}


@pytest.mark.parametrize(
    ("earned", "standard", "strict"),
    [(0.19, None, None), (0.205, None, "FAIL"), (0.2, "FAIL", "FAIL"), (-0.1, "FAIL", "FAIL")],
)
def test_strict_asks_for_a_tenth_more_than_the_baseline(
    earned: float, standard: str | None, strict: str | None
) -> None:
    base = replace(BASELINE, return_on_capital=0.15 if earned == 0.19 else 0.2)
    found = replace(HEALTHY, return_on_capital=earned)
    assert verdicts(judge(found, STANDARD, base)).get("return_on_capital") == standard
    assert verdicts(judge(found, STRICT, base)).get("return_on_capital") == strict


@pytest.mark.parametrize("baseline", [0.0, -0.3])
@pytest.mark.parametrize(
    ("earned", "verdict"), [(0.5, "INCONCLUSIVE"), (-0.1, None), (-0.3, "FAIL"), (-0.4, "FAIL")]
)
def test_baseline_that_earned_nothing_lets_nobody_pass(
    baseline: float, earned: float, verdict: str | None
) -> None:
    # -0.1 is less negative than -0.3, and less than 0.
    expected = verdict or ("INCONCLUSIVE" if baseline < 0 else "FAIL")
    found = replace(HEALTHY, return_on_capital=earned)
    base = replace(BASELINE, return_on_capital=baseline)
    for thresholds in (STANDARD, STRICT):
        assert verdicts(judge(found, thresholds, base)) == {"return_on_capital": expected}


@pytest.mark.parametrize(
    ("baseline", "note"),
    [
        (None, "no baseline was given"),
        (replace(BASELINE, trades=29), "29 of 30 baseline trades in the window"),
        (replace(BASELINE, days=53), "the baseline covers 53 of 60 days"),
        (replace(BASELINE, return_on_capital=None), "the baseline's return is not known"),
        (replace(BASELINE, return_on_capital=NAN), "the baseline's return is not known"),
        (replace(BASELINE, return_on_capital=-INF), "the baseline's return is not known"),
    ],
)
def test_baseline_that_is_not_comparable_leaves_outperformance_open(
    baseline: Baseline | None, note: str
) -> None:
    judgement = judge(HEALTHY, STANDARD, baseline)
    assert verdicts(judgement) == {"return_on_capital": "INCONCLUSIVE"}
    assert judgement.reasons[-1].note == note


def test_one_failure_outweighs_what_is_open() -> None:
    found = replace(HEALTHY, trades=10, profit_factor=0.5)
    assert judge(found, STANDARD, BASELINE).verdict is Verdict.FAIL


def test_win_rate_is_a_gate_of_strict_alone() -> None:
    found = replace(HEALTHY, win_rate=0.3)
    assert verdicts(judge(found, STANDARD, BASELINE)) == {}
    assert verdicts(judge(found, STRICT, BASELINE)) == {"win_rate": "FAIL"}


@pytest.mark.parametrize("profile", list(GateProfile))
def test_every_profile_has_the_gates_that_an_equity_curve_hides(profile: GateProfile) -> None:
    checks = {reason.check for reason in judge(HEALTHY, thresholds_of(profile), None).reasons}
    assert {g.value for g in Gate if g is not Gate.WIN_RATE} <= checks


def test_judgement_is_strict_json() -> None:
    found = replace(HEALTHY, sharpe_daily=NAN, profit_factor=INF)
    written = judge(found, STRICT, replace(BASELINE, return_on_capital=INF)).to_json()
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert written["verdict"] == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"drawdown_max_percent": -1.0}, "drawdown_max_percent"),
        ({"worst_excursion_percent": -0.1}, "worst_excursion_percent"),
        ({"trades": -1}, "trades"),
        ({"win_rate": 1.01}, "win_rate"),
        ({"marked_drawdown_low_percent": 9.01}, "marked_drawdown_low_percent"),
    ],
)
def test_number_that_cannot_be_is_refused(change: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        replace(HEALTHY, **change)
    assert refused.value.field == field


@pytest.mark.parametrize(
    "change",
    [
        {"trades_min": 0},
        {"losses_realised_min": 0},
        {"sharpe_min": NAN},
        {"sharpe_min": 0.0},
        {"profit_factor_low_min": 1.3},
        {"drawdown_max_percent": 101.0},
        {"excursion_max_percent": 0.0},
        {"win_rate_min": 1.0},
        {"margin_over_baseline": -0.1},
        {"baseline_coverage_min": 1.1},
    ],
)
def test_limit_that_nothing_breaks_or_holds_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(InvalidInput) as refused:
        replace(STANDARD, **change)
    assert refused.value.field == next(iter(change))


def test_baseline_counts_cannot_be_negative() -> None:
    with pytest.raises(InvalidInput, match="trades"):
        replace(BASELINE, trades=-1)
