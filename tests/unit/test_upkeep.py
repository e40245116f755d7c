"""The checklist's rows of models and machines: bands, limits, and what is not known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from drift_runs import an_encoder_check
from ledger import NOON

from bandit.core.drift import DriftCheck
from bandit.core.errors import InvalidInput
from bandit.core.model import Profile, Verdict
from bandit.core.reading import ChecklistRule
from bandit.core.upkeep import EncoderCheck, GpuRule, UpkeepRow, encoder_row, gpu_row

RULE = ChecklistRule()


def row_of(check: DriftCheck, profile: Profile = Profile.GUARDED) -> UpkeepRow:
    found = EncoderCheck(check=check, run_id="a run", window_to=NOON)
    return encoder_row(found, RULE, profile=profile)


def a_check(value: float, *, raw: float, median: float, top: float) -> DriftCheck:
    return an_encoder_check(value, limit=0.3, raw=raw, null_median=median, null_p99=top)


def test_chance_is_taken_off_the_divergence_and_not_to_the_letter() -> None:
    # Of rows that resemble one another, 0.9 nats of 1.0 are chance.
    slow = a_check(0.1, raw=1.0, median=0.9, top=1.4)
    assert row_of(slow).to_json() == {
        "metric": "encoder_kl_divergence",
        "band": [0.0, 0.25],
        "check": "encoder_kl_divergence",
        "value": 0.1,
        "limit": pytest.approx(0.5),
        "verdict": "PASS",
        "note": f"chance taken off; bars to {NOON:%Y-%m-%d}",
        "flagged": False,
        "action": "refresh_encoder",
    }
    bare = row_of(slow, Profile.SEED_EXACT)
    assert (bare.reason.value, bare.reason.limit, bare.flagged) == (1.0, 0.3, True)


@pytest.mark.parametrize(
    ("value", "top", "flagged"),
    [(0.30, 0.05, False), (0.300001, 0.05, True), (0.45, 0.51, False), (0.51, 0.51, True)],
)
def test_the_limit_is_the_larger_of_the_setting_and_of_what_chance_reads(
    value: float, top: float, flagged: bool
) -> None:
    assert row_of(a_check(value, raw=value, median=0.01, top=top)).flagged is flagged


@pytest.mark.parametrize("profile", Profile)
def test_an_encoder_that_could_not_be_checked_asks_for_nothing(profile: Profile) -> None:
    detail: dict[str, Any] = {"reason": "too few rows"}
    unknown = replace(
        an_encoder_check(0.1), value=None, limit=None, verdict=Verdict.INCONCLUSIVE, detail=detail
    )
    row = row_of(unknown, profile)
    assert (row.reason.verdict, row.flagged) == (Verdict.INCONCLUSIVE, False)
    assert row.reason.note.startswith("too few rows")


@pytest.mark.parametrize(
    ("busy", "verdict"),
    [
        ([0.6], Verdict.PASS),
        ([0.05, 0.601], Verdict.FAIL),
        ([None, 0.0], Verdict.PASS),
        ([None], Verdict.INCONCLUSIVE),
        ([], Verdict.INCONCLUSIVE),
    ],
)
def test_the_busiest_gpu_counts_and_none_is_no_number(
    busy: list[float | None], verdict: Verdict
) -> None:
    row = gpu_row(busy, GpuRule())
    assert row.reason.verdict is verdict
    assert row.flagged is (verdict is Verdict.FAIL)


@pytest.mark.parametrize("percent", range(10, 101))
def test_a_gpu_exactly_at_its_limit_is_not_flagged(percent: int) -> None:
    row = gpu_row([percent / 100], GpuRule(restart_percent=float(percent)))
    assert (row.reason.value, row.flagged) == (percent, False)


@pytest.mark.parametrize(
    "told",
    [{"band_percent": (10.0, 2.0)}, {"band_percent": (2.0, 70.0)}, {"restart_percent": 101.0}],
)
def test_a_rule_that_no_gpu_can_meet_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"^band_percent: must satisfy"):
        GpuRule(**told)
