"""Alerts about the service itself: whether it is there, what it reads, and how it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from alerts.limits import AlertLimits
from alerts.rule import (
    STEP,
    VALUE,
    AlertRule,
    Case,
    Component,
    Drill,
    Recording,
    Severity,
    Source,
    Take,
)

_MINUTE: Final = timedelta(minutes=1)
_FIVE: Final = timedelta(minutes=5)

_UP: Final = Recording(of="up", take=Take.NEWEST_HIGHEST)
_REPLICA: Final = Recording(of="up", by=("instance",), take=Take.NEWEST_LOWEST)
_LEDGER: Final = Recording(of="liveops_up", take=Take.NEWEST_HIGHEST)
_LEVEL: Final = Recording(of="liveops_health_level", take=Take.NEWEST_HIGHEST)
_EPOCH: Final = Recording(of="liveops_experiment_epoch", take=Take.NEWEST_HIGHEST)
_TRAFFIC: Final = Recording(of="liveops_arm_traffic_ratio", take=Take.NEWEST_HIGHEST)
_EQUITY: Final = Recording(of="liveops_account_equity", take=Take.NEWEST_HIGHEST)
_UNSEALED: Final = Recording(of="liveops_audit_unsealed_rows", take=Take.NEWEST_LOWEST)
_MISMATCHES: Final = Recording(of="liveops_statistics_mismatches", take=Take.HIGHEST)


def service_rules(limits: AlertLimits, *, job: str, names: Iterable[str]) -> tuple[AlertRule, ...]:
    """Return the alerts about the service whose targets are Prometheus' `job`.

    `names` are the metrics that may not be NaN: what any rule reads.
    """
    return (
        _watchdog(),
        _downtime(limits),
        _replica_down(),
        _ledger_unavailable(),
        _readings_missing(),
        _not_a_number(job, names),
        _unhealthy(),
        _degraded(),
        _unsealed(),
        _mismatch(),
    )


def _watchdog() -> AlertRule:
    return AlertRule(
        name="Watchdog",
        component=Component.ALERTING,
        severity=Severity.INFO,
        reads=(),
        expression="vector(1)",
        threshold="always",
        at_once="it always fires",
        summary="Alerts arrive.",
        description="This always fires. Where it is missing, alerts do not arrive.",
        pair="whoever waits for it: a dead man's switch outside, or the service",
        drill=Drill(
            description="This always fires. Where it is missing, alerts do not arrive.",
            cases=(Case(name="it fires at once", series={}, fires={timedelta(0): True}),),
        ),
    )


def _downtime(limits: AlertLimits) -> AlertRule:
    return AlertRule(
        name="SystemDowntime",
        component=Component.SERVICE,
        severity=Severity.CRITICAL,
        reads=(_UP,),
        expression=f"({_UP} or vector(0)) == 0",
        threshold="no replica answers Prometheus, or none is known",
        wait=limits.down_wait,
        at_once="the setting says so",
        summary="The service does not answer.",
        description="No replica of the service has answered Prometheus.",
        sources=(
            Source(document="001", quote="**SystemDowntime**: System not responding"),
            Source(document="003", quote="- Trading system down > 5 min"),
        ),
        choice=(
            "stricter than 003, as 001 wants immediate action and 003 itself less than 5 minutes "
            "to detection; a setting gives 5"
        ),
        setting="alert_rules.down_minutes",
        pair="it tells of absence itself; of its own silence, Watchdog",
        drill=Drill(
            wrong={"up": "0"},
            right={"up": "1"},
            description="No replica of the service has answered Prometheus.",
            is_absence=True,
            holds=False,
        ),
    )


def _replica_down() -> AlertRule:
    return AlertRule(
        name="ReplicaDown",
        component=Component.SERVICE,
        severity=Severity.WARNING,
        reads=(_REPLICA,),
        expression=f"{_REPLICA} == 0",
        threshold="one replica does not answer Prometheus",
        wait=_FIVE,
        summary="A replica of the service does not answer.",
        description="The replica {{ $labels.instance }} has not answered Prometheus.",
        pair="SystemDowntime, where Prometheus knows of no replica",
        drill=Drill(
            wrong={"up": "0"},
            right={"up": "1"},
            labels={"instance": "a"},
            description="The replica a has not answered Prometheus.",
            holds=False,
        ),
    )


def _ledger_unavailable() -> AlertRule:
    return AlertRule(
        name="LedgerUnavailable",
        component=Component.LEDGER,
        severity=Severity.CRITICAL,
        reads=(_LEDGER,),
        expression=f"{_LEDGER} == 0",
        threshold="no replica's ledger answers",
        wait=_MINUTE,
        summary="The ledger does not answer.",
        description="No replica can read its ledger: nothing is decided, and no number is known.",
        sources=(Source(document="001", quote="**SystemDowntime**: System not responding"),),
        choice="the other way for a system to be down: it answers, and cannot decide",
        pair="SystemDowntime, ReadingsMissing",
        drill=Drill(
            wrong={"liveops_up": "0"},
            right={"liveops_up": "1"},
            description=(
                "No replica can read its ledger: nothing is decided, and no number is known."
            ),
            holds=False,
        ),
    )


def _missing(known: str, reading: Recording, family: str) -> str:
    return f'label_replace({known} unless on () {reading}, "family", "{family}", "", "")'


def _readings_missing() -> AlertRule:
    parts = (
        _missing(f"{_UP} == 1", _LEDGER, "service"),
        _missing(f"{_LEDGER} == 1", _LEVEL, "health"),
        _missing(_EPOCH.name, _EQUITY, "accounts"),
        _missing(_EPOCH.name, _TRAFFIC, "arms"),
    )
    return AlertRule(
        name="ReadingsMissing",
        component=Component.SERVICE,
        severity=Severity.WARNING,
        reads=(_UP, _LEDGER, _LEVEL, _EPOCH, _EQUITY, _TRAFFIC),
        expression=" or ".join(parts),
        threshold="the service answers, and lacks a family of metrics it always has",
        wait=_FIVE,
        summary="Metrics that are always there are missing.",
        description=(
            "The service answers, but tells nothing of its {{ $labels.family }}: alerts about "
            "them cannot fire."
        ),
        pair="SystemDowntime, LedgerUnavailable",
        drill=Drill(description="", cases=_families()),
    )


def _families() -> tuple[Case, ...]:
    """Return a service that tells everything, and one case for each family that it may lack."""
    whole = {
        "up": "1x30",
        "liveops_up": "1x30",
        "liveops_health_level": "0x30",
        'liveops_experiment_epoch{experiment="btc"}': "7x30",
        'liveops_account_equity{account="usd"}': "1000x30",
        'liveops_arm_traffic_ratio{experiment="btc",policy="rl",role="champion"}': "0x30",
    }
    up, ledger, level, epoch, equity, traffic = whole
    # family: what is told without it, what of this says that it must be there, and the family
    lacks: dict[str, tuple[set[str], str, str]] = {
        "service": ({up}, up, ledger),
        "health": ({up, ledger}, ledger, level),
        "accounts": (set(whole) - {equity}, epoch, equity),
        "arms": (set(whole) - {traffic}, epoch, traffic),
    }
    every = {n * STEP: False for n in range(25)}
    cases = {
        "a service that tells everything": whole,
        "a service without a ledger": {up: whole[up], ledger: "0x30"},
        "a service without an experiment": {name: whole[name] for name in (up, ledger, level)},
        "no service at all": {},
    }
    for family, (_, known, _) in lacks.items():
        cases[f"another job without {family}"] = {_elsewhere(known): whole[known]}
    silent = [Case(name=name, series=told, fires=every) for name, told in cases.items()]
    return (*silent, *(_lacking(family, whole, *parts) for family, parts in lacks.items()))


def _lacking(
    family: str, whole: Mapping[str, str], told: set[str], known: str, missing: str
) -> Case:
    """Return a service that lacks a family, which another job has."""
    assert known in told, family
    return Case(
        name=f"a service without {family}",
        series={**{name: whole[name] for name in told}, _elsewhere(missing): whole[missing]},
        fires={_FIVE - STEP: False, _FIVE: True},
        labels={"family": family},
        description=(
            f"The service answers, but tells nothing of its {family}: alerts about them cannot "
            "fire."
        ),
    )


def _elsewhere(series: str) -> str:
    name, _, labels = series.partition("{")
    return f'{name}{{job="other",{labels}' if labels else f'{name}{{job="other"}}'


def _not_a_number(job: str, names: Iterable[str]) -> AlertRule:
    names = sorted(names)
    chosen = f'{{job="{job}"}}'
    parts = (
        f'label_replace(count({name}{chosen} != {name}{chosen}), "metric", "{name}", "", "")'
        for name in names
    )
    return AlertRule(
        name="ReadingNotANumber",
        component=Component.SERVICE,
        severity=Severity.WARNING,
        reads=(),
        expression=" or ".join(parts),
        threshold="a series is NaN",
        at_once="a value that is none never comes from a service that is well",
        summary="A metric is not a number.",
        description=(
            f"{VALUE} series of {{{{ $labels.metric }}}} are NaN: alerts about them cannot fire."
        ),
        pair="a series that is gone is no NaN: ReadingsMissing",
        drill=Drill(
            description="",
            cases=_nones(names),
        ),
    )


def _nones(names: Sequence[str]) -> tuple[Case, ...]:
    """Return every kind of number, NaN of another job, and NaN of each metric in turn."""
    return (
        Case(
            name="numbers",
            series=dict.fromkeys(names, "1 -1 0 Inf -Inf"),
            fires={n * STEP: False for n in range(5)},
        ),
        Case(
            name="of another job",
            series={f'{name}{{job="other"}}': "NaN 1" for name in names},
            fires={timedelta(0): False},
        ),
        *(
            Case(
                name=f"{name} is none, then one",
                series={name: "NaN 1"},
                fires={timedelta(0): True, STEP: False},
                labels={"metric": name},
                description=f"1 series of {name} are NaN: alerts about them cannot fire.",
            )
            for name in names
        ),
    )


def _unhealthy() -> AlertRule:
    return AlertRule(
        name="HealthUnhealthy",
        component=Component.HEALTH,
        severity=Severity.CRITICAL,
        reads=(_LEVEL,),
        expression=f"{_LEVEL} >= 2",
        threshold="the level is UNHEALTHY",
        at_once="each condition of health waits out a time of its own",
        summary="Service or bots are UNHEALTHY.",
        description="A bot stopped, a feed stalled, an API is away or the ledger cannot decide.",
        sources=(
            Source(document="000", quote="**HEALTH_ISSUE**: Bot health degraded"),
            Source(document="002", quote="- Health status = UNHEALTHY"),
            Source(document="004", quote="**IMMEDIATE ACTION REQUIRED**"),
        ),
        pair="ReadingsMissing, LedgerUnavailable",
        drill=Drill(
            wrong={"liveops_health_level": "2"},
            right={"liveops_health_level": "1"},
            description=(
                "A bot stopped, a feed stalled, an API is away or the ledger cannot decide."
            ),
            holds=False,
        ),
    )


def _degraded() -> AlertRule:
    return AlertRule(
        name="HealthDegraded",
        component=Component.HEALTH,
        severity=Severity.WARNING,
        reads=(_LEVEL,),
        expression=f"{_LEVEL} == 1",
        threshold="the level is DEGRADED",
        at_once="each condition of health waits out a time of its own",
        summary="Service or bots are DEGRADED.",
        description="Trading is halted, or a warning stands; `liveops health` says which.",
        sources=(
            Source(document="000", quote="**HEALTH_ISSUE**: Bot health degraded"),
            Source(document="004", quote="Investigate why trading halted"),
        ),
        pair="ReadingsMissing, LedgerUnavailable",
        drill=Drill(
            wrong={"liveops_health_level": "1"},
            right={"liveops_health_level": "0"},
            silent=({"liveops_health_level": "2"},),
            description="Trading is halted, or a warning stands; `liveops health` says which.",
            holds=False,
        ),
    )


def _unsealed() -> AlertRule:
    return AlertRule(
        name="AuditLogUnsealed",
        component=Component.AUDIT,
        severity=Severity.WARNING,
        reads=(_UNSEALED,),
        expression=f"{_UNSEALED} > 0",
        threshold="rows of the audit log wait to be sealed",
        wait=_FIVE,
        summary="The audit log is not sealed.",
        description=f"{VALUE} rows of the audit log wait to be sealed; its sealer does not run.",
        pair="LedgerUnavailable",
        drill=Drill(
            wrong={"liveops_audit_unsealed_rows": "1"},
            right={"liveops_audit_unsealed_rows": "0"},
            description="1 rows of the audit log wait to be sealed; its sealer does not run.",
            holds=False,
        ),
    )


def _mismatch() -> AlertRule:
    return AlertRule(
        name="StatisticsMismatch",
        component=Component.LEDGER,
        severity=Severity.CRITICAL,
        reads=(_MISMATCHES,),
        expression=f"{_MISMATCHES} > 0",
        threshold="stored statistics differ from the outcomes behind them",
        at_once="it is compared once a night",
        summary="Stored statistics differ from the outcomes.",
        description=f"{VALUE} stored statistics differ from the outcomes behind them.",
        pair="LedgerUnavailable; before the first night there is no comparison",
        drill=Drill(
            wrong={"liveops_statistics_mismatches": "1"},
            right={"liveops_statistics_mismatches": "0"},
            description="1 stored statistics differ from the outcomes behind them.",
        ),
    )
