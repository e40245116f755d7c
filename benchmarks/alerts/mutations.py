"""Spoil each alert rule in one place at a time; promtool's tests of the rule have to notice.

Mutants: thresholds (by 2 %, whole numbers by one), comparisons, the time a rule waits (by one
evaluation, or not at all), the severity, and each label that a reading is chosen by (another value,
or none). A mutant that no test notices is listed on stderr.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from alerts.limits import AlertLimits, AlertPlaces
from alerts.rule import AlertRule, Severity, duration, number
from alerts.rule_files import dumped, names_in, rule_document
from alerts.rule_tests import document, step_of
from alerts.rules import rules
from benchmarks.claims import QUICK, Target, claim, progress

SHARE_MIN = 0.95
EVERY = 12 if QUICK else 1
AT_ONCE = 40
"""Test files that one promtool runs: it starts once for all of them."""

# Not within names, label values, ranges and offsets.
NUMBER = re.compile(r'(?<![\w:."\[])\d+(?:\.\d+)?(?![\w:."])')
COMPARISON = re.compile(r"(?<=\s)(<=|>=|==|!=|<|>)(?=\s)")
OTHERS = {
    "<": ("<=", ">"),
    ">": (">=", "<"),
    "<=": ("<", ">="),
    ">=": (">", "<="),
    "==": ("!=",),
    "!=": ("==",),
}
SELECTOR = re.compile(r'(\w+)="([^"]*)"(, )?')

Rules = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A rule that is spoilt in one place: of which kind that is, and the rules as they are now."""

    rule: AlertRule
    kind: str
    change: str
    rules: Rules


def of_rule(rule: AlertRule, places: AlertPlaces) -> Rules:
    """The rule with what it reads, and nothing else, as Prometheus reads them."""
    (group,) = rule_document([rule], places)["groups"]
    return {"groups": [group]}


def mutants(rule: AlertRule, places: AlertPlaces) -> Iterator[Mutant]:
    """Every mutant of a rule."""
    whole = of_rule(rule, places)
    at = len(whole["groups"][0]["rules"]) - 1

    def spoilt(kind: str, change: str, index: int, **fields: Any) -> Mutant:
        made = deepcopy(whole)
        made["groups"][0]["rules"][index] |= fields
        return Mutant(rule=rule, kind=kind, change=change, rules=made)

    for expression in of_thresholds(rule.expression):
        yield spoilt("threshold", expression, at, expr=expression)
    for expression in of_comparisons(rule.expression):
        yield spoilt("comparison", expression, at, expr=expression)
    for wait in of_waits(rule):
        yield spoilt("wait", f"for: {duration(wait)}", at, **{"for": duration(wait)})
    for severity in Severity:
        if severity is not rule.severity:
            labels = {**rule.labels(), "severity": severity.value}
            yield spoilt("severity", severity.value, at, labels=labels)
    for index, one in enumerate(whole["groups"][0]["rules"]):
        if index == at and not names_in(one["expr"]) - {r.name for r in rule.reads}:
            continue  # it chooses among recorded series only
        for expression in of_selectors(one["expr"]):
            yield spoilt("selector", expression, index, expr=expression)


def of_thresholds(expression: str) -> Iterator[str]:
    """The expression with one number a little smaller, or a little larger."""
    if COMPARISON.search(expression) is None:
        return  # it fires whatever the number
    for found in NUMBER.finditer(expression):
        value = float(found[0])
        step = 1.0 if value.is_integer() else value * 0.02
        for moved in (value - step, value + step):
            yield f"{expression[: found.start()]}{number(moved)}{expression[found.end() :]}"


def of_comparisons(expression: str) -> Iterator[str]:
    """The expression with one comparison changed."""
    for found in COMPARISON.finditer(expression):
        for other in OTHERS[found[0]]:
            yield f"{expression[: found.start()]}{other}{expression[found.end() :]}"


def of_waits(rule: AlertRule) -> Iterator[timedelta]:
    """A wait that is an evaluation longer, or shorter, or none."""
    step = step_of(rule)
    yield rule.wait + step
    if rule.wait > step:
        yield rule.wait - step
    if rule.wait:
        yield timedelta(0)


def of_selectors(expression: str) -> Iterator[str]:
    """The expression with one selector of another value, or without it, wherever it stands."""
    for name, value in dict.fromkeys((m[1], m[2]) for m in SELECTOR.finditer(expression)):
        yield expression.replace(f'{name}="{value}"', f'{name}="{value}x"')
        yield re.sub(rf'{name}="{re.escape(value)}"(, )?', "", expression)


def survivors(found: Sequence[Mutant], places: AlertPlaces, folder: Path) -> list[Mutant]:
    """The mutants that no test notices."""
    left: list[Mutant] = []
    for n in range(0, len(found), AT_ONCE):
        batch = found[n : n + AT_ONCE]
        progress(f"{n} of {len(found)} mutants, {len(left)} not noticed")
        tests, lawful = [], []
        for i, mutant in enumerate(batch):
            lawful.append(folder / f"{n}-{i}.rules.yml")
            lawful[-1].write_text(dumped(mutant.rules))
            tests.append(folder / f"{n}-{i}.test.yml")
            tests[-1].write_text(dumped(document(mutant.rule, places, lawful[-1])))
        # A mutant that Prometheus would not load says nothing of our tests.
        checked = promtool("check", "rules", *map(str, lawful))
        assert checked.returncode == 0, checked.stdout + checked.stderr
        told = promtool("test", "rules", *map(str, tests)).stdout.split("Unit Testing:")[1:]
        assert len(told) == len(batch)
        left += [one for one, said in zip(batch, told, strict=True) if "SUCCESS" in said]
    return left


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run promtool to its end."""
    return subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=600, check=False
    )


def main() -> None:
    """Claim which share of the mutants is noticed, of each kind and in all."""
    if shutil.which("promtool") is None:
        sys.exit("promtool is not on PATH (Debian package prometheus)")
    places = AlertPlaces()
    written = rules(AlertLimits(), places)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        as_written = [
            Mutant(rule=rule, kind="none", change="", rules=of_rule(rule, places))
            for rule in written
        ]
        unharmed = survivors(as_written, places, folder)
        assert unharmed == as_written, "a rule as it is written fails its tests"
        made = [mutant for rule in written for mutant in mutants(rule, places)][::EVERY]
        left = survivors(made, places, folder)
    for mutant in left:
        progress(f"not noticed: {mutant.rule.name}, {mutant.kind}: {mutant.change}")
    total, lost = Counter(m.kind for m in made), Counter(m.kind for m in left)
    for kind in [*total, "all"]:
        n = len(made) if kind == "all" else total[kind]
        noticed = n - (len(left) if kind == "all" else lost[kind])
        claim(
            f"alerts.mutations.{kind}",
            ours=f"{noticed}/{n}",
            yardstick=f"{SHARE_MIN:g}",
            ratio=noticed / n,
            side=Target.AT_LEAST,
            target=SHARE_MIN,
        )


if __name__ == "__main__":
    main()
