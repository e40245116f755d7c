"""The checklist's two rows of the ledger: bands, flags, and which action comes first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bandit.core.checklist import action_of, actions, rows
from bandit.core.errors import InvalidInput
from bandit.core.lifecycle import ArmVerb
from bandit.core.limits import ArmPlace
from bandit.core.model import ArmMode, ArmRole, ArmStatus, PolicyName, Ppm, Verdict
from bandit.core.profit_factor import ProfitFactor
from bandit.core.reading import ArmReading, ChecklistRule
from bandit.core.verdicts import at_least, at_most, below

RULE = ChecklistRule()
GOOD = ProfitFactor(gross_profit=2.5, gross_loss=1.0, n=30, n_losses=1)
POOR = ProfitFactor(gross_profit=1.59, gross_loss=1.0, n=30, n_losses=1)


def reading(
    *,
    pf: ProfitFactor = GOOD,
    drawdown: float = 1.0,
    status: ArmStatus = ArmStatus.ACTIVE,
    role: ArmRole = ArmRole.CHALLENGER,
) -> ArmReading:
    place = ArmPlace(
        policy=PolicyName("a"),
        role=role,
        status=status,
        mode=ArmMode.LIVE,
        ppm=Ppm(0),
        trades=pf.n,
    )
    return ArmReading(place=place, pf_short=pf, pf_long=pf, dd_long_percent=drawdown, pf_prod=GOOD)


def test_rows_say_band_value_limit_flag_and_action() -> None:
    assert [row.to_json() for row in rows(reading(pf=POOR, drawdown=4.0), RULE)] == [
        {
            "metric": "pf_challenger_30",
            "band": [2.1, 2.8],
            "check": "pf_challenger_30",
            "value": 1.59,
            "limit": 1.6,
            "verdict": "FAIL",
            "note": "finite",
            "flagged": True,
            "action": "throttle",
        },
        {
            "metric": "dd_challenger_pct",
            "band": [0.0, 3.0],
            "check": "dd_challenger_pct",
            "value": 4.0,
            "limit": 4.0,
            "verdict": "PASS",
            "note": "",
            "flagged": False,
            "action": "halt",
        },
    ]


@pytest.mark.parametrize(
    ("pf", "verdict", "note"),
    [
        (replace(GOOD, gross_profit=1.6), Verdict.PASS, "finite"),
        (replace(POOR, n=29), Verdict.INCONCLUSIVE, "29 of 30 trades"),
        (replace(GOOD, gross_loss=0.0, n_losses=0), Verdict.INCONCLUSIVE, "no_losses"),
        (
            ProfitFactor(gross_profit=0.0, gross_loss=0.0, n=0, n_losses=0),
            Verdict.INCONCLUSIVE,
            "0 of 30 trades",
        ),
    ],
)
def test_profit_factor_is_judged_on_a_full_window_with_a_loss(
    pf: ProfitFactor, verdict: Verdict, note: str
) -> None:
    found = rows(reading(pf=pf), RULE)[0]
    assert (found.reason.verdict, found.reason.note) == (verdict, note)


@pytest.mark.parametrize(
    ("pf", "drawdown", "status", "action"),
    [
        (GOOD, 1.0, ArmStatus.ACTIVE, None),
        (POOR, 1.0, ArmStatus.ACTIVE, ArmVerb.THROTTLE),
        (GOOD, 4.01, ArmStatus.ACTIVE, ArmVerb.HALT),
        (POOR, 4.01, ArmStatus.ACTIVE, ArmVerb.HALT),
        (POOR, 1.0, ArmStatus.THROTTLED, None),
        (POOR, 4.01, ArmStatus.THROTTLED, ArmVerb.HALT),
        (POOR, 4.01, ArmStatus.HALTED, None),
        (POOR, 4.01, ArmStatus.RETIRED, None),
    ],
)
def test_halt_comes_before_throttle_and_a_second_look_changes_nothing(
    pf: ProfitFactor, drawdown: float, status: ArmStatus, action: ArmVerb | None
) -> None:
    found = action_of(reading(pf=pf, drawdown=drawdown, status=status), RULE)
    assert (None if found is None else found.action) is action


def test_champion_is_never_acted_on() -> None:
    sick = reading(pf=POOR, drawdown=50.0, role=ArmRole.CHAMPION)
    assert action_of(sick, RULE) is None
    assert actions([sick], RULE) == ()


def test_actions_name_the_flagged_arms_alone() -> None:
    sick = reading(drawdown=5.0)
    assert [(arm, row.action) for arm, row in actions([reading(), sick], RULE)] == [
        (sick, ArmVerb.HALT)
    ]


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("window", {"window": 0}),
        ("window", {"window": 151}),
        ("window", {"long_window": 1001}),
        ("drawdown_halt_percent", {"drawdown_halt_percent": 0.0}),
        ("drawdown_halt_percent", {"drawdown_halt_percent": float("nan")}),
        ("pf_throttle", {"pf_throttle": -0.1}),
    ],
)
def test_thresholds_that_can_never_be_measured_are_refused(
    field: str, values: dict[str, float]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        ChecklistRule(**values)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("check", "value", "verdict"),
    [
        (at_least, 1.0, Verdict.PASS),
        (at_least, 0.999, Verdict.FAIL),
        (at_most, 1.0, Verdict.PASS),
        (at_most, 1.001, Verdict.FAIL),
        (below, 0.999, Verdict.PASS),
        (below, 1.0, Verdict.FAIL),
    ],
)
def test_checks_at_their_border(check: object, value: float, verdict: Verdict) -> None:
    assert callable(check)
    assert check("x", value, 1.0).verdict is verdict


@pytest.mark.parametrize("unknown", [(None, 1.0), (1.0, None), (float("nan"), 1.0)])
def test_unknown_is_inconclusive_and_never_nan(unknown: tuple[float, float]) -> None:
    reason = at_least("x", *unknown, note="why")
    assert reason.verdict is Verdict.INCONCLUSIVE
    assert reason.note == "why"
    assert reason.value is None or reason.value == 1.0
    assert at_least("x", 1.0, float("nan")).limit is None
