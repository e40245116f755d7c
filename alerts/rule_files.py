"""Renders the rules as Prometheus reads them, and checks what promtool does not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

import yaml

from alerts.catalogue import CATALOGUE
from alerts.dashboard import Panel
from alerts.dashboards import dashboards
from alerts.limits import AlertLimits, AlertPlaces
from alerts.rule import AlertRule, Quantile, Recording, duration

RULES_HEAD: Final = "# Written by `prometheus_alerts --action generate`; do not edit.\n"

OF_PROMETHEUS: Final = frozenset({"up"})
"""Metrics that Prometheus itself makes."""

_RECORDED = re.compile(r"[a-z_]+:[a-z0-9_]+:[a-z0-9_]+")
_NO_NAMES = re.compile(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\boffset \w+|\b(?:by|on|without) \([^)]*\)')
_NAME = re.compile(r"(?<![\w:])[a-zA-Z_][\w:]*(?![\w:]*\s*\()(?![\w:])")
_WORDS: Final = frozenset({"and", "or", "unless"})


class _Dumper(yaml.SafeDumper):
    """Writes no aliases: a label set that two rules share stands in each of them."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's interface
        return True


def dumped(document: Any) -> str:
    """Return a document as YAML in the order it was made."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def render_rules(rules: Sequence[AlertRule], places: AlertPlaces) -> str:
    """Return the rule file: in each group what is recorded stands before what alerts."""
    return RULES_HEAD + dumped(rule_document(rules, places))


def rule_document(rules: Sequence[AlertRule], places: AlertPlaces) -> dict[str, Any]:
    """Return the rule file as plain data."""
    groups = []
    for group in dict.fromkeys(rule.component.group for rule in rules):
        own = [rule for rule in rules if rule.component.group == group]
        recorded = {reading.name: reading for rule in own for reading in rule.reads}
        groups.append(
            {
                "name": f"liveops-{group}",
                "rules": [
                    *(_recorded(reading, places.job) for reading in recorded.values()),
                    *(_alerting(rule, places) for rule in own),
                ],
            }
        )
    return {"groups": groups}


def annotations_of(rule: AlertRule, places: AlertPlaces) -> dict[str, str]:
    """Return what an alert tells, and where it leads."""
    return {
        "summary": rule.summary,
        "description": rule.description,
        "runbook_url": f"{places.playbooks}/{rule.name}.md",
        "dashboard_url": f"{places.dashboards}/d/{_shown_at(rule)}",
    }


def _shown_at(rule: AlertRule) -> str:
    """Return the dashboard of a rule, and of its panels the one that shows what it reads last."""
    uid = f"liveops-{rule.component.dashboard}"
    (dashboard,) = (each for each in dashboards(AlertLimits()) if each.uid == uid)
    for read in reversed(rule.reads):
        for number, thing in dashboard.numbered():
            if isinstance(thing, Panel) and any(
                read.of in names_in(query.expression) for query in thing.queries
            ):
                return f"{uid}?viewPanel={number}"
    return uid


def faults(rules: Sequence[AlertRule], places: AlertPlaces) -> Iterator[str]:
    """Say what is wrong with rules that promtool would let pass."""
    names = [rule.name for rule in rules]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{name}: stands more than once"
    known = {name for metric in CATALOGUE for name in metric.series}
    for rule in rules:
        yield from (f"{rule.name}: {fault}" for fault in _faults(rule, known | OF_PROMETHEUS))
        for name, value in annotations_of(rule, places).items():
            if not value:
                yield f"{rule.name}: has no {name}"


def _faults(rule: AlertRule, known: frozenset[str] | set[str]) -> Iterator[str]:
    if re.fullmatch(r"[A-Z][A-Za-z0-9]*", rule.name) is None:
        yield "its name must be in CamelCase"
    if "{{" in rule.summary or not rule.summary.endswith("."):
        yield "its summary must be one sentence that is always the same, with a full stop"
    if not rule.description.endswith("."):
        yield "its description must end with a full stop"
    if rule.drill.labels and "{{" not in rule.description:
        yield "its description must say of what it is"
    if rule.wait == timedelta(0) and not rule.at_once:
        yield "it must wait, or say why it does not"
    for reading in rule.reads:
        if _RECORDED.fullmatch(reading.name) is None:
            yield f"{reading.name} must be level:metric:operations"
        if reading.of not in known:
            yield f"{reading.of} is not in the catalogue of metrics"
    readable = known | {reading.name for reading in rule.reads}
    for name in sorted(names_in(rule.expression) - readable):
        yield f"{name} is neither in the catalogue of metrics nor recorded beside it"


def names_in(expression: str) -> set[str]:
    """Return the metrics that an expression reads.

    >>> sorted(names_in('max by (bot) (a:b:c{job="x"}) > 1 unless on () rate(other_total[5m])'))
    ['a:b:c', 'other_total']
    """
    return set(_NAME.findall(_NO_NAMES.sub("", expression))) - _WORDS


def _recorded(reading: Recording | Quantile, job: str) -> dict[str, Any]:
    return {"record": reading.name, "expr": reading.expression(job)}


def _alerting(rule: AlertRule, places: AlertPlaces) -> dict[str, Any]:
    waits = {"for": duration(rule.wait)} if rule.wait else {}
    return {
        "alert": rule.name,
        "expr": rule.expression,
        **waits,
        "labels": rule.labels(),
        "annotations": annotations_of(rule, places),
    }
