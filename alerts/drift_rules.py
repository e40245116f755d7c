"""Alerts about drift, and about the GPU that learners use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from alerts.limits import AlertLimits
from alerts.rule import (
    PERCENT,
    VALUE,
    AlertRule,
    Case,
    Component,
    Drill,
    Recording,
    Severity,
    Source,
    Take,
    number,
)

_ARTIFACT: Final = ("artifact",)
_WHO: Final = "{{ $labels.artifact }}"
_LABELS: Final = {"artifact": "5ca1ab1e"}
_PAIR: Final = "DriftCheckStale"
_ONCE: Final = "it changes with a check only, once an hour"
_STALE_HOURS: Final = 3
"""Drift is to be checked hourly: two runs that were missed, and the one that is under way."""

_GPU_WAIT: Final = timedelta(minutes=15)
"""A training uses its GPU rightly in bursts; 001 means a loop."""

_AGE: Final = Recording(of="liveops_drift_age_seconds", by=_ARTIFACT, take=Take.NEWEST_LOWEST)
_GPU: Final = Recording(
    of="liveops_gpu_busy_ratio", by=("instance", "gpu"), take=Take.NEWEST_HIGHEST
)


def _kl(part: str) -> Recording:
    take = Take.HIGHEST if part == "calibrated" else Take.NEWEST_HIGHEST
    return Recording(of="liveops_drift_encoder_kl", by=_ARTIFACT, take=take, where={"part": part})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Broken:
    """An alert about checks of one kind that broke their limit; no `level` is any."""

    name: str
    severity: Severity
    check: str
    level: str
    threshold: str
    says: str
    sources: tuple[Source, ...]
    choice: str = ""


_BROKEN: Final = (
    _Broken(
        name="FeatureDriftCritical",
        severity=Severity.CRITICAL,
        check="psi",
        level="critical",
        threshold="PSI of a feature > 0.3, and not by chance",
        says="features of {who} have a PSI above 0.3",
        sources=(
            Source(document="003", quote="- Feature drift PSI > 0.3"),
            Source(document="003", quote="- PSI > 0.3: Critical"),
        ),
    ),
    _Broken(
        name="FeatureDriftHigh",
        severity=Severity.WARNING,
        check="psi",
        level="warning",
        threshold="PSI of a feature > 0.2, and not by chance",
        says="features of {who} have a PSI above 0.2",
        sources=(
            Source(document="003", quote="- Feature drift PSI > 0.2"),
            Source(document="003", quote="- PSI > 0.2: Warning"),
        ),
    ),
    _Broken(
        name="MissingDataCritical",
        severity=Severity.CRITICAL,
        check="missing",
        level="critical",
        threshold="> 10 % of a feature's rows are missing",
        says="features of {who} miss more than 10 % of their rows",
        sources=(Source(document="003", quote="- Missing rate > 10%: Critical"),),
    ),
    _Broken(
        name="MissingDataHigh",
        severity=Severity.WARNING,
        check="missing",
        level="warning",
        threshold="> 5 % of a feature's rows are missing",
        says="features of {who} miss more than 5 % of their rows",
        sources=(
            Source(document="003", quote="- Missing data > 5%"),
            Source(document="003", quote="- Missing rate > 5%: Warning"),
        ),
    ),
    _Broken(
        name="ModelConfidenceLow",
        severity=Severity.WARNING,
        check="confidence",
        level="",
        threshold="PSI of the policy's confidence > 0.2, and not by chance",
        says="checks find {who} otherwise sure of itself than where it was made",
        sources=(Source(document="003", quote="- Model confidence low"),),
        choice="003 gives no number: how far the confidence's distribution moved is taken",
    ),
)


def drift_rules(limits: AlertLimits) -> tuple[AlertRule, ...]:
    """Return the alerts about drift and GPUs."""
    return (
        _encoder_kl_high(limits),
        *(_broken(told) for told in _BROKEN),
        _stale(),
        _gpu_high(limits),
    )


def _encoder_kl_high(limits: AlertLimits) -> AlertRule:
    value, median, top = _kl("calibrated"), _kl("null_median"), _kl("null_p99")
    limit, above = number(limits.encoder_kl), number(limits.encoder_kl * 65 / 64)
    series = {
        part: f'liveops_drift_encoder_kl{{artifact="5ca1ab1e",part="{part}"}}'
        for part in ("calibrated", "raw", "null_median", "null_p99")
    }
    return AlertRule(
        name="EncoderKLDivergenceHigh",
        component=Component.DRIFT,
        severity=Severity.WARNING,
        reads=(value, median, top),
        expression=(
            f"{value} > {limit} "
            f"unless on (artifact) {value} <= on (artifact) ({top} - on (artifact) {median})"
        ),
        threshold=f"calibrated KL > {limit} nats, and > p99 - median of its null",
        at_once=_ONCE,
        summary="An encoder's embeddings have drifted.",
        description=(
            f"The encoder of {_WHO} diverges by {VALUE} nats from training, chance taken off."
        ),
        sources=(
            Source(document="001", quote="| `encoder_kl_divergence` | 0"),
            Source(document="001", quote="**EncoderKLDivergenceHigh**: KL > 0.30"),
        ),
        choice="the calibrated value: the bare one is above 0.30 where nothing changed (drift.md)",
        setting="checklist.kl_refresh",
        pair=_PAIR,
        drill=Drill(
            wrong={series["calibrated"]: above},
            right={series["calibrated"]: limit},
            silent=({series["calibrated"]: "0", series["raw"]: "9"},),
            labels=_LABELS,
            description=(
                f"The encoder of 5ca1ab1e diverges by {float(above):.4g} nats from training, "
                "chance taken off."
            ),
            cases=_nulls(series, above),
        ),
    )


def _nulls(series: Mapping[str, str], above: str) -> tuple[Case, ...]:
    """Return what the null says of a value: far above it, within it, and that of another job."""
    found, raw, median, top = series.values()
    half = number(float(above) / 2)
    chance = {found: above, median: "0", top: above}

    def elsewhere(part: str) -> dict[str, str]:
        return {s.replace("{", '{job="other",') if s == part else s: v for s, v in chance.items()}

    return (
        Case(
            name="above what chance reads",
            series={found: above, raw: "9", median: half, top: above},
            fires={timedelta(0): True},
        ),
        Case(name="what chance reads", series=chance, fires={timedelta(0): False}),
        Case(name="median elsewhere", series=elsewhere(median), fires={timedelta(0): True}),
        Case(name="p99 elsewhere", series=elsewhere(top), fires={timedelta(0): True}),
    )


def _broken(told: _Broken) -> AlertRule:
    check, level = told.check, told.level
    where = {"check": check, "level": level} if level else {"check": check}
    reading = Recording(
        of="liveops_drift_broken_checks", by=_ARTIFACT, take=Take.HIGHEST, where=where
    )
    own, ks = _count(check, level or "warning"), _count("ks", level or "warning")
    other = _count(check, "critical" if level == "warning" else "warning")
    silent = [{own: "0", ks: "1"}, *([{own: "0", other: "1"}] if level else [])]
    return AlertRule(
        name=told.name,
        component=Component.DRIFT,
        severity=told.severity,
        reads=(reading,),
        expression=f"{reading} > 0",
        threshold=told.threshold,
        at_once=_ONCE,
        summary=f"What a policy reads has drifted: {' '.join(where.values())}.",
        description=f"{VALUE} {told.says.format(who=_WHO)}.",
        sources=told.sources,
        choice=told.choice,
        pair=_PAIR,
        drill=Drill(
            wrong={own: "1"},
            right={own: "0"},
            silent=tuple(silent),
            labels=_LABELS,
            description=f"1 {told.says.format(who='5ca1ab1e')}.",
        ),
    )


def _count(check: str, level: str) -> str:
    at = f'{{artifact="5ca1ab1e",check="{check}",level="{level}"}}'
    return f"liveops_drift_broken_checks{at}"


def _stale() -> AlertRule:
    seconds = _STALE_HOURS * 3600
    series = 'liveops_drift_age_seconds{artifact="5ca1ab1e"}'
    return AlertRule(
        name="DriftCheckStale",
        component=Component.DRIFT,
        severity=Severity.INFO,
        reads=(_AGE,),
        expression=f"{_AGE} > {seconds}",
        threshold=f"the newest check is older than {_STALE_HOURS} h",
        at_once="the limit is a time itself",
        summary="An artefact is not checked for drift any more.",
        description=f"{_WHO} was last checked for drift {{{{ $value | humanizeDuration }}}} ago.",
        sources=(Source(document="003", quote="- Verify data freshness"),),
        choice="003 checks hourly: two runs missed; after 30 days nobody waits for a check",
        pair="an artefact that was never checked has no reference to be held against",
        drill=Drill(
            wrong={series: str(seconds + 1)},
            right={series: str(seconds)},
            labels=_LABELS,
            description="5ca1ab1e was last checked for drift 3h 0m 1s ago.",
            holds=False,
        ),
    )


def _gpu_high(limits: AlertLimits) -> AlertRule:
    limit, ratio = number(limits.gpu_percent), limits.gpu_percent / 100
    series = 'liveops_gpu_busy_ratio{gpu="0",model="H100"}'
    above = number(min(1.0, ratio + 1 / 128))
    return AlertRule(
        name="GPUUtilizationHigh",
        component=Component.LEARNER,
        severity=Severity.WARNING,
        reads=(_GPU,),
        expression=f"{_GPU} > {number(ratio)}",
        threshold=f"GPU busy > {limit} %",
        wait=_GPU_WAIT,
        summary="A GPU is busy for long.",
        description=(
            f"GPU {{{{ $labels.gpu }}}} of {{{{ $labels.instance }}}} is {PERCENT} busy. Where its "
            "learner makes no progress it is stuck: begin it again."
        ),
        sources=(
            Source(document="001", quote="| > 60% (loop) | Restart learner pod |"),
            Source(document="001", quote="**GPUUtilizationHigh**: GPU > 60%"),
        ),
        setting="checklist.gpu_restart",
        pair="a machine without a GPU has no series, and the alert does not exist there",
        drill=Drill(
            wrong={series: above},
            right={series: number(ratio)},
            labels={"gpu": "0", "instance": "a"},
            description=(
                f"GPU 0 of a is {float(above) * 100:.4g}% busy. Where its learner makes no "
                "progress it is stuck: begin it again."
            ),
            holds=False,
        ),
    )
