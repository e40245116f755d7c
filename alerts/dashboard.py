"""What a dashboard is: rows of panels, each with its queries, unit, meaning and limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from alerts.catalogue import CATALOGUE
from alerts.metric import Metric, MetricKind

VARIABLES: Final = ("experiment", "policy")
"""Labels that a person narrows a dashboard down to."""

_UNITS: Final = {
    "ratio": "percentunit",
    "percent": "percent",
    "seconds": "s",
    "days": "d",
    "bytes": "bytes",
    "degrees Celsius": "celsius",
    "0 or 1": "bool_yes_no",
    "0 to 2": "none",
    "0, 1 or 2": "none",
    "the account's currency": "locale",
    "the experiment's currency": "locale",
}


class PanelKind(StrEnum):
    """How readings are drawn."""

    LINES = "timeseries"
    STAT = "stat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What Prometheus is asked, and what a line of the answer is called."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One question and its answer; `unit` is an id of Grafana's.

    From `red_above` on, and under `red_below`, the reading is drawn red. `states` names numbers.
    Where it `tells_names`, the names of the lines are the answer.
    """

    title: str
    queries: tuple[Query, ...]
    unit: str
    description: str
    kind: PanelKind = PanelKind.LINES
    red_above: float | None = None
    red_below: float | None = None
    states: Mapping[int, str] = field(default_factory=dict)
    tells_names: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels that belong together."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """A page of Grafana; its uid is `liveops-` and its name."""

    name: str
    description: str
    rows: tuple[Row, ...]

    @property
    def uid(self) -> str:
        """What a link names it by."""
        return f"liveops-{self.name}"

    def numbered(self) -> Iterator[tuple[int, Row | Panel]]:
        """Return each row and each panel, as they stand, with its number on the dashboard."""
        things: list[Row | Panel] = []
        for row in self.rows:
            things += [row, *row.panels]
        return enumerate(things, start=1)


class _Reading(NamedTuple):
    metric: Metric
    unit: str
    help: str
    labels: tuple[str, ...]


_READINGS: Final = {m.name: _Reading(m, m.unit, m.help, m.labels) for m in CATALOGUE} | {
    a.name: _Reading(m, a.unit, a.help, a.labels) for m in CATALOGUE for a in m.aliases
}


def reading(name: str, *, where: str = "", own: bool = False) -> str:
    """Return the query of a metric of the catalogue: of replicas that read one ledger, one line.

    What is each replica's `own` keeps a line for each; a counter is told per hour.

    >>> reading("liveops_account_equity")
    'max by (account) (liveops_account_equity{job=~"$job"})'
    >>> reading("liveops_breaker_trips_total", own=True)[:40]
    'max by (instance, breaker) (3600 * rate('
    """
    metric, _, _, labels = _READINGS[name]
    chosen = ['job=~"$job"', *(f'{v}=~"${v}"' for v in VARIABLES if v in labels)]
    read = f"{name}{{{', '.join([*chosen, *([where] if where else [])])}}}"
    if metric.kind is MetricKind.COUNTER:
        read = f"3600 * rate({read}[$__rate_interval])"
    by = (*(("instance",) if own else ()), *labels)
    return f"max by ({', '.join(by)}) ({read})" if by else f"max ({read})"


def shown(
    title: str,
    *names: str,
    unit: str = "",
    where: str = "",
    own: bool = False,
    kind: PanelKind = PanelKind.LINES,
    red_above: float | None = None,
    red_below: float | None = None,
    states: Mapping[int, str] | None = None,
) -> Panel:
    """Return the panel of metrics of the catalogue, which has their meanings and units.

    >>> shown("Equity", "liveops_account_equity").unit
    'locale'
    """
    queries = tuple(
        Query(
            expression=reading(name, where=where, own=own),
            legend=_legend(name, own=own, is_one_of=len(names) > 1),
        )
        for name in names
    )
    return Panel(
        title=title,
        queries=queries,
        unit=unit or unit_of(names[0]),
        description=meaning(*names),
        kind=kind,
        red_above=red_above,
        red_below=red_below,
        states=states or {},
    )


def state(title: str, name: str, *, own: bool = False) -> Panel:
    """Return the panel of a metric with a series for each state, of which one is 1.

    >>> state("Arms", "liveops_arm_status").queries[0].legend
    '{{experiment}} {{policy}} {{role}} {{status}}'
    """
    query = Query(
        expression=f"{reading(name, own=own)} == 1", legend=_legend(name, own=own, is_one_of=False)
    )
    return Panel(
        title=title,
        queries=(query,),
        unit="none",
        description=meaning(name),
        kind=PanelKind.STAT,
        tells_names=True,
    )


def unit_of(name: str) -> str:
    """Return the id of Grafana's for the unit of a metric.

    >>> unit_of("liveops_audit_unsealed_rows"), unit_of("liveops_arm_trades_total")
    ('suffix: rows', 'suffix: trades per hour')
    """
    metric, unit, *_ = _READINGS[name]
    if metric.kind is MetricKind.COUNTER:
        return f"suffix: {unit} per hour"
    return _UNITS.get(unit, f"suffix: {unit}")


def meaning(*names: str) -> str:
    """Return what metrics say, and when there is nothing to see."""
    found = [_READINGS[name] for name in names]
    absences = dict.fromkeys(each.metric.absent for each in found)
    told = [each.help for each in found]
    told += [f"Nothing is shown {absent}." for absent in absences if absent != "never"]
    return " ".join(told)


def _legend(name: str, *, own: bool, is_one_of: bool) -> str:
    parts = [name.removeprefix("liveops_")] if is_one_of else []
    parts += [
        f"{{{{{label}}}}}" for label in (*(("instance",) if own else ()), *_READINGS[name].labels)
    ]
    return " ".join(parts) or name.removeprefix("liveops_")
