"""Builders of drift checks for tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ledger import NOON

from bandit.core.drift import DriftCheck, DriftMetric, DriftRun
from bandit.core.model import PolicySha, Verdict

SHA = PolicySha("5ca1ab1e" * 8)


def a_check(
    subject: str = "rsi",
    *,
    metric: DriftMetric = DriftMetric.PSI,
    value: float = 0.25,
    verdict: Verdict = Verdict.PASS,
    **changes: Any,
) -> DriftCheck:
    """A check of one feature, with numbers that no decimal writes in full."""
    numbers: dict[str, Any] = {
        "limit": 0.2,
        "p_value": 1 / 3,
        "n": 900,
        "n_effective": 900 / 7,
        "detail": {"level": "none", "statistic": 2 / 3, "bins": 10},
    }
    return DriftCheck(
        metric=metric, subject=subject, value=value, verdict=verdict, **(numbers | changes)
    )


def an_encoder_check(
    value: float = 0.1,
    *,
    limit: float = 0.3,
    raw: float = 0.8,
    null_median: float = 0.7,
    null_p99: float = 0.9,
) -> DriftCheck:
    """A check of the encoder that passes, on rows that are worth 20.5."""
    return DriftCheck(
        metric=DriftMetric.ENCODER_KL,
        subject="encoder",
        value=value,
        limit=limit,
        p_value=None,
        verdict=Verdict.PASS,
        n=2000,
        n_effective=20.5,
        detail={"raw": raw, "null_median": null_median, "null_p99": null_p99},
    )


def a_run(
    *checks: DriftCheck, sha: PolicySha = SHA, hours: float = 0.0, **changes: Any
) -> DriftRun:
    """A run on the day before noon, `hours` later; without checks, of a feature and an encoder."""
    moment = NOON + timedelta(hours=hours)
    times: dict[str, Any] = {
        "window_from": moment - timedelta(days=1),
        "window_to": moment,
        "checked_at": moment,
    }
    return DriftRun(sha=sha, checks=checks or (a_check(), an_encoder_check()), **(times | changes))
