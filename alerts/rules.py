"""Every alert of the product, and those of the documents that have nothing to read yet."""

from __future__ import annotations

from typing import Final

from alerts.arm_rules import arm_rules
from alerts.backup_rules import backup_rules
from alerts.bot_rules import bot_rules
from alerts.data_rules import data_rules
from alerts.drift_rules import drift_rules
from alerts.http_rules import http_rules
from alerts.job_rules import job_rules
from alerts.limits import AlertLimits, AlertPlaces
from alerts.money_rules import money_rules
from alerts.rule import AlertRule, Coming, Severity, Source
from alerts.service_rules import service_rules
from alerts.snapshot_rules import snapshot_rules
from bandit.core.notices import NoticeKind


def rules(limits: AlertLimits, places: AlertPlaces) -> tuple[AlertRule, ...]:
    """Return every rule, with the thresholds `limits`.

    >>> found = rules(AlertLimits(), AlertPlaces())
    >>> next(rule.threshold for rule in found if rule.name == "AccountBalanceLow")
    "equity < 10 of the account's currency"
    """
    about_trading = (
        *money_rules(limits),
        *arm_rules(limits),
        *bot_rules(limits),
        *drift_rules(limits),
        *http_rules(),
        *data_rules(limits),
        *backup_rules(limits),
        *job_rules(),
        *snapshot_rules(limits),
    )
    without = service_rules(limits, job=places.job, names=())
    read = {reading.of for rule in (*about_trading, *without) for reading in rule.reads}
    return (*service_rules(limits, job=places.job, names=read), *about_trading)


def _coming(name: str, severity: Severity, comes_with: str, *quotes: tuple[str, str]) -> Coming:
    sources = tuple(Source(document=document, quote=quote) for document, quote in quotes)
    return Coming(name=name, severity=severity, sources=sources, comes_with=comes_with)


COMING: Final = (
    _coming(
        "ModelDeploymentFailed",
        Severity.CRITICAL,
        "rollouts in stages",
        ("003", "- Model deployment failed"),
    ),
    _coming(
        "RolloutErrorRateHigh",
        Severity.CRITICAL,
        "rollouts in stages",
        ("003", "- Error rate > 1%"),
    ),
    _coming(
        "RolloutSharpeDropped",
        Severity.CRITICAL,
        "rollouts in stages",
        ("003", "- Sharpe ratio drops > 20%"),
        ("003", "- Sharpe drops > 20%"),
    ),
    _coming(
        "RolloutWinRateDropped",
        Severity.CRITICAL,
        "rollouts in stages",
        ("003", "- Win rate drops > 5%"),
    ),
    _coming(
        "RolloutBreakerTrips",
        Severity.CRITICAL,
        "rollouts in stages, and a counter of breaker trips (bots tell the state only)",
        ("003", "- Circuit breaker trips > 5/hour"),
    ),
    _coming(
        "ModelPromotedToStaging",
        Severity.INFO,
        "rollouts in stages; another champion is told of by ChampionChanged",
        ("003", "- Model promoted to staging"),
    ),
)
"""Alerts of the documents without a rule: one that reads nothing would never fire."""

NOTICES: Final = {
    NoticeKind.WEEKLY_REPORT: (Source(document="003", quote="- Weekly performance report"),),
}
"""What the documents want told that is no alert: the notifier tells it by itself."""
