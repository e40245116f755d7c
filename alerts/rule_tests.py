"""What promtool asks of each rule: written from its drill, in promtool's own format.

Every value rule is shown to fire, to stay silent at the nearest value that is right, to be pending
one evaluation before its time, to do without its readings, to outlast scrapes that fail, to take
NaN for no value, to end, to keep to the targets of its job, and to speak once for two replicas;
each alert that fires is compared label for label and word for word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from alerts.limits import AlertPlaces
from alerts.rule import BRIDGE, STEP, AlertRule, Case, duration
from alerts.rule_files import annotations_of, dumped

_NONE: Final = "NaN"
_LONG_WAIT: Final = timedelta(minutes=30)
_EVALUATIONS: Final = 8
"""A rule that waits for longer is evaluated so often while it waits."""

_NAME = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?")


def promtool_files(
    rules: Sequence[AlertRule], places: AlertPlaces, groups: Mapping[str, Path]
) -> dict[str, str]:
    """Return a file of promtool's unit tests for each rule, by the rule's name.

    `groups` are the rule files of single groups, by component group: promtool evaluates every
    group of a file, and a rule needs its own only.
    """
    return {
        rule.name: dumped(document(rule, places, groups[rule.component.group])) for rule in rules
    }


def document(rule: AlertRule, places: AlertPlaces, rule_file: Path) -> dict[str, Any]:
    """Return the tests of one rule in `rule_file` as plain data."""
    step = duration(step_of(rule))
    return {
        "rule_files": [str(rule_file)],
        "evaluation_interval": step,
        "tests": [_test(case, rule, places, step) for case in cases(rule)],
    }


def step_of(rule: AlertRule) -> timedelta:
    """Return the time between two evaluations in the tests of a rule."""
    return STEP if rule.wait <= _LONG_WAIT else rule.wait / _EVALUATIONS


def cases(rule: AlertRule) -> tuple[Case, ...]:
    """Return everything a rule is asked."""
    drilled = tuple(_Drilled(rule=rule, step=step_of(rule)).cases()) if rule.drill.wrong else ()
    return (*drilled, *rule.drill.cases)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drilled:
    """The cases that every rule with a `wrong` reading has."""

    rule: AlertRule
    step: timedelta

    @property
    def waits(self) -> int:
        """Evaluations until a rule fires that held at the first."""
        return round(self.rule.wait / self.step)

    @property
    def bridges(self) -> int:
        """Evaluations that a reading outlasts its last scrape by."""
        return BRIDGE // self.step

    def cases(self) -> Iterator[Case]:
        """Yield the cases."""
        wrong, right = self.rule.drill.wrong, self.rule.drill.right
        fires = {**self._silent_until(self.waits), self.waits: True}
        yield self._case("wrong", wrong, {**fires, self.waits + 2: True})
        yield self._case("at the limit", right, self._never())
        for n, changes in enumerate(self.rule.drill.silent, 1):
            yield self._case(f"silent {n}", {**wrong, **changes}, self._never())
        yield from self._elsewhere()
        yield self._absence()
        yield self._stale()
        yield from self._not_a_number()
        yield self._ends()
        if "instance" not in self.rule.drill.labels:
            yield self._replicas()

    def _elsewhere(self) -> Iterator[Case]:
        """Yield readings of another job: each of those that are needed, and one that is right."""
        drill = self.rule.drill
        if drill.is_absence:
            right = {_in(name, job="other"): value for name, value in drill.right.items()}
            yield self._case("right in another job", right, self._absent())
            return
        for name in (*drill.wrong, *drill.beside):
            told = {**drill.beside, **drill.wrong}
            value = told.pop(name)
            there = {**told, _in(name, job="other"): value, name: "_"}
            yield self._case(f"{_metric(name)} of another job", there, self._never())

    def _absence(self) -> Case:
        nothing = dict.fromkeys(self.rule.drill.wrong, "_")
        return self._case("absent", nothing, self._absent(), keep=True)

    def _stale(self) -> Case:
        values = {name: f"{value}x{self.waits} stale" for name, value in self._wrong()}
        end = self.waits + self.bridges
        held = {self.waits: True, end: True, end + 1: self.rule.drill.is_absence}
        return self._case("stale", values, held, keep=True)

    def _not_a_number(self) -> Iterator[Case]:
        never = dict.fromkeys(self.rule.drill.wrong, _NONE)
        yield self._case("NaN", never, self._never())
        values = {
            name: f"{value}x{self.waits} {_lasting(_NONE, 9)}" for name, value in self._wrong()
        }
        yield self._case("NaN after wrong", values, self._after_wrong(), keep=True)

    def _ends(self) -> Case:
        right = self.rule.drill.right
        values = {name: f"{value}x{self.waits} {right[name]}x9" for name, value in self._wrong()}
        return self._case("right after wrong", values, self._after_wrong(), keep=True)

    def _replicas(self) -> Case:
        told = {**self.rule.drill.beside, **self.rule.drill.wrong}
        twice = {_in(name, instance=at): value for name, value in told.items() for at in "ab"}
        return self._case("two replicas", twice, {self.waits: True})

    def _wrong(self) -> Sequence[tuple[str, str]]:
        return tuple(self.rule.drill.wrong.items())

    def _after_wrong(self) -> dict[int, bool]:
        """Return what a rule says once its reading was right, or none, from `waits` + 1 on."""
        end = self.waits + self.bridges
        if self.rule.drill.holds:
            return {self.waits: True, end: True, end + 1: False}
        return {self.waits: True, self.waits + 1: False}

    def _never(self) -> dict[int, bool]:
        return {0: False, self.waits: False, self.waits + 2: False}

    def _absent(self) -> dict[int, bool]:
        if self.rule.drill.is_absence:
            return {**self._silent_until(self.waits), self.waits: True}
        return self._never()

    def _silent_until(self, n: int) -> dict[int, bool]:
        return {n - 1: False} if n else {}

    def _case(
        self,
        name: str,
        series: Mapping[str, str],
        fires: Mapping[int, bool],
        *,
        keep: bool = False,
    ) -> Case:
        """Return a case; a value that is not `keep`, or beside, is repeated to its end."""
        length = max(fires) + 1
        beside = {n: v for n, v in self.rule.drill.beside.items() if n not in series}
        told = {} if any("instance=" in name for name in series) else beside
        values = {n: v if keep else _lasting(v, length) for n, v in series.items()}
        values |= {n: _lasting(v, length) for n, v in told.items()}
        moments = {n * self.step: is_told for n, is_told in fires.items()}
        return Case(name=name, series=values, fires=moments)


def _lasting(values: str, length: int) -> str:
    """Return a single value as often as is needed; what tells its own times stays."""
    if " " in values or "x" in values:
        return values
    # promtool repeats numbers only.
    return " ".join([_NONE] * length) if values == _NONE else f"{values}x{length}"


def _metric(series: str) -> str:
    return series.partition("{")[0]


def _in(series: str, **labels: str) -> str:
    """Return a series with labels set besides those it has.

    >>> _in('up{job="x"}', instance="a")
    'up{job="x",instance="a"}'
    """
    found = _NAME.fullmatch(series)
    assert found is not None, series
    own = [found[2]] if found[2] else []
    given = [f'{n}="{v}"' for n, v in labels.items() if not re.search(rf"\b{n}=", found[2] or "")]
    return f"{found[1]}{{{','.join([*own, *given])}}}"


def _test(case: Case, rule: AlertRule, places: AlertPlaces, step: str) -> dict[str, Any]:
    series = [
        {"series": _in(name, job=places.job, instance="a"), "values": values}
        for name, values in case.series.items()
    ]
    told = rule.drill.labels if case.labels is None else case.labels
    texts = annotations_of(rule, places)
    texts["description"] = case.description or rule.drill.description
    alert = {"exp_labels": {**rule.labels(), **told}, "exp_annotations": texts}
    moments = sorted(case.fires.items())
    return {
        "name": f"{rule.name}: {case.name}",
        "interval": step,
        "input_series": series,
        "alert_rule_test": [
            {
                "eval_time": duration(moment),
                "alertname": rule.name,
                "exp_alerts": [alert] if fires else [],
            }
            for moment, fires in moments
        ],
        "promql_expr_test": [] if case.only_waits else list(_states(rule, moments)),
    }


def _states(rule: AlertRule, moments: Sequence[tuple[timedelta, bool]]) -> Iterator[dict[str, Any]]:
    """Ask besides that what will fire is pending one evaluation before, and what never does not."""
    name = f'ALERTS{{alertname="{rule.name}",alertstate="pending"}}'
    first = next((moment for moment, fires in moments if fires), None)
    for moment, _ in moments:
        is_pending = first is not None and moment < first and rule.wait > timedelta(0)
        samples = [{"labels": "{}", "value": 1}] if is_pending else []
        yield {
            "expr": f"count({name})",
            "eval_time": duration(moment),
            "exp_samples": samples,
        }
