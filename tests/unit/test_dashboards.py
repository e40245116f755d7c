"""Dashboards are what Grafana 11.6 takes, read what there is, and are where alerts lead."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema_rs
import pytest
import yaml

from alerts.catalogue import CATALOGUE
from alerts.dashboard import Dashboard, Panel
from alerts.dashboard_files import document
from alerts.dashboards import dashboards
from alerts.limits import AlertLimits, AlertPlaces
from alerts.rule import AlertRule
from alerts.rule_files import OF_PROMETHEUS, annotations_of, names_in
from alerts.rules import rules

ROOT = Path(__file__).resolve().parents[2]
SCHEMAS = ROOT / "tests" / "data" / "grafana_11_6"
OF_ITS_RULES = {"ALERTS", "ALERTS_FOR_STATE"}
ALL = dashboards(AlertLimits())
PANELS = [panel for dashboard in ALL for row in dashboard.rows for panel in row.panels]
RULES = yaml.safe_load((ROOT / "alerts" / "prometheus_alerts.yml").read_text("utf-8"))
RECORDED = {rule["record"] for g in RULES["groups"] for rule in g["rules"] if "record" in rule}
TWO_KINDS = {"timeseries", "stat"}


def schema(name: str, definition: str = "") -> jsonschema_rs.Draft7Validator:
    found = json.loads((SCHEMAS / f"{name}.jsonschema.json").read_text("utf-8"))
    if name == "dashboard":
        # Grafana's TypeScript (@grafana/schema 11.6) has null for the lowest step of thresholds;
        # what made JSON Schema of it lost that.
        found["definitions"]["Threshold"]["properties"]["value"]["type"] = ["number", "null"]
    if definition:
        found["$ref"] = f"#/definitions/{definition}"
    return jsonschema_rs.Draft7Validator(found)


def drawn(dashboard: Dashboard) -> list[dict[str, Any]]:
    return [each for each in document(dashboard)["panels"] if each["type"] != "row"]


@pytest.mark.parametrize("dashboard", ALL, ids=lambda each: each.uid)
def test_grafanas_schema_accepts_each_dashboard(dashboard: Dashboard) -> None:
    schema("dashboard").validate(document(dashboard))
    for panel in drawn(dashboard):
        assert panel["type"] in TWO_KINDS
        schema(panel["type"], "Options").validate(panel["options"])
        if panel["type"] == "timeseries":
            schema("timeseries", "FieldConfig").validate(panel["fieldConfig"]["defaults"]["custom"])
        for target in panel["targets"]:
            schema("prometheus").validate(target)


def test_the_schema_refuses_what_grafana_does_not_know() -> None:
    panel = drawn(ALL[0])[0] | {"titel": "Health"}
    for spoilt in ({"refreshes": "30s"}, {"schemaVersion": "41"}, {"panels": [panel]}):
        with pytest.raises(jsonschema_rs.ValidationError):
            schema("dashboard").validate(document(ALL[0]) | spoilt)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_each_panel_reads_what_is_there_and_says_what_it_shows(panel: Panel) -> None:
    known = {name for metric in CATALOGUE for name in metric.series}
    assert panel.title
    assert panel.unit
    assert panel.description.endswith(".")
    for query in panel.queries:
        read = names_in(query.expression)
        assert read
        assert read <= known | RECORDED | OF_PROMETHEUS | OF_ITS_RULES
        # Ranges follow the scrapes, but for a service level over a day.
        assert set(re.findall(r"\[([^]]+)\]", query.expression)) <= {"$__rate_interval", "1d"}


def test_every_metric_is_shown_somewhere() -> None:
    shown = {name for panel in PANELS for q in panel.queries for name in names_in(q.expression)}
    missing = [metric.name for metric in CATALOGUE if not shown & metric.series.keys()]
    assert missing == []


@pytest.mark.parametrize("dashboard", ALL, ids=lambda each: each.uid)
def test_what_is_chosen_above_is_asked_below(dashboard: Dashboard) -> None:
    rendered = document(dashboard)
    variables = {each["name"] for each in rendered["templating"]["list"]}
    asked = json.dumps(rendered["panels"])
    for name in ("job", "experiment", "policy"):
        assert (f"${name}" in asked) == (name in variables)
    assert {panel["datasource"]["uid"] for panel in drawn(dashboard)} == {"${datasource}"}


@pytest.mark.parametrize("dashboard", ALL, ids=lambda each: each.uid)
def test_no_panel_lies_over_another(dashboard: Dashboard) -> None:
    taken = [
        (x, y)
        for panel in document(dashboard)["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23
    titles = [panel["title"] for panel in drawn(dashboard)]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize("rule", rules(AlertLimits(), AlertPlaces()), ids=lambda rule: rule.name)
def test_each_alert_leads_to_a_panel_of_what_it_reads(rule: AlertRule) -> None:
    link = urlsplit(annotations_of(rule, AlertPlaces())["dashboard_url"])
    (dashboard,) = (each for each in ALL if link.path == f"/d/{each.uid}")
    if not rule.reads:  # Watchdog, and what looks at every metric
        assert link.query == ""
        return
    (number,) = parse_qs(link.query)["viewPanel"]
    (panel,) = (each for each in drawn(dashboard) if each["id"] == int(number))
    shown = {name for target in panel["targets"] for name in names_in(target["expr"])}
    assert shown & {read.of for read in rule.reads}
