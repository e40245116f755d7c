"""A drift check is a value that the ledger can hold, and a run is one window's checks."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from drift_runs import SHA, a_check, a_run, an_encoder_check
from ledger import NOON

from bandit.core.drift import CHECKS_MAX, DETAIL_BYTES_MAX, DriftMetric
from bandit.core.errors import InvalidInput
from bandit.core.model import PolicySha, Verdict


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subject", ""),
        ("subject", "x" * 129),
        ("value", math.nan),
        ("limit", math.inf),
        ("p_value", 1.1),
        ("p_value", -0.1),
        ("n", -1),
        ("n", 2**53),
        ("n_effective", -1.0),
        ("detail", {"a": math.nan}),
        ("detail", {"a": "x" * DETAIL_BYTES_MAX}),
        ("detail", {"a": object()}),
    ],
)
def test_what_no_check_finds_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        replace(a_check(), **{field: value})
    assert refused.value.field == field


@pytest.mark.parametrize("verdict", [Verdict.PASS, Verdict.FAIL])
@pytest.mark.parametrize("field", ["value", "limit"])
def test_unknown_values_are_inconclusive(field: str, verdict: Verdict) -> None:
    with pytest.raises(InvalidInput, match="must be INCONCLUSIVE"):
        replace(a_check(verdict=verdict), **{field: None})
    assert replace(a_check(verdict=Verdict.INCONCLUSIVE), **{field: None}).drifted is False


def test_run_counts_each_drifted_feature_once() -> None:
    found = a_run(
        a_check("rsi", verdict=Verdict.FAIL),
        a_check("rsi", metric=DriftMetric.KS, verdict=Verdict.FAIL),
        a_check("adx", metric=DriftMetric.MISSING, verdict=Verdict.FAIL),
        a_check("atr"),
        a_check("model", metric=DriftMetric.IMPORTANCE, verdict=Verdict.FAIL),
    )
    assert found.drifted_features == ("adx", "rsi")
    assert found.encoder is None
    assert a_run().encoder == an_encoder_check()


def test_run_is_named_by_artefact_and_window() -> None:
    run = a_run()
    assert replace(run, checked_at=NOON + timedelta(hours=1)).run_id == run.run_id
    others = [
        replace(run, sha=PolicySha("0ddba115")),
        replace(run, window_from=NOON - timedelta(days=2)),
        a_run(hours=1),
    ]
    assert len({each.run_id for each in [run, *others]}) == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sha", "x"),
        ("window_to", NOON - timedelta(days=2)),
        ("window_from", NOON.replace(tzinfo=None)),
        ("checks", ()),
        ("checks", (a_check(), a_check(value=0.5))),
        ("checks", tuple(a_check(f"f-{i}") for i in range(CHECKS_MAX + 1))),
    ],
)
def test_what_is_no_run_is_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        replace(a_run(), **{field: value})
    assert refused.value.field == field


def test_check_is_told_as_json() -> None:
    told = a_check().to_json()
    assert told["metric"] == "psi"
    assert told["verdict"] == "PASS"
    assert a_run().sha == SHA
