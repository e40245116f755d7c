"""Renders the dashboards as Grafana 11.6 reads them; a test holds them against its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from alerts.dashboard import VARIABLES, Dashboard, Panel, PanelKind, Query, Row
from alerts.dashboards import dashboards
from alerts.limits import AlertLimits

_SCHEMA_VERSION: Final = 41
_WIDE, _WIDTH, _HEIGHT = 24, 8, 7
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_COUNTED: Final = {"job": "liveops_up", **dict.fromkeys(VARIABLES, "liveops_arm_status")}


def dashboard_files(limits: AlertLimits) -> dict[str, str]:
    """Return what is written, by the name below the directory of the dashboards.

    >>> list(dashboard_files(AlertLimits()))[:2]
    ['grafana_dashboard.json', 'grafana/system.json']
    """
    return {
        file_of(each): json.dumps(document(each), indent=2, ensure_ascii=False) + "\n"
        for each in dashboards(limits)
    }


def file_of(dashboard: Dashboard) -> str:
    """Return the name of a dashboard's file, below the directory of the dashboards."""
    is_main = dashboard.name == "main"
    return "grafana_dashboard.json" if is_main else f"grafana/{dashboard.name}.json"


def document(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana imports it."""
    return {
        "uid": dashboard.uid,
        "title": f"Live-ops {dashboard.name}",
        "description": dashboard.description,
        "tags": ["liveops"],
        "schemaVersion": _SCHEMA_VERSION,
        "editable": False,
        "graphTooltip": 1,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "timezone": "utc",
        "links": [_link()],
        "templating": {"list": list(_variables(dashboard))},
        "annotations": {"list": []},
        "panels": list(_placed(dashboard)),
    }


def _link() -> dict[str, Any]:
    return {
        "type": "dashboards",
        "title": "Live-ops",
        "tags": ["liveops"],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "The other dashboards",
    }


def _variables(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    yield {
        "type": "datasource",
        "name": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
        "refresh": 1,
    }
    asked = " ".join(
        query.expression
        for row in dashboard.rows
        for panel in row.panels
        for query in panel.queries
    )
    for name, metric in _COUNTED.items():
        if f"${name}" in asked:
            yield {
                "type": "query",
                "name": name,
                "label": name,
                "datasource": _SOURCE,
                "query": _values(name, metric),
                "refresh": 2,
                "sort": 1,
                "multi": True,
                "includeAll": True,
                "allValue": ".+",
                "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            }


def _values(name: str, metric: str) -> str:
    known = {
        "job": "",
        "experiment": '{job=~"$job"}',
        "policy": '{job=~"$job", experiment=~"$experiment"}',
    }
    return f"label_values({metric}{known[name]}, {name})"


def _placed(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    x = y = 0
    for number, thing in dashboard.numbered():
        if x and (isinstance(thing, Row) or x + _WIDTH > _WIDE):
            x, y = 0, y + _HEIGHT
        if isinstance(thing, Row):
            at = {"x": 0, "y": y, "w": _WIDE, "h": 1}
            yield {
                "type": "row",
                "id": number,
                "title": thing.title,
                "gridPos": at,
                "collapsed": False,
                "panels": [],
            }
            y += 1
        else:
            at = {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT}
            yield {"id": number, "gridPos": at, **_panel(thing)}
            x += _WIDTH


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind.value,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "targets": [_target(query, n, panel.kind) for n, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
    }


def _target(query: Query, n: int, kind: PanelKind) -> dict[str, Any]:
    return {
        "refId": chr(ord("A") + n),
        "datasource": _SOURCE,
        "expr": query.expression,
        "legendFormat": query.legend,
        "editorMode": "code",
        "instant": kind is PanelKind.STAT,
        "range": kind is PanelKind.LINES,
    }


def _field(panel: Panel) -> dict[str, Any]:
    has_limit = panel.red_above is not None or panel.red_below is not None
    told: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "thresholds" if panel.kind is PanelKind.STAT else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": _steps(panel)},
        "mappings": [_names(panel)] if panel.states else [],
    }
    if panel.kind is PanelKind.LINES:
        told["custom"] = {
            "showPoints": "auto",
            "thresholdsStyle": {"mode": "dashed" if has_limit else "off"},
        }
    return told


def _steps(panel: Panel) -> list[dict[str, Any]]:
    if panel.red_above is not None:
        return [{"color": "green", "value": None}, {"color": "red", "value": panel.red_above}]
    if panel.red_below is not None:
        return [{"color": "red", "value": None}, {"color": "green", "value": panel.red_below}]
    return [{"color": "green", "value": None}]


def _names(panel: Panel) -> dict[str, Any]:
    options = {str(value): {"text": text, "index": value} for value, text in panel.states.items()}
    return {"type": "value", "options": options}


def _options(panel: Panel) -> dict[str, Any]:
    match panel.kind:
        case PanelKind.LINES:
            return {
                "legend": {
                    "calcs": ["lastNotNull"],
                    "displayMode": "list",
                    "placement": "bottom",
                    "showLegend": True,
                },
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        case PanelKind.STAT:
            return {
                "colorMode": "value",
                "graphMode": "none",
                "justifyMode": "auto",
                "orientation": "auto",
                "percentChangeColorMode": "standard",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
                "showPercentChange": False,
                "textMode": "name" if panel.tells_names else "auto",
                "wideLayout": True,
            }
